"""The forecaster's bars in their fast form: the embedded hour, and seeded series of other shapes.

The long form, on more real series and beside statsmodels, is ``python -m bench.macro.forecast_accuracy``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
import pytest

from zeta.forecast import BinnedSeries, SeriesScore, backtest_series, read_series
from zeta.traces import EMBEDDED_NAME

CLASSICAL = ("ewma", "kalman", "ridge_ar")


def series(name: str, counts: np.ndarray, bin_s: float = 1.0) -> BinnedSeries:
    rates = np.ascontiguousarray(counts, dtype=np.float64) / bin_s
    return BinnedSeries(name, "arrivals", bin_s, rates, np.zeros(len(rates), dtype=np.uint8))


def switching(rng: np.random.Generator, bins: int, rates: Sequence[float], stay: Sequence[float]) -> np.ndarray:
    """Poisson counts whose rate jumps between a few levels."""
    state, found = 0, np.empty(bins)
    for i in range(bins):
        if rng.random() < 1 / stay[state]:
            state = int(rng.integers(len(rates)))
        found[i] = rates[state]
    return rng.poisson(found)


def judged() -> list[BinnedSeries]:
    rng = np.random.default_rng(20)
    day = 100 * (1.2 + np.sin(2 * np.pi * np.arange(14 * 144) / 144))
    return [
        *read_series(EMBEDDED_NAME),
        *read_series(EMBEDDED_NAME, bin_s=10),
        series("bursts", switching(rng, 6000, (0.3, 6.0, 25.0), (40, 15, 6))),
        series("levels", switching(rng, 12_000, (1.0, 4.0, 12.0), (400, 300, 100))),
        series("walk", rng.poisson(np.clip(4 * np.exp(np.cumsum(rng.normal(0, 0.03, 6000))), 0.05, 30))),
        series("batches", rng.negative_binomial(0.4, 0.4 / 3.4, 12_000)),
        series("steady", rng.poisson(5.0, 12_000)),
        series("sparse", rng.poisson(0.2, 6000)),
        series("season", rng.poisson(600 * day * np.exp(rng.normal(0, 0.05, len(day)))), 600.0),
    ]


@pytest.fixture(scope="module")
def scores() -> list[SeriesScore]:
    return [score for one in judged() for score in backtest_series(one) if score.origins >= 90]


def ratios(scores: Sequence[SeriesScore], of: str, to: Sequence[str], what: str) -> list[float]:
    return [
        getattr(one.candidates[of], what) / min(getattr(one.candidates[name], what) for name in to) for one in scores
    ]


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def test_the_guard_is_level_with_the_best_fixed_choice_in_hindsight(scores: list[SeriesScore]) -> None:
    assert len(scores) >= 20
    assert geometric_mean(ratios(scores, "guard", CLASSICAL, "pinball_90")) <= 1.02
    many = [one for one in scores if one.origins >= 350]
    assert max(ratios(many, "guard", CLASSICAL, "pinball_90")) <= 1.10


def test_no_fixed_choice_passes_that_bar(scores: list[SeriesScore]) -> None:
    """So the bar above is one that can be missed."""
    for name in ("last", *CLASSICAL):
        assert geometric_mean(ratios(scores, name, CLASSICAL, "pinball_90")) > 1.02, name


def test_the_guard_is_a_tenth_better_than_the_last_value(scores: list[SeriesScore]) -> None:
    assert geometric_mean(ratios(scores, "guard", ("last",), "pinball_90")) <= 0.90


def test_the_median_is_level_with_the_better_of_last_and_ewma(scores: list[SeriesScore]) -> None:
    assert geometric_mean(ratios(scores, "guard", ("last", "ewma"), "wape")) <= 1.02
    many = [one for one in scores if one.origins >= 350]
    assert max(ratios(many, "guard", ("last", "ewma"), "wape")) <= 1.08


def test_a_quantile_costs_two_fifths_less_than_the_median_where_too_few_cost_ten_times_too_many(
    scores: list[SeriesScore],
) -> None:
    costs = [one.candidates["guard"].cost_10_1_90 / one.candidates["guard"].cost_10_1_median for one in scores]
    assert statistics.median(costs) <= 0.60


def test_quantiles_cover_what_they_say(scores: list[SeriesScore]) -> None:
    covered = [one.candidates["guard"].coverage_90 for one in scores if one.origins >= 1000]
    assert len(covered) >= 10
    assert statistics.fmean(covered) == pytest.approx(0.90, abs=0.02)
    assert statistics.fmean(abs(value - 0.90) for value in covered) <= 0.02
    tails = [one.candidates["guard"].coverage_99 for one in scores if one.origins >= 3000]
    assert len(tails) >= 4
    assert 0.98 <= statistics.fmean(tails) <= 0.995
