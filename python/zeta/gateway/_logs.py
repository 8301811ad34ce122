"""Logs as lines of JSON, of which no key and no prompt is ever a part."""

from __future__ import annotations

import datetime
import json
import logging
import re
import sys
import traceback
from types import TracebackType
from typing import Any, Final, TextIO

from zeta.errors import ZetaError

__all__ = ["REQUESTS", "JsonLines", "log_request", "set_up_logs"]

REQUESTS: Final = logging.getLogger("zeta.gateway.requests")
"""One line for each request, at level INFO."""

# What a record may carry beside its message. Anything else that a caller attaches is left out.
_FIELDS: Final = (
    "request_id",
    "tenant",
    "model",
    "replica",
    "class",
    "outcome",
    "reason",
    "status",
    "code",
    "queue_ms",
    "decision_us",
    "ttft_ms",
    "took_ms",
    "output_tokens",
    "tries",
    "host",
    "port",
    "models",
    "replicas",
    "running",
    "url",
    "why",
    "failures",
    "pause_s",
)
_SECRETS: Final = re.compile(r"(?i)\b(bearer\s+)\S+|\bsk-[\w-]{4,}|(?<=://)[^/\s:@]+:[^/\s@]+@")
_OWN_WORDS: Final = (ZetaError, OSError)
_FRAMES: Final = 6
_MOST: Final = 2000  # characters of one text


class JsonLines(logging.Formatter):
    """A record as one line: time, level, logger, message, and the fields that are known.

    An exception is its type and where it came from. Its own words are added only where they are zeta's or the kernel's:
    those of others may repeat what a client sent.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        found: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _clean(record.getMessage()),
        }
        given = record.__dict__
        found |= {name: _clean(given[name]) for name in _FIELDS if given.get(name) is not None}
        if record.exc_info and record.exc_info[1] is not None:
            found |= _error(record.exc_info[1], record.exc_info[2])
        return json.dumps(found, default=_named)


def set_up_logs(level: str = "INFO", *, has_requests: bool = False, stream: TextIO | None = None) -> logging.Handler:
    """Has zeta's and asyncio's logs written as lines of JSON.

    Parameters
    ----------
    level : str, default "INFO"
        The lowest that is written.
    has_requests : bool, default False
        Whether each request gets a line: some 30 µs apiece.
    stream : text file, optional
        The error stream by default.

    Returns
    -------
    logging.Handler
        What was added, in place of any that an earlier call added.
    """
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonLines())
    for name, lowest in (("zeta", level), ("asyncio", "WARNING")):
        logger = logging.getLogger(name)
        for old in [each for each in logger.handlers if isinstance(each.formatter, JsonLines)]:
            logger.removeHandler(old)
        logger.addHandler(handler)
        logger.setLevel(lowest)
        logger.propagate = False
    REQUESTS.setLevel(logging.INFO if has_requests else logging.WARNING)
    return handler


def log_request(**fields: Any) -> None:
    """Writes the line of a request that is over: ``request_id``, ``model``, ``class``, ``queue_ms``, ``reason``, ….

    Where these lines are not wanted this costs a call: ask ``REQUESTS.isEnabledFor(logging.INFO)`` first.
    """
    REQUESTS.info("request", extra=fields)


def _error(error: BaseException, where: TracebackType | None) -> dict[str, Any]:
    frames = traceback.extract_tb(where)[-_FRAMES:]
    found: dict[str, Any] = {
        "error": type(error).__name__,
        "at": [f"{_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames],
    }
    if isinstance(error, _OWN_WORDS):
        found["error_message"] = _clean(str(error))
    return found


def _short(path: str) -> str:
    return "/".join(path.split("/")[-3:])


def _clean(value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return _SECRETS.sub(lambda found: f"{found[1] or ''}***", value)[:_MOST]
    if isinstance(value, float):
        return round(value, 3)
    return value


def _named(value: Any) -> str:
    """What JSON does not know is named by its type, not shown."""
    return f"<{type(value).__name__}>"
