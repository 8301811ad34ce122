"""A device that holds one model at a time: goodput beside first come, first served, and how long anybody waits.

Simulated: three models of the default fleet on one H200 that holds one of them at a time.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from zeta.config import Config, Device, Order, default_fleet
from zeta.sim.fleet import SimulatedFleet, build_fleet
from zeta.sim.measures import RequestTimes
from zeta.sim.replay import Played, play
from zeta.sim.traces import TraceChunk
from zeta.sim.workload import Rules, Workload, build_workload

MAX_WAIT_S = 300.0
DRAIN_S = 30.0  # the longest answers that run when a change is decided
SWAPS_S = (20.0, 35.0, 50.0)


def swap_fleet(swap_s: float, order: Order = "edf", max_queued: int = 20_000, **settings: object) -> Config:
    config = default_fleet()
    return dataclasses.replace(
        config,
        scheduler=dataclasses.replace(
            config.scheduler,
            order=order,
            max_queued=max_queued,
            collation_max_wait_ms=1e3 * MAX_WAIT_S,
            **settings,  # type: ignore[arg-type]
        ),
        devices=(Device("gpu0", kind="h200-sxm-141gb", colocation="swap", swap_s=swap_s),),
    )


def only_its_own(work: Workload) -> Workload:
    """No better model stands in: every request needs its own model to be resident."""
    return dataclasses.replace(work, allowed_mask=np.uint32(1) << work.required_model.astype(np.uint32))


def looser(work: Workload, factor: int) -> Workload:
    return dataclasses.replace(
        work,
        deadline_ns=work.arrival_ns + factor * (work.deadline_ns - work.arrival_ns),
        end_deadline_ns=work.arrival_ns + factor * (work.end_deadline_ns - work.arrival_ns),
    )


def utilisation(fleet: SimulatedFleet, work: Workload) -> float:
    return float(fleet.predicted_work_s(work).sum()) / work.duration_s


def at_part_of_capacity(rows: TraceChunk, config: Config, part: float, seed: int) -> Workload:
    """The trace at this part of what is left of the device when each model is loaded once per longest wait."""
    swap_s = config.devices[0].swap_s
    room = 1.0 - len(config.models) * (swap_s + 8.0) / MAX_WAIT_S  # 8 s: what runs when a change is decided
    fleet = build_fleet(config)
    work = build_workload(rows, config, Rules(), seed)
    return build_workload(rows, config, Rules(load=part * room / utilisation(fleet, work)), seed)


def goodput_rps(times: RequestTimes) -> float:
    return float(times.met_slo().sum()) / times.workload.duration_s


def shortfalls(ours: RequestTimes, base: RequestTimes, least_ratio: float) -> list[str]:
    """What of the promise does not hold."""
    found = []
    if goodput_rps(ours) < least_ratio * goodput_rps(base):
        found.append(f"goodput {goodput_rps(ours):.3f}/s beside {goodput_rps(base):.3f}/s")
    if ours.longest_wait_s() > MAX_WAIT_S + DRAIN_S:
        found.append(f"longest wait {ours.longest_wait_s():.0f} s")
    return found


def both(work: Workload, swap_s: float) -> tuple[Played, Played]:
    edf, fifo = (swap_fleet(swap_s, order) for order in ("edf", "fifo"))
    return play(work, edf, build_fleet(edf)), play(work, fifo, build_fleet(fifo))


@pytest.mark.parametrize("swap_s", SWAPS_S)
@pytest.mark.parametrize("part", [0.5, 0.8])
def test_collation_doubles_the_goodput_of_first_come_first_served_and_nobody_waits_beyond_the_maximum(
    swap_s: float, part: float, hour: TraceChunk
) -> None:
    work = at_part_of_capacity(hour, swap_fleet(swap_s), part, seed=1000 + round(swap_s))
    for served, what in ((work, "better models stand in"), (only_its_own(work), "each its own model")):
        ours, base = both(served, swap_s)
        assert shortfalls(ours.times, base.times, 2.0) == [], what
        assert ours.times.ended("completed").all()
        assert ours.swaps < 0.75 * base.swaps
        assert shortfalls(base.times, base.times, 2.0), "the gate passes whatever it is given"


@pytest.mark.parametrize("swap_s", SWAPS_S)
def test_beyond_capacity_collation_serves_more_in_time_and_starves_no_model(swap_s: float, hour: TraceChunk) -> None:
    work = only_its_own(at_part_of_capacity(hour, swap_fleet(swap_s), 1.4, seed=1100 + round(swap_s)))
    ours, base = both(work, swap_s)
    assert goodput_rps(ours.times) >= 2.0 * goodput_rps(base.times)
    completed = ours.times.ended("completed")
    assert completed.sum() >= 1.2 * base.times.ended("completed").sum()
    for model in range(3):  # in every quarter of an hour somebody of each model is served
        placed_s = np.sort(ours.times.placed_ns[(work.required_model == model) & completed]) * 1e-9
        assert np.diff(placed_s).max() < 900.0


def test_no_rule_of_the_holds_is_broken_at_any_event(slice_of_hour: TraceChunk) -> None:
    for number, swap_s in enumerate(SWAPS_S):
        config = swap_fleet(swap_s, max_queued=1500)
        for part in (0.3, 0.8, 2.0):
            work = at_part_of_capacity(slice_of_hour, config, part, seed=1200 + number)
            for served in (work, only_its_own(work), looser(only_its_own(work), 60)):
                played = play(served, config, build_fleet(config), checks_every=25)
                assert played.violations == 0, (swap_s, part)
                assert played.times.ended("completed").all()


def test_better_models_that_stand_in_make_changes_rare(hour: TraceChunk) -> None:
    config = swap_fleet(35.0)
    work = at_part_of_capacity(hour, config, 0.8, seed=1300)
    played = play(work, config, build_fleet(config))
    assert played.swaps <= 5
    assert played.times.met_slo().mean() > 0.98


def test_a_shorter_longest_wait_is_kept_by_changing_more_often(hour: TraceChunk) -> None:
    work = only_its_own(build_workload(hour, default_fleet(), Rules(load=0.15), 1400))
    waits, swaps = [], []
    for max_wait_s in (600.0, 300.0, 150.0):
        config = swap_fleet(20.0)
        settings = dataclasses.replace(config.scheduler, collation_max_wait_ms=1e3 * max_wait_s)
        config = dataclasses.replace(config, scheduler=settings)
        played = play(work, config, build_fleet(config))
        waits.append((played.times.longest_wait_s() - DRAIN_S) / max_wait_s)
        swaps.append(played.swaps)
    assert max(waits) <= 1.0
    assert swaps == sorted(swaps)
    assert swaps[-1] > 1.5 * swaps[0]


def test_a_replay_with_changes_of_model_is_the_same_twice(slice_of_hour: TraceChunk) -> None:
    config = swap_fleet(20.0)
    work = only_its_own(build_workload(slice_of_hour, config, Rules(load=0.5), 1500))
    first, second = (play(work, config, build_fleet(config)) for _ in range(2))
    assert first.event_hash == second.event_hash
    assert first.swaps > 3
