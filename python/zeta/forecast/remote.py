"""Forecasts made elsewhere: what is sent, what is believed of the answer, and for how long. No thread, no clock.

`RemoteForecaster` is the half that the tick calls; `zeta.runtime.RemoteExchange` is the thread that talks to the other
side through a `Transport`. Between them are two places for one object each, so neither waits for the other.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import secrets
import threading
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zeta.errors import ForecastError
from zeta.forecast.forecaster import Forecast, _Bins, _blank

__all__ = ["FakeTransport", "RemoteForecaster", "RemoteRequest", "Transport"]

_MOST_RATE = 1e9


class Transport(Protocol):
    """Carries a request to a forecaster elsewhere and brings its answer. May block, up to its own deadline."""

    def exchange(self, request_id: str, body: bytes) -> bytes:
        """The answer to `body`. ForecastError where there is none."""
        ...

    def close(self) -> None:
        """Lets go of connections; a later exchange opens others."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RemoteRequest:
    """What is asked at the end of a bin.

    Parameters
    ----------
    request_id : str
        The answer carries it too.
    made_ns : int
        The end of the newest bin.
    rates : ndarray of float64, shape (bins, models, 2)
        Arrivals and GPU-seconds of work per second in the last bins, oldest first.
    """

    request_id: str
    made_ns: int
    rates: NDArray[np.float64]


class RemoteForecaster:
    """A `Forecaster` whose forecasts are made elsewhere: the last answer with its age, never a wait.

    Every request carries the whole window, so that the other side needs no memory and a lost request no repair. If the
    other side is slower than the bins, it gets the newest request and the others are dropped.

    Parameters
    ----------
    models : int
    bin_s : float
        Length of a bin in seconds.
    window_bins : int
        How many bins a request carries.
    max_age_s : float
        From this age on an answer is no longer valid, in seconds.
    start_ns : int
        When the first bin begins.

    Attributes
    ----------
    dropped : int
        Requests that a newer one replaced before they were sent.
    failures : int
        Exchanges that gave nothing to believe.
    last_failure : str or None
        Why the last exchange failed; None after one that did not.

    Raises
    ------
    ForecastError
        If a number is out of range.

    Notes
    -----
    A request is the JSON object ``{"id", "made_ns", "bin_s", "horizons_s", "quantiles", "rates"}`` with rates of shape
    (bins, models, 2). The answer is ``{"id", "rates"}`` with rates of shape (models, 2, horizons, quantiles): finite,
    from 0 to 10^9, not falling from one quantile to the next. Anything else is a failure, and the last answer ages.
    """

    def __init__(
        self,
        models: int,
        *,
        bin_s: float = 1.0,
        window_bins: int = 512,
        max_age_s: float = 10.0,
        start_ns: int = 0,
    ) -> None:
        if window_bins < 1 or not max_age_s > 0:
            raise ForecastError(f"window_bins = {window_bins}, max_age_s = {max_age_s}; expected 1 or more and above 0")
        self._bins = _Bins(models, bin_s, start_ns)
        self._nothing = _blank(models, bin_s, start_ns)
        self._max_age_ns = round(max_age_s * 1e9)
        self._window = np.zeros((0, models, 2))
        self._window_bins = window_bins
        self._prefix, self._numbers = secrets.token_hex(8), itertools.count()
        self._asked: collections.deque[RemoteRequest] = collections.deque(maxlen=1)
        self._is_asked = threading.Event()
        self._answer: Forecast | None = None
        self.dropped = 0
        self.failures = 0
        self.last_failure: str | None = None

    def observe(self, model: int, arrivals: float, work_s: float) -> None:
        """See `Forecaster`."""
        self._bins.open[model] += (arrivals, work_s)

    def forecast(self, now_ns: int) -> Forecast:
        """The last answer; nothing in it is valid where there is none, or it is too old."""
        ended_before_ns = self._bins.end_ns
        rates = self._bins.advance(now_ns)
        if rates is not None:
            ended = (self._bins.end_ns - ended_before_ns) // self._bins.bin_ns
            newest = np.broadcast_to(rates, (min(ended, self._window_bins), *rates.shape))
            self._window = np.concatenate((self._window, newest))[-self._window_bins :]
            self.dropped += len(self._asked)
            self._asked.append(RemoteRequest(f"{self._prefix}-{next(self._numbers)}", self._bins.end_ns, self._window))
            self._is_asked.set()
        answer = self._answer
        if answer is None or now_ns - answer.made_ns >= self._max_age_ns:
            if self._nothing.made_ns != self._bins.end_ns:
                self._nothing = dataclasses.replace(self._nothing, made_ns=self._bins.end_ns)
            return self._nothing
        return answer

    def age_s(self, now_ns: int) -> float | None:
        """Seconds since the end of the newest bin that the last answer knows; None before the first answer."""
        answer = self._answer
        return None if answer is None else (now_ns - answer.made_ns) / 1e9

    def serve_once(self, transport: Transport, timeout_s: float | None = None) -> bool:
        """Sends the newest request, if there is one within `timeout_s`, and keeps the answer. For one other thread.

        Returns
        -------
        bool
            Whether an answer was kept.
        """
        if not self._is_asked.wait(timeout_s):
            return False
        self._is_asked.clear()
        try:
            request = self._asked.popleft()
        except IndexError:
            return False  # it was served already
        try:
            answer = transport.exchange(request.request_id, self._body(request))
            rates = _believed(answer, request.request_id, self._nothing.rates.shape)
        except ForecastError as error:
            self.note_failure(str(error))
            return False
        self._answer = dataclasses.replace(
            self._nothing, made_ns=request.made_ns, rates=rates, is_valid=np.ones_like(self._nothing.is_valid)
        )
        self.last_failure = None
        return True

    def note_failure(self, why: str) -> None:
        """An exchange gave nothing to believe. For the thread that serves."""
        self.failures += 1
        self.last_failure = why

    def wake(self) -> None:
        """Lets a waiting `serve_once` return."""
        self._is_asked.set()

    def _body(self, request: RemoteRequest) -> bytes:
        said = {
            "id": request.request_id,
            "made_ns": request.made_ns,
            "bin_s": self._bins.bin_s,
            "horizons_s": self._nothing.horizons_s,
            "quantiles": self._nothing.quantiles,
            "rates": request.rates.tolist(),
        }
        return json.dumps(said, separators=(",", ":")).encode()


def _believed(answer: bytes, request_id: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    try:
        said: Any = json.loads(answer)
        is_ours = said["id"] == request_id
        rates = np.array(said["rates"], dtype=np.float64)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise ForecastError(
            f"the remote forecaster's answer cannot be read ({type(error).__name__}: {str(error)[:100]}); "
            'expected JSON with "id" and "rates"'
        ) from error
    if not is_ours:
        raise ForecastError('the remote forecaster answers another request; expected the "id" that it was sent')
    if rates.shape != shape:
        raise ForecastError(f"the remote forecaster's rates have shape {rates.shape}; expected {shape}")
    if not (np.isfinite(rates).all() and (rates >= 0).all() and (rates <= _MOST_RATE).all()):
        raise ForecastError("the remote forecaster's rates are not all numbers from 0 to 10^9")
    if (np.diff(rates, axis=-1) < 0).any():
        raise ForecastError("the remote forecaster's rates fall from one quantile to the next; expected ascending ones")
    return rates


class FakeTransport:
    """Answers by script. For tests.

    Parameters
    ----------
    answers : callable
        From the request as parsed to the answer's bytes; what it raises is raised.
    """

    def __init__(self, answers: Callable[[dict[str, Any]], bytes]) -> None:
        self._answers = answers
        self.asked: list[dict[str, Any]] = []

    def exchange(self, request_id: str, body: bytes) -> bytes:
        """See `Transport`."""
        said = json.loads(body)
        assert said["id"] == request_id
        self.asked.append(said)
        return self._answers(said)

    def close(self) -> None:
        """See `Transport`."""
