"""Forecasters of the load of several models, behind one Protocol, with a fake to test with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from zeta._core import LoadForecasterCore, forecast_layout
from zeta.errors import ForecastError

__all__ = ["FakeForecaster", "Forecast", "Forecaster", "LastValue", "LoadForecaster"]

_HORIZONS: tuple[int, ...] = tuple(forecast_layout()["horizon_bins"])
_QUANTILES: tuple[float, ...] = tuple(forecast_layout()["quantiles"])
_NS_PER_S = 1_000_000_000


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """What is expected of each model, as seen at one instant.

    Attributes
    ----------
    made_ns : int
        The end of the newest bin that it knows.
    horizons_s : tuple of float
        Lengths of the spans after `made_ns` whose mean rate is forecast.
    quantiles : tuple of float
        Probabilities, ascending.
    rates : ndarray of float64, shape (models, 2, horizons, quantiles)
        Requests per second, then GPU-seconds of work per second; not negative, not falling from one quantile to the
        next.
    is_valid : ndarray of bool, shape (models, 2)
        Where it is not, the rates are 0 and mean nothing.
    is_net_used : bool
        Whether a net's answer is in it.
    """

    made_ns: int
    horizons_s: tuple[float, ...]
    quantiles: tuple[float, ...]
    rates: NDArray[np.float64]
    is_valid: NDArray[np.bool_]
    is_net_used: bool = False


class Forecaster(Protocol):
    """Something that forecasts the load of several models. One caller at a time; no call blocks."""

    def observe(self, model: int, arrivals: float, work_s: float) -> None:
        """Requests of a model and their predicted GPU-seconds since the last call."""
        ...

    def forecast(self, now_ns: int) -> Forecast:
        """What is expected from the newest ended bin on; the same object until the next one ends."""
        ...


class _Bins:
    """Closes bins of one length; what came since the last closing is spread over them."""

    def __init__(self, models: int, bin_s: float, start_ns: int) -> None:
        if models < 1 or not bin_s > 0:
            raise ForecastError(f"models = {models}, bin_s = {bin_s}; expected at least 1 and above 0")
        self.bin_s = bin_s
        self.bin_ns = round(bin_s * _NS_PER_S)
        self.end_ns = start_ns
        self.open = np.zeros((models, 2))

    def advance(self, now_ns: int) -> NDArray[np.float64] | None:
        """Mean rates over the bins that have ended, or None if none has."""
        ended = (now_ns - self.end_ns) // self.bin_ns
        if ended < 1:
            return None
        rates = self.open / (self.bin_s * ended)
        self.open = np.zeros_like(self.open)
        self.end_ns += ended * self.bin_ns
        return rates


class LastValue:
    """Expects what came in the last bin, at every quantile: the plainest `Forecaster`.

    Parameters
    ----------
    models : int
    bin_s : float
        Length of a bin in seconds.
    start_ns : int
        When the first bin begins.
    """

    def __init__(self, models: int, *, bin_s: float = 1.0, start_ns: int = 0) -> None:
        self._bins = _Bins(models, bin_s, start_ns)
        self._now = _blank(models, bin_s, start_ns)

    def observe(self, model: int, arrivals: float, work_s: float) -> None:
        """See `Forecaster`."""
        self._bins.open[model] += (arrivals, work_s)

    def forecast(self, now_ns: int) -> Forecast:
        """See `Forecaster`."""
        rates = self._bins.advance(now_ns)
        if rates is not None:
            self._now = dataclasses.replace(
                self._now,
                made_ns=self._bins.end_ns,
                rates=np.broadcast_to(rates[:, :, None, None], self._now.rates.shape).copy(),
                is_valid=np.ones_like(self._now.is_valid),
            )
        return self._now


class FakeForecaster:
    """Says what it was told to: a `Forecaster` for tests.

    Parameters
    ----------
    script : mapping of int to array_like
        From an instant in nanoseconds on, these rates, of shape (models, 2, horizons, quantiles) or one that broadcasts
        to it; None for no valid forecast. Before the first instant nothing is valid.
    models : int
    bin_s : float
        What `horizons_s` are multiples of.

    Attributes
    ----------
    observed : list of (int, float, float)
        The arguments of every `observe`.
    """

    def __init__(self, script: Mapping[int, Any], *, models: int, bin_s: float = 1.0) -> None:
        self._script = sorted(script.items())
        self._blank = _blank(models, bin_s, 0)
        self._bin_ns = round(bin_s * _NS_PER_S)
        self.observed: list[tuple[int, float, float]] = []

    def observe(self, model: int, arrivals: float, work_s: float) -> None:
        """See `Forecaster`."""
        self.observed.append((model, arrivals, work_s))

    def forecast(self, now_ns: int) -> Forecast:
        """See `Forecaster`."""
        made_ns = now_ns // self._bin_ns * self._bin_ns
        told = [rates for from_ns, rates in self._script if from_ns <= now_ns]
        if not told or told[-1] is None:
            return dataclasses.replace(self._blank, made_ns=made_ns)
        rates = np.broadcast_to(np.asarray(told[-1], dtype=np.float64), self._blank.rates.shape).copy()
        return dataclasses.replace(
            self._blank, made_ns=made_ns, rates=rates, is_valid=np.ones_like(self._blank.is_valid)
        )


class LoadForecaster:
    """The forecaster of the allocation loop, on numpy: candidates, guard and, where given, a net. A `Forecaster`.

    Parameters
    ----------
    models : int
        At most 32.
    bin_s : float
        Length of a bin in seconds.
    horizon_bins : sequence of 5 int, optional
        By default 1, 10, 60, 180 and 600, for which nets are made.
    start_ns : int
        When the first bin begins.
    week_phase_s : float, optional
        Seconds from a Monday's midnight at instant 0, where the wall clock is known.
    net : optional
        The ``core`` of a `zeta.forecast.onnx.NativeNet`, or a function from features to outputs. What it raises, and
        what is no sound number, is no answer; the forecast goes on without it.
    rule : {"blend", "pick"}
        How the guard makes one forecast of several.
    """

    def __init__(
        self,
        models: int,
        *,
        bin_s: float = 1.0,
        horizon_bins: Sequence[int] | None = None,
        start_ns: int = 0,
        week_phase_s: float | None = None,
        net: Any = None,
        rule: Literal["blend", "pick"] = "blend",
    ) -> None:
        horizons = tuple(horizon_bins or _HORIZONS)
        self._core = LoadForecasterCore(
            models,
            bin_s=bin_s,
            horizon_bins=list(horizons),
            start_ns=start_ns,
            week_phase_s=week_phase_s,
            rule=rule,
        )
        self.net = net
        self._bin_ns = round(bin_s * _NS_PER_S)
        blank = _blank(models, bin_s, start_ns)
        self._now = dataclasses.replace(blank, horizons_s=tuple(h * bin_s for h in horizons))

    def observe(self, model: int, arrivals: float, work_s: float) -> None:
        """See `Forecaster`."""
        self._core.observe(model, arrivals, work_s)

    def mark_missing(self, model: int) -> None:
        """Nobody counted this model for some of the open bin: it is missing, not zero."""
        self._core.mark_missing(model)

    def forecast(self, now_ns: int) -> Forecast:
        """See `Forecaster`."""
        ended = self._core.advance(now_ns)
        if ended:
            used = self._core.predict(self.net)
            self._now = dataclasses.replace(
                self._now,
                made_ns=self._now.made_ns + ended * self._bin_ns,
                rates=self._core.rates(),
                is_valid=self._core.is_valid(),
                is_net_used=used,
            )
        return self._now


def _blank(models: int, bin_s: float, made_ns: int) -> Forecast:
    return Forecast(
        made_ns=made_ns,
        horizons_s=tuple(h * bin_s for h in _HORIZONS),
        quantiles=_QUANTILES,
        rates=np.zeros((models, 2, len(_HORIZONS), len(_QUANTILES))),
        is_valid=np.zeros((models, 2), dtype=np.bool_),
    )
