"""The four load predictors of NVIDIA Dynamo's planner, over the libraries that it uses itself, with its defaults.

What is known in public (``components/src/dynamo/planner/core/load/predictors.py`` and ``config/defaults.py`` of
ai-dynamo/dynamo): one series per quantity, a point for the next interval and nothing further, zeros before the first
load skipped, the last value until five points are there.

- constant: the last value.
- arima: pmdarima's ``auto_arima`` on all history once; one observation at a time is added to that model afterwards.
  Where the order found has neither AR nor MA terms it is fitted once more on log(1 + y).
- kalman: filterpy, state (level, trend), process noise 1 and 0.1, observation noise 10.
- prophet: fitted anew for every prediction, on the last 50 points.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from bench.harness import Absent

__all__ = ["PREDICTORS", "Arima", "Constant", "Kalman", "Predictor", "Prophet", "need"]

FEWEST_POINTS = 5
PROPHET_WINDOW = 50
KALMAN_LEVEL_NOISE, KALMAN_TREND_NOISE, KALMAN_OBSERVATION_NOISE = 1.0, 0.1, 10.0


class Predictor(Protocol):
    """Takes a value for each interval; says what the next interval's will be."""

    def observe(self, value: float) -> None: ...
    def predict(self) -> float: ...


def need(module: str) -> None:
    """Raises `Absent` where `module` is not installed."""
    if importlib.util.find_spec(module) is None:
        raise Absent(f"{module}: pip install --group bench-forecast")


class _SkipsIdleStart:
    """Counts points and leaves out the zeros before the first load."""

    def __init__(self) -> None:
        self.points = 0
        self.last = 0.0

    def takes(self, value: float) -> bool:
        if self.points == 0 and value == 0.0:
            return False
        self.points += 1
        self.last = value
        return True


class Constant:
    """The last value."""

    def __init__(self) -> None:
        self._last = 0.0

    def observe(self, value: float) -> None:
        self._last = value

    def predict(self) -> float:
        return self._last


class Arima:
    """Order chosen once, parameters updated with every observation."""

    def __init__(self) -> None:
        need("pmdarima")
        self._start = _SkipsIdleStart()
        self._history: list[float] = []
        self._waiting: list[float] = []
        self._model: Any = None
        self._in_logs = False

    @property
    def order(self) -> str | None:
        """What the search chose, for the result file."""
        if self._model is None:
            return None
        return f"{'log1p ' if self._in_logs else ''}{self._model.order}"

    def observe(self, value: float) -> None:
        if self._start.takes(value):
            self._waiting.append(value)
            if self._model is None:
                self._history.append(value)

    def predict(self) -> float:
        if self._start.points < FEWEST_POINTS:
            return self._start.last
        if self._model is None and min(self._history) == max(self._history):
            return self._history[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return self._predict()
            except Exception:  # whatever the fit raises, the planner logs it and uses the last value
                self._waiting.clear()
                return self._start.last

    def _predict(self) -> float:
        import pmdarima

        if self._model is None:
            self._model = pmdarima.auto_arima(self._history, suppress_warnings=True, error_action="ignore")
            p, _, q = self._model.order
            if p == q == 0:
                self._in_logs = True
                logs = np.log1p(self._history)
                self._model = pmdarima.auto_arima(logs, suppress_warnings=True, error_action="ignore")
            self._history = []
        elif self._waiting:
            self._model.update(np.log1p(self._waiting) if self._in_logs else self._waiting)
        self._waiting = []
        ahead = float(self._model.predict(n_periods=1)[0])
        return max(0.0, math.expm1(ahead) if self._in_logs else ahead)


class Kalman:
    """Local linear trend with fixed noises."""

    def __init__(self) -> None:
        need("filterpy")
        from filterpy.kalman import KalmanFilter

        self._filter = KalmanFilter(dim_x=2, dim_z=1)
        self._filter.F = np.array([[1.0, 1.0], [0.0, 1.0]])
        self._filter.H = np.array([[1.0, 0.0]])
        self._filter.P *= 1000.0
        self._filter.Q = np.diag([KALMAN_LEVEL_NOISE, KALMAN_TREND_NOISE])
        self._filter.R = np.array([[KALMAN_OBSERVATION_NOISE]])
        self._start = _SkipsIdleStart()
        self._is_ahead = False

    def observe(self, value: float) -> None:
        if not self._start.takes(value):
            return
        if self._start.points == 1:
            self._filter.x = np.array([[value], [0.0]])
            return
        self._step()
        self._filter.update(np.array([[value]]))
        self._is_ahead = False

    def predict(self) -> float:
        if self._start.points == 0:
            return 0.0
        self._step()
        return float(self._filter.x[0, 0])

    def _step(self) -> None:
        if not self._is_ahead:
            self._filter.predict()
            self._is_ahead = True


class Prophet:
    """A new fit for every prediction; `interval_s` between points."""

    def __init__(self, interval_s: float) -> None:
        need("prophet")
        import prophet

        for name in ("prophet.plot", "cmdstanpy"):
            logging.getLogger(name).disabled = True  # two lines for every fit
        self._fresh = prophet.Prophet
        self._start = _SkipsIdleStart()
        self._interval_s = interval_s
        self._window: deque[tuple[int, float]] = deque(maxlen=PROPHET_WINDOW)

    def observe(self, value: float) -> None:
        if self._start.takes(value):
            self._window.append((self._start.points - 1, value))

    def predict(self) -> float:
        if len(self._window) < FEWEST_POINTS:
            return self._start.last
        import pandas

        first = pandas.Timestamp(2024, 1, 1)

        def stamp(step: int) -> Any:
            return first + pandas.Timedelta(seconds=step * self._interval_s)

        frame = pandas.DataFrame({"ds": [stamp(at) for at, _ in self._window], "y": [y for _, y in self._window]})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = self._fresh()
            model.fit(frame)
            ahead = model.predict(pandas.DataFrame({"ds": [stamp(self._start.points)]}))
        return max(0.0, float(ahead["yhat"].iloc[0]))


PREDICTORS: dict[str, Callable[[float], Predictor]] = {
    "constant": lambda _interval_s: Constant(),
    "arima": lambda _interval_s: Arima(),
    "kalman": lambda _interval_s: Kalman(),
    "prophet": Prophet,
}
"""Each by its name in the planner's settings, made for an interval in seconds."""
