"""What holds in every replay: work conservation, one outcome for each request, order of events, the promise."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from zeta._core import OUTCOME_NAMES
from zeta.config import ADMISSIONS, ORDERS, POLICIES
from zeta.sim.fleet import SimulatedFleet
from zeta.sim.measures import RequestTimes
from zeta.sim.replay import Played
from zeta.sim.workload import MIX_RULES, Burst, Workload
from zeta.traces import TraceChunk

S = 1_000_000_000
LOADS = (0.5, 1.5, 3.0)
PROMISE_S = 20.0

Build = Callable[..., Workload]
Play = Callable[..., Played]
Parse = Callable[[str], TraceChunk]


def combinations() -> list[tuple[str, str, str, str, float]]:
    """Every policy × order × mix × admission, the loads in turn so that each meets each of them."""
    rows = itertools.product(POLICIES, ORDERS, MIX_RULES, ADMISSIONS)
    return [(*row, LOADS[(number + number // 3 + number // 9 + number // 18) % 3]) for number, row in enumerate(rows)]


def check_times(times: RequestTimes) -> None:
    """Each request ended once, in an order that can be."""
    work = times.workload
    completed, placed = times.ended("completed"), times.placed_ns >= 0
    assert np.isin(times.outcome, range(len(OUTCOME_NAMES))).all()
    assert (placed[completed]).all()
    assert (times.placed_ns[placed] >= work.arrival_ns[placed]).all()
    assert (times.first_token_ns[completed] > times.placed_ns[completed]).all()
    assert (times.last_token_ns[completed] >= times.first_token_ns[completed]).all()
    assert (times.last_token_ns[~completed] == -1).all()
    assert (times.model[placed] >= 0).all()
    assert (times.model[~placed] == -1).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_no_capacity_idles_beside_eligible_work_and_the_ledger_adds_up(
    policy: str, slice_of_hour: TraceChunk, workload: Build, run: Play
) -> None:
    for name, order, mix, admission, load in combinations():
        if name != policy:
            continue
        bursts = (Burst("large", 6.0, 40.0, 20.0), Burst("small", 6.0, 90.0, 20.0))
        work = workload(slice_of_hour, seed=11, load=load, mix=mix, bursts=bursts)
        played = run(work, policy, order, admission, checks_every=25)
        assert played.violations == 0, (order, mix, admission, load)
        check_times(played.times)


def test_nothing_is_left_or_lost_where_everything_fits(slice_of_hour: TraceChunk, workload: Build, run: Play) -> None:
    for order, admission in itertools.product(ORDERS, ("queue", "downgrade")):
        played = run(workload(slice_of_hour, load=4.0), "water-fill", order, admission)
        ended = {name: int(played.times.ended(name).sum()) for name in OUTCOME_NAMES}
        assert sum(ended.values()) == len(slice_of_hour)
        assert ended["completed"] + ended["rejected_infeasible"] == len(slice_of_hour)
        assert (ended["rejected_infeasible"] == 0) == (admission == "queue")


def test_requests_run_only_where_they_may(slice_of_hour: TraceChunk, workload: Build, run: Play) -> None:
    work = workload(slice_of_hour, load=3.0)
    for order in ORDERS:
        times = run(work, "even", order).times
        placed = times.placed_ns >= 0
        assert ((work.allowed_mask[placed] >> times.model[placed].astype(np.uint32)) & 1 == 1).all()


def test_fifo_serves_each_model_in_order_of_arrival_without_spill(
    slice_of_hour: TraceChunk, workload: Build, run: Play
) -> None:
    work = workload(slice_of_hour, load=3.0)
    times = run(work, "even", "fifo").times
    assert (times.model == work.required_model).all()
    for model in range(3):
        assert (np.diff(times.placed_ns[work.required_model == model]) >= 0).all()


def huge_and_small(parse: Parse) -> TraceChunk:
    """Twelve large ones that hold the large model's memory, at 5 s a prompt that needs nearly all of it and is first in
    deadline order, behind it more large ones that have time, and every 80 ms something for the others."""
    rows = [(at / 10, "large", 6000, 600, "") for at in range(12)]
    rows += [(5.0, "large", 90_000, 20, "60000")]
    rows += [(0.08 * at, ("small", "mid")[at % 2], 300, 60, "") for at in range(1, 500)]
    rows += [(5.5 + 0.5 * at, "large", 300, 30, "90000") for at in range(20)]
    lines = [f"{at:.2f},{model},{prompt},{output},{slo_ms}" for at, model, prompt, output, slo_ms in sorted(rows)]
    return parse("arrival_s,model,prompt_tokens,output_tokens,deadline_ms\n" + "\n".join(lines) + "\n")


def test_one_huge_prompt_idles_no_capacity_and_is_served(trace_of: Parse, workload: Build, run: Play) -> None:
    work = workload(huge_and_small(trace_of))
    played = run(work, checks_every=1)
    assert played.violations == 0
    times = played.times
    assert times.ended("completed").all()
    huge = int(np.argmax(work.prompt_tokens))
    waited_ns = int(times.placed_ns[huge] - work.arrival_ns[huge])
    assert 5 * S < waited_ns < 2 * PROMISE_S * S  # it had to wait, and not for ever
    meanwhile = (work.arrival_ns > work.arrival_ns[huge]) & (work.arrival_ns < times.placed_ns[huge])
    others = meanwhile & (work.required_model < 2)
    assert others.sum() > 50
    assert (times.placed_ns - work.arrival_ns)[others].max() < 1 * S
    passing = meanwhile & (work.required_model == 2) & (work.arrival_ns < work.arrival_ns[huge] + 10 * S)
    assert passing.sum() > 5
    assert (times.placed_ns[passing] < times.placed_ns[huge]).all()  # smaller ones of its own model go by


def test_a_request_that_fits_nothing_is_rejected_and_counted(trace_of: Parse, workload: Build, run: Play) -> None:
    text = "arrival_s,model,prompt_tokens,output_tokens\n0,large,100,10\n1,large,400000,10\n2,small,100,10\n"
    work = workload(trace_of(text))
    for admission in ADMISSIONS:
        times = run(work, admission=admission).times
        assert [OUTCOME_NAMES[code] for code in times.outcome] == ["completed", "rejected_infeasible", "completed"]


def peak_utilisation(work: Workload, fleet: SimulatedFleet, span_s: float = 300.0) -> float:
    """The highest over any `span_s` of predicted work ÷ capacity."""
    done = np.concatenate([[0.0], np.cumsum(fleet.predicted_work_s(work))])
    ends = np.searchsorted(work.arrival_ns, work.arrival_ns + round(span_s * S), "right")
    return float((done[ends] - done[:-1]).max()) / (span_s * fleet.capacity_gpus)


@pytest.mark.parametrize("mix", MIX_RULES)
@pytest.mark.parametrize("slo", ["standard", "mixed"])
def test_nobody_waits_twice_the_promise_while_utilisation_stays_below_095(
    mix: str, slo: str, hour: TraceChunk, workload: Build, run: Play, fleet: SimulatedFleet
) -> None:
    checked = 0
    for seed, part in itertools.product(range(40, 43), (0.8, 1.0)):
        load = 0.94 / peak_utilisation(workload(hour, seed, mix=mix, slo=slo), fleet)
        for _ in range(6):  # the peak is not quite linear in the load
            work = workload(hour, seed, mix=mix, slo=slo, load=load * part)
            if (peak := peak_utilisation(work, fleet)) <= 0.95:
                break
            load *= 0.93 / peak
        else:
            continue
        checked += 1
        times = run(work).times
        assert not times.ended("queued").any()
        assert times.longest_wait_s() <= 2 * PROMISE_S, (seed, part, load)
    assert checked >= 4


@pytest.mark.parametrize("start_s", [900.0, 1500.0, 2400.0])
def test_a_burst_on_the_large_model_leaves_the_small_one_its_promises(
    start_s: float, hour: TraceChunk, workload: Build, run: Play
) -> None:
    burst = Burst("large", 4.0, start_s, 45.0)
    work = workload(hour, 45, load=0.944, bursts=(burst,))  # utilisation 0.55 without the burst
    times = run(work).times
    at_s = work.arrival_ns / S
    around = (at_s >= start_s) & (at_s < start_s + 105.0) & (work.required_model == 0)
    assert times.met_slo()[around].mean() >= 0.97
    assert times.longest_wait_s() <= 2 * PROMISE_S
