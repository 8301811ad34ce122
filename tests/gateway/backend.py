"""A server that speaks OpenAI's protocol over plain sockets and can be told to misbehave. Imported by tests only.

Tokens are numbered, so that a lost, repeated or foreign one shows: the answer to request ``q7`` reads ``q7:0 q7:1 …``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

Behaviour = Callable[["Call"], Awaitable[None]]


class Call:
    """One request as the server got it, and means to answer it."""

    def __init__(self, method: str, path: str, fields: dict[str, str], body: bytes, writer: asyncio.StreamWriter):
        self.method, self.path, self.fields, self.raw = method, path, fields, body
        self.writer = writer
        self.body: dict[str, Any] = json.loads(body) if body else {}
        self.is_cut = False

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def json(self, document: object, status: int = 200, fields: str = "") -> None:
        body = json.dumps(document).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{fields}\r\n"
        await self.send(head.encode() + body)

    async def begin_stream(self) -> None:
        await self.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def event(self, document: object) -> None:
        await self.chunk(b"data: %b\n\n" % json.dumps(document).encode())

    async def token(self, text: str) -> None:
        await self.event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})

    async def end_stream(self, tokens: int) -> None:
        if (self.body.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": 1 + tokens}
            await self.event({"choices": [], "usage": usage})
        await self.chunk(b"data: [DONE]\n\n")
        await self.send(b"0\r\n\r\n")

    @property
    def question(self) -> str:
        """The text of the last message."""
        return str(self.body["messages"][-1]["content"]) if "messages" in self.body else "q"

    def cut(self) -> None:
        """Closes the connection as a killed process would."""
        self.is_cut = True
        self.writer.transport.abort()

    def close(self) -> None:
        """Closes the connection in good order, whatever is missing."""
        self.is_cut = True
        self.writer.close()


async def answer(call: Call) -> None:
    """As a healthy server does: ``max_tokens`` numbered tokens."""
    count = call.body.get("max_tokens", 4)
    words = [f"{call.question}:{i} " for i in range(count)]
    if call.body.get("stream"):
        await call.begin_stream()
        for word in words:
            await call.token(word)
            await asyncio.sleep(0)
        await call.end_stream(count)
        return
    usage = {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": 1 + count}
    message = {"role": "assistant", "content": "".join(words)}
    choices = [{"index": 0, "message": message, "finish_reason": "length"}]
    await call.json(
        {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage}
    )


class Backend:
    """Listens on a port of the kernel's choice.

    Attributes
    ----------
    calls : list of Call
        Requests for completions, in the order in which they came.
    running : int
        Requests that are being answered.
    left : int
        Requests whose connection the gateway closed before the answer was whole.
    unused : set
        Open connections on which no request has come.
    """

    def __init__(self, behave: Behaviour = answer) -> None:
        self.behave = behave
        self.calls: list[Call] = []
        self.running = 0
        self.left = 0
        self.unused: set[asyncio.StreamWriter] = set()
        self.strays: list[bytes] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def start(self) -> Backend:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def cut_all(self) -> None:
        """Closes every connection; new ones may come."""
        for writer in self._writers:
            writer.transport.abort()

    async def stop(self) -> None:
        """As ``kill -9``: every connection breaks."""
        if self._server is not None:
            self._server.close()
        self.cut_all()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.unused.add(writer)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # it ends here anyway; asyncio would report the cancellation as an error
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            self.unused.discard(writer)
            if not writer.is_closing():
                writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        self.unused.discard(writer)
        line, *rest = head.decode("latin-1").split("\r\n")
        method, path, _ = line.split(" ")
        fields = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in rest if each)}
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        call = Call(method, path, fields, body, writer)
        if method == "GET":
            await call.json({"object": "list", "data": []})
            return True
        self.calls.append(call)
        self.running += 1
        watch = asyncio.ensure_future(reader.read(1))  # nothing may come before the answer is whole
        work = asyncio.ensure_future(self.behave(call))
        try:
            await asyncio.wait({watch, work}, return_when=asyncio.FIRST_COMPLETED)
            if watch.done() and not call.is_cut:
                data = b"" if watch.exception() else watch.result()
                if data:
                    self.strays.append(data)
                elif not work.done():
                    self.left += 1
                return False
            await work
            if call.is_cut:
                await asyncio.sleep(0)  # what was written leaves
            return not call.is_cut
        finally:
            self.running -= 1
            for each in (watch, work):
                each.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await asyncio.gather(watch, work, return_exceptions=True)
