"""The core idea, end to end: a backed-up model gets more of the GPU while it needs it, and everything is even again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from zeta.errors import ConfigError
from zeta.sim.measures import Ticks
from zeta.sim.replay import Played, share_response_of
from zeta.sim.spec import ReplaySpec
from zeta.sim.workload import Burst, Workload
from zeta.traces import TraceChunk

EVEN = 1.0 / 3.0

Build = Callable[..., Workload]
Play = Callable[..., Played]
Parse = Callable[[str], TraceChunk]


def ticks_of(played: Played) -> Ticks:
    assert played.ticks is not None
    return played.ticks


@pytest.mark.parametrize(
    ("seed", "burst"),
    [
        (61, Burst("large", 4.0, 700.0, 45.0)),
        (62, Burst("large", 4.0, 1500.0, 45.0)),
        (63, Burst("large", 6.0, 2400.0, 30.0)),
        (64, Burst("large", 3.0, 3000.0, 90.0)),
        (65, Burst("mid", 8.0, 1200.0, 60.0)),
        (66, Burst("small", 12.0, 2000.0, 60.0)),
    ],
)
def test_a_backed_up_model_is_raised_while_it_needs_it_and_back_to_even_after(seed: int, burst: Burst) -> None:
    response = share_response_of(ReplaySpec(load=0.944, seeds=(seed,), bursts=(burst,)))
    assert response.holds, response.lines()
    assert response.peak > EVEN + 0.1
    assert response.backlog_s > 5


@pytest.mark.parametrize("policy", ["even", "queue-length"])
def test_policies_without_the_idea_fail_the_same_check(policy: str) -> None:
    spec = ReplaySpec(policies=(policy,), load=0.944, seeds=(62,), bursts=(Burst("large", 4.0, 1500.0, 45.0),))  # type: ignore[arg-type]
    assert not share_response_of(spec).holds


def test_a_response_needs_a_burst() -> None:
    with pytest.raises(ConfigError, match="no burst to answer"):
        share_response_of(ReplaySpec())


def test_shares_are_exactly_even_at_every_tick_whose_needs_have_long_been_low(
    hour: TraceChunk, workload: Build, run: Play
) -> None:
    ticks = ticks_of(run(workload(hour, seed=67, load=1.0), keeps_ticks=True))
    calm = (ticks.need <= EVEN).all(axis=1)
    for at in range(10):
        calm[10:] &= (ticks.need[10 - at - 1 : -at - 1] <= EVEN).all(axis=1)
    assert 0.9 < calm[10:].mean() < 1.0
    np.testing.assert_array_equal(ticks.share[10:][calm[10:]], EVEN)


def test_a_model_that_needs_more_than_its_part_has_what_it_needs_where_all_needs_fit(
    hour: TraceChunk, workload: Build, run: Play
) -> None:
    ticks = ticks_of(run(workload(hour, seed=68, load=1.5), keeps_ticks=True))
    fits = (np.maximum(ticks.need, 0.05).sum(axis=1) <= 0.95) & (ticks.need.max(axis=1) > EVEN + 0.05)
    assert fits.sum() > 100
    backed_up = ticks.need[fits].argmax(axis=1)
    rows = np.flatnonzero(fits)
    given = ticks.share[rows, backed_up]
    # Held needs trail by the jump that is let pass before a mean starts anew.
    assert (given >= ticks.need[rows, backed_up] - 0.25).all()
    assert (given > EVEN).mean() > 0.99


def steady(parse: Parse, rate_rps: float, seconds: float, seed: int) -> TraceChunk:
    """The same request at a constant rate to the three models in turn, each gap off by up to 5 %."""
    numbers = np.random.default_rng(seed)
    count = int(rate_rps * seconds)
    at_s = np.cumsum((1.0 + numbers.uniform(-0.05, 0.05, count)) / rate_rps)
    lines = [f"{at:.6f},{('small', 'mid', 'large')[number % 3]},800,200" for number, at in enumerate(at_s)]
    return parse("arrival_s,model,prompt_tokens,output_tokens\n" + "\n".join(lines) + "\n")


@pytest.mark.parametrize("rate_rps", [4.0, 8.0, 9.0])
def test_a_steady_load_with_a_little_noise_moves_shares_at_most_twice_an_hour(
    rate_rps: float, trace_of: Parse, workload: Build, run: Play
) -> None:
    played = run(workload(steady(trace_of, rate_rps, 900.0, seed=3)), keeps_ticks=True)
    ticks = ticks_of(played)
    assert (ticks.need.max(axis=0) <= EVEN).all(), ticks.need.max(axis=0)
    assert played.share_changes <= 2 * played.end_s / 3600.0
