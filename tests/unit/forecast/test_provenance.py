from __future__ import annotations

import dataclasses

import numpy as np

from zeta.forecast.provenance import fingerprint, provenance_of, seen_part
from zeta.forecast.series import BinnedSeries


def series(name: str = "day", bin_s: float = 1.0, bins: int = 600, seed: int = 0) -> BinnedSeries:
    rates = np.random.default_rng(seed).poisson(3.0, bins).astype(np.float64)
    return BinnedSeries(name, "arrivals", bin_s, rates, np.zeros(bins, dtype=np.uint8))


def test_a_series_that_was_not_trained_on_is_unseen() -> None:
    about = provenance_of([series()], until=0.7)
    assert seen_part(about, series("other day", seed=1)) == 0.0
    assert seen_part({}, series()) == 0.0


def test_a_series_is_known_by_its_numbers_whatever_its_name() -> None:
    about = provenance_of([series()], until=0.7)
    assert seen_part(about, dataclasses.replace(series(), name="renamed")) == 0.7


def test_a_file_is_known_by_its_name_at_other_bins() -> None:
    about = provenance_of([series()], until=1.0)
    assert seen_part(about, series(bin_s=10.0, bins=60, seed=2)) == 1.0


def test_a_name_alone_does_not_make_another_day_seen() -> None:
    about = provenance_of([series()], until=1.0)
    assert seen_part(about, series(bins=900, seed=2)) == 0.0


def test_work_and_arrivals_of_one_file_are_two_series() -> None:
    about = provenance_of([series()], until=0.7)
    assert seen_part(about, dataclasses.replace(series(seed=3), target="work")) == 0.0


def test_a_fingerprint_changes_with_rates_gaps_bins_and_target() -> None:
    base = series()
    gap = base.is_gap.copy()
    gap[5] = 1
    rates = base.rates.copy()
    rates[-1] += 1.0
    others = [
        dataclasses.replace(base, is_gap=gap),
        dataclasses.replace(base, rates=rates),
        dataclasses.replace(base, bin_s=2.0),
        dataclasses.replace(base, target="work"),
    ]
    assert len({fingerprint(one) for one in (base, *others)}) == 5
