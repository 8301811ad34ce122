"""Claims about the values that every room shares."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from zeta import errors
from zeta.clock import Clock, SteadyClock, VirtualClock
from zeta.types import Outcome

OUTCOME_HEADER = Path(__file__).parents[2] / "csrc" / "include" / "zeta" / "core" / "outcome.hpp"


def test_outcomes_have_the_core_s_names_in_the_core_s_order() -> None:
    body = OUTCOME_HEADER.read_text().split("kOutcomeNames{", 1)[1].split("}", 1)[0]
    assert [outcome.value for outcome in Outcome] == re.findall(r'"(\w+)"', body)


def test_only_queued_and_placed_are_passing() -> None:
    assert {outcome for outcome in Outcome if not outcome.is_final} == {Outcome.QUEUED, Outcome.PLACED}


@pytest.mark.parametrize("outcome", list(Outcome))
def test_an_outcome_s_code_leads_back_to_it(outcome: Outcome) -> None:
    assert Outcome.from_code(outcome.code) is outcome


@pytest.mark.parametrize("code", [-1, 11])
def test_an_unknown_outcome_code_is_refused(code: int) -> None:
    with pytest.raises(ValueError, match="expected 0 to 10"):
        Outcome.from_code(code)


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name != "ZetaError"])
def test_every_error_can_be_caught_as_zeta_error(name: str) -> None:
    assert issubclass(getattr(errors, name), errors.ZetaError)


@pytest.mark.parametrize(
    "error",
    [
        errors.ConfigError("no", key="a.b", value=3, allowed="1 or 2", nearest="a.c"),
        errors.TraceError("no", line=7),
        errors.MissingExtraError("reading parquet", ["pyarrow"], "cli"),
        errors.Rejected(Outcome.REJECTED_CAPACITY, eta_ms=12.0, retry_after_s=1.5),
    ],
)
def test_errors_cross_processes_with_their_fields(error: errors.ZetaError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_a_missing_extra_names_the_command_that_gets_it() -> None:
    with pytest.raises(ImportError, match=r"reading parquet needs pyarrow; .*pip install 'zeta-router\[cli\]'"):
        raise errors.MissingExtraError("reading parquet", ["pyarrow"], "cli")


def test_a_virtual_clock_moves_only_when_told() -> None:
    clock = VirtualClock(start_ns=5)
    assert (clock.now_ns(), clock.now_ns()) == (5, 5)
    assert clock.advance(10) == clock.now_ns() == 15
    assert clock.advance_to(15) == 15


def test_a_virtual_clock_never_goes_back() -> None:
    clock = VirtualClock(start_ns=5)
    with pytest.raises(ValueError, match="cannot go back by 2 ns"):
        clock.advance_to(3)
    assert clock.now_ns() == 5


@pytest.mark.parametrize("clock", [SteadyClock(), VirtualClock()])
def test_both_clocks_are_monotonic_clocks(clock: Clock) -> None:
    assert isinstance(clock, Clock)
    assert clock.now_ns() <= clock.now_ns()
