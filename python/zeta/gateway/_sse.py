"""Events of a stream: whole ones go on as they came; the gateway reads of them only what it must."""

from __future__ import annotations

from typing import Any, Final

import msgspec

__all__ = ["EventReader"]

MAX_EVENT_BYTES: Final = 1 << 20

_MARKS: Final = (b"\n\n", b"\r\n\r\n")

_decode = msgspec.json.Decoder().decode


class EventReader:
    """Cuts a server's bytes into events and notes what they tell.

    Only whole events are given on, so that a stream that breaks can still be ended with an event of our own.

    Parameters
    ----------
    strips_usage : bool
        Whether the event that holds nothing but the usage is left out: the client did not ask for it, the gateway did.

    Attributes
    ----------
    events : int
        Events with data, without the last ``[DONE]``.
    output_tokens : int or None
        From the usage, if it was told.
    is_done : bool
        Whether the stream was ended as it should be.
    has_error : bool
        Whether the server told of an error.
    """

    __slots__ = ("_rest", "_strips_usage", "events", "has_error", "is_done", "output_tokens")

    def __init__(self, strips_usage: bool) -> None:
        self._strips_usage = strips_usage
        self._rest = b""
        self.events = 0
        self.output_tokens: int | None = None
        self.is_done = False
        self.has_error = False

    def read(self, data: bytes) -> bytes:
        """What goes on to the client now: whole events.

        Raises
        ------
        ValueError
            If an event is longer than 1 MiB.
        """
        if self.is_done:
            return b""  # the client has been told that nothing follows
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if not data.endswith(b"\n\n"):
            cut = max((at + len(mark) for mark in _MARKS if (at := data.rfind(mark)) >= 0), default=0)
            if len(data) - cut > MAX_EVENT_BYTES:
                raise ValueError("an event of the stream is longer than 1 MiB")
            self._rest = data[cut:]
            data = data[:cut]
            if not data:
                return b""
        # Most events tell nothing but text.
        if b'"usage"' in data or b"[DONE]" in data or b'"error"' in data:
            return self._read_slowly(data)
        self.events += data.count(b"data:")
        return data

    def _read_slowly(self, data: bytes) -> bytes:
        kept = []
        for event in _events(data):
            if self._goes_on(event):
                kept.append(event)
            if self.is_done:
                break
        return b"".join(kept)

    def _goes_on(self, event: bytes) -> bool:
        text = b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))
        if not text:
            return True
        if text == b"[DONE]":
            self.is_done = True
            return True
        try:
            told: Any = _decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            told = None
        if type(told) is not dict:
            self.events += 1
            return True
        if told.get("error") is not None:
            self.has_error = True
        usage = told.get("usage")
        if type(usage) is dict:
            tokens = usage.get("completion_tokens")
            if type(tokens) is int and 0 <= tokens < 1 << 31:
                self.output_tokens = tokens
            if told.get("choices") == [] and self._strips_usage:
                return False
        self.events += 1
        return True


def _events(data: bytes) -> list[bytes]:
    """Whole events with the empty lines that end them; more empty lines are events without a line."""
    found = []
    start = 0
    while start < len(data):
        ends = [(at, len(mark)) for mark in _MARKS if (at := data.find(mark, start)) >= 0]
        if not ends:
            found.append(data[start:])
            break
        at, size = min(ends)
        found.append(data[start : at + size])
        start = at + size
    return found
