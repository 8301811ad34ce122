"""A gateway on an event loop of its own thread, servers beside it, and a client that sees every byte."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.util
import json
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # backend.py, beside the tests
sys.path.append(str(Path(__file__).parents[1] / "unit" / "gateway"))  # fake_gateway.py

NEEDED = ("aiohttp", "httptools", "msgspec", "prometheus_client", "uvloop")
missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if missing:
    collect_ignore_glob = ["test_*.py"]
else:
    import uvloop
    from backend import Backend

    from zeta.config import Config, Model, Replica, Serve
    from zeta.gateway._server import Gateway
    from zeta.testing import check_invariants


@dataclasses.dataclass
class Answer:
    """What came back, as it came."""

    status: int
    fields: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[str]:
        """The data of each event."""
        return [each[6:] for each in self.body.decode().split("\n\n") if each]

    @property
    def text(self) -> str:
        """All tokens of a stream."""
        told = [json.loads(each) for each in self.events if each != "[DONE]"]
        return "".join(each["choices"][0]["delta"]["content"] for each in told if each.get("choices"))


class Client:
    """One connection that is written to and read from by hand."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def __aenter__(self) -> Client:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        self.writer.transport.abort()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def ask(self, path: str = "/v1/chat/completions", fields: str = "", **body: Any) -> None:
        self.send(request(path, fields, **body))

    async def head(self) -> Answer:
        """Status and fields; the body is still to be read."""
        raw = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        line, *rest = raw.split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in rest if each)}
        return Answer(int(line.split(" ")[1]), fields, b"")

    async def chunk(self) -> bytes:
        """The next chunk of a body; empty: it was the last."""
        size = int(await self.reader.readline(), 16)
        data = await self.reader.readexactly(size)
        await self.reader.readexactly(2)
        return data

    async def answer(self) -> Answer:
        """A whole answer."""
        found = await self.head()
        if found.fields.get("transfer-encoding") == "chunked":
            parts = []
            while data := await self.chunk():
                parts.append(data)
            found.body = b"".join(parts)
        else:
            found.body = await self.reader.readexactly(int(found.fields.get("content-length", "0")))
        return found

    async def is_closed(self, within_s: float = 5.0) -> bool:
        """Whether the gateway closes the connection (soon), whatever it sends before."""
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(within_s):
                while await self.reader.read(65_536):
                    pass
                return True
        return False


def request(path: str = "/v1/chat/completions", fields: str = "", **body: Any) -> bytes:
    """A request's bytes."""
    if path.endswith("chat/completions"):
        body = {"model": "m", "messages": [{"role": "user", "content": body.pop("question", "q")}], **body}
    raw = json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: zeta\r\n{fields}Content-Length: {len(raw)}\r\n\r\n".encode() + raw


class House:
    """A gateway with its servers, all on the running event loop."""

    def __init__(self, gateway: Gateway, port: int, backends: dict[str, Backend]) -> None:
        self.gateway, self.port, self.backends = gateway, port, backends

    @property
    def backend(self) -> Backend:
        return next(iter(self.backends.values()))

    def client(self) -> Client:
        return Client(self.port)

    async def ask(self, path: str = "/v1/chat/completions", fields: str = "", **body: Any) -> Answer:
        async with self.client() as client:
            client.ask(path, fields, **body)
            return await client.answer()

    async def until(self, is_so: Callable[[], bool], within_s: float = 5.0) -> None:
        """Waits until something is so; fails where it is not in time. Time in which nothing here ran is not counted."""
        now_s = asyncio.get_running_loop().time
        spent_s = 0.0
        while not is_so():
            assert spent_s < within_s, f"not so within {within_s:g} s"
            before_s = now_s()
            await asyncio.sleep(0.005)
            spent_s += min(0.02, now_s() - before_s)

    def outcomes(self) -> dict[str, int]:
        """How requests ended, without what never happened."""
        return {name: count for name, count in self.gateway.router.stats()["outcomes"].items() if count}

    def is_held_back(self) -> bool:
        """Whether a server is not read from, because its client does not read."""
        return any(each._connection and each._connection._is_paused for each in self.gateway.exchanges)

    def is_idle(self) -> bool:
        """Whether nothing is left of any request: in the router, here, among retries, and on the way to servers."""
        gateway, stats = self.gateway, self.gateway.router.stats()
        return not (
            stats["waiting"]
            or stats["running"]
            or gateway.exchanges
            or gateway.waiting
            or gateway.retries._active
            or any(replica.in_flight for replica in gateway.replicas())
            or any(len(server._all) != len(server._idle) for server in gateway.servers.values())
        )


@contextlib.asynccontextmanager
async def house(
    *models: str | Model,
    replicas: int = 1,
    behave: Any = None,
    max_in_flight: int = 64,
    api_key_env: str | None = None,
    **serve: Any,
) -> AsyncIterator[House]:
    """A gateway before `replicas` servers of each model; at the end nothing may be left of any request."""
    backends: dict[str, Backend] = {}
    built = []
    for number, each in enumerate(models or ("m",)):
        model = Model(each, 0.5 + 0.1 * number) if isinstance(each, str) else each
        rows = []
        for i in range(replicas):
            backend = Backend() if behave is None else Backend(behave)
            await backend.start()
            backends[f"{model.name}-{i}"] = backend
            name = f"{model.name}-{i}"
            rows.append(Replica(name, backend.url, "vllm", max_in_flight, api_key_env=api_key_env))
        built.append(dataclasses.replace(model, replicas=tuple(rows)))
    config = Config(models=tuple(built), serve=Serve(port=0, **{"health_interval_s": 0.1, **serve}))
    try:
        gateway = Gateway(config)
        one = House(gateway, await gateway.start(), backends)
        try:
            yield one
            await one.until(one.is_idle)
            check_invariants(gateway.router)
        finally:
            await gateway.stop(0)
    finally:
        for backend in backends.values():
            await backend.stop()
    assert not any(backend.strays for backend in backends.values()), "a server was sent something between two requests"


@pytest.fixture(autouse=True)
def _no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails a test during which anything was logged with a traceback, or the event loop complained."""
    yield
    for when in ("setup", "call"):
        for record in caplog.get_records(when):
            complains = record.name == "asyncio" and record.levelno >= logging.WARNING
            if complains or record.exc_info:
                pytest.fail(record.getMessage())


def _runner(limit_s: float) -> Callable[[Awaitable[None]], None]:
    def run_it(work: Awaitable[None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(limit_s):
                await work

        uvloop.run(bounded())

    return run_it


@pytest.fixture
def run() -> Callable[[Awaitable[None]], None]:
    """Runs a coroutine on uvloop, as the gateway does, for a minute at most."""
    return _runner(60)


@pytest.fixture
def run_long() -> Callable[[Awaitable[None]], None]:
    """The same for half an hour."""
    return _runner(1800)
