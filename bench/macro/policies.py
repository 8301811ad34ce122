"""Six ways to share one GPU among three models, on seeds that nothing was tuned on; makes the README's table.

``python -m bench.macro.policies`` writes ``bench/results/replay_<sha>.json`` and prints the table as Markdown. Every
figure is simulated: the engines are models on virtual time, the scheduler is the real one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import machine
from zeta.config import POLICIES, Config, Order, Policy, default_fleet
from zeta.sim.fleet import build_fleet
from zeta.sim.measures import attainment, backlog_absorbed_s
from zeta.sim.replay import highest_load, play
from zeta.sim.results import paired_lower_bound
from zeta.sim.workload import Burst, MixRule, Rules, Workload, build_workload
from zeta.traces import Trace, TraceChunk

__all__ = ["main"]

RESULTS = Path(__file__).resolve().parents[1] / "results"
SEEDS = (100, 101, 102, 103, 104)  # tuning used 0 to 4
TARGET = 0.99
WITHIN = 1.005  # of a capacity
MIXES: tuple[MixRule, ...] = ("length", "shift")
OWN = ("water-fill", "edf")
BURST_STARTS_S = (900.0, 1500.0, 2400.0)
BURST_UTILISATION = 0.55
BURST_AFTERMATH_S = 60.0

Pair = tuple[Policy, Order]
PAIRS: tuple[Pair, ...] = tuple(
    (policy, order)  # type: ignore[misc] # two literals
    for policy in POLICIES
    for order in ("edf", "fifo")
)
# Other traces, with the utilisations at which attainment tells policies apart.
ROBUSTNESS: dict[str, tuple[float, ...]] = {
    "servegen_requests_day3.csv.gz": (0.4, 0.55),
    "mooncake_conversation_first30min.csv.gz": (0.3, 0.45),
}


def configured(policy: Policy, order: Order) -> Config:
    fleet = default_fleet()
    settings = dataclasses.replace(fleet.scheduler, policy=policy, order=order)
    return dataclasses.replace(fleet, scheduler=settings)


CONFIGS = {pair: configured(*pair) for pair in PAIRS}
FLEET = build_fleet(default_fleet())


def utilisation(work: Workload) -> float:
    """Predicted work arriving ÷ capacity."""
    return float(FLEET.predicted_work_s(work).sum()) / (work.duration_s * FLEET.capacity_gpus)


def label(pair: Pair) -> str:
    return "/".join(pair)


def compared(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float | None]:
    """Geometric mean of the ratio over paired seeds, with its lower 90 % bound."""
    logs, base = [math.log(value) for value in ours], [math.log(value) for value in theirs]
    bound = paired_lower_bound(logs, base)
    return {
        "ratio": math.exp(statistics.fmean(logs) - statistics.fmean(base)),
        "lower_90": None if bound is None else math.exp(bound),
    }


def capacity(rows: TraceChunk, mix: MixRule, seeds: Sequence[int], say: Callable[[str], None]) -> dict[str, Any]:
    """The highest load of each policy and seed that keeps `TARGET`, beside the fluid bound."""

    def highest(pair: Pair, seed: int) -> float:
        def holds(load: float) -> bool:
            work = build_workload(rows, CONFIGS[pair], Rules(load=load, mix=mix), seed)
            times = play(work, CONFIGS[pair], FLEET).times
            return attainment(times, leave_out=times.ended("rejected_infeasible")) >= TARGET

        found = highest_load(holds, WITHIN)
        if found is None:
            raise RuntimeError(f"{label(pair)} keeps {TARGET} at no load")
        return found

    at: dict[Pair, list[float]] = {}
    for pair in PAIRS:
        at[pair] = [highest(pair, seed) for seed in seeds]
        say(f"  {mix}: {label(pair):18} {statistics.fmean(at[pair]):.3f}")
    bounds = [1.0 / utilisation(build_workload(rows, default_fleet(), Rules(mix=mix), seed)) for seed in seeds]
    own, simple = statistics.fmean(at[OWN]), statistics.fmean(at["even", "fifo"])
    bound = statistics.fmean(bounds)
    return {
        "attainment": TARGET,
        "within": WITHIN,
        "fluid_bound_x": bound,
        "gap_closed": (own - simple) / (bound - simple),
        "capacity_x": {
            label(pair): {
                "mean": statistics.fmean(loads),
                "by_seed": loads,
                "water_fill_over": compared(at[OWN], loads),
            }
            for pair, loads in at.items()
        },
    }


def bursts(rows: TraceChunk, seeds: Sequence[int], say: Callable[[str], None]) -> dict[str, Any]:
    """A backlog put on the large model while the small one has little to do; means and worst over seeds."""
    probe = build_workload(rows, default_fleet(), Rules(), seeds[0])
    load = BURST_UTILISATION / utilisation(probe)
    out: dict[str, Any] = {"load": load, "utilisation_before": BURST_UTILISATION, "cases": []}
    for start_s in BURST_STARTS_S:
        burst = Burst("large", 4.0, start_s, 45.0)
        for pair in PAIRS:
            found: dict[str, list[float]] = {}
            for seed in seeds:
                work = build_workload(rows, CONFIGS[pair], Rules(load=load, bursts=(burst,)), seed)
                times = play(work, CONFIGS[pair], FLEET).times
                met = times.met_slo()
                at_s = work.arrival_ns * 1e-9
                around = (at_s >= burst.start_s) & (at_s < burst.start_s + burst.seconds + BURST_AFTERMATH_S)
                absorbed = backlog_absorbed_s(times, burst, 2)
                figures = {
                    "attainment": attainment(times),
                    "small": float(met[work.required_model == 0].mean()),
                    "small_in_burst": float(met[around & (work.required_model == 0)].mean()),
                    "mid_in_burst": float(met[around & (work.required_model == 1)].mean()),
                    "large_in_burst": float(met[around & (work.required_model == 2)].mean()),
                    "absorbed_s": math.inf if absorbed is None else absorbed,
                    "longest_wait_s": times.longest_wait_s(),
                }
                for name, value in figures.items():
                    found.setdefault(name, []).append(value)
            worst = {name: (max if name.endswith("_s") else min)(values) for name, values in found.items()}
            out["cases"].append(
                {
                    "burst": f"{burst.model}:{burst.factor:g}:{burst.start_s:g}:{burst.seconds:g}",
                    "policy": pair[0],
                    "order": pair[1],
                    "mean": {name: statistics.fmean(values) for name, values in found.items()},
                    "worst": worst,
                    "by_seed": found,
                }
            )
        say(f"  burst at {start_s:g} s: done")
    return out


def robustness(folder: Path, seeds: Sequence[int], say: Callable[[str], None]) -> dict[str, Any]:
    """Attainment of every policy on other traces."""
    out: dict[str, Any] = {}
    for name, wanted in ROBUSTNESS.items():
        path = folder / name
        if not path.exists():
            say(f"  absent: {path}")
            out[name] = "absent"
            continue
        rows = Trace(path).read()
        at_one = utilisation(build_workload(rows, default_fleet(), Rules(), seeds[0]))
        cases = []
        for target in wanted:
            works = [build_workload(rows, default_fleet(), Rules(load=target / at_one), seed) for seed in seeds]
            reached = {
                label(pair): [attainment(play(work, CONFIGS[pair], FLEET).times) for work in works] for pair in PAIRS
            }
            cases.append({"load": target / at_one, "utilisation": target, "seeds": list(seeds), "attainment": reached})
            say(f"  {name} at utilisation {target:g}: {label(OWN)} {statistics.fmean(reached[label(OWN)]):.4f}")
        out[name] = cases
    return out


def speed(rows: TraceChunk, rounds: int) -> dict[str, Any]:
    """The trace at its own rate: scheduler, engines and the allocation loop on one core."""
    work = build_workload(rows, default_fleet(), Rules(), SEEDS[0])
    walls = [play(work, CONFIGS[OWN], FLEET).wall_s for _ in range(rounds)]
    return {
        "requests": len(work),
        "trace_s": work.duration_s,
        "wall_s": walls,
        "times_real_time": work.duration_s / statistics.median(walls),
    }


def markdown(document: dict[str, Any]) -> str:
    """The tables for people."""
    results = document["results"]
    lines = ["| policy/order | " + " | ".join(f"capacity, mix {mix}" for mix in MIXES) + " | water-fill/edf over it |"]
    lines.append("|---|" + "---:|" * (len(MIXES) + 1))
    for pair in PAIRS:
        cells = [results["capacity"][mix]["capacity_x"][label(pair)] for mix in MIXES]
        ratios = ", ".join(
            f"{cell['water_fill_over']['ratio']:.3f} (≥ {cell['water_fill_over']['lower_90']:.3f})" for cell in cells
        )
        means = " | ".join(f"{cell['mean']:.3f}" for cell in cells)
        lines.append(f"| {label(pair)} | {means} | {'—' if pair == OWN else ratios} |")
    bounds = " | ".join(f"{results['capacity'][mix]['fluid_bound_x']:.3f}" for mix in MIXES)
    closed = ", ".join(f"{100 * results['capacity'][mix]['gap_closed']:.0f} %" for mix in MIXES)
    lines.append(f"| fluid bound | {bounds} | of the gap from even/fifo closed: {closed} |")
    lines += [
        "",
        "| burst | policy/order | attainment | small, in burst | absorbed s (worst) | longest wait s (worst) |",
    ]
    lines.append("|---|---|---:|---:|---:|---:|")
    for case in results["bursts"]["cases"]:
        mean, worst = case["mean"], case["worst"]
        lines.append(
            f"| {case['burst']} | {case['policy']}/{case['order']} | {mean['attainment']:.4f} | "
            f"{mean['small_in_burst']:.4f} | {mean['absorbed_s']:.1f} ({worst['absorbed_s']:.1f}) | "
            f"{mean['longest_wait_s']:.1f} ({worst['longest_wait_s']:.1f}) |"
        )
    return "\n".join(lines)


def _finite(value: Any) -> Any:
    """Infinity (a backlog never absorbed) as null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main() -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(prog="python -m bench.macro.policies", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, metavar="N")
    parser.add_argument("--traces", type=Path, help="folder with the traces of the robustness table; else left out")
    parser.add_argument("--out", type=Path, help="result file; by default bench/results/replay_<sha>.json")
    options = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    begun = time.monotonic()
    where = machine.describe()
    rows = Trace.embedded().read()
    results: dict[str, Any] = {
        "speed": speed(rows, 9),
        "capacity": {mix: capacity(rows, mix, options.seeds, say) for mix in MIXES},
        "bursts": bursts(rows, options.seeds, say),
    }
    if options.traces is not None:
        results["robustness"] = robustness(options.traces, options.seeds[:1], say)
    document = {
        "simulated": True,
        "trace": "azure_conv_2023",
        "fleet": "default",
        "seeds": list(options.seeds),
        "machine": where | {"wall_s": round(time.monotonic() - begun, 1)},
        "results": results,
    }
    print(markdown(document))
    out = options.out or RESULTS / f"replay_{where['sha'] or 'nogit'}.json"
    out.write_text(json.dumps(_finite(document), indent=1, allow_nan=False) + "\n")
    say(f"written: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
