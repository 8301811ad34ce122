"""Answers of the gateway's own: errors in OpenAI's form, and heads of replies."""

from __future__ import annotations

import http
import math
from typing import Final

import msgspec

from zeta.types import Outcome

__all__ = ["OUTCOMES", "Refusal", "error_event", "reply", "request_id_field", "stream_head"]

_LATEST_S: Final = 3600.0  # nobody knows so long ahead
_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
}


class Refusal(Exception):
    """A request that is answered by the gateway itself.

    Parameters
    ----------
    status : int
        HTTP status.
    message : str
        What was given, what is expected, what to do next. Never holds a key or text of a prompt.
    code : str
        For programs.
    param : str, optional
        The key of the body that it is about.
    retry_after_s : float, optional
        When to try again.
    """

    def __init__(
        self, status: int, message: str, code: str, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s

    def body(self) -> bytes:
        """The error object."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})


# How a request that never reached a server is answered: status, sentence, code.
OUTCOMES: Final[dict[Outcome, tuple[int, str, str]]] = {
    Outcome.REJECTED_CAPACITY: (429, "the queue is full; try again later", "queue_full"),
    Outcome.REJECTED_INFEASIBLE: (
        429,
        "it could not start before its deadline, or fits no model; allow it more time, fewer tokens or more models",
        "cannot_start_in_time",
    ),
    Outcome.REJECTED_NO_REPLICA: (503, "no server of this model is up now; try again later", "no_replica"),
    Outcome.EXPIRED_IN_QUEUE: (503, "it waited for as long as it may; try again later", "queue_timeout"),
    Outcome.CANCELLED: (503, "it was withdrawn before it began", "cancelled"),
    Outcome.FAILED_REPLICA: (502, "its server failed; try again", "server_failed"),
    Outcome.FAILED_TIMEOUT: (504, "its server did not answer in time; try again", "server_timeout"),
}


def reply(
    status: int,
    body: bytes,
    *,
    fields: bytes = b"",
    content_type: bytes = b"application/json",
    keeps_alive: bool = True,
    retry_after_s: float | None = None,
) -> bytes:
    """A whole reply."""
    retry = (
        b"" if retry_after_s is None else b"Retry-After: %d\r\n" % math.ceil(min(_LATEST_S, max(1.0, retry_after_s)))
    )
    return b"%bContent-Type: %b\r\nContent-Length: %d\r\n%b%b%b\r\n%b" % (
        _status_line(status),
        content_type,
        len(body),
        retry,
        fields,
        b"" if keeps_alive else b"Connection: close\r\n",
        body,
    )


def stream_head(status: int, content_type: bytes, fields: bytes, *, keeps_alive: bool) -> bytes:
    """The head of a reply whose body follows in chunks."""
    return b"%bContent-Type: %b\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n%b%b\r\n" % (
        _status_line(status),
        content_type,
        fields,
        b"" if keeps_alive else b"Connection: close\r\n",
    )


def request_id_field(request_id: bytes) -> bytes:
    """The field by which an answer is found again in the logs."""
    return b"X-Request-Id: %b\r\n" % request_id


def error_event(message: str, code: str) -> bytes:
    """The last event of a stream that cannot go on."""
    error = {"message": message, "type": "server_error", "param": None, "code": code}
    return b"data: %b\n\n" % msgspec.json.encode({"error": error})


def _status_line(status: int) -> bytes:
    line = _LINES.get(status)
    return line if line is not None else b"HTTP/1.1 %d Unknown\r\n" % status


_LINES: Final = {one.value: f"HTTP/1.1 {one.value} {one.phrase}\r\n".encode() for one in http.HTTPStatus}
