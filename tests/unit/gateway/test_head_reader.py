"""A connection's reader understands every head as `read_head` does, whatever came before it."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeta.gateway._answers import Refusal
from zeta.gateway._head import Head, HeadReader, read_head

_LINES = st.sampled_from(
    [
        b"Host: a",
        b"Host: b",
        b"Authorization: Bearer one",
        b"Authorization: Bearer two",
        b"Content-Length: 5",
        b"content-length:17",
        b"Content-Length: 17 ",
        b"CONTENT-LENGTH: 5",
        b"Content-Length : 5",
        b"Content-Length: +5",
        b"Content-Length: 5, 5",
        b"X-Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"Connection: close",
        b"X-Zeta-Priority: 0",
        b"X-Request-Id: r1",
        b"Accept: */*",
        b" folded",
        b"Content-Length: 5\n",
    ]
)
_HEADS = st.builds(
    lambda first, lines: b"".join(line + b"\r\n" for line in [first, *lines]) + b"\r\n",
    st.sampled_from([b"POST /v1/completions HTTP/1.1", b"POST /v1/completions HTTP/1.0", b"GET / HTTP/1.1"]),
    st.lists(_LINES, max_size=5),
)


def _understood(reader: HeadReader | None, head: bytes) -> Head | tuple[int, str]:
    try:
        return copy.deepcopy(read_head(head) if reader is None else reader.read(head))
    except Refusal as refusal:
        return refusal.status, refusal.message


@settings(max_examples=1000)
@given(st.lists(_HEADS, min_size=1, max_size=6))
def test_what_came_before_changes_nothing(heads: list[bytes]) -> None:
    reader = HeadReader()
    for head in heads:
        assert _understood(reader, head) == _understood(None, head)


def test_another_length_alone_is_not_parsed_again() -> None:
    reader = HeadReader()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nAccept: */*\r\n\r\n"
    first = reader.read(head % 5)
    again = reader.read(head % 123)
    assert again is first
    assert (again.body_bytes, again.fields[b"content-length"]) == (123, b"123")


@pytest.mark.parametrize("second", [b"content-length: 6", b"Content-Length: 5"])
def test_two_lengths_are_refused_also_after_one(second: bytes) -> None:
    reader = HeadReader()
    reader.read(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
    with pytest.raises(Refusal, match="twice"):
        reader.read(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n" + second + b"\r\n\r\n")
