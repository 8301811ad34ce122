"""Judges the forecasters on a series: rolling origin, the last 30 %, the C++ code that runs live."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from zeta._core import forecast_backtest, forecast_layout
from zeta.errors import ConfigError
from zeta.forecast.artefact import Artefact
from zeta.forecast.onnx import open_net
from zeta.forecast.provenance import seen_part
from zeta.forecast.series import BinnedSeries, Target, dataset, read_series

__all__ = [
    "CANDIDATES",
    "SCORED_FROM",
    "BacktestResult",
    "NetRun",
    "Score",
    "SeriesScore",
    "backtest",
    "backtest_series",
    "default_horizons",
]

SCORED_FROM = 0.7
"""Part of a series that forecasters only learn from, online."""

CANDIDATES = ("last", "ewma", "kalman", "ridge_ar", "net", "guard")

_LEAST_SPANS = 10
_NET_ROWS = 256


class NetRun(Protocol):
    """What runs a net: features of shape (rows, features) to outputs of shape (rows, outputs), both float32."""

    def __call__(self, features: NDArray[np.float32], /) -> NDArray[np.float32]: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """What one forecaster's answers were worth.

    Attributes
    ----------
    wape : float or None
        Sum of absolute errors of the median ÷ sum of the actual; None where nothing came at all.
    pinball_50, pinball_90, pinball_99 : float
        Mean pinball loss of each quantile, in the series' unit.
    coverage_90, coverage_99 : float
        Part of the targets that were not above the quantile.
    cost_10_1_median, cost_10_1_90 : float
        Mean cost of providing the median or the 0.9 quantile where a unit too few costs 10 and one too many 1.
    """

    wape: float | None
    pinball_50: float
    pinball_90: float
    pinball_99: float
    coverage_90: float
    coverage_99: float
    cost_10_1_median: float
    cost_10_1_90: float


@dataclasses.dataclass(frozen=True, slots=True)
class SeriesScore:
    """All candidates on one series and one horizon.

    Attributes
    ----------
    name : str
        The series'; see `BinnedSeries`.
    target : {"arrivals", "work"}
    bin_s, horizon_s : float
        Length of a bin, and of the span whose mean rate is forecast.
    origins : int
        Instants at which a forecast was made and scored.
    candidates : mapping of str to Score
        By name of `CANDIDATES`; ``net`` only where there is one for this horizon.
    """

    name: str
    target: Target
    bin_s: float
    horizon_s: float
    origins: int
    candidates: Mapping[str, Score]

    def to_dict(self) -> dict[str, Any]:
        """As ``zeta backtest --json`` writes it."""
        return {
            "name": self.name,
            "target": self.target,
            "bin_s": self.bin_s,
            "horizon_s": self.horizon_s,
            "origins": self.origins,
            "candidates": {name: dataclasses.asdict(score) for name, score in self.candidates.items()},
        }


@dataclasses.dataclass(frozen=True, slots=True)
class BacktestResult:
    """Scores of every series and horizon, in the order of the traces; what a reader should know beside them."""

    series: tuple[SeriesScore, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As ``zeta backtest --json`` writes it."""
        return {"series": [one.to_dict() for one in self.series]}

    def write_json(self, path: str | os.PathLike[str]) -> None:
        """Writes `to_dict` as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")


def default_horizons(bins: int) -> list[int]:
    """The horizons of the layout (1, 10, 60, 180, 600 bins) that fit ten times into the scored part of a series.

    With fewer spans than that the score of an overlapping horizon is chance. The shortest is always among them.
    """
    scored = bins - int(SCORED_FROM * bins)
    known: list[int] = list(forecast_layout()["horizon_bins"])
    return [h for h in known if h == 1 or h * _LEAST_SPANS <= scored]


def backtest_series(
    series: BinnedSeries,
    *,
    horizon_bins: Sequence[int] | None = None,
    net: NetRun | None = None,
    rule: Literal["blend", "pick"] = "blend",
) -> tuple[SeriesScore, ...]:
    """Scores the forecasters on the last 30 % of one series.

    Parameters
    ----------
    series : BinnedSeries
        Forecasters walk all of it online, and no forecast sees a later bin. Missing bins are no origins, and a target
        with one in it is not scored.
    horizon_bins : sequence of int, optional
        By default `default_horizons`.
    net : callable, optional
        Runs a net; it takes part at the horizons that it was made for.
    rule : {"blend", "pick"}
        How the guard makes one forecast of several.

    Returns
    -------
    tuple of SeriesScore
        One for each horizon that has an origin.
    """
    horizons = default_horizons(len(series)) if horizon_bins is None else list(dict.fromkeys(horizon_bins))
    outputs = None if net is None else _outputs(net, dataset(series, [1]).features)
    found = forecast_backtest(
        series.rates,
        series.is_gap,
        bin_s=series.bin_s,
        target=series.target,
        arrival_rates=series.arrival_rates,
        start_s=series.start_s,
        horizon_bins=horizons,
        first_origin=max(int(SCORED_FROM * len(series)) - 1, 0),
        net=outputs,
        rule=rule,
    )
    scores = []
    for bins, candidates in found:
        if candidates["guard"] is None:
            continue
        origins = int(candidates["guard"]["origins"])
        kept = {
            name: Score(**{field.name: candidates[name][field.name] for field in dataclasses.fields(Score)})
            for name in CANDIDATES
            if candidates[name] is not None
        }
        scores.append(SeriesScore(series.name, series.target, series.bin_s, bins * series.bin_s, origins, kept))
    return tuple(scores)


def backtest(
    traces: Sequence[str | os.PathLike[str]],
    *,
    bin_s: float | None = None,
    horizons_s: Sequence[float] | None = None,
    artefact: Artefact | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> BacktestResult:
    """Scores the forecasters on every series of some traces.

    Parameters
    ----------
    traces : sequence of path-like
        Request traces and rate series; see `read_series`.
    bin_s : float, optional
        Length of a bin in seconds; by default the trace's own, or 1 s.
    horizons_s : sequence of float, optional
        In seconds, whole multiples of the bin. By default `default_horizons`.
    artefact : Artefact, optional
        A net to judge beside the others. It is left out on a series whose scored part it has seen in training.
    progress : callable, optional
        Called with the part that is done and what is next.

    Raises
    ------
    ConfigError
        If a horizon is no whole multiple of a bin, or there is no origin at all to score.
    TraceError
        If a trace cannot be read.
    """
    scores: list[SeriesScore] = []
    notes: list[str] = []
    net = None if artefact is None else open_net(artefact, max_rows=_NET_ROWS).run
    about = {} if artefact is None else artefact.manifest.about
    for number, trace in enumerate(traces):
        for series in read_series(trace, bin_s=bin_s):
            if progress is not None:
                progress(number / len(traces), f"{series.name} {series.target}")
            bins = None if horizons_s is None else [_bins_of(horizon, series) for horizon in horizons_s]
            is_seen = seen_part(about, series) > SCORED_FROM
            if is_seen:
                notes.append(f"the net has seen {series.name} ({series.target}) in training, so it is not scored there")
            scores.extend(backtest_series(series, horizon_bins=bins, net=None if is_seen else net))
    if not scores:
        raise ConfigError(
            "no origin to score: the last 30 % of the series are shorter than every horizon; give a shorter one",
            "horizon",
        )
    return BacktestResult(tuple(scores), tuple(notes))


def _bins_of(horizon_s: float, series: BinnedSeries) -> int:
    bins = round(horizon_s / series.bin_s)
    if not (1 <= bins <= 100_000) or abs(bins * series.bin_s - horizon_s) > 1e-6 * horizon_s:
        allowed = f"a whole multiple of its bins of {series.bin_s:g} s"
        raise ConfigError(
            f"horizon {horizon_s:g} s on {series.name}; expected {allowed}", "horizon", horizon_s, allowed
        )
    return bins


def _outputs(net: NetRun, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """The net's outputs for every bin, in the small batches that it is made for."""
    parts = [net(np.ascontiguousarray(features[at : at + _NET_ROWS])) for at in range(0, len(features), _NET_ROWS)]
    return np.ascontiguousarray(np.concatenate(parts), dtype=np.float32)
