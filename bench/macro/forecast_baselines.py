"""Load forecasts one interval ahead: NVIDIA Dynamo's four predictors beside zeta's candidates, on the same origins.

``python -m bench.macro.forecast_baselines`` writes ``bench/results/forecast_baselines.json``; the predictors' libraries
are the dependency group ``bench-forecast``. Everybody is given the series from its beginning and is scored on the last
30 %, at most 100 origins, evenly placed. Dynamo's predictors emit points; what a user adds on top of them for safety is
no part of them and is not modelled, so their pinball loss and 10:1 cost are those of the point. zeta's are those of the
0.9 quantile, and its WAPE that of the median.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import machine
from bench.baselines.dynamo_predictors import PREDICTORS
from bench.harness import Absent
from zeta.forecast.artefact import load_artefact
from zeta.forecast.forecaster import LoadForecaster
from zeta.forecast.onnx import open_net
from zeta.forecast.series import BinnedSeries, read_series

RESULTS = Path(__file__).resolve().parent.parent / "results"
DATA = Path(__file__).resolve().parent.parent / "data" / "forecast"
SCORED_FROM = 0.7
MOST_ORIGINS = 100
TIMED_STEPS = 20
UNDER_TO_OVER = 10.0
FIGURES = ("pinball_90", "cost_10_to_1", "wape")

FloatArray = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """A series on bins of one length; each forecast is of the bin that follows."""

    trace: str
    bin_s: float

    def series(self) -> Iterator[BinnedSeries]:
        path = DATA / f"{self.trace}.csv.gz"
        for one in read_series(path if path.exists() else self.trace, bin_s=self.bin_s):
            if one.target == "arrivals":
                yield one


TASKS = (
    Task("azure_conv_2023", 10.0),
    Task("mooncake_conversation_first30min", 9.0),
    Task("servegen_requests_day3", 60.0),
    Task("servegen_requests_day3", 180.0),
    Task("servegen_rate_10min_days0-9", 600.0),
)
"""180 s is the interval of Dynamo's planner by default."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Forecasts:
    """Of one contender at each origin, in requests per interval: the point, and what stands for the 0.9 quantile."""

    point: FloatArray
    upper: FloatArray
    step_us: FloatArray
    remark: str | None = None


def origins_of(series: BinnedSeries) -> NDArray[np.int64]:
    """Bins after which a forecast is made: in the last part, where this bin and the next are known."""
    known = series.is_gap == 0
    first = int(SCORED_FROM * len(series))
    at = np.arange(first, len(series) - 1)
    at = at[known[at] & known[at + 1]]
    return at[np.unique(np.linspace(0, len(at) - 1, min(MOST_ORIGINS, len(at))).astype(np.int64))]


def by_dynamo(name: str, series: BinnedSeries, origins: NDArray[np.int64]) -> Forecasts:
    """One predictor over the series. A gap is not observed. The time is that of observing a value and predicting."""
    predictor = PREDICTORS[name](series.bin_s)
    counts = series.rates * series.bin_s
    wanted = set(origins.tolist())
    points, steps_us = [], []
    for at in range(int(origins[-1]) + 1):
        begun = time.perf_counter_ns()
        if series.is_gap[at] == 0:
            predictor.observe(float(counts[at]))
        if at in wanted:
            points.append(predictor.predict())
            steps_us.append((time.perf_counter_ns() - begun) * 1e-3)
    point = np.array(points)
    return Forecasts(point, point, np.array(steps_us), getattr(predictor, "order", None))


def scored(found: Forecasts, truth: FloatArray) -> dict[str, Any]:
    """The figures of one contender."""
    short = np.maximum(truth - found.upper, 0.0)
    over = np.maximum(found.upper - truth, 0.0)
    figures: dict[str, Any] = {
        "pinball_90": float(np.mean(0.9 * short + 0.1 * over)),
        "cost_10_to_1": float(np.mean(UNDER_TO_OVER * short + over)),
        "wape": float(np.abs(truth - found.point).sum() / truth.sum()),
        "covered": float(np.mean(truth <= found.upper)),
    }
    return figures | ({"remark": found.remark} if found.remark else {})


def by_zeta(series: BinnedSeries, origins: NDArray[np.int64], net: Any) -> Forecasts:
    """The guard of the forecaster that runs live; the time is that of a Python call for observing and predicting."""
    forecaster = LoadForecaster(1, bin_s=series.bin_s, net=net, week_phase_s=series.start_s)
    wanted = set(origins.tolist())
    points, uppers, steps_us = [], [], []
    for at in range(int(origins[-1]) + 1):
        begun = time.perf_counter_ns()
        if series.is_gap[at]:
            forecaster.mark_missing(0)
        else:
            forecaster.observe(0, float(series.rates[at] * series.bin_s), 0.0)
        found = forecaster.forecast(round((at + 1) * series.bin_s * 1e9))
        if at in wanted:
            steps_us.append((time.perf_counter_ns() - begun) * 1e-3)
            points.append(found.rates[0, 0, 0, 0] * series.bin_s)
            uppers.append(found.rates[0, 0, 0, 1] * series.bin_s)
    return Forecasts(np.array(points), np.array(uppers), np.array(steps_us))


def compared(task: Task, net: Any, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """All contenders on each series of a task."""
    rows = []
    for series in task.series():
        origins = origins_of(series)
        truth = series.rates[origins + 1] * series.bin_s
        found: dict[str, dict[str, Any]] = {"zeta": scored(by_zeta(series, origins, net), truth)}
        for name in PREDICTORS:
            try:
                found[name] = scored(by_dynamo(name, series, origins), truth)
            except Absent as absent:
                found[name] = {"absent": str(absent)}
        row = {"series": series.name, "bin_s": series.bin_s, "origins": len(origins), "forecasters": found}
        say(f"  {series.name}, {series.bin_s:g} s: " + ", ".join(_brief(each) for each in found.items()))
        rows.append(row)
    return rows


def _brief(item: tuple[str, Mapping[str, Any]]) -> str:
    name, figures = item
    if "absent" in figures:
        return f"{name} absent"
    return f"{name} {figures['cost_10_to_1']:.3g}"


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Geometric means over series of each figure, relative to the constant predictor's."""
    out: dict[str, Any] = {}
    for name in ("zeta", *PREDICTORS):
        held = [row["forecasters"] for row in rows if "absent" not in row["forecasters"][name]]
        if not held:
            out[name] = "absent"
            continue
        figures: dict[str, float] = {}
        for figure in FIGURES:
            ratios = [one[name][figure] / one["constant"][figure] for one in held]
            figures[f"{figure}_over_constant"] = float(np.exp(np.mean(np.log(ratios))))
        out[name] = figures
    return out


def times(net: Any) -> dict[str, Any]:
    """Microseconds to observe one interval and predict the next, on the last `TIMED_STEPS` bins of the first task."""
    series = next(TASKS[0].series())
    origins = np.arange(len(series) - TIMED_STEPS, len(series), dtype=np.int64)
    out: dict[str, Any] = {"series": series.name, "bin_s": series.bin_s, "steps": TIMED_STEPS}
    for name in ("zeta", *PREDICTORS):
        try:
            found = by_zeta(series, origins, net) if name == "zeta" else by_dynamo(name, series, origins)
        except Absent as absent:
            out[name] = {"absent": str(absent)}
            continue
        first, later = found.step_us[0], found.step_us[1:]
        out[name] = {"first_us": first, "p50_us": float(np.median(later)), "most_us": float(later.max())}
    return out


def markdown(results: Mapping[str, Any]) -> str:
    """The table for people; losses are geometric means over series, relative to the constant predictor's."""
    columns = "| forecaster | pinball .9 | 10:1 cost | WAPE | µs a step, p50 | first step | longest later |"
    lines = [columns, "|---|" + "---:|" * 6]
    for name, figures in results["summary"].items():
        if figures == "absent":
            lines.append(f"| {name} | absent |")
            continue
        relative = " | ".join(f"{figures[f'{each}_over_constant']:.3f}" for each in FIGURES)
        took = results.get("times", {}).get(name, {})
        shown = [f"{took[key]:,.1f}" if key in took else "–" for key in ("p50_us", "first_us", "most_us")]
        lines.append(f"| {name} | {relative} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(prog="python -m bench.macro.forecast_baselines", description=__doc__)
    parser.add_argument("--model", type=Path, help="a net that knows the first 70 %% of each series; else none runs")
    parser.add_argument("--part", choices=("scores", "times"), help="only this, into the file that is there")
    parser.add_argument("--out", type=Path, default=RESULTS / "forecast_baselines.json")
    options = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    net = open_net(load_artefact(options.model)).run if options.model else None
    document: dict[str, Any] = json.loads(options.out.read_text()) if options.part and options.out.exists() else {}
    document |= {
        "machine": machine.describe(),
        "net": "trained on the first 70 % of each series" if net else None,
        "libraries": {name: machine.version(name) for name in ("filterpy", "pmdarima", "prophet", "statsmodels")},
    }
    results = document.setdefault("results", {})
    if options.part != "scores":
        results["times"] = times(net)
    if options.part != "times":
        rows = [row for task in TASKS for row in compared(task, net, say)]
        results |= {"summary": summary(rows), "series": rows}
    if "summary" in results:
        print(markdown(results))
    options.out.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    say(f"written: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
