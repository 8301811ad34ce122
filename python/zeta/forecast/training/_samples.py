"""From series to rows that a net learns from, cut so that no row knows what it will be judged on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from zeta._core import forecast_layout
from zeta.forecast.series import BinnedSeries, dataset

__all__ = ["Rows", "Source", "rows_of", "sources_of", "variants"]

FloatArray = NDArray[np.float64]
Matrix = NDArray[np.float32]

_HORIZON_BINS: tuple[int, ...] = tuple(forecast_layout()["horizon_bins"])
_WARM_UP_BINS = 60
"""Before that many bins the level is hardly known, and live forecasts come from elsewhere."""
_FEWEST_ROWS = 50
_FEWEST_BINS = 200
_BIN_FACTORS = (2, 5, 10, 30, 60)
_FACTORS_KEPT = 3
_THINNED = (0.5, 0.15)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Some rows of one series.

    Attributes
    ----------
    features : ndarray of float32, shape (n, features)
    targets : ndarray of float32, shape (n, horizons)
        Multiples of the scale; NaN where the target is not for these rows to know.
    weights : ndarray of float32, shape (n, horizons)
        Scale of the row over the mean error of forecasting that scale: with them an error counts in the series' own
        units, and every series and horizon counts alike, however hard it is.
    """

    features: Matrix
    targets: Matrix
    weights: Matrix

    def __len__(self) -> int:
        return len(self.features)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What one series gives: rows to learn from, and later rows to stop by."""

    name: str
    bin_s: float
    learn: Rows
    stop: Rows | None


def rows_of(
    series: BinnedSeries, *, until: float, stop_from: float | None, most: int, rng: np.random.Generator
) -> Source | None:
    """Rows of `series`; None where it is too short to give any.

    Parameters
    ----------
    until : float
        Part of the series that may be known at all, in (0, 1]. A target that ends after it is left out, not only a row
        that begins after it.
    stop_from : float or None
        Where the rows to stop by begin, as a part of what may be known; targets to learn from end before it. None: all
        rows are learnt from.
    most : int
        Rows kept to learn from, drawn evenly.
    """
    # A few days of a few services would teach their clocks by heart (measured: median loss 1.09 instead of 1.05 of the
    # best smoother's). Seasons come from what was a day and a week ago, which every service brings along itself.
    data = dataset(dataclasses.replace(series, start_s=None))
    bins = len(series)
    end = int(until * bins)
    middle = end if stop_from is None else int(stop_from * end)
    targets = data.targets / data.scale[:, None]
    weights = data.scale[:, None] / _level_error(data.targets[:end], data.scale[:end], end)
    weights = np.where(np.isfinite(weights), weights, 0.0)

    def part(begin: int, stop: int, limit: int) -> Rows | None:
        kept = targets[begin:stop].copy()
        for column, horizon in enumerate(_HORIZON_BINS):
            kept[max(0, stop - begin - horizon) :, column] = np.nan  # row i's target ends with bin i + horizon
        at = np.flatnonzero(np.isfinite(kept).any(axis=1))
        if len(at) < _FEWEST_ROWS:
            return None
        if len(at) > limit:
            at = np.sort(rng.choice(at, limit, replace=False))
        features = data.features[begin:stop][at]
        return Rows(features, kept[at].astype(np.float32), weights[begin:stop][at].astype(np.float32))

    learn = part(min(_WARM_UP_BINS, bins // 10), middle, most)
    if learn is None:
        return None
    stop = None if stop_from is None else part(middle, end, most)
    return Source(f"{series.name}/{series.target}", series.bin_s, learn, stop)


def _level_error(targets: FloatArray, scale: FloatArray, end: int) -> FloatArray:
    """Mean absolute error of forecasting the scale, per horizon, over targets that end before `end`."""
    errors = np.empty(len(_HORIZON_BINS))
    for column, horizon in enumerate(_HORIZON_BINS):
        rows = slice(0, max(0, end - horizon))
        error = np.abs(targets[rows, column] - scale[rows])
        known = error[np.isfinite(error)]
        errors[column] = max(float(known.mean()), 1e-3 * float(scale.mean())) if len(known) else np.inf
    return errors


def variants(series: Sequence[BinnedSeries], seed: int) -> Iterator[BinnedSeries]:
    """Each series as it is, on coarser bins, and with requests left out at random (where it counts requests)."""
    rng = np.random.default_rng([seed, 0xB175])
    arrivals = {(one.name, one.bin_s): one for one in series if one.target == "arrivals"}
    for one in series:
        yield one
        factors = [factor for factor in _BIN_FACTORS if len(one) // factor >= _FEWEST_BINS]
        for factor in rng.permutation(factors)[:_FACTORS_KEPT]:
            yield _coarser(one, int(factor))
        counted = arrivals.get((one.name, one.bin_s))
        if one.target == "work" and counted is not None and _counts_requests(counted):
            for kept in _THINNED:
                yield from _thinned(counted, one, kept, rng)


def _coarser(series: BinnedSeries, factor: int) -> BinnedSeries:
    bins = len(series) // factor
    cut = slice(0, bins * factor)

    def means(values: FloatArray) -> FloatArray:
        mean: FloatArray = values[cut].reshape(bins, factor).mean(axis=1)
        return mean

    is_gap = series.is_gap[cut].reshape(bins, factor).any(axis=1)
    counts = series.arrival_rates
    return dataclasses.replace(
        series,
        bin_s=series.bin_s * factor,
        rates=np.where(is_gap, 0.0, means(series.rates)),
        is_gap=np.asarray(is_gap, dtype=np.uint8),
        arrival_rates=None if counts is None else means(counts),
    )


def _counts_requests(series: BinnedSeries) -> bool:
    counts = series.rates * series.bin_s
    return bool(np.all(np.abs(counts - np.rint(counts)) < 1e-6))


def _thinned(
    arrivals: BinnedSeries, work: BinnedSeries, kept: float, rng: np.random.Generator
) -> Iterator[BinnedSeries]:
    """Each request stays with probability `kept`; a bin's work shrinks with its requests."""
    counts = np.rint(arrivals.rates * arrivals.bin_s).astype(np.int64)
    left = rng.binomial(counts, kept)
    rates = left / arrivals.bin_s
    share = np.divide(left, counts, out=np.zeros(len(counts)), where=counts > 0)
    name = f"{arrivals.name} ({kept:.0%} of its requests)"
    yield dataclasses.replace(arrivals, name=name, rates=rates)
    yield dataclasses.replace(work, name=name, rates=work.rates * share, arrival_rates=rates)


def sources_of(
    series: Iterable[BinnedSeries],
    *,
    until: float,
    stop_from: float | None,
    most: int,
    seed: int,
) -> list[Source]:
    """`rows_of` over many series."""
    rng = np.random.default_rng([seed, 0x5A3])
    sources = []
    for one in series:
        source = rows_of(one, until=until, stop_from=stop_from, most=most, rng=rng)
        if source is not None:
            sources.append(source)
    return sources
