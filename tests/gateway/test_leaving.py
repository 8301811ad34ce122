"""Claims about clients that leave before their answer is whole."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from typing import Any

import pytest
from backend import Backend, Call, answer
from conftest import Client, House, house, request

from zeta.gateway._upstream import Server, ServerConnection

ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {},
    "/v1/completions": {"model": "m", "prompt": "q"},
    "/v1/embeddings": {"model": "m", "input": "q"},
}


async def never(_: Call) -> None:
    await asyncio.sleep(3600)


async def flood(call: Call) -> None:
    """As fast as it is read."""
    await call.begin_stream()
    while True:
        await call.token("more " * 2000)


async def for_ever(call: Call) -> None:
    """Tokens without end; an answer that is no stream is begun and not ended."""
    if not call.body.get("stream"):
        await call.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{")
        await never(call)
    await call.begin_stream()
    while True:
        await call.token("more ")
        await asyncio.sleep(0.005)


def leave(client: Client, how: str) -> None:
    """As a killed process does, as a client that closes its socket, and as one that only says it sends no more."""
    raw = client.writer.get_extra_info("socket")
    if how == "resets":
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.leave()
    elif how == "closes":
        client.writer.close()
    else:
        client.writer.write_eof()


async def gone(home: House, outcomes: dict[str, int]) -> None:
    """Within a second nothing works for the client any more, and each request has ended once."""
    await home.until(lambda: all(not backend.running for backend in home.backends.values()), 1.0)
    await home.until(home.is_idle, 1.0)
    await home.until(lambda: not home.gateway.clients, 1.0)
    assert home.outcomes() == outcomes


@pytest.mark.parametrize("how", ["resets", "closes", "sends no more"])
@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("stream", [False, True])
def test_a_server_sees_that_the_client_left(run: Any, path: str, stream: bool, how: str) -> None:
    async def claim() -> None:
        for behave in (never, for_ever):
            async with house(behave=behave) as home, home.client() as client:
                client.ask(path, **ROUTES[path], stream=stream)
                await home.until(lambda home=home: home.backend.running == 1)
                if behave is for_ever and stream and path != "/v1/embeddings":
                    await client.head()
                    assert await client.chunk()
                leave(client, how)
                await gone(home, {"cancelled_running": 1})
                assert home.backend.left == 1

    run(claim())


@pytest.mark.parametrize("how", ["resets", "closes", "sends no more"])
def test_who_leaves_without_having_read_is_not_written_to_for_long(run: Any, how: str) -> None:
    async def claim() -> None:
        async with house(behave=flood) as home, home.client() as client:
            client.writer.transport.pause_reading()
            client.ask(stream=True)
            await home.until(home.is_held_back)
            leave(client, how)
            await gone(home, {"cancelled_running": 1})

    run(claim())


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("how", ["resets", "closes", "sends no more"])
def test_a_request_whose_client_left_in_the_queue_reaches_no_server(run: Any, path: str, how: str) -> None:
    async def claim() -> None:
        async with house(behave=never, max_in_flight=1) as home, home.client() as first, home.client() as second:
            first.ask()
            await home.until(lambda: home.backend.running == 1)
            second.ask(path, **ROUTES[path], stream=True)
            await home.until(lambda: len(home.gateway.waiting) == 1)
            leave(second, how)
            await home.until(lambda: not home.gateway.waiting, 1.0)
            assert home.outcomes() == {"cancelled": 1}
            leave(first, how)
            await gone(home, {"cancelled": 1, "cancelled_running": 1})
            assert len(home.backend.calls) == 1

    run(claim())


def test_who_leaves_while_its_server_is_connected_to_leaves_no_connection_behind(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the connection comes about in the very turn of the event loop in which the client leaves."""
    is_made, may_connect = asyncio.Event(), asyncio.Event()
    connection_made, connect = ServerConnection.connection_made, Server.connect

    def note(connection: ServerConnection, transport: asyncio.BaseTransport) -> None:
        connection_made(connection, transport)
        is_made.set()

    async def later(server: Server) -> ServerConnection:
        await may_connect.wait()
        return await connect(server)

    async def claim() -> None:
        monkeypatch.setattr(ServerConnection, "connection_made", note)
        async with house() as home:
            async with home.client() as client:
                client.ask()
                await is_made.wait()  # the task that waits for it has not run yet
                (connection,) = home.gateway.clients
                connection.connection_lost(None)
                await home.until(lambda: len(home.backend.unused) == 0, 1.0)
            monkeypatch.setattr(Server, "connect", later)
            async with home.client() as client:
                client.ask()
                await home.until(lambda: len(home.gateway.exchanges) == 1)
                leave(client, "resets")
                await gone(home, {"cancelled_running": 2})
            may_connect.set()
            await asyncio.sleep(0.01)
            assert not home.backend.unused
            assert not home.backend.calls

    run(claim())


@pytest.mark.parametrize("how", ["resets", "closes", "sends no more"])
def test_half_a_request_reaches_nobody(run: Any, how: str) -> None:
    whole = request(question="half", stream=True)
    body_at = whole.index(b"\r\n\r\n") + 4

    async def claim() -> None:
        async with house() as home:
            for cut in (0, 1, 20, body_at - 1, body_at, body_at + 1, len(whole) - 1):
                async with home.client() as client:
                    client.send(whole[:cut])
                    await home.until(lambda: len(home.gateway.clients) == 1, 1.0)
                    leave(client, how)
                    await home.until(lambda: not home.gateway.clients, 1.0)
            chunked = b"POST /v1/chat/completions HTTP/1.1\r\nHost: z\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n{"
            async with home.client() as client:
                client.send(chunked)
                await home.until(lambda: len(home.gateway.clients) == 1, 1.0)
                leave(client, how)
                await gone(home, {})
            assert home.backend.calls == []

    run(claim())


def test_who_leaves_with_requests_sent_ahead_leaves_none_of_them_running(run: Any) -> None:
    async def claim() -> None:
        async with house(behave=never) as home, home.client() as client:
            client.send(request() * 20)
            await home.until(lambda: home.backend.running == 1)
            leave(client, "resets")
            await gone(home, {"cancelled_running": 1})
            assert len(home.backend.calls) == 1

    run(claim())


async def leavers(home: House, count: int, seed: int, at_once: int = 40) -> None:
    """`count` clients that each leave at a random moment, if their answer does not come before."""
    rng = random.Random(seed)
    turns = asyncio.Semaphore(at_once)

    async def one() -> None:
        path = rng.choice([*ROUTES])
        body = {**ROUTES[path], "stream": rng.random() < 0.6, "max_tokens": rng.randint(1, 30)}
        whole = request(path, **body)
        cut = rng.randrange(len(whole)) if rng.random() < 0.2 else len(whole)
        stays_s, how = rng.choice([0, 0, 0.001, 0.003, 0.01, 0.02, 0.05]), rng.choice(["resets", "closes", "eof"])
        async with turns, Client(home.port) as client:
            client.send(whole[:cut])
            await asyncio.sleep(stays_s)
            if rng.random() < 0.5:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(client.reader.read(rng.choice([1, 100, 10_000])), 0.01)
            leave(client, how)

    await asyncio.gather(*(one() for _ in range(count)))


def check_leavers(run: Any, count: int, seed: int) -> None:
    async def now_and_then(call: Call) -> None:
        await asyncio.sleep(random.Random(call.fields["x-request-id"]).choice([0, 0, 0.002, 0.02]))
        await answer(call)

    async def claim() -> None:
        async with house("m", replicas=3, behave=now_and_then, max_in_flight=2) as home:
            await leavers(home, count, seed)
            backends: list[Backend] = list(home.backends.values())
            await home.until(lambda: not any(backend.running for backend in backends), 1.0)
            await home.until(home.is_idle, 1.0)
            await home.until(lambda: not home.gateway.clients, 1.0)
            ended = home.outcomes()
            assert set(ended) <= {"completed", "cancelled", "cancelled_running"}
            assert ended.get("cancelled", 0) + ended["cancelled_running"] > count / 10
            assert sum(ended.values()) >= sum(len(backend.calls) for backend in backends)
            got = await home.ask(question="after", max_tokens=2, stream=True)
            assert got.text == "after:0 after:1 "

    run(claim())


@pytest.mark.parametrize("seed", range(2))
def test_hundreds_who_leave_at_random_leave_nothing_behind(run: Any, seed: int) -> None:
    check_leavers(run, 300, seed)


@pytest.mark.nightly
def test_ten_thousand_who_leave_at_random_leave_nothing_behind(run: Any) -> None:
    for seed in range(10):
        check_leavers(run, 1000, 100 + seed)
