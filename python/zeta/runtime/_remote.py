"""The thread that talks to a forecaster elsewhere, so that the tick need not."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType

from zeta.errors import ForecastError
from zeta.forecast.remote import RemoteForecaster, Transport

__all__ = ["RemoteExchange"]

_CLOSE_S = 1.0
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 10.0


class RemoteExchange:
    """Serves one `RemoteForecaster` in a daemon thread: each request by one exchange, after failures ever less often.

    Parameters
    ----------
    forecaster : RemoteForecaster
    transport : Transport
        Used by that thread only.
    first_wait_s, longest_wait_s : float
        Pause after a first failure, in seconds; it doubles with each further one up to the longest.

    Notes
    -----
    Nothing starts before `start`. An exchange that hangs keeps neither the tick nor the interpreter's end waiting.
    """

    def __init__(
        self,
        forecaster: RemoteForecaster,
        transport: Transport,
        *,
        first_wait_s: float = _FIRST_WAIT_S,
        longest_wait_s: float = _LONGEST_WAIT_S,
    ) -> None:
        self._forecaster, self._transport = forecaster, transport
        self._first_wait_s, self._longest_wait_s = first_wait_s, longest_wait_s
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> RemoteExchange:
        """Starts the thread; again while it runs, does nothing."""
        if self._thread is None:
            self._is_closed.clear()
            self._thread = threading.Thread(target=self._run, name="zeta-remote-forecast", daemon=True)
            self._thread.start()
        return self

    def close(self) -> None:
        """Ends the thread, without waiting for an exchange that hangs."""
        thread, self._thread = self._thread, None
        self._is_closed.set()
        self._forecaster.wake()
        if thread is not None:
            thread.join(_CLOSE_S)

    def __enter__(self) -> RemoteExchange:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        wait_s = self._first_wait_s
        while not self._is_closed.is_set():
            failures = self._forecaster.failures
            try:
                self._forecaster.serve_once(self._transport)
            except Exception as error:  # whatever a stranger's transport raises
                self._forecaster.note_failure(f"the transport raised {type(error).__name__}: {error}")
            if self._forecaster.failures == failures:
                wait_s = self._first_wait_s
            elif self._is_closed.wait(wait_s):
                break
            else:
                wait_s = min(2 * wait_s, self._longest_wait_s)
        with contextlib.suppress(ForecastError, OSError):
            self._transport.close()
