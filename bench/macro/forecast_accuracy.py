"""How good the forecasts are: every gate of the forecaster, on real series and on seeded made-up ones.

``python -m bench.macro.forecast_accuracy [TRACE...]`` writes ``bench/results/forecast_accuracy.json``. Beside zeta's
candidates stand statsmodels' local level (unobserved components) and autoregression, fitted by maximum likelihood on
the first 70 % of each series and then run on; their quantiles come from residuals exactly as those of zeta's point
candidates do. Dependency group ``bench-forecast``.

What is scored is the last 30 % of each series, bin by bin, horizons as ``zeta backtest`` chooses them. The figures on
made-up series are reported apart: they guard against tuning to few files, and are no evidence of anything else.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import machine
from zeta._core import forecast_points
from zeta.forecast import BinnedSeries, backtest_series, read_series
from zeta.forecast.backtest import SCORED_FROM, default_horizons
from zeta.traces import EMBEDDED_NAME

DATA = Path(__file__).resolve().parent.parent / "data" / "forecast"
RESULTS = Path(__file__).resolve().parent.parent / "results"
CLASSICAL = ("ewma", "kalman", "ridge_ar")
ORIGINS_FOR_WORST = 350
ORIGINS_FOR_COVERAGE = 1000
ORIGINS_FOR_TAIL = 3000
_LEAST_BINS = 200
_LEAST_ORIGINS = 50
_FITTED_BINS = 3000
_MOST_LAGS = 16

FloatArray = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Gate:
    """A bar, and where the figure stands."""

    name: str
    value: float
    low: float
    high: float
    of: str

    @property
    def passes(self) -> bool:
        """Whether the figure is within the bars."""
        return self.low <= self.value <= self.high


def variants(traces: Sequence[str]) -> Iterator[BinnedSeries]:
    """Each trace on its own bins, and on bins of ten and sixty times that where enough of them are left."""
    for trace in traces:
        own = read_series(trace)
        yield from own
        for factor in () if own[0].bin_s >= 600 else (10, 60):
            if len(own[0]) // factor >= _LEAST_BINS:
                yield from read_series(trace, bin_s=own[0].bin_s * factor)


def made_up(seed: int = 7) -> Iterator[BinnedSeries]:
    """Seeded series of other shapes: bursts, steps, sessions, a walk, a season, silence; and the embedded hour
    compressed, thinned and with bursts put into it."""
    rng = np.random.default_rng(seed)

    def series(name: str, counts: Iterable[float], bin_s: float = 1.0, target: Any = "arrivals") -> BinnedSeries:
        rates = np.ascontiguousarray(np.asarray(list(counts), dtype=np.float64) / bin_s)
        return BinnedSeries(f"made-up {name}", target, bin_s, rates, np.zeros(len(rates), dtype=np.uint8))

    def switching(bins: int, rates: Sequence[float], stay: Sequence[float]) -> FloatArray:
        state, found = 0, np.empty(bins)
        for i in range(bins):
            if rng.random() < 1 / stay[state]:
                state = int(rng.integers(len(rates)))
            found[i] = rates[state]
        return found

    yield series("quick bursts", rng.poisson(switching(6000, (0.3, 6, 25), (40, 15, 6))))
    yield series("slow bursts", rng.poisson(switching(8000, (1, 4, 12), (400, 300, 100))))
    yield series("on and off", rng.poisson(switching(5000, (0.05, 20), (60, 4))))
    walk = np.clip(4 * np.exp(np.cumsum(rng.normal(0, 0.03, 6000))), 0.05, 30)
    yield series("walk", rng.poisson(walk))
    yield series("steps", rng.poisson(np.repeat(rng.lognormal(1.5, 0.9, 40), 150)))
    yield series("batches", rng.negative_binomial(0.4, 0.4 / 3.4, 7000))
    yield series("steady", rng.poisson(5.0, 5000))
    yield series("sparse", rng.poisson(0.2, 9000))
    at = np.arange(14 * 144)
    season = 100 * (1.2 + np.sin(2 * np.pi * at / 144)) * np.exp(rng.normal(0, 0.05, len(at)))
    yield series("season", rng.poisson(600 * season), 600.0)
    for one in read_series(EMBEDDED_NAME):
        pairs = one.rates[: len(one) // 2 * 2].reshape(-1, 2).sum(axis=1)
        yield series(f"{one.name} at twice the pace", pairs, target=one.target)
        factor = np.ones(len(one))
        for start in np.flatnonzero(rng.random(len(one)) < 1 / 200):
            factor[start : start + int(rng.exponential(25)) + 3] *= rng.choice([3.0, 6.0, 0.2])
        yield series(f"{one.name} with bursts", one.rates * factor, target=one.target)
    counts = np.rint(read_series(EMBEDDED_NAME)[0].rates).astype(np.int64)
    yield series(f"{EMBEDDED_NAME}, three in ten", rng.binomial(counts, 0.3))
    yield series(f"{EMBEDDED_NAME}, one in twenty", rng.binomial(counts, 0.05))


def local_level(series: BinnedSeries) -> Callable[[int], FloatArray] | None:
    """statsmodels' local level: variances by maximum likelihood on the first 70 %, then filtered on."""
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    values = np.where(series.is_gap > 0, np.nan, series.rates)
    cut = int(SCORED_FROM * len(values))
    spread = float(np.nanstd(values[:cut]))
    if not spread > 0:
        return None
    scaled = values / spread
    fitted = UnobservedComponents(scaled[max(0, cut - _FITTED_BINS) : cut], "llevel").fit(disp=False)
    level = UnobservedComponents(scaled, "llevel").filter(fitted.params).filtered_state[0] * spread
    points = np.where(series.is_gap > 0, np.nan, np.maximum(level, 0.0))
    return lambda _: points


def autoregression(series: BinnedSeries) -> Callable[[int], FloatArray] | None:
    """statsmodels' autoregression, lags by BIC on the first 70 %; h steps are iterated, and their mean taken."""
    from statsmodels.tsa.ar_model import ar_select_order

    values = np.where(series.is_gap > 0, np.nan, series.rates)
    known = np.maximum.accumulate(np.where(np.isnan(values), 0, np.arange(len(values))))
    filled = np.nan_to_num(values[known])
    cut = int(SCORED_FROM * len(values))
    train = filled[max(0, cut - _FITTED_BINS) : cut]
    if not np.std(train) > 0:
        return None
    found = ar_select_order(train, min(_MOST_LAGS, len(train) // 10), ic="bic")
    lags = 0 if found.ar_lags is None else len(found.ar_lags)
    params = found.model.fit().params
    if lags == 0:
        points = np.where(np.isnan(values), np.nan, params[0])
        return lambda _: points
    step = np.zeros((lags + 1, lags + 1))  # the state is the last values, newest first, and 1
    step[0, :lags], step[0, lags], step[lags, lags] = params[1:], params[0], 1.0
    step[np.arange(1, lags), np.arange(lags - 1)] = 1.0
    state = np.ones((len(filled), lags + 1))
    for lag in range(lags):
        state[lag:, lag] = filled[: len(filled) - lag]

    def points_at(horizon: int) -> FloatArray:
        row, total = np.eye(lags + 1)[0], np.zeros(lags + 1)
        for _ in range(horizon):
            row = row @ step
            total += row
        mean = np.clip(state @ total / horizon, 0.0, 10 * filled[:cut].max())
        mean[:lags] = np.nan
        return np.where(np.isnan(values), np.nan, mean)

    return points_at


def peers(series: BinnedSeries, horizons: Sequence[int]) -> dict[str, dict[int, dict[str, float]]]:
    """The scores of statsmodels' two forecasters, by horizon in bins; those that could not be fitted are absent."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for name, fit in (("statsmodels_local_level", local_level), ("statsmodels_ar", autoregression)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of convergence, frequency: the fit is judged by what it forecasts
            try:
                points_at = fit(series)
            except (ValueError, np.linalg.LinAlgError):
                points_at = None
        if points_at is None:
            continue
        first = int(SCORED_FROM * len(series)) - 1
        found[name] = {
            h: forecast_points(
                series.rates,
                series.is_gap,
                np.ascontiguousarray(points_at(h), dtype=np.float64),
                horizon=h,
                first_origin=first,
            )
            for h in horizons
        }
    return found


def rows_of(series: Iterable[BinnedSeries], *, with_peers: bool) -> list[dict[str, Any]]:
    """A row for each series and horizon: the scores, the rule that picks beside the one that blends, the peers."""
    rows = []
    for one in series:
        horizons = [1, 6] if one.bin_s >= 600 else default_horizons(len(one))
        beside = peers(one, horizons) if with_peers else {}
        picked = {score.horizon_s: score for score in backtest_series(one, horizon_bins=horizons, rule="pick")}
        for score in backtest_series(one, horizon_bins=horizons):
            if score.origins < _LEAST_ORIGINS or score.candidates["guard"].wape is None:
                continue
            row = score.to_dict()
            row["candidates"]["guard_pick"] = dataclasses.asdict(picked[score.horizon_s].candidates["guard"])
            for name, by_horizon in beside.items():
                row["candidates"][name] = by_horizon[round(score.horizon_s / one.bin_s)]
            rows.append(row)
        print(f"{one.name} {one.target} {one.bin_s:g} s", flush=True)
    return rows


def mean_ratio(rows: Sequence[Mapping[str, Any]], of: str, to: Sequence[str], what: str) -> float:
    """Geometric mean over `rows` of a loss ÷ the least of others' (those that a row has)."""
    return math.exp(statistics.fmean(math.log(ratio) for ratio in ratios(rows, of, to, what)))


def ratios(rows: Sequence[Mapping[str, Any]], of: str, to: Sequence[str], what: str) -> list[float]:
    """A loss ÷ the least of others', row by row; rows without those others are left out."""
    found = []
    for row in rows:
        others = [row["candidates"][name][what] for name in to if row["candidates"].get(name) is not None]
        if others and min(others) > 0:
            found.append(row["candidates"][of][what] / min(others))
    return found


def gates_of(rows: Sequence[Mapping[str, Any]], guard: str = "guard") -> list[Gate]:
    """Every bar, on these rows."""
    many = [row for row in rows if row["origins"] >= ORIGINS_FOR_WORST]
    covered = [row["candidates"][guard]["coverage_90"] for row in rows if row["origins"] >= ORIGINS_FOR_COVERAGE]
    tails = [row["candidates"][guard]["coverage_99"] for row in rows if row["origins"] >= ORIGINS_FOR_TAIL]
    costs = [row["candidates"][guard]["cost_10_1_90"] / row["candidates"][guard]["cost_10_1_median"] for row in rows]
    best = "best of ewma, kalman, ridge_ar in hindsight"
    gates = [
        Gate("pinball .9, geometric mean", mean_ratio(rows, guard, CLASSICAL, "pinball_90"), 0, 1.02, best),
        Gate("pinball .9, worst", max(ratios(many, guard, CLASSICAL, "pinball_90")), 0, 1.10, f"{best}; 350 origins"),
        Gate("pinball .9, geometric mean", mean_ratio(rows, guard, ("last",), "pinball_90"), 0, 0.90, "last"),
        Gate("WAPE, geometric mean", mean_ratio(rows, guard, ("last", "ewma"), "wape"), 0, 1.02, "best of last, ewma"),
        Gate("WAPE, worst", max(ratios(many, guard, ("last", "ewma"), "wape")), 0, 1.08, "the same; 350 origins"),
        Gate("10:1 cost, median", statistics.median(costs), 0, 0.60, "of the guard's own median"),
    ]
    if any("statsmodels_ar" in row["candidates"] for row in rows):
        for name in ("statsmodels_local_level", "statsmodels_ar"):
            gates.append(
                Gate("pinball .9, geometric mean", mean_ratio(rows, guard, (name,), "pinball_90"), 0, 1.02, name)
            )
    if covered:
        gates.append(Gate("coverage .9, mean", statistics.fmean(covered), 0.88, 0.92, "1,000 origins"))
        off = statistics.fmean(abs(value - 0.9) for value in covered)
        gates.append(Gate("coverage .9, mean distance", off, 0, 0.02, "1,000 origins"))
    if tails:
        gates.append(Gate("coverage .99, mean", statistics.fmean(tails), 0.98, 0.995, "3,000 origins"))
        inside = statistics.fmean(0.98 <= value <= 0.995 for value in tails)
        gates.append(Gate("coverage .99, part of series inside", inside, 0, 1, "0.98 to 0.995; 3,000 origins; no bar"))
    return gates


def summary_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The gates, the same for the guard that picks, and each fixed choice's mean ratio to the best."""
    return {
        "tasks": len(rows),
        "gates": [{**dataclasses.asdict(gate), "passes": gate.passes} for gate in gates_of(rows)],
        "guard_that_picks": [dataclasses.asdict(gate) for gate in gates_of(rows, "guard_pick")],
        "fixed_choices_pinball_90": {
            name: mean_ratio(rows, name, CLASSICAL, "pinball_90") for name in ("last", *CLASSICAL)
        },
        "by_horizon_bins": {
            str(bins): mean_ratio(some, "guard", CLASSICAL, "pinball_90")
            for bins in sorted({round(row["horizon_s"] / row["bin_s"]) for row in rows})
            if (some := [row for row in rows if round(row["horizon_s"] / row["bin_s"]) == bins])
        },
    }


def main() -> None:
    """Measures, prints the gates and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", metavar="TRACE", nargs="*", help="by default those of bench/data/forecast")
    parser.add_argument("--out", default=str(RESULTS / "forecast_accuracy.json"))
    parser.add_argument("--no-peers", action="store_true", help="leave statsmodels out")
    args = parser.parse_args()
    traces = args.traces or [EMBEDDED_NAME, *map(str, sorted(DATA.glob("*.csv.gz")))]
    began = time.perf_counter()
    found = {
        "real": rows_of(variants(traces), with_peers=not args.no_peers),
        "made_up": rows_of(made_up(), with_peers=False),
    }
    document = {
        "machine": machine.describe(),
        "command": " ".join(("python -m bench.macro.forecast_accuracy", *(Path(name).name for name in args.traces))),
        "wall_s": time.perf_counter() - began,
        "summary": {name: summary_of(rows) for name, rows in found.items()},
        "series": found,
    }
    Path(args.out).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    for name, rows in found.items():
        print(f"\n{name}: {len(rows)} tasks")
        for gate in gates_of(rows):
            verdict = "ok  " if gate.passes else "MISS"
            print(f"  {verdict} {gate.name}: {gate.value:.4f} ({gate.low:g} to {gate.high:g}) {gate.of}")


if __name__ == "__main__":
    main()
