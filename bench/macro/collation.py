"""A device that holds one model at a time: collation beside first come, first served, on seeds that tuned nothing.

``python -m bench.macro.collation`` writes ``bench/results/collation.json`` and prints the tables as Markdown. Every
figure is simulated: the engines are models on virtual time, the scheduler is the real one. First come, first served is
``zeta replay --order fifo``: requests reach the device as they arrive; it changes to the model whose request has waited
longest when the resident one has nothing to do, or has had 10 s of its turn and finished what runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from zeta.config import Collation, Config, Device, Order, default_fleet
from zeta.sim.fleet import build_fleet
from zeta.sim.measures import attainment
from zeta.sim.replay import Played, play
from zeta.sim.traces import Trace, TraceChunk
from zeta.sim.workload import Rules, Workload, build_workload

__all__ = ["main"]

RESULT = Path(__file__).resolve().parents[1] / "results" / "collation.json"
SEEDS = (2000, 2001, 2002)  # tuning used 0 and 7
SWAPS_S = (20.0, 35.0, 50.0)
PARTS = (0.5, 0.8, 1.2)  # of what is left of the device when each model is loaded once per longest wait
FACTORS = (1, 10, 60)  # of the SLO: 1 to 3 s to the first token, 0.1 s for each further one
USUAL_DRAIN_S = 8.0

Way = tuple[str, Order, Collation]
WAYS: tuple[Way, ...] = (
    ("collation", "edf", "gain"),
    ("exhaustive", "edf", "exhaustive"),
    ("first come, first served", "fifo", "gain"),
)


def fleet_of(swap_s: float, order: Order = "edf", rule: Collation = "gain") -> Config:
    """The default fleet on one H200 that holds one of its models at a time."""
    config = default_fleet()
    settings = dataclasses.replace(config.scheduler, order=order, collation=rule)
    device = Device("gpu0", kind="h200-sxm-141gb", colocation="swap", swap_s=swap_s)
    return dataclasses.replace(config, scheduler=settings, devices=(device,))


def room(config: Config) -> float:
    """Part of the device that is left when each model is loaded once per longest wait."""
    lost_s = len(config.models) * (config.devices[0].swap_s + USUAL_DRAIN_S)
    return 1.0 - lost_s / (1e-3 * config.scheduler.collation_max_wait_ms)


def workload(rows: TraceChunk, part: float, swap_s: float, seed: int) -> Workload:
    """The trace at `part` of that room, by predicted work."""
    config = fleet_of(swap_s)
    work = build_workload(rows, config, Rules(), seed)
    at_one = float(build_fleet(config).predicted_work_s(work).sum()) / work.duration_s
    return build_workload(rows, config, Rules(load=part * room(config) / at_one), seed)


def changed(work: Workload, factor: int, is_pinned: bool) -> Workload:
    """With the SLO `factor` times as loose; pinned: no better model stands in for the required one."""
    return dataclasses.replace(
        work,
        allowed_mask=np.uint32(1) << work.required_model.astype(np.uint32) if is_pinned else work.allowed_mask,
        deadline_ns=work.arrival_ns + factor * (work.deadline_ns - work.arrival_ns),
        end_deadline_ns=work.arrival_ns + factor * (work.end_deadline_ns - work.arrival_ns),
    )


def figures(work: Workload, played: Played) -> dict[str, float]:
    """What one run came to."""
    times = played.times
    completed = times.ended("completed")
    last_s = float(times.last_token_ns.max()) * 1e-9
    return {
        "goodput_rps": float(times.met_slo().sum()) / work.duration_s,
        "attainment": attainment(times),
        "completed": int(completed.sum()),
        "completed_rps": float(completed.sum()) / max(last_s, work.duration_s),
        "longest_wait_s": times.longest_wait_s(),
        "swaps": played.swaps,
    }


def cases(rows: TraceChunk, seeds: tuple[int, ...], say: Any) -> list[dict[str, Any]]:
    """Every swap time, load, SLO and kind of request, each way, over the seeds."""
    found = []
    for swap_s in SWAPS_S:
        for part in PARTS:
            works = [workload(rows, part, swap_s, seed) for seed in seeds]
            for is_pinned in (False, True):
                for factor in FACTORS:
                    case: dict[str, Any] = {
                        "swap_s": swap_s,
                        "part_of_capacity": part,
                        "load_rps": statistics.fmean(len(work) / work.duration_s for work in works),
                        "served_by": "its own model" if is_pinned else "its own model or a better one",
                        "slo_factor": factor,
                    }
                    for name, order, rule in WAYS:
                        config = fleet_of(swap_s, order, rule)
                        fleet = build_fleet(config)
                        runs = []
                        for work in works:
                            given = changed(work, factor, is_pinned)
                            runs.append(figures(given, play(given, config, fleet)))
                        case[name] = {key: [run[key] for run in runs] for key in runs[0]}
                    ours, base = case["collation"]["goodput_rps"], case["first come, first served"]["goodput_rps"]
                    case["goodput_ratio"] = [a / max(b, 1e-9) for a, b in zip(ours, base, strict=True)]
                    found.append(case)
            say(f"  swap {swap_s:g} s at {part:g} of capacity: done")
    return found


def markdown(results: list[dict[str, Any]]) -> str:
    """The table for people: means over the seeds, the worst of the longest waits."""
    head = (
        "| served by | SLO × | swap s | part | goodput/s | exhaustive | FCFS | ratio (least) | longest wait s | FCFS | "
        "swaps | FCFS |"
    )
    lines = [
        head,
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    mean = statistics.fmean
    by_kind = sorted(results, key=lambda c: (c["served_by"], c["slo_factor"], c["swap_s"], c["part_of_capacity"]))
    for case in by_kind:
        ours, plain, base = (case[name] for name, _, _ in WAYS)
        ratio = f"{mean(case['goodput_ratio']):.1f} ({min(case['goodput_ratio']):.1f})"
        lines.append(
            f"| {case['served_by']} | {case['slo_factor']} | {case['swap_s']:g} | {case['part_of_capacity']:g} | "
            f"{mean(ours['goodput_rps']):.2f} | {mean(plain['goodput_rps']):.2f} | {mean(base['goodput_rps']):.2f} | "
            f"{ratio} | {max(ours['longest_wait_s']):.0f} | "
            f"{max(base['longest_wait_s']):.0f} | {mean(ours['swaps']):.0f} | {mean(base['swaps']):.0f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(prog="python -m bench.macro.collation", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, metavar="N")
    parser.add_argument("--out", type=Path, default=RESULT, help="result file")
    options = parser.parse_args()
    begun = time.monotonic()
    results = cases(
        Trace.embedded().read(), tuple(options.seeds), lambda line: print(line, file=sys.stderr, flush=True)
    )
    document = {
        "simulated": True,
        "trace": "azure_conv_2023",
        "fleet": "default, one H200 that holds one model at a time",
        "collation_max_wait_s": 1e-3 * default_fleet().scheduler.collation_max_wait_ms,
        "seeds": list(options.seeds),
        "wall_s": time.monotonic() - begun,
        "machine": machine.describe(),
        "results": results,
    }
    options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(markdown(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
