"""A forecaster in Python beside a live router: it sees what arrives, and answers what loops and scaling ask."""

from __future__ import annotations

import weakref

import numpy as np

from zeta.errors import ForecastError
from zeta.forecast import Forecast, Forecaster
from zeta.scheduler import Router

__all__ = ["LiveForecast"]

_ARRIVALS, _WORK = 6, 7  # columns of Router._demands: so many, and so much work, since the router began
_WORK_RATE = 1


class LiveForecast:
    """Lets a `Forecaster` see what a router lets in. A `LoadForecast`, for `AllocationLoop`, `scale` and the driver.

    Parameters
    ----------
    router : Router
        Held weakly.
    forecaster : Forecaster
        With one row for each of the router's models, in their order, and time that begins at 0: a `LoadForecaster`, a
        `RemoteForecaster` with its `RemoteExchange`, or any other. It is called from one thread at a time.

    Raises
    ------
    ForecastError
        If the forecaster is for another number of models.

    Notes
    -----
    `update` never waits: a remote forecaster gives its last answer. Where nothing is valid, because there is no answer
    yet or it is too old, the answer is None, and whoever asked does without.
    """

    def __init__(self, router: Router, forecaster: Forecaster) -> None:
        self._router = weakref.ref(router)
        self._forecaster = forecaster
        self._models = {name: number for number, name in enumerate(router.model_names)}
        rows, _ = router._demands()
        self._seen = rows[:, (_ARRIVALS, _WORK)].copy()
        self._began_ns: int | None = None
        self._now_ns = 0
        self._forecast: Forecast | None = None
        models = forecaster.forecast(0).rates.shape[0]
        if models != len(self._models):
            raise ForecastError(
                f"the forecaster is for {models} models, the router has {len(self._models)}; "
                f"make it with models={len(self._models)}"
            )

    def update(self, now_ns: int) -> Forecast | None:
        """Counts what came since the last call, and takes the newest forecast. For once in a bin, or more often.

        Parameters
        ----------
        now_ns : int
            On any clock that does not go back.

        Returns
        -------
        Forecast or None
            None where the router is gone.

        Raises
        ------
        ClosedError
            If the router is closed.
        """
        router = self._router()
        if router is None:
            return None
        if self._began_ns is None:
            self._began_ns = now_ns
        self._now_ns = max(now_ns - self._began_ns, self._now_ns)
        rows, _ = router._demands()
        counts = rows[:, (_ARRIVALS, _WORK)]
        new = counts - self._seen
        if (new < 0).any():  # after a fork the child's router begins anew
            new = counts
        self._seen = counts.copy()
        for model in np.flatnonzero(new.any(axis=1)).tolist():
            self._forecaster.observe(model, float(new[model, 0]), float(new[model, 1]))
        self._forecast = self._forecaster.forecast(self._now_ns)
        return self._forecast

    @property
    def age_s(self) -> float | None:
        """Seconds from the newest bin that the forecast knows to the last update; None: nothing in it is valid."""
        forecast = self._forecast
        if forecast is None or not forecast.is_valid.any():
            return None
        return (self._now_ns - forecast.made_ns) * 1e-9

    def work_pace(self, model: str, horizon_s: float, quantile: float) -> float | None:
        """GPU-seconds per second that the model will bring, as a mean over the next `horizon_s` seconds.

        Between the forecast's horizons work is spread evenly, and quantiles are interpolated; None beyond them.
        """
        forecast, number = self._forecast, self._models.get(model)
        if forecast is None or number is None or not forecast.is_valid[number, _WORK_RATE]:
            return None
        horizons, quantiles = forecast.horizons_s, forecast.quantiles
        if not 0 < horizon_s <= horizons[-1] or not quantiles[0] <= quantile <= quantiles[-1]:
            return None
        rates = [float(np.interp(quantile, quantiles, row)) for row in forecast.rates[number, _WORK_RATE]]
        if horizon_s <= horizons[0]:
            return rates[0]
        work = [rate * length for rate, length in zip(rates, horizons, strict=True)]
        return float(np.interp(horizon_s, horizons, work)) / horizon_s
