"""The gateway bench's load generator tells right answers from wrong ones; it times nothing here."""

from __future__ import annotations

import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator

import pytest
from bench import native
from bench.native.http_load import Rig

_NUMBER = re.compile(rb"n=(\d{10}) ")


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    try:
        rig = Rig()
    except native.Unavailable as missing:
        pytest.skip(str(missing))
    with rig:
        yield rig


def _server(answer: Callable[[bytes], bytes]) -> socketserver.ThreadingTCPServer:
    """Answers each request with what `answer` makes of its number."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while request := self.request.recv(65_536):
                found = _NUMBER.search(request)
                assert found is not None
                self.request.sendall(answer(found[1]))

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def _whole(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


def _events(*events: bytes) -> bytes:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n%b0\r\n\r\n" % framed
    )


def _stream_of(rig: Rig, number: bytes, chunks: int) -> list[bytes]:
    """The events with which an engine answers this request."""
    body = b'{"stream":true,"max_tokens":%d,"messages":[{"content":"n=%b "}]}' % (chunks, number)
    with socket.create_connection(("127.0.0.1", rig.engines[0])) as engine, engine.makefile("rb") as answer:
        engine.sendall(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        lines = iter(answer.readline, b"0\r\n")
        return [line + b"\n" for line in lines if line.startswith(b"data: ")]


def test_engines_answers_are_right_whatever_is_asked(rig: Rig) -> None:
    ports = ",".join(map(str, rig.engines))
    whole = rig.load(ports=ports, connections=4, seconds=0.1)
    assert whole["answered"] == whole["requests"] == sum(whole["engine_requests_by_port"]) > 100
    streams = rig.load(ports=ports, connections=4, seconds=0.1, stream=True, usage=True, chunks=5, pace_us=1000)
    assert streams["answered"] == streams["requests"] > 10
    assert streams["chunks"] == 5 * streams["answered"]
    arrivals = rig.load(ports=ports, connections=4, seconds=0.2, rate=500)
    assert arrivals["answered"] == arrivals["requests"] > 50
    assert whole["errors"] == streams["errors"] == arrivals["errors"] == 0


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        ("status 503", lambda number: _whole(b'{"error":"n=%b "}' % number, b"503 Service Unavailable")),
        ("wrong length", lambda number: _whole(b"n=%b x|end" % number)),
        ("another request's answer", lambda _: _whole(b"n=9999999999 x|end")),
        ("timeout", lambda _: b""),
        ("not HTTP", lambda _: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n"),
    ],
)
def test_an_answer_that_is_wrong_is_an_error(rig: Rig, error: str, answer: Callable[[bytes], bytes]) -> None:
    with _server(answer) as server:
        port = server.server_address[1]
        found = rig.load(ports=port, connections=1, seconds=0.6, limit=0.2)
        server.shutdown()
    assert found["answered"] == 0
    assert found["errors_by_kind"].get(error, 0) > 0


@pytest.mark.parametrize(
    ("error", "spoil"),
    [
        ("chunks missing", lambda events: events[:2] + events[3:]),
        ("chunks out of order", lambda events: [events[0], events[2], events[1], *events[3:]]),
        ("another request's chunk", lambda events: [events[0].replace(b"n=0", b"n=9"), *events[1:]]),
        ("wrong length", lambda events: [events[0].replace(b"|end", b"x|end"), *events[1:]]),
        ("no [DONE]", lambda events: events[:-1]),
        ("no usage", lambda events: events),
        ("error event", lambda events: [*events[:-1], b'data: {"error":{"message":"it broke"}}\n\n']),
    ],
)
def test_a_stream_that_is_wrong_is_an_error(rig: Rig, error: str, spoil: Callable[[list[bytes]], list[bytes]]) -> None:
    pattern = _stream_of(rig, b"0000000000", 3)
    assert len(pattern) == 5  # three chunks, why it ended, [DONE]

    def answer(number: bytes) -> bytes:
        return _events(*spoil([event.replace(b"n=0000000000", b"n=" + number) for event in pattern]))

    with _server(answer) as server:
        port = server.server_address[1]
        usage = error == "no usage"
        found = rig.load(ports=port, connections=1, seconds=0.05, stream=True, chunks=3, usage=usage, limit=2)
        server.shutdown()
    assert found["answered"] == 0
    assert found["errors_by_kind"].get(error, 0) > 0
