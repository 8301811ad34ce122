"""What looking ahead gains where shares act late, and what a wrong forecast costs; on seeds nothing was tuned on.

``python -m bench.macro.foresight`` writes ``bench/results/foresight.json`` and prints the tables as Markdown. Every
figure is simulated. The embedded hour runs with mix ``shift`` at loads at which attainment tells anything apart; below
1.3 times the trace's own rate everybody keeps every promise.

Modes: ``off`` (reactive, with the same delay), ``ewma`` (a 30 s mean), ``auto`` (what runs live), ``perfect`` (the
trace's own future), and faults. The gap is from ``ewma`` to ``perfect``; *closed* is the part that ``auto`` gains.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from zeta.config import Config, default_fleet
from zeta.sim.fleet import build_fleet
from zeta.sim.measures import attainment
from zeta.sim.replay import play
from zeta.sim.results import paired_lower_bound
from zeta.sim.workload import Rules, Workload, build_workload
from zeta.traces import Trace, TraceChunk

__all__ = ["main"]

RESULT = Path(__file__).resolve().parents[1] / "results" / "foresight.json"
SEEDS = tuple(range(100, 110))  # tuning used 0 to 4
LOADS = (1.0, 1.3, 1.5, 1.6, 1.7)
DELAYS_S = (10.0, 30.0, 60.0)
FAULTS = ("stale", "x10", "x0.1", "random", "nan")
MODES = ("off", "ewma", "auto", "perfect", *FAULTS)
SERVEGEN_HOURS = (20, 24)
SERVEGEN_LOADS = (4.0, 6.0)
FLEET = build_fleet(default_fleet())


def configured(policy: str = "water-fill") -> Config:
    fleet = default_fleet()
    settings = dataclasses.replace(fleet.scheduler, policy=policy, max_queued=200_000)  # type: ignore[arg-type]
    return dataclasses.replace(fleet, scheduler=settings)


def attained(works: list[Workload], delay_s: float, forecast: str, policy: str = "water-fill") -> dict[str, Any]:
    runs = [play(work, configured(policy), FLEET, actuation_delay_s=delay_s, forecast=forecast) for work in works]
    each = [attainment(run.times) for run in runs]
    return {
        "attainment": statistics.fmean(each),
        "by_seed": each,
        "foreseen_part": statistics.fmean(run.foreseen_part for run in runs),
        "share_changes": statistics.fmean(run.share_changes for run in runs),
    }


def scene(name: str, works: list[Workload]) -> dict[str, Any]:
    """Every mode at every delay on the same workloads."""
    found: dict[str, Any] = {
        "scene": name,
        "requests": statistics.fmean(len(work) for work in works),
        "utilisation": statistics.fmean(float(FLEET.predicted_work_s(w).sum()) / w.duration_s for w in works),
        "even": attained(works, 0.0, "off", "even"),
        "no_delay": {mode: attained(works, 0.0, mode) for mode in ("off", "auto", "x10")},
        "delays": {},
    }
    for delay_s in DELAYS_S:
        modes = {mode: attained(works, delay_s, mode) for mode in MODES}
        base = modes["off"]["by_seed"]
        for mode in modes.values():
            mode["over_off"] = mode["attainment"] - modes["off"]["attainment"]
            mode["over_off_lower_90"] = paired_lower_bound(mode["by_seed"], base)
        gap = modes["perfect"]["attainment"] - modes["ewma"]["attainment"]
        gained = modes["auto"]["attainment"] - modes["ewma"]["attainment"]
        found["delays"][f"{delay_s:g}"] = {
            "modes": modes,
            "ewma_to_perfect": gap,
            "auto_over_ewma": gained,
            "closed": gained / gap if gap > 1e-4 else None,
        }
    return found


def servegen(path: Path, load: float) -> Workload:
    rows: TraceChunk = Trace(path).read()
    hour_ns = 3_600_000_000_000
    inside = (rows.arrival_ns >= SERVEGEN_HOURS[0] * hour_ns) & (rows.arrival_ns < SERVEGEN_HOURS[1] * hour_ns)
    return build_workload(rows.take(np.flatnonzero(inside)), default_fleet(), Rules(load=load), 100)


def table(scenes: list[dict[str, Any]]) -> str:
    lines = [
        "| scene | delay s | off | ewma | auto | perfect | closed | worst fault − off |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for found in scenes:
        for delay, at in found["delays"].items():
            modes = at["modes"]
            shown = " | ".join(f"{100 * modes[mode]['attainment']:.2f}" for mode in ("off", "ewma", "auto", "perfect"))
            worst = min(FAULTS, key=lambda fault: modes[fault]["over_off"])
            closed = "" if at["closed"] is None else f"{100 * at['closed']:.0f} %"
            lines.append(
                f"| {found['scene']} | {delay} | {shown} | {closed} | {100 * modes[worst]['over_off']:+.2f} ({worst}) |"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servegen", type=Path, metavar="FILE", help="servegen_requests_day8.csv.gz, for its scenes")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    begin = time.perf_counter()
    rows = Trace.embedded().read()
    scenes = []
    for load in LOADS:
        works = [build_workload(rows, default_fleet(), Rules(load=load, mix="shift"), seed) for seed in SEEDS]
        scenes.append(scene(f"embedded hour, shift, load {load:g}", works))
        print(table(scenes[-1:]), flush=True)
    for load in SERVEGEN_LOADS if options.servegen else ():
        hours = f"{SERVEGEN_HOURS[0]} to {SERVEGEN_HOURS[1]} h"
        scenes.append(scene(f"{options.servegen.name}, {hours}, load {load:g}", [servegen(options.servegen, load)]))
        print(table(scenes[-1:]), flush=True)
    tight = [found for found in scenes if found["scene"].startswith("embedded") and found["even"]["attainment"] < 0.995]
    together: dict[str, Any] = {}
    for delay_s in DELAYS_S:
        at = [found["delays"][f"{delay_s:g}"] for found in tight]
        gap, gained = sum(each["ewma_to_perfect"] for each in at), sum(each["auto_over_ewma"] for each in at)
        together[f"{delay_s:g}"] = {"ewma_to_perfect": gap / len(at), "closed": gained / gap if gap > 1e-4 else None}
    worst = min(
        at["modes"][fault]["over_off"] for found in scenes for at in found["delays"].values() for fault in FAULTS
    )
    result = {
        "command": "python -m bench.macro.foresight --servegen FILE",
        "is_simulated": True,
        "seeds": list(SEEDS),
        "scenes": scenes,
        "closed_by_delay_where_attainment_is_below_0.995": together,
        "worst_fault_over_off": worst,
        "wall_s": time.perf_counter() - begin,
        "machine": machine.describe(),
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(scenes))
    print(json.dumps(together), f"worst fault: {100 * worst:+.2f} points")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
