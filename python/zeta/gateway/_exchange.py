"""One request's life: submitted, placed, sent, relayed, ended. Every end is told to the router exactly once."""

from __future__ import annotations

import asyncio
import re
from time import perf_counter, perf_counter_ns
from typing import TYPE_CHECKING, Final

from zeta.gateway._answers import OUTCOMES, Refusal, error_event, reply, request_id_field, stream_head
from zeta.gateway._body import Ask, is_json, sent_body
from zeta.gateway._keys import Identity
from zeta.gateway._sse import EventReader
from zeta.types import Outcome

if TYPE_CHECKING:
    from zeta.gateway._client import ClientConnection
    from zeta.gateway._server import Gateway
    from zeta.gateway._upstream import Server, ServerConnection
    from zeta.scheduler import Lease

__all__ = ["Exchange"]

_MAX_ANSWER_BYTES: Final = 64 << 20
_USAGE_WITHIN: Final = 512  # the usage is near the end of an answer
_COMPLETION_TOKENS: Final = b'"completion_tokens"'
_COUNT = re.compile(rb"\s*:\s*(\d{1,9})")
_RELAYED: Final = frozenset({400, 404, 413, 415, 422})
"""Statuses that are about the request and not about the server: a client must see them as they are."""
_MAX_TRIES: Final = 3
_LAST_CHUNK: Final = b"0\r\n\r\n"
_COMPLETED: Final = Outcome.COMPLETED  # a member's lookup and its value's are calls, and most requests end so
_COMPLETED_WORD: Final = Outcome.COMPLETED.value
_BUSY_RETRY_S: Final = 1.0
_NEVER: Final = float("inf")


class Exchange:
    """From a request that was understood to the last byte of its answer.

    It is told of the answer by a `ServerConnection` (see `Listener`), of its turn and of its end in the queue by the
    gateway, and of deadlines by the sweep. All on the event loop.

    Attributes
    ----------
    decision_us : float
        How long the router took to admit it, and to place it where its turn came at once.
    due_s : float
        When it is overdue, on the event loop's clock; see `overdue`.
    """

    # What an exchange begins with; instances set what differs. Most of it is never set.
    _answer_bytes = 0
    _connecting: asyncio.Task[None] | None = None
    _connection: ServerConnection | None = None
    _content_type = b""
    _fields = b""
    _first_s: float | None = None
    _has_begun = False
    _is_over = False
    _is_second_try = False
    _reader: EventReader | None = None
    _request = b""
    _retry_after: bytes | None = None
    _server: Server | None = None
    _status = 0
    _tries = 0
    decision_us = 0.0
    reason: str | None = None
    traceparent: str | None = None
    lease: Lease | None = None
    ticket = 0

    def __init__(
        self,
        gateway: Gateway,
        client: ClientConnection,
        ask: Ask,
        identity: Identity,
        request_id: bytes,
        keeps_alive: bool,
    ) -> None:
        self._gateway = gateway
        self._client = client
        self.ask = ask
        self.identity = identity
        self.request_id = request_id
        self._keeps_alive = keeps_alive
        self._answer: list[bytes] = []
        self._began_s = perf_counter()
        self.due_s = self._ends_s = gateway.loop.time() + gateway.config.serve.total_timeout_s

    # --- the queue

    def begin(self) -> None:
        """Puts it in the router's queue."""
        ask, gateway = self.ask, self._gateway
        began_ns = perf_counter_ns()
        self.ticket = gateway.router.submit(
            prompt_tokens=ask.prompt_tokens,
            max_tokens=ask.max_tokens,
            deadline_ms=ask.deadline_ms,
            max_wait_ms=gateway.queue_timeout_ms,
            tenant=self.identity.tenant,
            priority=ask.priority,
            models=ask.models,
            complexity=ask.complexity,
            affinity_key=ask.affinity_key,
            _channel=1,
        )
        self.decision_us = (perf_counter_ns() - began_ns) * 1e-3
        gateway.waiting[self.ticket] = self
        gateway.exchanges.add(self)
        gateway.pump()

    @property
    def tries(self) -> int:
        """On how many servers it was begun."""
        return self._tries

    @property
    def waited_ms(self) -> float:
        """Since it came."""
        return (perf_counter() - self._began_s) * 1e3

    def placed(self, lease: Lease) -> None:
        """Its turn has come."""
        gateway = self._gateway
        self.lease = lease
        server = gateway.servers.get(lease.replica)
        if server is None:
            self._fail("it has no address")
            return
        self._server = server
        self._tries += 1
        decided = gateway.note_decision(self, lease)
        self._fields = b"%b%bX-Zeta-Queue-Ms: %.1f\r\nX-Zeta-Reason: %b\r\nX-Request-Id: %b\r\n" % (
            gateway.model_fields[lease.model],
            server.field,
            lease.queued_ms,
            decided,
            self.request_id,
        )
        body = sent_body(self.ask, gateway.catalogue.served_names[lease.model], server.engine, server.sends_priority)
        self._request = server.request(self.ask.route, self.request_id, body)
        connection = server.take_idle()
        if connection is None:
            self._connect(server)
        else:
            self._send(connection)

    def ended_in_queue(self, outcome: Outcome) -> None:
        """It ends without having been placed: refused, expired, or tried too often."""
        status, message, code = OUTCOMES.get(outcome, (503, "it was not served; try again later", outcome.value))
        retry_after_s = self._gateway.retry_after_s(self.ticket)
        if retry_after_s is None and outcome is Outcome.REJECTED_NO_REPLICA:
            retry_after_s = _BUSY_RETRY_S
        self._tell_end(outcome)
        self._refuse(Refusal(status, message, code, retry_after_s=retry_after_s))

    # --- the server

    def _connect(self, server: Server) -> None:
        self.due_s = self._ends_s
        self._connecting = self._gateway.loop.create_task(self._connect_and_send(server))

    async def _connect_and_send(self, server: Server) -> None:
        try:
            connection = await server.connect()
        except OSError as error:
            self._connecting = None
            self._gateway.health.unreachable(server, error)
            self._fail(f"no connection: {error.strerror or type(error).__name__}")
            return
        self._connecting = None
        self._send(connection)

    def _send(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._reader = None
        self._status = 0
        self._answer.clear()
        self._answer_bytes = 0
        if self.ask.is_stream or self.ask.route == "embeddings":
            self._await_token(self._gateway.config.serve.first_token_timeout_s)
        else:
            self.due_s = self._ends_s  # nothing comes before the whole answer
        connection.send(self._request, self)

    def answer_head(self, status: int, content_type: bytes, retry_after: bytes | None) -> None:
        """See `Listener`."""
        self._status = status
        self._content_type = content_type
        self._retry_after = retry_after
        if status == 200 and self.ask.is_stream and content_type[:17].lower() == b"text/event-stream":
            self._reader = EventReader(not self.ask.wants_usage)

    def answer_data(self, data: bytes) -> None:
        """See `Listener`."""
        self._answer.append(data)
        if self._reader is None:
            self._answer_bytes += len(data)
            if self._answer_bytes > _MAX_ANSWER_BYTES:
                raise ValueError("the answer is longer than 64 MiB")

    def answer_paused(self) -> None:
        """See `Listener`."""
        if self._reader is not None and self._answer:
            self._relay()

    def answer_ended(self) -> None:
        """See `Listener`."""
        connection, self._connection = self._connection, None
        reader = self._reader
        if reader is None:
            self._end_whole(connection is not None and connection.has_length)
            return
        if self._answer and not self._relay():
            return
        if reader.is_done and not reader.has_error:
            self._end_stream()
        elif reader.has_error:
            # The server said itself what is wrong; the client has it.
            self._gateway.health.failed(self._server, "an error in its stream")
            self._tell_failure(timed_out=False)
            self._client.write(_LAST_CHUNK)
            self._client.answered(False)
        else:
            self._gateway.health.failed(self._server, "its stream ended early")
            self._broken("its stream ended early")

    def answer_failed(self, why: str) -> None:
        """See `Listener`."""
        connection, self._connection = self._connection, None
        server, reader = self._server, self._reader
        assert server is not None
        if reader is not None and reader.is_done and not reader.has_error:
            self._end_stream()  # the client has all of it
            return
        if connection is not None and connection.is_silent_reuse and self._tries < _MAX_TRIES:
            self._tries += 1
            self._connect(server)  # closed while nobody used it: no failure of the server
            return
        self._gateway.health.broke(server, why)
        self._broken(why)

    def _relay(self) -> bool:
        """Sends on what has come of a stream. False: it was ended instead."""
        reader = self._reader
        assert reader is not None
        data = b"".join(self._answer) if len(self._answer) > 1 else self._answer[0]
        self._answer.clear()
        events = reader.events
        try:
            data = reader.read(data)
        except ValueError as error:
            self._gateway.health.failed(self._server, str(error))
            self._fail(str(error))
            return False
        if not data:
            return True
        chunk = b"%x\r\n%b\r\n" % (len(data), data)
        if not self._has_begun:
            self._has_begun = True
            chunk = stream_head(200, self._content_type, self._fields, keeps_alive=self._keeps_alive) + chunk
        if self._first_s is None and reader.events:
            self._note_first_token()
        self._client.write(chunk)
        if reader.events != events:  # a comment that keeps the connection alive is no token
            self._await_token(self._gateway.config.serve.inter_token_timeout_s)
        return True

    def _await_token(self, seconds: float) -> None:
        due_s = self._gateway.loop.time() + seconds
        self.due_s = due_s if due_s < self._ends_s else self._ends_s

    def _end_stream(self) -> None:
        """A stream has come whole."""
        reader = self._reader
        assert reader is not None
        self._complete(reader.output_tokens if reader.output_tokens is not None else reader.events)
        self._client.write(_LAST_CHUNK)
        self._client.answered(self._keeps_alive)

    def _end_whole(self, has_length: bool) -> None:
        """An answer that is no stream has come whole, as far as can be seen where it has no length."""
        body = b"".join(self._answer)
        status = self._status
        if status == 200 and not has_length and not is_json(body):
            self._gateway.health.failed(self._server, "its answer ended early")
            self._broken("its answer ended early")
            return
        if status == 200:
            # When its first token came, nobody saw: the router is not told of one, but the client waited until now.
            self._first_s = perf_counter()
            self._complete(_completion_tokens(body))
        elif status in _RELAYED:
            self._complete(0)
        elif status in (429, 503):
            # It asks to be left alone, so it is not asked again where no other can be.
            if not (self._gateway.health.has_other(self._server) and self._try_again()):
                after = self._retry_after
                seconds = float(after[:9]) if after is not None and after.isdigit() else _BUSY_RETRY_S
                self._tell_failure(timed_out=False)
                self._refuse(Refusal(503, "its server is busy; try again later", "server_busy", None, seconds))
            return
        else:
            # 401 and 403 too: the key is the gateway's, not the client's. Redirects are not followed.
            self._gateway.health.failed(self._server, f"HTTP {status}")
            self._broken(f"HTTP {status}")
            return
        self._client.write(
            reply(
                status,
                body,
                fields=self._fields,
                content_type=self._content_type or b"application/json",
                keeps_alive=self._keeps_alive,
            )
        )
        self._client.answered(self._keeps_alive)

    def _note_first_token(self) -> None:
        self._first_s = perf_counter()
        gateway, lease = self._gateway, self.lease
        assert lease is not None
        gateway.router.first_token(lease)
        gateway.pump()  # its prefill is over: another may begin
        gateway.observed.first_token(lease.model, (self._first_s - self._began_s) * 1e3)

    # --- ends

    def client_left(self) -> None:
        """The client has gone: whatever works for it stops."""
        if self._is_over:
            return
        self._let_go()
        self._gateway.router.cancel(self.ticket)
        self._tell_end(Outcome.CANCELLED if self.lease is None else Outcome.CANCELLED_RUNNING)
        self._gateway.pump()

    def overdue(self) -> None:
        """`due_s` has passed: no byte, no token, or no end in time."""
        if self.lease is None:
            self._gateway.router.cancel(self.ticket)
            self._tell_end(Outcome.CANCELLED)
            self._refuse(Refusal(503, "it waited for as long as it may; try again later", "total_timeout", None, 1.0))
            return
        if self._server is not None and self.due_s < self._ends_s:
            self._gateway.health.failed(self._server, "no token in time")
        self._let_go()
        self._end_broken("its server did not answer in time", "server_timeout", timed_out=True)

    def is_hopeless(self, down: set[str]) -> bool:
        """Whether it waits for nothing but models that are down."""
        return self.ask.models is not None and down.issuperset(self.ask.models)

    def give_up(self) -> None:
        """It need not wait any longer: there is no server for it."""
        self._gateway.router.cancel(self.ticket)
        self._tell_end(Outcome.CANCELLED)
        status, message, code = OUTCOMES[Outcome.REJECTED_NO_REPLICA]
        self._refuse(Refusal(status, message, code, retry_after_s=_BUSY_RETRY_S))

    def server_removed(self, server: Server) -> None:
        """Its server is taken out of the fleet."""
        if self._server is server and self.lease is not None:
            self._fail("it was removed")

    def shut(self) -> None:
        """The gateway stops, and will wait no longer."""
        if self.lease is None:
            self._gateway.router.cancel(self.ticket)
            self._tell_end(Outcome.CANCELLED)
            self._refuse(Refusal(503, "the gateway is stopping; try again elsewhere", "stopping", None, 1.0))
            return
        self._let_go()
        self._end_broken("the gateway is stopping", "stopping", timed_out=False)

    def pause(self) -> None:
        """The client reads slower than its answer comes."""
        if self._connection is not None:
            self._connection.pause()
            self.due_s = self._ends_s  # its server may not send, so it cannot be late

    def resume(self) -> None:
        """The client reads again."""
        if self._connection is not None:
            self._connection.resume()
            self._await_token(self._gateway.config.serve.inter_token_timeout_s)

    def _let_go(self) -> None:
        """Gives up the server's connection: the server sees it close."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    def _fail(self, why: str) -> None:
        self._let_go()
        self._broken(why)

    def _broken(self, why: str) -> None:
        """The server failed it: once more elsewhere if nothing was sent on yet, else the client is told."""
        if not self._has_begun and self._try_again():
            return
        self._end_broken(f"its server failed: {why}", "server_failed", timed_out=False)

    def _end_broken(self, why: str, code: str, *, timed_out: bool) -> None:
        self._tell_failure(timed_out=timed_out)
        if self._has_begun:
            event = error_event(why, code)
            self._client.write(b"%x\r\n%b\r\n%b" % (len(event), event, _LAST_CHUNK))
            self._client.answered(False)
        else:
            self._refuse(Refusal(504 if timed_out else 502, f"{why}; try again", code))

    def _try_again(self) -> bool:
        """Back to the front of the queue, if that is allowed."""
        gateway = self._gateway
        lease = self.lease
        assert lease is not None
        deadline_ms = self.ask.deadline_ms
        if self._tries >= _MAX_TRIES or gateway.loop.time() >= self._ends_s:
            return False
        if deadline_ms is not None and self.waited_ms >= deadline_ms:
            return False
        if not self._is_second_try:
            if not gateway.retries.take(len(gateway.exchanges)):
                return False
            self._is_second_try = True
        self.lease = None
        self.due_s = self._ends_s
        gateway.waiting[self.ticket] = self
        gateway.router.fail(lease, requeue=True)
        gateway.pump()
        return True

    def _complete(self, output_tokens: int | None) -> None:
        lease = self.lease
        assert lease is not None
        self._gateway.health.succeeded(self._server)
        self._gateway.router.complete(lease, output_tokens)
        self._tell_end(_COMPLETED, output_tokens)
        self._gateway.pump()

    def _tell_failure(self, *, timed_out: bool) -> None:
        lease = self.lease
        assert lease is not None
        self._gateway.router.fail(lease, timed_out=timed_out)
        self._tell_end(Outcome.FAILED_TIMEOUT if timed_out else Outcome.FAILED_REPLICA)
        self._gateway.pump()

    def _tell_end(self, outcome: Outcome, output_tokens: int | None = None) -> None:
        """Counts and forgets it; the router has been told."""
        gateway = self._gateway
        self._is_over = True
        self.due_s = _NEVER
        gateway.waiting.pop(self.ticket, None)
        gateway.exchanges.discard(self)
        if self._is_second_try:
            gateway.retries.give_back()
        now_s = perf_counter()
        took_ms = (now_s - self._began_s) * 1e3
        ttft_ms = tpot_ms = None
        if self._first_s is not None:
            ttft_ms = (self._first_s - self._began_s) * 1e3
            if output_tokens is not None and output_tokens > 1 and self._reader is not None:
                tpot_ms = (now_s - self._first_s) * 1e3 / (output_tokens - 1)
        gateway.observed.ended(
            None if self.lease is None else self.lease.model,
            self.identity.tenant,
            _COMPLETED_WORD if outcome is _COMPLETED else outcome.value,
            ttft_ms,
            tpot_ms,
            took_ms,
            output_tokens,
            None if self.ask.deadline_ms is None else ttft_ms is not None and ttft_ms <= self.ask.deadline_ms,
        )
        gateway.note_end(self, outcome, output_tokens, took_ms, ttft_ms)

    def _refuse(self, refusal: Refusal) -> None:
        self._client.refuse(refusal, self._fields or request_id_field(self.request_id))


def _completion_tokens(body: bytes) -> int | None:
    """What the usage at the end of an answer says; None: it says nothing."""
    at = body.rfind(_COMPLETION_TOKENS, max(0, len(body) - _USAGE_WITHIN))
    count = _COUNT.match(body, at + len(_COMPLETION_TOKENS)) if at >= 0 else None
    return None if count is None else int(count[1])
