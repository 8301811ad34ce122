"""Connections to the servers: one request at a time each, kept for the next."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import urllib.parse
from typing import Final, Protocol

import httptools

from zeta.config import Replica
from zeta.errors import ConfigError

__all__ = ["Listener", "Server", "ServerConnection", "field_text", "no_delay"]

_MAX_SILENT_BYTES: Final = 65_536
"""Of an answer's head, of a chunk's extensions, of trailers: whatever comes between two pieces of a body."""
_MAX_IDLE: Final = 256  # connections kept per server
_PLAIN = re.compile(rb"[\x20-\x7e]{1,256}")


class Listener(Protocol):
    """Who waits for a server's answer. All calls come from the event loop; after `answer_failed` none comes."""

    def answer_head(self, status: int, content_type: bytes, retry_after: bytes | None) -> None:
        """The head has come."""

    def answer_data(self, data: bytes) -> None:
        """More of the body."""

    def answer_paused(self) -> None:
        """For now, that was all that had come."""

    def answer_ended(self) -> None:
        """The body is whole."""

    def answer_failed(self, why: str) -> None:
        """There will be no whole answer: the connection broke, or what came is no HTTP."""


class Server:
    """One replica's address, and connections to it.

    Parameters
    ----------
    replica : Replica
        With a url.
    key : str or None
        What the server is shown as its ``Authorization``.
    connect_timeout_s : float
    """

    def __init__(self, replica: Replica, key: str | None, connect_timeout_s: float) -> None:
        parts = urllib.parse.urlsplit(replica.url or "")
        if not parts.hostname:
            raise ConfigError(
                f"replica {replica.name!r} has url = {replica.url!r}; the gateway needs http://host:port/v1",
                "models.replicas.url",
                replica.url,
                "an address that starts with http:// or https://",
            )
        self.name = replica.name
        self.engine = replica.engine
        self.sends_priority = replica.sends_priority
        self._host = parts.hostname
        self._is_tls = parts.scheme == "https"
        self._port = parts.port or (443 if self._is_tls else 80)
        self._tls = ssl.create_default_context() if self._is_tls else None
        self._connect_timeout_s = connect_timeout_s
        base = parts.path.rstrip("/")
        self.base = base if base.endswith("/v1") else f"{base}/v1"
        authorization = f"Authorization: Bearer {key}\r\n" if key else ""
        self._heads = {
            route: (
                f"POST {self.base}/{path} HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\n"
                f"Content-Type: application/json\r\nAccept-Encoding: identity\r\n{authorization}"
            ).encode()
            for route, path in (
                ("chat", "chat/completions"),
                ("completions", "completions"),
                ("embeddings", "embeddings"),
            )
        }
        self.health_url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{self.base}/models"
        self.health_headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.field = b"X-Zeta-Replica: %b\r\n" % field_text(replica.name)
        self._idle: list[ServerConnection] = []
        self._all: set[ServerConnection] = set()

    def request(self, route: str, request_id: bytes, body: bytes) -> bytes:
        """A whole request."""
        return b"%bX-Request-Id: %b\r\nContent-Length: %d\r\n\r\n%b" % (
            self._heads[route],
            request_id,
            len(body),
            body,
        )

    def take_idle(self) -> ServerConnection | None:
        """A connection that waits for work; None: open one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None

    async def connect(self) -> ServerConnection:
        """A new connection.

        Raises
        ------
        OSError
            If there is none within ``connect_timeout_s``.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await loop.create_connection(
                    lambda: ServerConnection(self), self._host, self._port, ssl=self._tls
                )
        except TimeoutError:
            raise OSError(f"no connection within {self._connect_timeout_s:g} s") from None
        self._all.add(connection)
        return connection

    def give_back(self, connection: ServerConnection) -> None:
        """Its answer is whole; another request may use it."""
        if len(self._idle) < _MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.abort()

    def lost(self, connection: ServerConnection) -> None:
        """It is gone."""
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Ends all connections."""
        for connection in list(self._all):
            connection.abort()
        self._idle.clear()


class ServerConnection(asyncio.Protocol):
    """HTTP/1.1 to one server. Redirects are not followed: no answer chooses where a request goes.

    Attributes
    ----------
    has_length : bool
        Whether the answer says where it ends. Otherwise it ends with the connection, as a killed server's does too.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._listener: Listener | None = None
        self._requests = 0
        self._is_paused = False
        self._begin()

    def _begin(self) -> None:
        """Nothing of an answer has come."""
        self._received_bytes = 0
        self._silent_bytes = 0
        self._content_type = b""
        self._retry_after: bytes | None = None
        self.has_length = False
        self._has_head = False
        self._is_whole = False
        self._keeps_alive = False

    @property
    def is_open(self) -> bool:
        """Whether a request may be sent on it."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_silent_reuse(self) -> bool:
        """Whether it was kept from an earlier request and this one had no byte of an answer: it was closed meanwhile,
        most likely, and the request not begun."""
        return self._requests > 1 and self._received_bytes == 0

    def send(self, request: bytes, listener: Listener) -> None:
        """Sends a request; `listener` is told of the answer."""
        assert self._transport is not None
        self._begin()
        self._requests += 1
        self._listener = listener
        self._transport.write(request)

    def pause(self) -> None:
        """Reads no more for now: whoever gets the answer cannot take it."""
        if self._transport is not None and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Reads on."""
        if self._transport is not None and self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """Closes at once, telling nobody here: the server sees it and stops its work."""
        self._listener = None
        if self._transport is not None:
            self._transport.abort()

    # --- from the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's derives from nothing of asyncio's
        no_delay(transport)

    def data_received(self, data: bytes) -> None:
        listener = self._listener
        if listener is None:
            self.abort()  # nobody asked
            return
        self._received_bytes += len(data)
        self._silent_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except Exception as error:
            # httptools wraps what a callback raises. Whatever it was, the answer cannot be used.
            self._fail(f"its answer is not readable ({type(error.__context__ or error).__name__})")
            return
        if self._listener is None:  # it was aborted on the way
            return
        if self._silent_bytes > _MAX_SILENT_BYTES:
            self._fail("a head or a trailer of its answer is too long")
            return
        if not self._is_whole:
            listener.answer_paused()
            return
        self._listener = None
        if self._keeps_alive and self.is_open:
            self.resume()
            self._server.give_back(self)
        else:
            self.abort()
        listener.answer_ended()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._server.lost(self)
        listener, self._listener = self._listener, None
        if listener is None:
            return
        if self._has_head and not self.has_length and error is None:
            listener.answer_ended()  # an answer without a length ends with its connection
        else:
            listener.answer_failed("it closed the connection before its answer was whole")

    def _fail(self, why: str) -> None:
        listener, self._listener = self._listener, None
        if self._transport is not None:
            self._transport.abort()
        if listener is not None:
            listener.answer_failed(why)

    # --- from the parser

    def on_message_begin(self) -> None:
        if self._is_whole:
            raise ValueError("a second answer to one request")
        self._content_type = b""
        self._retry_after = None
        self.has_length = False

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower == b"content-type":
            # It goes on to the client, so it must be what a head may hold.
            self._content_type = value if _PLAIN.fullmatch(value) else b""
        elif lower == b"content-length" or lower == b"transfer-encoding":
            self.has_length = True
        elif lower == b"retry-after":
            self._retry_after = value
        elif lower == b"content-encoding" and value.lower() != b"identity":
            raise ValueError("a compressed answer, which nobody asked for")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and self._listener is not None:  # below that (100 Continue) the answer is still to come
            self._has_head = True
            self._listener.answer_head(status, self._content_type, self._retry_after)

    def on_body(self, data: bytes) -> None:
        self._silent_bytes = 0
        if self._listener is not None:
            self._listener.answer_data(data)

    def on_message_complete(self) -> None:
        if self._has_head:
            self._is_whole = True
            self._keeps_alive = self._parser.should_keep_alive()


def field_text(name: str) -> bytes:
    """A name as the value of a header field."""
    return "".join(each if " " <= each <= "~" else "?" for each in name).encode()


def no_delay(transport: asyncio.BaseTransport) -> None:
    """Small writes leave at once."""
    raw = transport.get_extra_info("socket")
    if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
