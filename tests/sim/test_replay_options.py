"""What the options of a replay do: admission, actuation delay, capacity, ticks, and how fast it is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from zeta.config import default_fleet
from zeta.sim.measures import attainment
from zeta.sim.replay import Played, highest_load, run_replay
from zeta.sim.results import Run
from zeta.sim.spec import FORECASTS, ReplaySpec
from zeta.sim.workload import Burst, Workload
from zeta.traces import TraceChunk

Build = Callable[..., Workload]
Play = Callable[..., Played]

NAMES = tuple(model.name for model in default_fleet().models)


@pytest.fixture
def short_trace(slice_of_hour: TraceChunk, tmp_path: Path) -> Path:
    path = tmp_path / "five_minutes.csv"
    rows = zip(slice_of_hour.arrival_ns, slice_of_hour.prompt_tokens, slice_of_hour.output_tokens, strict=True)
    lines = [f"{at // 1000},{prompt},{output}" for at, prompt, output in rows]
    path.write_text("arrival_us,prompt_tokens,output_tokens\n" + "\n".join(lines) + "\n")
    return path


def ended(run: Run) -> int:
    return run.completed + run.rejected + run.expired + run.failed + run.cancelled + run.left


# Admission


@pytest.mark.parametrize("seed", [50, 51, 52])
def test_rejecting_in_overload_serves_at_least_as_many_promises_as_queueing(seed: int) -> None:
    goodput = {}
    for admission in ("queue", "reject", "downgrade"):
        spec = ReplaySpec(load=2.5, admission=admission, seeds=(seed,))  # type: ignore[arg-type]
        (run,) = run_replay(spec).results
        assert ended(run) == 19_366
        assert (run.unservable, run.failed) == (0, 0)
        goodput[admission] = run.goodput_rps
    assert goodput["reject"] >= goodput["queue"]
    assert goodput["downgrade"] > 0.7 * goodput["reject"]  # it serves more, on what those in time could have had


def test_only_downgrade_uses_smaller_models_and_only_when_it_must(
    slice_of_hour: TraceChunk, workload: Build, run: Play
) -> None:
    for load, admission in ((3.0, "queue"), (3.0, "reject"), (0.3, "downgrade"), (3.0, "downgrade")):
        work = workload(slice_of_hour, load=load)
        times = run(work, admission=admission).times
        is_smaller = (times.model >= 0) & (times.model < work.required_model)
        assert is_smaller.any() == (load == 3.0 and admission == "downgrade"), (load, admission)


def test_a_request_that_fits_no_model_is_a_miss_and_unservable_but_capacity_leaves_it_out(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    rows = [f"{at},{'large' if at % 4 else 'small'},{400_000 if at % 50 == 1 else 500},20" for at in range(100)]
    path.write_text("arrival_s,model,prompt_tokens,output_tokens\n" + "\n".join(rows) + "\n")
    for admission in ("queue", "reject", "downgrade"):
        spec = ReplaySpec(trace=path, admission=admission, capacity_at=0.99)  # type: ignore[arg-type]
        (run,) = run_replay(spec).results
        assert (run.unservable, run.rejected, run.completed) == (2, 2, 98)
        assert run.attainment == pytest.approx(0.98)
        assert run.capacity_x is not None
        assert run.capacity_x > 1


# Actuation delay


def test_an_actuation_delay_puts_off_what_shares_do(hour: TraceChunk, workload: Build, run: Play) -> None:
    work = workload(hour.take(np.arange(6000)), load=0.944, bursts=(Burst("large", 4.0, 600.0, 45.0),))
    rose_s = {}
    for delay_s in (0.0, 5.0):
        played = run(work, keeps_ticks=True, actuation_delay_s=delay_s, forecast="off")
        assert played.ticks is not None
        after = (played.ticks.at_ns > 600e9) & (played.ticks.share[:, 2] > 0.45)
        rose_s[delay_s] = float(played.ticks.at_ns[np.argmax(after)]) * 1e-9
    assert 600 < rose_s[0.0] < 620
    assert rose_s[5.0] - rose_s[0.0] == pytest.approx(5.0, abs=0.5)


# Forecasts


@pytest.mark.parametrize("delay_s", [0.0, 4.9])
def test_a_forecast_changes_nothing_where_acting_is_fast(
    hour: TraceChunk, workload: Build, run: Play, delay_s: float
) -> None:
    work = workload(hour.take(np.arange(4000)), load=1.5, mix="shift")
    hashes = {run(work, actuation_delay_s=delay_s, forecast=name).event_hash for name in FORECASTS}
    assert len(hashes) == 1


def test_a_forecast_that_is_wrong_changes_nothing_where_acting_is_slow(
    hour: TraceChunk, workload: Build, run: Play
) -> None:
    work = workload(hour.take(np.arange(8000)), load=1.5, mix="shift")
    played = {name: run(work, actuation_delay_s=30.0, forecast=name) for name in FORECASTS}
    same = {name for name, each in played.items() if each.event_hash == played["off"].event_hash}
    assert same >= {"off", "x10", "x0.1", "random", "nan"}
    assert same.isdisjoint({"auto", "ewma", "perfect"})
    assert played["off"].foreseen_part == 0.0
    assert played["perfect"].foreseen_part > 0.5


# Capacity


@pytest.mark.parametrize("true_load", [0.05, 0.5, 0.99, 1.0, 1.01, 3.7, 63.0])
@pytest.mark.parametrize("within", [1.02, 1.001])
def test_the_bisection_finds_the_highest_load_from_below(true_load: float, within: float) -> None:
    asked: list[float] = []

    def holds(load: float) -> bool:
        asked.append(load)
        return load <= true_load

    found = highest_load(holds, within)
    assert found is not None
    assert true_load / within <= found <= true_load
    assert len(asked) == len(set(asked)) <= 20


def test_no_load_at_all_is_said_so_and_there_is_an_upper_end() -> None:
    assert highest_load(lambda _load: False) is None
    assert highest_load(lambda _load: True) == pytest.approx(128.0, rel=0.02)


def test_capacity_is_the_same_each_time_falls_with_the_target_and_holds_it(
    short_trace: Path, workload: Build, run: Play, slice_of_hour: TraceChunk
) -> None:
    found: list[float] = []
    for target in (0.9, 0.99, 0.99, 0.999):
        (replay,) = run_replay(ReplaySpec(trace=short_trace, capacity_at=target)).results
        assert replay.capacity_x is not None
        found.append(replay.capacity_x)
    assert found[0] > found[1] == found[2] > found[3]
    assert attainment(run(workload(slice_of_hour, load=found[1])).times) >= 0.99


def test_capacity_means_attainment_over_the_seeds(short_trace: Path) -> None:
    def capacity(*seeds: int) -> float:
        (run, *_) = run_replay(ReplaySpec(trace=short_trace, capacity_at=0.95, mix="shift", seeds=seeds)).results
        assert run.capacity_x is not None
        return run.capacity_x

    alone = [capacity(seed) for seed in (1, 2)]
    assert alone[0] != alone[1]
    assert capacity(1, 2) == capacity(2, 1)


# Ticks


def test_ticks_are_one_line_of_json_for_each_tick_policy_and_seed(short_trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "ticks.jsonl"
    spec = ReplaySpec(trace=short_trace, policies=("water-fill", "even"), order="edf", seeds=(3, 4), ticks=out)
    run_replay(spec)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    pairs = {(line["policy"], line["order"], line["seed"]) for line in lines}
    assert pairs == {(policy, "edf", seed) for policy in ("water-fill", "even") for seed in (3, 4)}
    for line in lines:
        assert list(line) == ["policy", "order", "seed", "t_s", "models"]
        assert tuple(line["models"]) == NAMES
        assert all(list(model) == ["share", "need", "waiting", "running"] for model in line["models"].values())
        assert sum(model["share"] for model in line["models"].values()) == pytest.approx(1.0)
        assert all(type(model[name]) is int for model in line["models"].values() for name in ("waiting", "running"))
    first = [line["t_s"] for line in lines if (line["policy"], line["seed"]) == ("water-fill", 3)]
    np.testing.assert_allclose(np.diff(first), 0.05)


# Speed and repetition


def test_an_hour_takes_less_than_a_three_hundredth_of_itself(hour: TraceChunk, workload: Build, run: Play) -> None:
    work = workload(hour)
    fastest_s = min(run(work).wall_s for _ in range(3))
    assert fastest_s * 300 < work.duration_s


def test_results_repeat_but_for_the_time_they_took(short_trace: Path) -> None:
    spec = ReplaySpec(trace=short_trace, policies=("water-fill", "queue-length"), load=1.5, seeds=(1, 2))
    first, second = ([dataclasses.replace(run, wall_s=0.0) for run in run_replay(spec).results] for _ in range(2))
    assert first == second
    assert len({run.event_hash for run in first}) == len(first)
