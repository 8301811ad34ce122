"""Made-up load: many short series of many kinds, so that a net learns to judge a series from its window alone.

A few days of a few services teach a net those services. Here each series has its own persistence, noise, seasons, steps
and bursts, drawn over orders of magnitude, so that what helps on all of them is reading the window: how noisy, how
lasting, how bursty. Nothing in here is a measurement.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from zeta.forecast.series import BinnedSeries

__all__ = ["synthetic_series"]

FloatArray = NDArray[np.float64]

_BATCH = 64
_BIN_S = (1.0, 1.0, 1.0, 2.0, 5.0, 10.0, 60.0, 600.0)
_LOG_RATE_LIMIT = 4.0


def synthetic_series(count: int, bins: int, seed: int) -> Iterator[BinnedSeries]:
    """Yields `count` pairs of arrivals and work of `bins` bins each; the same seed gives the same series.

    One in eight is a rate without single requests, as an aggregated log holds it, and comes without work.
    """
    rng = np.random.default_rng([seed, 0x5EED])
    made = 0
    while made < count:
        batch = min(_BATCH, count - made)
        for column, rates in enumerate(_rates(rng, bins, batch).T, start=made):
            yield from _observed(rng, rates, f"synthetic-{seed}-{column}")
        made += batch


def _rates(rng: np.random.Generator, bins: int, batch: int) -> FloatArray:
    """The true rate of each series over time, mean 1, shape (bins, batch)."""
    t = np.arange(bins, dtype=np.float64)
    log_rate = np.zeros((bins, batch))
    for chance in (1.0, 0.6, 0.3):  # sums of first-order processes of any persistence
        lasting = 10.0 ** rng.uniform(0.3, 3.7, batch)
        spread = np.abs(rng.normal(size=batch)) * 10.0 ** rng.uniform(-1.3, -0.1, batch)
        log_rate += _first_order(rng, bins, lasting, spread * (rng.random(batch) < chance))
    period = 10.0 ** rng.uniform(1.5, 4.0, batch)
    swing = 0.5 * rng.normal(size=batch) * (rng.random(batch) < 0.3)
    log_rate += swing * np.sin(2 * np.pi * (t[:, None] / period + rng.random(batch)))
    is_step = rng.random((bins, batch)) < 10.0 ** rng.uniform(-3.5, -2.3, batch) * (rng.random(batch) < 0.3)
    log_rate += np.cumsum(np.where(is_step, 0.4 * rng.normal(size=(bins, batch)), 0.0), axis=0)
    rates: FloatArray = np.exp(np.clip(log_rate, -_LOG_RATE_LIMIT, _LOG_RATE_LIMIT))
    for column in range(batch):
        if rng.random() < 0.4:
            start = rng.random(bins) < 10.0 ** rng.uniform(-3.0, -1.5)
            is_on = _spells(rng, np.flatnonzero(start), 10.0 ** rng.uniform(0.0, 2.3), bins)
            rates[:, column] *= np.where(is_on, 10.0 ** rng.uniform(0.2, 1.2), 1.0)
        if rng.random() < 0.1:
            rates[:, column] *= np.where(_on_and_off(rng, bins), 1.0, 0.02)
    rates /= rates.mean(axis=0)
    return rates


def _first_order(rng: np.random.Generator, bins: int, lasting: FloatArray, spread: FloatArray) -> FloatArray:
    """Gaussian processes that forget with time constants `lasting` (in bins) and have standard deviations `spread`."""
    keep = np.exp(-1.0 / lasting)
    shocks = rng.normal(size=(bins, len(lasting))) * spread * np.sqrt(1.0 - keep * keep)
    path = np.empty_like(shocks)
    state = rng.normal(size=len(lasting)) * spread
    for at in range(bins):
        state = keep * state + shocks[at]
        path[at] = state
    return path


def _spells(rng: np.random.Generator, starts: NDArray[np.int64], mean_bins: float, bins: int) -> NDArray[np.bool_]:
    is_on = np.zeros(bins, dtype=np.bool_)
    for start, length in zip(starts, rng.exponential(mean_bins, len(starts)), strict=True):
        is_on[start : start + 1 + int(length)] = True
    return is_on


def _on_and_off(rng: np.random.Generator, bins: int) -> NDArray[np.bool_]:
    means = 10.0 ** rng.uniform(0.5, 2.5, 2)
    lengths = 1 + rng.exponential(means, (bins, 2)).astype(np.int64)
    turns = np.cumsum(lengths.ravel())
    state: NDArray[np.bool_] = np.searchsorted(turns, np.arange(bins), side="right") % 2 == 0
    return state


def _observed(rng: np.random.Generator, rates: FloatArray, name: str) -> Iterator[BinnedSeries]:
    """Requests at those rates, and their work."""
    bins = len(rates)
    bin_s = float(rng.choice(_BIN_S))
    expected = rates * 10.0 ** rng.uniform(-0.7, 2.7)
    if rng.random() < 0.5:  # arrivals in clumps
        shape = 10.0 ** rng.uniform(-0.3, 1.5)
        expected = expected * rng.gamma(shape, 1.0 / shape, bins)
    no_gap = np.zeros(bins, dtype=np.uint8)
    if rng.random() < 0.125:
        yield BinnedSeries(name, "arrivals", bin_s, expected / bin_s, no_gap)
        return
    counts = rng.poisson(expected).astype(np.float64)
    shape = 10.0 ** rng.uniform(-0.8, 2.0)  # of one request's work: from heavy-tailed to equal
    work = rng.gamma(np.maximum(counts, 1e-9) * shape) / shape * (counts > 0)
    arrivals = counts / bin_s
    yield BinnedSeries(name, "arrivals", bin_s, arrivals, no_gap)
    unit_s = 10.0 ** rng.uniform(-2.0, 1.0)
    yield BinnedSeries(name, "work", bin_s, work * unit_s / bin_s, no_gap, arrivals)
