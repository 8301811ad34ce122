"""The one protocol layer of all engines: HTTP/1.1 by httptools, OpenAI's routes, server-sent events.

Lean on purpose: a simulated engine must keep up with load tests on part of a core. Each connection is an
`asyncio.Protocol`; nothing awaits; what a step gives one request is one write.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, cast

from zeta.engines._job import Engine, Faults, Job, Refusal
from zeta.engines._openai import (
    BadRequest,
    Chat,
    Completion,
    Embedding,
    StreamForm,
    embedding_answer,
    error_body,
    json_body,
    json_text,
    models_answer,
    parse,
    prompts_of,
    whole_answer,
)
from zeta.errors import MissingExtraError

try:
    import httptools
except ImportError as error:
    raise MissingExtraError("serving an engine", ["msgspec", "httptools", "uvloop"], "serve") from error

__all__ = ["Server"]

_MAX_BODY_BYTES: Final = 32 << 20
_MAX_HEAD_BYTES: Final = 64 << 10
_MAX_PIPELINED: Final = 16
_DEFAULT_TOKENS: Final = 16
"""Without ``max_tokens``, as OpenAI's completions have it."""
_LAST_WORDS_S: Final = 0.5
"""So long may clients still read when the server closes."""
_REASONS: Final = {
    200: b"OK",
    400: b"Bad Request",
    404: b"Not Found",
    405: b"Method Not Allowed",
    413: b"Content Too Large",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
}
_JSON: Final = b"application/json"
_METRICS: Final = b"text/plain; version=0.0.4; charset=utf-8"
_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nserver: %b\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_STREAM_HEAD_OLD: Final = b"HTTP/1.0 200 OK\r\nserver: %b\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\n"


class _Asked:
    """One request, read in full."""

    __slots__ = ("body", "is_old", "keeps", "method", "path")

    def __init__(self, method: bytes, path: bytes, body: bytes, keeps: bool, is_old: bool) -> None:
        self.method, self.path, self.body, self.keeps, self.is_old = method, path, body, keeps, is_old


class Server:
    """Serves one engine on one port.

    Parameters
    ----------
    engine : Engine
    faults : Faults, optional
        May be changed while it serves.

    Attributes
    ----------
    url : str
        ``http://host:port``, once started.
    connections : int
        Open ones.
    """

    def __init__(self, engine: Engine, faults: Faults | None = None) -> None:
        self.engine = engine
        self.faults = faults or Faults()
        self.port = 0
        self.url = ""
        self.is_draining = False
        self.started = int(time.time())
        self.dice = random.Random(self.faults.seed)
        self.name = f"zeta-{engine.kind}-engine".encode()
        self.model_json = json_text(engine.model)
        self.stream_head = _STREAM_HEAD % self.name
        self.stream_head_old = _STREAM_HEAD_OLD % self.name
        self._number = 0
        self._salt = b"%x" % (time.time_ns() & 0xFFFFFFFF)
        self._listener: asyncio.Server | None = None
        self._open: set[Connection] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listens; port 0 takes a free one."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Connection(self), host, port, backlog=4096)
        self.port = self._listener.sockets[0].getsockname()[1]
        self.url = f"http://{host}:{self.port}"

    async def close(self, grace_s: float = 0.0) -> None:
        """Stops listening, waits for the answers under way for at most `grace_s`, then closes everything."""
        self.is_draining = True
        if self._listener is not None:
            self._listener.close()
        until_s = time.monotonic() + grace_s
        while time.monotonic() < until_s and any(connection.is_busy for connection in self._open):
            await asyncio.sleep(0.01)
        for connection in list(self._open):
            connection.drop()
        await self.engine.close()
        until_s = time.monotonic() + _LAST_WORDS_S
        while self._open:
            if time.monotonic() >= until_s:
                for connection in list(self._open):
                    connection.abort()
            await asyncio.sleep(0)

    @property
    def connections(self) -> int:
        """Open ones."""
        return len(self._open)

    def opened(self, connection: Connection) -> None:
        """For connections."""
        self._open.add(connection)

    def closed(self, connection: Connection) -> None:
        """For connections."""
        self._open.discard(connection)

    def next_ident(self, kind: bytes) -> bytes:
        """An id for an answer."""
        self._number += 1
        return b"%b-%b-%d" % (kind, self._salt, self._number)


class Connection(asyncio.Protocol):
    """One client. Requests that it pipelines wait until the one before has been answered."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.transport: asyncio.Transport | None = None
        self.is_paused = False
        self.resume: Callable[[], None] | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[_Asked] = deque()
        self._answering: _Asked | None = None
        self._job: _Reply | None = None
        self._url = b""
        self._body: list[bytes] = []
        self._head_bytes = self._body_bytes = 0
        self._expects = False
        self._is_broken = False

    # --- asyncio -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self.server.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._is_broken:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._break(400, "this server has no upgrades; send a plain HTTP/1.1 request")
        except httptools.HttpParserError as error:
            if not self._is_broken:
                self._break(400, f"this is not HTTP/1.1: {error}")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the Protocol's name
        self.transport = None
        self.server.closed(self)
        self._waiting.clear()
        job, self._job, self._answering = self._job, None, None
        if job is not None:
            job.withdraw()

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False
        if self.resume is not None:
            self.resume()

    # --- httptools -----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._url = b""
        self._body = []
        self._head_bytes = self._body_bytes = 0
        self._expects = False

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        if name.lower() == b"expect" and value.lower() == b"100-continue":
            self._expects = True

    def on_headers_complete(self) -> None:
        if self._expects and self._answering is None:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > _MAX_BODY_BYTES:
            self._break(413, f"the body has more than {_MAX_BODY_BYTES} bytes")
            raise httptools.HttpParserError("too large")
        self._body.append(body)

    def on_message_complete(self) -> None:
        parser = self._parser
        asked = _Asked(
            parser.get_method(),
            self._url.partition(b"?")[0],
            self._body[0] if len(self._body) == 1 else b"".join(self._body),
            parser.should_keep_alive(),
            parser.get_http_version() == "1.0",
        )
        if self._answering is None:
            self._answer(asked)
            return
        self._waiting.append(asked)
        if len(self._waiting) > _MAX_PIPELINED:
            self._break(503, f"more than {_MAX_PIPELINED} requests wait on one connection; await the answers")

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > _MAX_HEAD_BYTES:
            self._break(431, f"the head has more than {_MAX_HEAD_BYTES} bytes")
            raise httptools.HttpParserError("too large")

    # --- routes --------------------------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """An answer is under way."""
        return self._answering is not None

    def _answer(self, asked: _Asked) -> None:
        self._answering = asked
        route = _ROUTES.get(asked.path)
        if route is None:
            known = ", ".join(path.decode() for path in _ROUTES)
            self.fail(404, f"no route {asked.path.decode(errors='replace')}; there are {known}", "not_found")
        elif route[0] != asked.method:
            self.fail(405, f"expected {route[0].decode()} {asked.path.decode()}", "method_not_allowed")
        elif self.server.faults.refuse or (self.server.is_draining and route[0] == b"POST"):
            self.fail(503, "this engine takes no requests now; try another", "unavailable")
        else:
            try:
                route[1](self, asked.body)
            except BadRequest as error:
                self.fail(400, str(error), "invalid_request")

    def _health(self, _: bytes) -> None:
        if self.server.is_draining:
            self.fail(503, "this engine is shutting down", "unavailable")
        else:
            self.whole(200, b"", b"text/plain")

    def _metrics(self, _: bytes) -> None:
        engine = self.server.engine
        self.whole(200, engine.meter.page(engine.model, engine.gauges()), _METRICS)

    def _models(self, _: bytes) -> None:
        engine = self.server.engine
        self.whole(200, models_answer(engine.model, engine.kind, self.server.started, engine.facts))

    def _version(self, _: bytes) -> None:
        engine = self.server.engine
        self.whole(200, json_body({"version": f"zeta-{engine.kind}-engine", **engine.facts}))

    def _chat(self, body: bytes) -> None:
        asked = parse(Chat, body)
        messages = [(message.role, message.words()) for message in asked.messages]
        limit = asked.max_completion_tokens or asked.max_tokens
        self._generate(asked, self.server.engine.chat_prompt(messages), limit, is_chat=True)

    def _completion(self, body: bytes) -> None:
        asked = parse(Completion, body)
        prompts = prompts_of(asked.prompt)
        if len(prompts) != 1:
            raise BadRequest(f"{len(prompts)} prompts; this engine takes one at a time")
        self._generate(asked, prompts[0], asked.max_tokens, is_chat=False)

    def _generate(self, asked: Chat | Completion, prompt: str | list[int], limit: int | None, *, is_chat: bool) -> None:
        if not self._is_served(asked.model):
            return
        if asked.n not in (None, 1):
            raise BadRequest(f"n is {asked.n}; this engine gives one choice")
        if self._strikes():
            return
        exact = asked.zeta_output_tokens
        limit = limit or exact or _DEFAULT_TOKENS
        form = _Streamed if asked.stream else _Whole
        job = form(
            self,
            is_chat,
            prompt,
            limit,
            prompt_tokens=asked.zeta_prompt_tokens or 0,
            output_tokens=None if exact is None else min(exact, limit),
            ignores_end=asked.ignore_eos,
            priority=asked.priority,
            temperature=asked.temperature,
            seed=asked.seed,
        )
        if asked.stream and asked.stream_options is not None:
            job.tells_usage = asked.stream_options.include_usage
        self._submit(job)

    def _embed(self, body: bytes) -> None:
        asked = parse(Embedding, body)
        prompts = prompts_of(asked.input)
        if self._is_served(asked.model) and not self._strikes():
            self._submit(_Embedded(self, prompts, asked))

    def _submit(self, job: _Reply) -> None:
        self._job = job
        refusal = job.submit()
        if refusal is not None:
            self._job = None
            self.fail(refusal.status, refusal.message, refusal.code)

    def _is_served(self, model: str | None) -> bool:
        mine = self.server.engine.model
        if model is None or model == mine:
            return True
        self.fail(404, f"the model {model!r} does not exist; this engine serves {mine!r}", "model_not_found")
        return False

    def _strikes(self) -> bool:
        rate = self.server.faults.fail_rate
        if rate <= 0.0 or self.server.dice.random() >= rate:
            return False
        self.fail(500, "failed on purpose (fault injection)", "injected_fault")
        return True

    # --- answers -------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """To the client, if it is still there."""
        if self.transport is not None:
            self.transport.write(data)

    def whole(self, status: int, body: bytes, content_type: bytes = _JSON) -> None:
        """A whole answer; then the next request's turn comes."""
        asked = self._answering
        keeps = asked is not None and asked.keeps
        self.write(
            b"HTTP/1.1 %d %b\r\nserver: %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b\r\n%b"
            % (
                status,
                _REASONS[status],
                self.server.name,
                content_type,
                len(body),
                b"" if keeps else b"connection: close\r\n",
                body,
            )
        )
        self.done()

    def fail(self, status: int, message: str, code: str) -> None:
        """An error in OpenAI's form."""
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.whole(status, error_body(message, kind, code))

    def done(self) -> None:
        """The answer under way is written."""
        asked, self._answering, self._job, self.resume = self._answering, None, None, None
        if asked is None or not asked.keeps:
            self.drop()
        elif self._waiting:
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        if self._answering is None and self._waiting and self.transport is not None:
            self._answer(self._waiting.popleft())

    def drop(self) -> None:
        """Closes the connection once what was written has gone out."""
        self._is_broken = True
        self._waiting.clear()
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Closes the connection now; what the client has not read is lost."""
        if self.transport is not None:
            self.transport.abort()

    @property
    def is_old(self) -> bool:
        """The client speaks HTTP/1.0."""
        return self._answering is not None and self._answering.is_old

    def _break(self, status: int, message: str) -> None:
        self._is_broken = True
        self._waiting.clear()
        if self._answering is None:
            self.fail(status, message, "bad_http")  # without a request it also closes
        else:
            self.abort()


_ROUTES: Final[dict[bytes, tuple[bytes, Callable[[Connection, bytes], None]]]] = {
    b"/v1/chat/completions": (b"POST", Connection._chat),
    b"/v1/completions": (b"POST", Connection._completion),
    b"/v1/embeddings": (b"POST", Connection._embed),
    b"/v1/models": (b"GET", Connection._models),
    b"/health": (b"GET", Connection._health),
    b"/metrics": (b"GET", Connection._metrics),
    b"/version": (b"GET", Connection._version),
}


class _Reply(Job):
    """A job whose tokens go to a connection."""

    __slots__ = ("_connection", "_count", "_is_chat", "tells_usage")

    def __init__(
        self, connection: Connection, is_chat: bool, prompt: str | Sequence[int], max_tokens: int, **options: Any
    ) -> None:
        super().__init__(prompt, max_tokens, **options)
        self._connection = connection
        self._is_chat = is_chat
        self._count = 0
        self.tells_usage = False

    def submit(self) -> Refusal | None:
        """Into the engine."""
        return self._connection.server.engine.submit(self)

    def withdraw(self) -> None:
        """The client has left."""
        self._connection.server.engine.abort(self)

    def _ident(self) -> bytes:
        return self._connection.server.next_ident(b"chatcmpl" if self._is_chat else b"cmpl")


class _Whole(_Reply):
    """Answers once it has everything."""

    __slots__ = ("_pieces",)

    def __init__(
        self, connection: Connection, is_chat: bool, prompt: str | Sequence[int], max_tokens: int, **options: Any
    ) -> None:
        super().__init__(connection, is_chat, prompt, max_tokens, **options)
        self._pieces: list[bytes] = []

    def produced(self, pieces: Sequence[bytes], finish: str | None) -> None:
        self._pieces += pieces
        self._count += len(pieces)
        if finish is None:
            return
        server = self._connection.server
        if server.faults.stall_after is not None:
            return
        usage = (self.prompt_tokens, self._count)
        body = whole_answer(
            self._is_chat, self._ident(), int(time.time()), server.model_json, self._pieces, finish, usage
        )
        self._connection.whole(200, body)


class _Streamed(_Reply):
    """Answers with an event for each token."""

    __slots__ = ("_finish", "_form", "_held")

    def __init__(
        self, connection: Connection, is_chat: bool, prompt: str | Sequence[int], max_tokens: int, **options: Any
    ) -> None:
        super().__init__(connection, is_chat, prompt, max_tokens, **options)
        self._form: StreamForm | None = None
        self._held: list[bytes] = []
        self._finish: str | None = None

    def submit(self) -> Refusal | None:
        """Into the engine; the head of the answer goes out at once, as vLLM sends it."""
        server = self._connection.server
        refusal = server.engine.submit(self)
        if refusal is None and self._form is None:
            self._begin()
        return refusal

    def _begin(self) -> StreamForm:
        server = self._connection.server
        self._form = StreamForm(self._is_chat, self._ident(), int(time.time()), server.model_json)
        self._connection.write(server.stream_head_old if self._connection.is_old else server.stream_head)
        return self._form

    def produced(self, pieces: Sequence[bytes], finish: str | None) -> None:
        connection = self._connection
        if connection.is_paused:
            # A slow reader: what it has not taken waits here, at most max_tokens of it.
            self._held += pieces
            self._finish = finish
            connection.resume = self._catch_up
            return
        form = self._form or self._begin()
        faults = connection.server.faults
        if (faults.stall_after is not None or faults.cut_after is not None) and self._is_struck(form, pieces):
            return
        data = b""
        if pieces:
            if self._count == 0:
                data, pieces = form.first(pieces[0]), pieces[1:]
                self._count = 1
            if pieces:
                data += form.tokens(pieces)
                self._count += len(pieces)
        if finish is not None:
            data += form.end(finish, (self.prompt_tokens, self._count) if self.tells_usage else None)
        if not connection.is_old:
            data = (
                b"%x\r\n%b\r\n" % (len(data), data) if finish is None else b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
            )
        connection.write(data)
        if finish is not None:
            connection.done()

    def _catch_up(self) -> None:
        self._connection.resume = None
        held, self._held = self._held, []
        self.produced(held, self._finish)

    def _is_struck(self, form: StreamForm, pieces: Sequence[bytes]) -> bool:
        """Writes what comes before a stall or a cut; whether there is one."""
        faults = self._connection.server.faults
        limits = [limit for limit in (faults.stall_after, faults.cut_after) if limit is not None]
        left = min(limits) - self._count
        if left > len(pieces):
            return False
        for piece in pieces[: max(left, 0)]:
            event = form.first(piece) if self._count == 0 else form.tokens((piece,))
            self._count += 1
            self._connection.write(b"%x\r\n%b\r\n" % (len(event), event))
        if faults.cut_after is not None and self._count >= faults.cut_after:
            self._connection.drop()
        return True


class _Embedded(_Reply):
    """Answers with a vector for each input, once the engine has read them all."""

    __slots__ = ("_asked", "_jobs", "_left", "_vectors")

    def __init__(self, connection: Connection, prompts: list[str | list[int]], asked: Embedding) -> None:
        super().__init__(connection, False, "", 1)
        self._asked = asked
        self._jobs = [_Input(self, number, prompt, asked.priority) for number, prompt in enumerate(prompts)]
        self._vectors: list[Sequence[float]] = [()] * len(prompts)
        self._left = len(prompts)

    def submit(self) -> Refusal | None:
        engine = self._connection.server.engine
        for job in self._jobs:
            refusal = engine.submit(job)
            if refusal is not None:
                self.withdraw()
                return refusal
        return None

    def withdraw(self) -> None:
        for job in self._jobs:
            self._connection.server.engine.abort(job)

    def ended(self, number: int, job: Job) -> None:
        """One input is read."""
        server = self._connection.server
        self._vectors[number] = server.engine.vector(job, self._asked.dimensions)
        self._left -= 1
        if self._left or server.faults.stall_after is not None:
            return
        tokens = sum(job.prompt_tokens for job in self._jobs)
        is_base64 = self._asked.encoding_format == "base64"
        self._connection.whole(200, embedding_answer(server.engine.model, self._vectors, is_base64, tokens))


class _Input(Job):
    """One input of an embedding."""

    __slots__ = ("_number", "_parent")

    def __init__(self, parent: _Embedded, number: int, prompt: str | list[int], priority: int) -> None:
        super().__init__(prompt, 1, priority=priority, wants_vector=True)
        self._parent, self._number = parent, number

    def produced(self, pieces: Sequence[bytes], finish: str | None) -> None:  # noqa: ARG002 - the base's names
        if finish is not None:
            self._parent.ended(self._number, self)


@contextlib.asynccontextmanager
async def serving(
    engine: Engine, *, faults: Faults | None = None, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Server]:
    """A `Server` of this engine while the block runs, on the running event loop."""
    server = Server(engine, faults)
    await server.start(host, port)
    try:
        yield server
    finally:
        await server.close()
