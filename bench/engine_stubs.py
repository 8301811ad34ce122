"""Many pretended engines in a process of their own: ``python -m bench.engine_stubs COUNT PAGE`` prints their ports.

Each answers ``GET /metrics`` over kept connections with the page, as uvicorn heads it; counters and gauges are others
at every answer, as those of an engine at work are. It ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import selectors
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["PAGES", "serve", "stubs"]

PAGES = Path(__file__).parents[1] / "tests" / "data" / "engine_pages"
_VARIANTS = 64
_NUMBER = re.compile(rb"^(vllm:(?!cache_config)[^ ]+) ([0-9.]+)$", re.MULTILINE)


def _answers(page: bytes) -> Iterator[bytes]:
    def at(turn: int) -> bytes:
        body = _NUMBER.sub(lambda m: b"%b %b" % (m[1], _moved(m[1], m[2], turn)), page)
        head = (
            b"HTTP/1.1 200 OK\r\ndate: Mon, 23 Nov 2026 20:00:00 GMT\r\nserver: uvicorn\r\n"
            b"content-length: %d\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n\r\n" % len(body)
        )
        return head + body

    return itertools.cycle([at(turn) for turn in range(_VARIANTS)])


def _moved(series: bytes, value: bytes, turn: int) -> bytes:
    number = float(value)
    if b"usage_perc" in series or b"sleep_state" in series:
        return repr(number * (turn + 1) / _VARIANTS).encode() if b"usage" in series else value
    return repr(number + 7.0 * turn).encode()


def serve(count: int, page: bytes) -> None:
    """Serves until standard input ends."""
    chosen = selectors.DefaultSelector()
    listening = []
    for _ in range(count):
        door = socket.create_server(("127.0.0.1", 0))
        door.setblocking(False)
        chosen.register(door, selectors.EVENT_READ, None)
        listening.append(door)
    chosen.register(sys.stdin, selectors.EVENT_READ, None)
    print(*(door.getsockname()[1] for door in listening), flush=True)
    answers = _answers(page)
    while True:
        for key, _ in chosen.select():
            if key.fileobj is sys.stdin:
                return
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            if sock in listening:
                connection, _ = sock.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                chosen.register(connection, selectors.EVENT_READ, None)
                continue
            asked = sock.recv(1 << 16)
            if not asked:
                chosen.unregister(sock)
                sock.close()
            for _ in range(asked.count(b"\r\n\r\n")):
                sock.sendall(next(answers))


@contextlib.contextmanager
def stubs(count: int, page: str = "vllm_0.33.txt") -> Iterator[list[str]]:
    """Addresses of so many engines, in another process."""
    command = [sys.executable, "-m", "bench.engine_stubs", str(count), str(PAGES / page)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield [f"http://127.0.0.1:{port}" for port in process.stdout.readline().split()]
        finally:
            process.stdin.close()
            process.wait(10)


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]).read_bytes())
