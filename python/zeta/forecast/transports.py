"""Ways to a forecaster elsewhere: an HTTP call, or two Redis streams."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

from zeta._http import Server, Unanswered
from zeta.errors import ForecastError, MissingExtraError

__all__ = ["HttpTransport", "RedisTransport"]


class HttpTransport:
    """POSTs each request to one address; the answer is the body of a 200.

    Parameters
    ----------
    url : str
        The whole address. Redirects are not followed.
    deadline_s : float
        For one exchange, in seconds.
    headers : mapping of str to str, optional
        Such as a key.

    Raises
    ------
    ValueError
        If the address or the deadline cannot be used.
    """

    def __init__(self, url: str, *, deadline_s: float = 2.0, headers: Mapping[str, str] | None = None) -> None:
        if not deadline_s > 0:
            raise ValueError(f"deadline_s = {deadline_s}; expected seconds above 0")
        self._server, self._deadline_s = Server(url, headers), deadline_s

    def exchange(self, request_id: str, body: bytes) -> bytes:  # noqa: ARG002 - it is in the body
        """See `Transport`."""
        try:
            answer = self._server.ask("POST", "", body, time.monotonic() + self._deadline_s)
        except Unanswered as error:
            raise ForecastError(f"the remote forecaster at {self._server.shown} {error.why}") from error
        if answer.status != 200:
            raise ForecastError(
                f"the remote forecaster at {self._server.shown} answers with {answer.status}; expected 200, see its log"
            )
        return answer.body

    def close(self) -> None:
        """See `Transport`."""


class RedisTransport:
    """Adds each request to one Redis stream and reads the answer from another, both bounded.

    Entries have the fields ``id`` and ``body``. The forecaster reads ``{stream}:requests`` and adds its answers, with
    the request's id, to ``{stream}:answers``; that one it trims itself.

    Parameters
    ----------
    url : str
        Such as ``redis://127.0.0.1:6379/0``.
    stream : str
        What the names of both streams begin with.
    deadline_s : float
        For the answer, in seconds. A server that is hung is given up a second later.
    keep : int
        About how many entries the stream of requests keeps.

    Raises
    ------
    MissingExtraError
        If the package ``redis`` is missing.
    ValueError
        If the deadline is not above 0.
    """

    def __init__(self, url: str, *, stream: str = "zeta:forecast", deadline_s: float = 2.0, keep: int = 16) -> None:
        if not deadline_s > 0:
            raise ValueError(f"deadline_s = {deadline_s}; expected seconds above 0")
        try:
            import redis
        except ImportError as error:
            raise MissingExtraError("a forecaster behind Redis", ["redis"], "redis") from error
        self._error: type[Exception] = redis.RedisError
        self._client: Any = redis.Redis.from_url(
            url, socket_timeout=deadline_s + 1.0, socket_connect_timeout=deadline_s, retry=None, retry_on_timeout=False
        )
        self._requests, self._answers = f"{stream}:requests", f"{stream}:answers"
        self._deadline_s, self._keep = deadline_s, keep

    def exchange(self, request_id: str, body: bytes) -> bytes:
        """See `Transport`."""
        until_s = time.monotonic() + self._deadline_s
        try:
            newest = self._client.xrevrange(self._answers, count=1)
            seen = newest[0][0] if newest else "0-0"
            self._client.xadd(self._requests, {"id": request_id, "body": body}, maxlen=self._keep, approximate=True)
            while (left_ms := int((until_s - time.monotonic()) * 1e3) - 20) > 0:
                for _, entries in self._client.xread({self._answers: seen}, block=left_ms) or ():
                    for seen, fields in entries:  # noqa: B007 - the last one seen is where the next read begins
                        if fields.get(b"id") == request_id.encode():
                            return bytes(fields.get(b"body", b""))
        except (self._error, OSError) as error:
            self.close()
            raise ForecastError(f"Redis fails ({type(error).__name__}: {error}); is the server up?") from error
        raise ForecastError(
            f"no answer in the stream {self._answers} within {self._deadline_s:g} s; "
            f"does a forecaster read {self._requests}?"
        )

    def close(self) -> None:
        """See `Transport`."""
        with contextlib.suppress(self._error, OSError):
            self._client.close()
