"""A client's connection: reads requests one after another, writes what comes of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import httptools

from zeta.gateway._answers import Refusal, reply, request_id_field
from zeta.gateway._body import ROUTES, read_ask
from zeta.gateway._exchange import Exchange
from zeta.gateway._head import END, Head, HeadReader
from zeta.gateway._upstream import no_delay

if TYPE_CHECKING:
    from zeta.gateway._keys import Identity, Keys
    from zeta.gateway._server import Gateway

__all__ = ["ClientConnection"]

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_NEVER: Final = float("inf")


class ClientConnection(asyncio.Protocol):
    """HTTP/1.1 from one client.

    Requests for completions are served here; for anything else the connection goes to the control application, together
    with what was read of the request.

    Attributes
    ----------
    due_s : float
        When the client is overdue, on the event loop's clock: with its head, its body, or with reading.
    """

    __slots__ = (
        "_body",
        "_buffer",
        "_chunked",
        "_exchange",
        "_gateway",
        "_head",
        "_head_reader",
        "_identity",
        "_is_closing",
        "_known_by",
        "_transport",
        "due_s",
    )

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._head: Head | None = None
        self._head_reader = HeadReader()
        self._identity: Identity | None = None
        self._known_by: tuple[Head | None, Keys | None] = None, None
        self._body: bytearray | None = None
        self._chunked: _ChunkedBody | None = None
        self._exchange: Exchange | None = None
        self._is_closing = False
        self.due_s = _NEVER

    # --- from the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's derives from nothing of asyncio's
        gateway = self._gateway
        no_delay(transport)
        self._transport.set_write_buffer_limits(high=gateway.config.serve.buffer_bytes)  # type: ignore[union-attr]
        if len(gateway.clients) >= gateway.config.serve.max_connections:
            gateway.observed.refused(503, "connections")
            self._close_with(Refusal(503, "too many connections; try again later", "too_many_connections", None, 1.0))
            return
        gateway.clients.add(self)
        self._wait(gateway.config.serve.header_timeout_s)

    def data_received(self, data: bytes) -> None:
        if self._is_closing:
            return
        if self._exchange is not None:
            # The next request before this one's answer: it waits, within what a head may have.
            self._buffer += data
            if len(self._buffer) > self._gateway.config.serve.max_header_bytes:
                self._drop()
            return
        if self._head is not None:
            self._read_body(data)
            return
        self._buffer = self._buffer + data if self._buffer else data
        self._read_head()

    def eof_received(self) -> None:
        if self._exchange is not None:
            self._drop()  # who sends no more is taken to have left

    def connection_lost(self, _error: Exception | None) -> None:
        self._gateway.clients.discard(self)
        self._transport = None
        self.due_s = _NEVER
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_left()

    def pause_writing(self) -> None:
        self._wait(self._gateway.config.serve.write_timeout_s)
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        self.due_s = _NEVER
        if self._exchange is not None:
            self._exchange.resume()

    # --- from the exchange

    def write(self, data: bytes) -> None:
        """Sends something of an answer."""
        if self._transport is not None:
            self._transport.write(data)

    def answered(self, keeps_alive: bool) -> None:
        """The answer is whole; the next request may come, or may have come already."""
        self._exchange = None
        if not keeps_alive or self._gateway.is_draining:
            self._close()
            return
        serve = self._gateway.config.serve
        self._wait(serve.header_timeout_s if self._buffer else serve.idle_timeout_s)
        if self._buffer:
            self._gateway.loop.call_soon(self._read_head)  # not from within the call of a server's connection

    def refuse(self, refusal: Refusal, fields: bytes) -> None:
        """Answers with an error instead; the connection can go on."""
        self._gateway.observed.refused(refusal.status, refusal.code)
        keeps_alive = not self._gateway.is_draining
        self.write(
            reply(
                refusal.status,
                refusal.body(),
                fields=fields,
                keeps_alive=keeps_alive,
                retry_after_s=refusal.retry_after_s,
            )
        )
        self.answered(keeps_alive)

    # --- from the sweep

    def overdue(self) -> None:
        """`due_s` has passed."""
        self.due_s = _NEVER
        if self._exchange is not None or (self._head is None and not self._buffer):
            self._drop()  # it reads nothing, or it asks nothing
            return
        what = "head" if self._head is None else "body"
        self._refuse_and_close(Refusal(408, f"the request's {what} did not come in time", "request_timeout"))

    def shut(self) -> None:
        """The gateway stops: idle connections end, others after their answer."""
        if self._exchange is None and self._head is None:
            self._close()

    # --- reading

    def _read_head(self) -> None:
        gateway = self._gateway
        serve = gateway.config.serve
        buffer = self._buffer
        if self._transport is None or self._exchange is not None or not buffer:
            return
        end = buffer.find(END)
        if end < 0 and len(buffer) <= serve.max_header_bytes:
            # Line ends before a request are let pass, as RFC 9112 says.
            if buffer.startswith((b"\r\n", b"\n")):
                self._buffer = buffer.lstrip(b"\r\n")
            if self.due_s == _NEVER or self.due_s > gateway.loop.time() + serve.header_timeout_s:
                self._wait(serve.header_timeout_s)
            return
        if end < 0 or end > serve.max_header_bytes:
            self._refuse_and_close(
                Refusal(431, f"the request's head is longer than {serve.max_header_bytes} bytes", "headers_too_large")
            )
            return
        start = 2 if buffer.startswith(b"\r\n") else 0
        try:
            head = self._head_reader.read(buffer[start : end + 4])
        except Refusal as refusal:
            self._refuse_and_close(refusal)
            return
        route = ROUTES.get(head.path)
        if route is None or head.method != b"POST":
            self._hand_over(buffer[start:])
            return
        if head.body_bytes > serve.max_body_bytes:
            self._refuse_and_close(_too_large(serve.max_body_bytes))
            return
        rest = buffer[end + 4 :]
        self._buffer = b""
        self._head = head
        if head.body_bytes >= 0 and len(rest) >= head.body_bytes:
            self._buffer = rest[head.body_bytes :]
            self._ask(route, head, rest[: head.body_bytes])
            return
        # Before a long body is read: may it come at all?
        if self._identify(head) is None:
            self._refuse_and_close(_UNKNOWN)
            return
        self._wait(serve.body_timeout_s)
        if head.expects_continue:
            self.write(_CONTINUE)
        if head.body_bytes < 0:
            self._chunked = _ChunkedBody(serve.max_body_bytes)
        else:
            self._body = bytearray()
        if rest:
            self._read_body(rest)

    def _read_body(self, data: bytes) -> None:
        head = self._head
        assert head is not None
        route = ROUTES[head.path]
        if self._chunked is not None:
            try:
                body = self._chunked.read(data)
            except Refusal as refusal:
                self._refuse_and_close(refusal)
                return
            if body is not None:
                self._chunked = None
                # What followed the last chunk is not known: this connection ends with its answer.
                head.keeps_alive = False
                self._ask(route, head, body)
            return
        assert self._body is not None
        missing = head.body_bytes - len(self._body)
        self._body += data[:missing]
        if len(data) >= missing:
            body = bytes(self._body)
            self._body = None
            self._buffer = data[missing:]
            self._ask(route, head, body)

    def _ask(self, route: str, head: Head, raw: bytes) -> None:
        """A request is whole."""
        gateway = self._gateway
        self._head = None
        self.due_s = _NEVER
        request_id = gateway.request_id(head.fields.get(b"x-request-id"))
        if gateway.is_draining:
            self._is_closing = True
            self.refuse(
                Refusal(503, "the gateway is stopping; try again elsewhere", "stopping", None, 1.0),
                request_id_field(request_id),
            )
            return
        identity = self._identify(head)
        if identity is None:
            self.refuse(_UNKNOWN, request_id_field(request_id))
            return
        try:
            ask = read_ask(route, head, raw, gateway.catalogue, gateway.config.serve)
        except Refusal as refusal:
            self.refuse(refusal, request_id_field(request_id))
            return
        exchange = Exchange(gateway, self, ask, identity, request_id, head.keeps_alive)
        if gateway.traces is not None and (parent := head.fields.get(b"traceparent")) is not None:
            exchange.traceparent = parent.decode("ascii", "replace")
        self._exchange = exchange
        exchange.begin()

    def _identify(self, head: Head) -> Identity | None:
        """Whose request it is. The head of the last request says who it was, while the keys are the same."""
        known_head, known_keys = self._known_by
        keys = self._gateway.keys
        if head is not known_head or keys is not known_keys:
            self._identity = self._gateway.identify(head)
            self._known_by = head, keys
        return self._identity

    def _hand_over(self, data: bytes) -> None:
        """Everything but completions: the control application speaks on this connection from here on."""
        gateway, transport = self._gateway, self._transport
        assert transport is not None
        gateway.clients.discard(self)
        self.due_s = _NEVER
        self._is_closing = True
        self._transport = None
        protocol = gateway.control_protocol()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(data)

    # --- ends

    def _wait(self, seconds: float) -> None:
        self.due_s = self._gateway.loop.time() + seconds

    def _refuse_and_close(self, refusal: Refusal) -> None:
        """Where the next request begins is not known, or is not wanted."""
        self._gateway.observed.refused(refusal.status, refusal.code)
        self._close_with(refusal)

    def _close_with(self, refusal: Refusal) -> None:
        self.write(reply(refusal.status, refusal.body(), keeps_alive=False, retry_after_s=refusal.retry_after_s))
        self._close()

    def _close(self) -> None:
        """After what was written."""
        self._is_closing = True
        if self._transport is not None:
            self._wait(self._gateway.config.serve.write_timeout_s)  # a client that does not read does not keep it open
            self._transport.close()

    def _drop(self) -> None:
        """At once, with whatever is done for it."""
        self._is_closing = True
        self.due_s = _NEVER
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_left()


class _ChunkedBody:
    """A body that comes in chunks, decoded by httptools."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._body = bytearray()
        self._is_whole = False
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(b"POST / HTTP/1.1\r\nHost: body\r\nTransfer-Encoding: chunked\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        if not self._is_whole:
            self._body += data
            if len(self._body) > self._most:
                raise _too_large(self._most)

    def on_message_complete(self) -> None:
        self._is_whole = True

    def read(self, data: bytes) -> bytes | None:
        """The body once it is whole.

        Raises
        ------
        Refusal
            400 or 413.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, Refusal):
                raise error.__context__ from None
            if not self._is_whole:  # what follows the body is not read
                raise Refusal(400, "the body's chunks are malformed", "malformed_request") from None
        return bytes(self._body) if self._is_whole else None


_UNKNOWN: Final = Refusal(
    401, "no valid key was shown; send Authorization: Bearer KEY with a key of this gateway", "invalid_api_key"
)


_STOPPING: Final = Refusal(503, "the gateway is stopping; try again elsewhere", "stopping", None, 1.0)


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"the body is longer than {most} bytes; send less", "body_too_large")
