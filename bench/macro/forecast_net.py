"""What the learned forecaster is worth: the guard with the net and without it, on the last 30 % of each series.

``python -m bench.macro.forecast_net --model DIR`` writes ``bench/results/forecast_net.json``, where DIR comes from::

    zeta train azure_conv_2023 bench/data/forecast/*.csv.gz --out DIR

so that the net knows the first 70 % of these series and nothing of what it is scored on. Traces given with ``--unseen``
are series that it knows nothing of at all.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import machine
from zeta.forecast.artefact import load_artefact
from zeta.forecast.backtest import SeriesScore, backtest_series
from zeta.forecast.onnx import open_net
from zeta.forecast.provenance import seen_part
from zeta.forecast.series import read_series

RESULTS = Path(__file__).resolve().parent.parent / "results"
DATA = Path(__file__).resolve().parent.parent / "data" / "forecast"
CLASSICAL = ("ewma", "kalman", "ridge_ar")
FIGURES = ("pinball_50", "pinball_90", "pinball_99", "cost_10_1_90")

TASKS: tuple[tuple[str, float | None], ...] = (
    ("azure_conv_2023", None),
    ("azure_conv_2023", 10.0),
    ("mooncake_conversation_first30min", None),
    ("servegen_requests_day3", None),
    ("servegen_requests_day3", 10.0),
    ("servegen_requests_day3", 60.0),
    ("servegen_rate_10min_days0-9", None),
)
"""Trace, and length of a bin in seconds (None: the trace's own)."""


def compared(with_net: SeriesScore, without: SeriesScore, seen: float) -> dict[str, Any]:
    """One pair of series and horizon: the guard's losses with the net over those without it, and the net's alone."""
    guard, plain, net = with_net.candidates["guard"], without.candidates["guard"], with_net.candidates["net"]
    best = {figure: min(getattr(with_net.candidates[name], figure) for name in CLASSICAL) for figure in FIGURES}
    return {
        "series": with_net.name,
        "target": with_net.target,
        "bin_s": with_net.bin_s,
        "horizon_s": with_net.horizon_s,
        "origins": with_net.origins,
        "seen": seen,
        "guard_with_over_without": {each: getattr(guard, each) / getattr(plain, each) for each in FIGURES},
        "net_over_best_classical": {each: getattr(net, each) / best[each] for each in FIGURES},
        "guard_over_best_classical": {each: getattr(guard, each) / best[each] for each in FIGURES},
        "net_coverage_90": net.coverage_90,
    }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Geometric means over pairs, and how often the net decides."""
    ratios = [row["guard_with_over_without"]["pinball_90"] for row in rows]
    alone = [row["net_over_best_classical"]["pinball_90"] for row in rows]
    out: dict[str, Any] = {"pairs": len(rows)}
    for kind in ("guard_with_over_without", "net_over_best_classical", "guard_over_best_classical"):
        out[kind] = {each: math.exp(statistics.fmean(math.log(row[kind][each]) for row in rows)) for each in FIGURES}
    out["guard_better_by_2_percent"] = sum(ratio < 0.98 for ratio in ratios)
    out["guard_worse_by_2_percent"] = sum(ratio > 1.02 for ratio in ratios)
    out["guard_best"], out["guard_worst"] = min(ratios), max(ratios)
    out["net_beats_every_classical"] = sum(ratio < 1.0 for ratio in alone)
    out["net_beats_every_classical_by_5_percent"] = sum(ratio < 0.95 for ratio in alone)
    out["net_loses_by_5_percent"] = sum(ratio > 1.05 for ratio in alone)
    return out


def by_series(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`summary` for each series and bin."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(f"{row['series']}, {row['bin_s']:g} s", []).append(row)
    return {name: summary(group) for name, group in groups.items()}


def markdown(results: dict[str, Any]) -> str:
    """The table for people: pinball .9, as ratios."""
    columns = "| series, bin | pairs | guard with net over without | best | worst | net over best classical |"
    lines = [columns, "|---|" + "---:|" * 5]
    total = {"all": results["summary"]} | ({"unseen": results["unseen"]} if results["unseen"] else {})
    for name, one in (results["by_series"] | total).items():
        guard, net = (one[kind]["pinball_90"] for kind in ("guard_with_over_without", "net_over_best_classical"))
        spread = f"{one['guard_best']:.3f} | {one['guard_worst']:.3f}"
        lines.append(f"| {name} | {one['pairs']} | {guard:.3f} | {spread} | {net:.3f} |")
    return "\n".join(lines)


def main() -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(prog="python -m bench.macro.forecast_net", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a net that knows the first 70 %% of each series")
    parser.add_argument("--unseen", nargs="*", default=[], metavar="TRACE[@BIN_S]", help="series that it never saw")
    parser.add_argument("--out", type=Path, default=RESULTS / "forecast_net.json")
    options = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    begun = time.monotonic()
    artefact = load_artefact(options.model)
    net: Callable[[Any], Any] = open_net(artefact).run
    tasks = [(DATA / f"{trace}.csv.gz", trace, bin_s) for trace, bin_s in TASKS]
    tasks += [(Path(name), name, float(bin_s) if bin_s else None) for name, _, bin_s in map(_split, options.unseen)]
    rows = []
    for path, name, bin_s in tasks:
        for series in read_series(path if path.exists() else name, bin_s=bin_s):
            seen = seen_part(artefact.manifest.about, series)
            pairs = zip(backtest_series(series, net=net), backtest_series(series), strict=True)
            rows += [compared(with_net, without, seen) for with_net, without in pairs]
        say(f"  {name} at {bin_s or 'its own'} s: done")
    unseen = [row for row in rows if row["seen"] == 0.0]
    about = {key: value for key, value in artefact.manifest.about.items() if key != "trained_on"}
    results = {
        "summary": summary(rows),
        "unseen": summary(unseen) if unseen else None,
        "by_series": by_series(rows),
        "pairs": rows,
    }
    where = machine.describe() | {"wall_s": round(time.monotonic() - begun, 1)}
    document = {"machine": where, "net": about, "results": results}
    print(markdown(results))
    options.out.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    say(f"written: {options.out}")
    return 0


def _split(given: str) -> tuple[str, str, str]:
    return given.partition("@")


if __name__ == "__main__":
    sys.exit(main())
