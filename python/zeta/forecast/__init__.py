"""Forecasts of arrivals and of work: series, features, candidates and the guard that chooses among them."""

from __future__ import annotations

from zeta.forecast.backtest import BacktestResult, Score, SeriesScore, backtest, backtest_series
from zeta.forecast.forecaster import FakeForecaster, Forecast, Forecaster, LastValue, LoadForecaster
from zeta.forecast.remote import FakeTransport, RemoteForecaster, Transport
from zeta.forecast.series import BinnedSeries, Dataset, Target, dataset, read_series
from zeta.forecast.transports import HttpTransport, RedisTransport

__all__ = [
    "BacktestResult",
    "BinnedSeries",
    "Dataset",
    "FakeForecaster",
    "FakeTransport",
    "Forecast",
    "Forecaster",
    "HttpTransport",
    "LastValue",
    "LoadForecaster",
    "RedisTransport",
    "RemoteForecaster",
    "Score",
    "SeriesScore",
    "Target",
    "Transport",
    "backtest",
    "backtest_series",
    "dataset",
    "read_series",
]
