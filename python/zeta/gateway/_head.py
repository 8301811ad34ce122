"""The head of a request, read strictly: what two parsers could understand in two ways is refused.

A head passes one pattern as a whole or not at all, so nothing in it is skipped or repaired: no bare line feed, no
folded line, no blank before a colon, no control character. Nothing of it is forwarded either: servers get a head of
the gateway's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from zeta.gateway._answers import Refusal

__all__ = ["END", "Head", "HeadReader", "read_head"]

END: Final = b"\r\n\r\n"

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_HEAD = re.compile(
    rb"([A-Z]{3,10}) (/[\x21-\x7e]*|\*) HTTP/1\.([01])\r\n((?:%b:[\t\x20-\x7e\x80-\xff]*\r\n)*)\r\n" % _TOKEN
)
# The fields that the gateway reads; all others are let pass unread. Most requests have only the first four.
_USUAL: Final = (b"host", b"content-length", b"authorization", b"connection")
_RARE: Final = (
    b"content-encoding",
    b"expect",
    b"transfer-encoding",
    b"x-api-key",
    b"x-request-id",
    b"x-zeta-complexity",
    b"x-zeta-deadline-ms",
    b"x-zeta-priority",
)
_PLAIN: Final = frozenset(_USUAL)
_HAS_RARE = re.compile(rb"\n(?:%b):" % b"|".join(_RARE))
_LENGTH = re.compile(rb"[0-9]{1,15}")
_LENGTH_LINE = re.compile(rb"\r\n[Cc]ontent-[Ll]ength:[\t ]*([0-9]{1,15})[\t ]*(?=\r\n)")
_MAX_FIELDS: Final = 100


@dataclass(slots=True)
class Head:
    """What a request's head says."""

    method: bytes
    path: bytes
    query: bytes
    fields: dict[bytes, bytes]
    """By lower-case name, only those that the gateway reads."""
    body_bytes: int
    """-1: the body comes in chunks."""
    keeps_alive: bool
    expects_continue: bool
    is_plain: bool
    """Without any field but those that nearly every request has."""


def read_head(head: bytes) -> Head:
    """Reads a head, up to and with the empty line.

    Raises
    ------
    Refusal
        400, 417, 501 or 505, if it is not plainly one HTTP/1.1 request. The connection must then be closed: where the
        next request begins is unknown.
    """
    match = _HEAD.fullmatch(head)
    if match is None:
        raise _unreadable(head)
    method, target, minor, lines = match.groups()
    if lines.count(b"\n") > _MAX_FIELDS:
        raise Refusal(431, f"the request has more than {_MAX_FIELDS} header fields; send fewer", "too_many_headers")
    fields = _fields_of(lines)
    is_11 = minor == b"1"
    host = fields.get(b"host")
    if host is None and is_11:
        raise _malformed("the header Host is missing; HTTP/1.1 requires it")
    if host is not None and not _HOST.fullmatch(host):
        raise _malformed("the header Host is not a host with an optional port")
    body_bytes = _body_bytes(fields, is_11)
    connection = fields.get(b"connection")
    keeps_alive = is_11
    if connection is not None:
        connection = connection.lower()
        keeps_alive = b"close" not in connection if is_11 else b"keep-alive" in connection
    expect = fields.get(b"expect")
    if expect is not None and expect.lower() != b"100-continue":
        raise Refusal(417, "the header Expect may only be 100-continue", "expectation_failed")
    path, _, query = target.partition(b"?")
    is_plain = fields.keys() <= _PLAIN
    return Head(method, path, query, fields, body_bytes, keeps_alive, expect is not None and is_11, is_plain)


class HeadReader:
    """Reads the heads of one connection, where the next one mostly differs in its length alone.

    A head that is the last one but for the value, or the place, of a well-formed Content-Length line is understood as
    that one was: the line begins and ends where header lines do, and there is no other of its name, because there was
    none when the last head was read.
    """

    __slots__ = ("_last", "_others")

    def __init__(self) -> None:
        self._others = b""
        self._last: Head | None = None

    def read(self, head: bytes) -> Head:
        """As `read_head` does; the object of the last call again where only the length differs."""
        line = _LENGTH_LINE.search(head)
        if line is None:
            return read_head(head)
        others = head[: line.start()] + head[line.end() :]
        last = self._last
        if last is not None and others == self._others:
            length = last.fields[b"content-length"] = line[1]
            last.body_bytes = int(length)
            return last
        self._last = found = read_head(head)
        self._others = others
        return found


def _fields_of(lines: bytes) -> dict[bytes, bytes]:
    """By name, from lines that passed the pattern: each is searched for as a whole, which is faster than a look at
    each line."""
    lines = b"\n" + lines
    lower = lines.lower()
    fields = {}
    for name in _USUAL if _HAS_RARE.search(lower) is None else _USUAL + _RARE:
        mark = b"\n%b:" % name
        at = lower.find(mark)
        if at >= 0:
            start = at + len(mark)
            if lower.find(mark, start) >= 0:
                raise _malformed(f"the header {name.decode()} is given twice; give it once")
            fields[name] = lines[start : lines.index(b"\r", start)].strip(b" \t")
    return fields


_HOST = re.compile(rb"(?:[0-9A-Za-z._~%\-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def _body_bytes(fields: dict[bytes, bytes], is_11: bool) -> int:
    coding, length = fields.get(b"transfer-encoding"), fields.get(b"content-length")
    if b"content-encoding" in fields and fields[b"content-encoding"].lower() != b"identity":
        raise Refusal(415, "compressed request bodies are not read; send the body as it is", "unsupported_encoding")
    if coding is not None:
        if length is not None:
            raise _malformed("both Content-Length and Transfer-Encoding are given; give one")
        if not is_11:
            raise _malformed("Transfer-Encoding needs HTTP/1.1")
        if coding.lower() != b"chunked":
            raise Refusal(501, "the only transfer coding that is read is chunked", "unsupported_transfer_encoding")
        return -1
    if length is None:
        return 0
    if not _LENGTH.fullmatch(length):
        raise _malformed("Content-Length is not one whole number")
    return int(length)


def _unreadable(head: bytes) -> Refusal:
    line, _, _ = head.partition(b"\r\n")
    version = line.rpartition(b" HTTP/")[2]
    if line.isascii() and re.fullmatch(rb"[0-9]\.[0-9]", version) and version not in (b"1.0", b"1.1"):
        return Refusal(505, "only HTTP/1.1 is spoken here", "unsupported_http_version")
    return _malformed("the request's head is malformed: expected a request line and header fields that end in CR LF")


def _malformed(message: str) -> Refusal:
    return Refusal(400, message, "malformed_request")
