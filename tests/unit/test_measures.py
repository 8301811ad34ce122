"""From the times of requests to figures: each definition on a handful of requests."""

from __future__ import annotations

import numpy as np
import pytest

from zeta._core import OUTCOME_NAMES
from zeta.sim.measures import RequestTimes, Ticks, attainment, backlog_absorbed_s, percentile_ms, series_of
from zeta.sim.workload import Burst, Workload

S = 1_000_000_000


def workload(arrival_s: list[float], *, ttft_s: float = 1.0, output: int = 11, model: int = 0) -> Workload:
    count = len(arrival_s)
    arrival_ns = np.round(np.array(arrival_s) * S).astype(np.int64)
    tokens = np.full(count, output, dtype=np.int64)
    return Workload(
        model_names=("small", "large"),
        arrival_ns=arrival_ns,
        prompt_tokens=np.full(count, 100, dtype=np.int64),
        output_tokens=tokens,
        complexity=np.full(count, 0.5),
        required_model=np.full(count, model, dtype=np.int64),
        allowed_mask=np.full(count, 3, dtype=np.uint32),
        deadline_ns=arrival_ns + round(ttft_s * S),
        end_deadline_ns=arrival_ns + round(ttft_s * S) + tokens * (S // 10),
        is_loose=np.zeros(count, dtype=np.bool_),
        is_injected=np.zeros(count, dtype=np.bool_),
        source=np.arange(count, dtype=np.int64),
        origin_ns=0,
        notes=(),
    )


def times(
    work: Workload, placed_s: list[float], first_s: list[float], last_s: list[float], outcomes: list[str]
) -> RequestTimes:
    def ns(values: list[float]) -> np.ndarray:
        return np.array([-1 if value < 0 else round(value * S) for value in values], dtype=np.int64)

    return RequestTimes(
        work,
        ns(placed_s),
        ns(first_s),
        ns(last_s),
        np.where(ns(placed_s) >= 0, 0, -1).astype(np.int16),
        np.array([OUTCOME_NAMES.index(name) for name in outcomes], dtype=np.uint8),
    )


def test_attainment_counts_every_arrival_but_what_the_caller_cancelled() -> None:
    outcomes = [
        "completed",
        "rejected_infeasible",
        "expired_in_queue",
        "failed_replica",
        "queued",
        "placed",
        "cancelled",
        "cancelled_running",
    ]
    work = workload([0.0] * 8)
    found = times(work, [0.1] * 8, [0.5] * 8, [0.9] + [-1.0] * 7, outcomes)
    assert attainment(found) == pytest.approx(1 / 6)
    assert attainment(found, leave_out=found.ended("rejected_infeasible")) == pytest.approx(1 / 5)


def test_an_slo_is_met_by_first_and_last_token_in_time_to_the_nanosecond() -> None:
    work = workload([0.0] * 4)  # first token by 1 s, last by 2.1 s
    found = times(work, [0.1] * 4, [1.0, 1.000000001, 1.0, 0.2], [2.1, 2.0, 2.100000001, 2.1], ["completed"] * 4)
    assert found.met_slo().tolist() == [True, False, False, True]


def test_attainment_of_nothing_is_whole() -> None:
    work = workload([0.0])
    assert attainment(times(work, [-1.0], [-1.0], [-1.0], ["cancelled"])) == 1.0


def test_ttft_counts_from_arrival_and_tpot_per_token_after_the_first() -> None:
    work = workload([1.0, 1.0])
    found = times(work, [1.1, -1], [1.25, -1], [2.25, -1], ["completed", "queued"])
    assert found.ttft_ms()[0] == pytest.approx(250.0)
    assert found.tpot_ms()[0] == pytest.approx(100.0)
    assert np.isnan(found.ttft_ms()[1])
    assert np.isnan(found.tpot_ms()[1])


def test_a_single_token_has_no_time_per_token_after_the_first() -> None:
    work = workload([0.0], output=1)
    assert np.isnan(times(work, [0.1], [0.2], [0.2], ["completed"]).tpot_ms()[0])


def test_the_longest_wait_is_from_arrival_to_placement_of_what_was_placed() -> None:
    work = workload([0.0, 10.0, 20.0])
    assert times(work, [3.0, 11.0, -1], [4, 12, -1], [5, 13, -1], ["completed"] * 3).longest_wait_s() == 3.0
    assert times(work, [-1.0] * 3, [-1.0] * 3, [-1.0] * 3, ["queued"] * 3).longest_wait_s() == 0.0


def test_percentiles_are_of_the_values_that_exist() -> None:
    assert percentile_ms(np.array([np.nan, 1.0, 3.0, np.nan]), 50.0) == 2.0
    assert percentile_ms(np.array([np.nan]), 50.0) is None


def test_a_backlog_is_absorbed_when_no_more_wait_than_before_the_burst() -> None:
    # One waits already when the burst begins at 10 s; two come in the burst and leave 4 s and 7 s after its end.
    work = workload([9.0, 12.0, 14.0], model=1)
    burst = Burst("large", 2.0, 10.0, 5.0)
    found = times(work, [30.0, 19.0, 22.0], [31, 20, 23], [32, 21, 24], ["completed"] * 3)
    assert backlog_absorbed_s(found, burst, 1) == pytest.approx(7.0)
    assert backlog_absorbed_s(found, burst, 0) == 0.0  # of another model nothing waits
    never = times(work, [30.0, -1, -1], [31, -1, -1], [32, -1, -1], ["completed", "queued", "queued"])
    assert backlog_absorbed_s(never, burst, 1) is None


def test_a_burst_that_left_no_backlog_is_absorbed_at_its_end() -> None:
    work = workload([12.0], model=1)
    found = times(work, [12.0], [12.1], [12.2], ["completed"])
    assert backlog_absorbed_s(found, Burst("large", 2.0, 10.0, 5.0), 1) == 0.0


def test_a_series_holds_the_state_at_the_end_of_each_bin_and_attainment_by_arrival() -> None:
    work = workload([0.0, 239.5], ttft_s=1.0)
    found = times(work, [0.0, 239.5], [0.5, 239.75], [1.0, 245.0], ["completed"] * 2)
    at_ns = np.arange(1, 2401, dtype=np.int64) * (S // 10)
    share = np.column_stack([np.linspace(0, 1, 2400), np.linspace(1, 0, 2400)])
    count = np.tile(np.array([[2, 0]], dtype=np.uint32), (2400, 1))
    series = series_of(found, Ticks(at_ns, share, share, count, count), "even", "edf", 0, work.model_names)
    assert len(series.t_s) == 240
    assert series.share["small"][0] == share[9, 0]
    assert series.share["large"][-1] == share[-1, 1]
    assert (series.waiting["small"] == 2).all()
    assert series.attainment[0] == 1.0
    assert series.attainment[239] == 0.0  # its last token came too late
    assert np.isnan(series.attainment[1:239]).all()
    assert series.ttft_p50_ms["small"][0] == pytest.approx(500.0)
