"""Forecasts of arrivals and of work: series, features, candidates and the guard that chooses among them."""

from __future__ import annotations

from zeta.forecast.series import BinnedSeries, Dataset, Target, dataset, read_series

__all__ = ["BinnedSeries", "Dataset", "Target", "dataset", "read_series"]
