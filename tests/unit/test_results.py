"""Claims about results: their JSON, ticks, spreads and bounds."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from zeta.sim.results import ModelTick, ReplayResult, ReplaySeries, Run, Tick, TickWriter, paired_lower_bound, spread

RUN = Run(
    policy="water-fill",
    order="edf",
    admission="queue",
    seed=3,
    utilisation=0.8,
    fluid_bound_x=1.5,
    attainment=0.99,
    attainment_by_model={"small": 1.0, "large": None},
    capacity_x=None,
    goodput_rps=5.5,
    completed=98,
    rejected=1,
    expired=0,
    failed=0,
    cancelled=0,
    left=1,
    unservable=1,
    ttft_p50_ms=120.0,
    ttft_p99_ms=math.nan,
    tpot_p50_ms=20.0,
    tpot_p99_ms=30.0,
    longest_wait_s=1.5,
    backlog_absorbed_s=None,
    share_changes_per_min=2.0,
    replica_seconds=300.0,
    swaps=0,
    wall_s=0.25,
    event_hash="00ff",
)


def test_the_json_has_the_published_keys_in_their_order(tmp_path: Path) -> None:
    result = ReplayResult(trace="t", fleet="default", load=1.5, requests=100, results=(RUN,))
    result.write_json(tmp_path / "out.json")
    read = json.loads((tmp_path / "out.json").read_text())
    assert list(read) == ["trace", "fleet", "load", "requests", "results"]
    published = (
        "policy order admission seed utilisation fluid_bound_x attainment attainment_by_model capacity_x goodput_rps "
        "completed rejected expired failed cancelled left unservable ttft_p50_ms ttft_p99_ms tpot_p50_ms tpot_p99_ms "
        "longest_wait_s backlog_absorbed_s share_changes_per_min replica_seconds swaps wall_s event_hash "
        "forecast foreseen_part"
    )
    assert list(read["results"][0]) == published.split()


def test_what_was_not_measured_is_null_never_zero_or_nan() -> None:
    read = RUN.to_dict()
    assert read["ttft_p99_ms"] is None
    assert read["capacity_x"] is None
    assert read["attainment_by_model"] == {"small": 1.0, "large": None}


def test_numpy_numbers_become_plain_ones() -> None:
    run = dataclasses.replace(RUN, attainment=np.float64(0.5), completed=np.int64(7))
    assert json.loads(json.dumps(run.to_dict()))["completed"] == 7


def test_runs_group_by_policy_and_order() -> None:
    other = dataclasses.replace(RUN, policy="even", order="fifo")
    again = dataclasses.replace(RUN, seed=4)
    groups = ReplayResult("t", "f", 1.0, 1, (RUN, other, again)).by_label()
    assert {label: [run.seed for run in runs] for label, runs in groups.items()} == {
        "water-fill/edf": [3, 4],
        "even/fifo": [3],
    }


def test_a_tick_is_one_line_of_json(tmp_path: Path) -> None:
    with TickWriter(tmp_path / "ticks.jsonl") as writer:
        for t_s in (0.05, 0.1):
            writer.write(Tick("even", "fifo", 1, t_s, {"small": ModelTick(0.5, 0.25, 3, 2)}))
    lines = (tmp_path / "ticks.jsonl").read_text().splitlines()
    assert [json.loads(line)["t_s"] for line in lines] == [0.05, 0.1]
    assert json.loads(lines[0]) == {
        "policy": "even",
        "order": "fifo",
        "seed": 1,
        "t_s": 0.05,
        "models": {"small": {"share": 0.5, "need": 0.25, "waiting": 3, "running": 2}},
    }


def test_a_spread_leaves_out_what_was_not_measured() -> None:
    found = spread([1.0, None, 3.0, math.nan])
    assert found is not None
    assert (found.mean, found.low, found.high) == (2.0, 1.0, 3.0)
    assert spread([None]) is None


def test_the_bound_of_equal_differences_is_the_difference() -> None:
    assert paired_lower_bound([2.0, 3.0, 4.0], [1.0, 2.0, 3.0]) == pytest.approx(1.0)


def test_the_bound_holds_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        base = rng.normal(size=20)
        bound = paired_lower_bound((base + rng.normal(0.5, 1.0, 20)).tolist(), base.tolist(), resamples=400)
        assert bound is not None
        held += bound <= 0.5
    assert 165 <= held <= 195


def test_the_bound_repeats_and_needs_two_seeds() -> None:
    figures = [0.3, 0.1, 0.9]
    assert paired_lower_bound(figures, [0.0] * 3) == paired_lower_bound(figures, [0.0] * 3)
    assert paired_lower_bound([1.0], [0.0]) is None
    with pytest.raises(ValueError, match="one of each for every seed"):
        paired_lower_bound([1.0, 2.0], [0.0])


def test_a_series_of_another_length_is_refused() -> None:
    t_s = np.arange(3.0)
    with pytest.raises(ValueError, match=r"waiting\['a'\] has shape \(2,\)"):
        ReplaySeries("even", "edf", 0, t_s, {"a": np.zeros(2)}, {}, {}, {}, {}, {}, np.zeros(3))
