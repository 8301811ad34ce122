"""What one request costs the gateway's own code, without sockets: bytes in, bytes out, over fake transports.

``python -m bench.micro.gateway_path`` prints microseconds per request and per relayed chunk, the least of several runs;
``--profile`` where the time goes, by cProfile (whose own cost makes calls look dearer than they are).
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import hashlib
import json
import pstats
import time
from collections.abc import Sequence
from typing import Any

from zeta.config import Config, Key, Model, Replica, Serve
from zeta.gateway._client import ClientConnection
from zeta.gateway._server import Gateway
from zeta.gateway._upstream import ServerConnection

__all__ = ["measure"]

KEY = "sk-bench-0123456789abcdef"
CHUNKS = 100


class _Transport(asyncio.Transport):
    """Keeps what is written, until `forget`."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        self.written.append(data)

    def forget(self) -> None:
        self.written.clear()

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def abort(self) -> None:
        pass

    close = abort


def _request(*, stream: bool) -> bytes:
    body: dict[str, Any] = {"model": "bench", "messages": [{"role": "user", "content": "x" * 900}], "max_tokens": 100}
    if stream:
        body["stream"] = True
    text = json.dumps(body).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAuthorization: Bearer %b\r\nAccept: */*\r\n"
        b"User-Agent: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    ) % (KEY.encode(), len(text), text)


def _reply() -> bytes:
    body = json.dumps(
        {
            "id": "chatcmpl-0",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 1800}}],
            "usage": {"prompt_tokens": 256, "completion_tokens": 16, "total_tokens": 272},
        }
    ).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def _stream() -> list[bytes]:
    """What a server's socket would give, read by read."""
    event = b'data: {"id":"chatcmpl-0","object":"chat.completion.chunk","choices":[%b]}\n\n'
    text = event % (b'{"index":0,"delta":{"content":"%b"},"finish_reason":null}' % (b"x" * 120))
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":256,"completion_tokens":100,"total_tokens":356}}\n\n'
    end = b"".join(_frame(each) for each in (usage, b"data: [DONE]\n\n")) + b"0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return [head, *([_frame(text)] * CHUNKS), end]


def _frame(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _gateway() -> tuple[Gateway, ClientConnection, _Transport, _Transport]:
    """A gateway, a client's connection and what was written to it, and what was written to its only server."""
    replicas = [Replica("engine-0", url="http://127.0.0.1:1", engine="openai", max_in_flight=4096)]
    key = Key("bench", hashlib.sha256(KEY.encode()).hexdigest())
    serve = Serve(port=0, keys=[key], health_interval_s=3600.0)
    gateway = Gateway(Config(models=[Model("bench", 0.8, replicas=replicas)], serve=serve))
    await gateway.start()
    server = gateway.servers["engine-0"]
    connection = ServerConnection(server)
    at_server = _Transport()
    connection.connection_made(at_server)
    server.give_back(connection)
    gateway._tasks[0].cancel()  # the health check, before its first look: nobody listens on port 1
    client, transport = ClientConnection(gateway), _Transport()
    client.connection_made(transport)
    return gateway, client, transport, at_server


async def _run(count: int, *, stream: bool, profile: cProfile.Profile | None) -> float:
    """Seconds of so many requests, one after another."""
    gateway, client, transport, at_server = await _gateway()
    request, answer = _request(stream=stream), _stream() if stream else [_reply()]
    connection = gateway.servers["engine-0"]._idle[-1]

    def one() -> None:
        transport.forget()
        at_server.forget()
        client.data_received(request)
        while connection._listener is None:
            gateway.pump()  # the router's own thread was placing it; the event loop would be woken for that
        for part in answer:
            connection.data_received(part)

    for _ in range(50):
        one()
    _check(transport, stream=stream)
    gc.collect()
    if profile is not None:
        profile.enable()
    began = time.thread_time()  # of this thread: neither neighbours nor the router count
    for _ in range(count):
        one()
    took = time.thread_time() - began
    if profile is not None:
        profile.disable()
    _check(transport, stream=stream)
    await gateway.stop()
    return took


def _check(transport: _Transport, *, stream: bool) -> None:
    """The last request was answered well."""
    said = b"".join(transport.written)
    assert said.startswith(b"HTTP/1.1 200 "), said[:200]
    assert said.endswith(b"0\r\n\r\n" if stream else b"}"), said[-200:]


def measure(*, runs: int, count: int) -> dict[str, float]:
    """Microseconds per whole answer, per stream of 100 chunks, and per chunk more; the least of the runs."""
    whole = min(asyncio.run(_run(count, stream=False, profile=None)) for _ in range(runs)) / count
    few = max(1, count // 50)
    stream = min(asyncio.run(_run(few, stream=True, profile=None)) for _ in range(runs)) / few
    return {"request_us": 1e6 * whole, "stream_us": 1e6 * stream, "chunk_us": 1e6 * (stream - whole) / CHUNKS}


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--count", type=int, default=5_000)
    parser.add_argument("--profile", choices=("request", "stream"))
    options = parser.parse_args(argv)
    if options.profile is None:
        print(json.dumps(measure(runs=options.runs, count=options.count)))
        return 0
    profile = cProfile.Profile()
    is_stream = options.profile == "stream"
    asyncio.run(_run(options.count // (50 if is_stream else 1), stream=is_stream, profile=profile))
    pstats.Stats(profile).sort_stats("tottime").print_stats(45)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
