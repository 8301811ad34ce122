"""Pass-through relays on several Python HTTP stacks: nothing but least outstanding requests and bytes.

A program of its own, ``python relays.py STACK PORT ENGINE_PORT...``; what a gateway does beyond this is what it costs
beyond this. ``protocol`` trusts both sides: no limits, no timeouts, no headers of its own.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["STACKS", "asgi"]


class Engine:
    """Where requests go, and the idle connections to it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.outstanding = 0
        self.idle: list[Upstream] = []


def least_busy(engines: list[Engine]) -> Engine:
    return min(engines, key=lambda engine: engine.outstanding)


# --- asyncio.Protocol on both sides


class Upstream(asyncio.Protocol):
    """A connection to an engine; its bytes go on as they come, only the end is looked for."""

    def __init__(self, engine: Engine) -> None:
        import httptools

        self._new_parser = httptools.HttpResponseParser
        self.engine = engine
        self.client: Downstream | None = None
        self.is_done = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self, request: bytes, client: Downstream) -> None:
        self.client, self.is_done = client, False
        self._parser = self._new_parser(self)
        self.transport.write(request)

    def on_message_complete(self) -> None:
        self.is_done = True

    def data_received(self, data: bytes) -> None:
        client = self.client
        if client is None:
            return
        self._parser.feed_data(data)
        client.transport.write(data)
        if self.is_done:
            self.client = None
            self.engine.outstanding -= 1
            self.engine.idle.append(self)

    def connection_lost(self, _: Exception | None) -> None:
        if self in self.engine.idle:
            self.engine.idle.remove(self)
        if self.client is not None:
            self.engine.outstanding -= 1
            self.client.transport.abort()


class Downstream(asyncio.Protocol):
    """A client's connection: whole requests are sent on as they were."""

    def __init__(self, engines: list[Engine]) -> None:
        import httptools

        self._engines = engines
        self._parser = httptools.HttpRequestParser(self)
        self._request = b""
        self._is_whole = False
        self._upstream: Upstream | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def on_message_complete(self) -> None:
        self._is_whole = True

    def data_received(self, data: bytes) -> None:
        self._request += data
        self._parser.feed_data(data)
        if not self._is_whole:
            return
        request, self._request, self._is_whole = self._request, b"", False
        engine = least_busy(self._engines)
        engine.outstanding += 1
        if engine.idle:
            self._upstream = engine.idle.pop()
            self._upstream.ask(request, self)
        else:
            self._dialling = asyncio.ensure_future(self._dial(engine, request))

    async def _dial(self, engine: Engine, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        _, self._upstream = await loop.create_connection(lambda: Upstream(engine), "127.0.0.1", engine.port)
        self._upstream.ask(request, self)

    def connection_lost(self, _: Exception | None) -> None:
        if self._upstream is not None and self._upstream.client is self:
            self._upstream.transport.abort()


async def _protocol(port: int, engines: list[Engine]) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: Downstream(engines), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


# --- aiohttp's client, for all that follows


def _session() -> Any:
    import aiohttp

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
    )


_JSON = {"Content-Type": "application/json"}


async def _aiohttp(port: int, engines: list[Engine]) -> None:
    from aiohttp import web

    session = _session()

    async def handle(request: web.Request) -> web.StreamResponse:
        engine = least_busy(engines)
        engine.outstanding += 1
        try:
            body = await request.read()
            url = f"http://127.0.0.1:{engine.port}{request.path}"
            async with session.post(url, data=body, headers=_JSON) as answer:
                if answer.content_type != "text/event-stream":
                    whole = await answer.read()
                    return web.Response(status=answer.status, body=whole, content_type=answer.content_type)
                out = web.StreamResponse(status=answer.status, headers={"Content-Type": "text/event-stream"})
                await out.prepare(request)
                async for part in answer.content.iter_any():
                    await out.write(part)
                await out.write_eof()
                return out
        finally:
            engine.outstanding -= 1

    app = web.Application()
    app.router.add_post("/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Event().wait()


# --- raw ASGI


class Asgi:
    """An ASGI application without a framework."""

    def __init__(self, engines: list[Engine]) -> None:
        self._engines = engines
        self._session: Any = None

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            return
        if self._session is None:
            self._session = _session()
        parts = []
        while True:
            message = await receive()
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        engine = least_busy(self._engines)
        engine.outstanding += 1
        try:
            url = f"http://127.0.0.1:{engine.port}{scope['path']}"
            async with self._session.post(url, data=b"".join(parts), headers=_JSON) as answer:
                kind = answer.headers["Content-Type"].encode()
                headers = [(b"content-type", kind)]
                if kind.startswith(b"text/event-stream"):
                    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
                    async for part in answer.content.iter_any():
                        await send({"type": "http.response.body", "body": part, "more_body": True})
                    await send({"type": "http.response.body", "body": b""})
                else:
                    whole = await answer.read()
                    headers.append((b"content-length", b"%d" % len(whole)))
                    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
                    await send({"type": "http.response.body", "body": whole})
        finally:
            engine.outstanding -= 1


def asgi() -> Asgi:
    """What an ASGI server loads; the engines' ports stand in ZETA_BENCH_ENGINES."""
    return Asgi([Engine(int(port)) for port in os.environ["ZETA_BENCH_ENGINES"].split(",")])


def _uvicorn(port: int) -> None:
    import uvicorn

    uvicorn.run(
        asgi(),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="error",
        backlog=4096,
    )


def _granian(port: int) -> None:
    from granian import Granian
    from granian.constants import Interfaces, Loops

    Granian(
        "relays:asgi",
        address="127.0.0.1",
        port=port,
        interface=Interfaces.ASGINL,
        loop=Loops.uvloop,
        factory=True,
        log_enabled=False,
        backlog=4096,
    ).serve()


# Stack: the modules it needs.
STACKS = {
    "protocol": ("uvloop", "httptools"),
    "aiohttp": ("uvloop", "aiohttp"),
    "uvicorn": ("uvloop", "httptools", "aiohttp", "uvicorn"),
    "granian": ("uvloop", "aiohttp", "granian"),
}


def main() -> None:
    stack, port, ports = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    os.environ["ZETA_BENCH_ENGINES"] = ",".join(ports)
    if stack in ("uvicorn", "granian"):
        (_uvicorn if stack == "uvicorn" else _granian)(port)
        return
    import uvloop

    engines = [Engine(int(each)) for each in ports]
    uvloop.run((_protocol if stack == "protocol" else _aiohttp)(port, engines))


if __name__ == "__main__":
    main()
