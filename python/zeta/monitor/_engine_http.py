"""GET over one kept connection, in steps that never wait; and many such exchanges at once, against one deadline."""

from __future__ import annotations

import contextlib
import enum
import errno
import http.client
import io
import os
import re
import select
import socket
import ssl
import time
import urllib.parse
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final, NamedTuple

__all__ = ["Answer", "Conversation", "EngineError", "EngineHttp", "carry_on"]

MAX_BODY_BYTES: Final = 16 << 20
_MAX_HEAD_BYTES: Final = 1 << 16
_PIECE_BYTES: Final = 1 << 16
_MOST_PIECES: Final = 512  # in one step: more than an answer may be long
_GATHER_S: Final = 0.002
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,12})[ \t]*(?=\r)")
_UNUSUAL: Final = re.compile(rb"\r\n(?:transfer-encoding|connection)[ \t]*:(?![ \t]*keep-alive[ \t]*\r)|\n[ \t]")

Answer = tuple[int, bytes]
"""Status and body."""


class EngineError(Exception):
    """The engine does not answer, or not in its own words. The text names neither key nor query."""


class _Stage(enum.Enum):
    CONNECTING = 0
    SHAKING_HANDS = 1
    READY = 2


class _Form(NamedTuple):
    """How an answer ends, by its head."""

    status: int
    begin: int  # of the body
    length: int | None
    is_chunked: bool
    is_last: bool  # the server closes the connection


class EngineHttp:
    """Asks one server. Redirects are not followed: an engine has no reason to send its scheduler elsewhere.

    One request at a time: `begin`, then `step` until it returns 0, then `answer`. No call waits, but for the look-up of
    the host's name when a connection is opened.

    Parameters
    ----------
    url : str
        Scheme, host, port and perhaps a path before the engine's own paths.
    headers : mapping of str to str
        Sent with every request.

    Attributes
    ----------
    answer : (int, bytes)
        Of the last request: status and body.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url is {url!r}; expected http://host:port or https://host:port")
        self._is_secure = parts.scheme == "https"
        self._host, self._base = parts.hostname, parts.path.rstrip("/")
        self._port = parts.port or (443 if self._is_secure else 80)
        self._headers = dict(headers)
        self._requests: dict[str, bytes] = {}
        self._context: ssl.SSLContext | None = None
        self._addresses: list[tuple[Any, ...]] = []
        self._address = 0
        self._connections = 0  # opened for this request
        self._sock: socket.socket | None = None
        self._stage = _Stage.CONNECTING
        self._is_kept = False
        self._cuts = self._cuts_before = 0
        self._path = ""
        self._out = b""
        self._in: bytes | bytearray = b""
        self._form: _Form | None = None
        self.answer: Answer = (0, b"")

    def begin(self, path: str) -> None:
        """The next request is for `path`, such as ``"/metrics"``."""
        self._path = path
        self._is_kept = self._sock is not None
        self._cuts_before = self._cuts
        self._connections = 0
        self._start_over()

    def step(self) -> int:
        """Goes on as far as that is possible at once.

        Returns
        -------
        int
            0: the answer is whole. Else the event of `select.poll` to wait for.

        Raises
        ------
        EngineError
            If there will be no answer.
        """
        while True:
            try:
                return self._go_on()
            except (BlockingIOError, ssl.SSLWantReadError):
                return select.POLLIN
            except ssl.SSLWantWriteError:
                return select.POLLOUT
            except (http.client.HTTPException, OSError, ValueError) as error:
                self._drop()
                # A server may have closed an idle connection; a fresh one deserves one try, and so does the next
                # address of a host that has several.
                is_elsewhere = self._stage is _Stage.CONNECTING and self._connections < len(self._addresses)
                if self._cuts != self._cuts_before or not (self._is_kept or is_elsewhere):
                    raise EngineError(f"GET {self._path}: {type(error).__name__}: {error}") from error
                self._is_kept = False
                self._start_over()

    def give_up(self) -> EngineError:
        """Its time is over: closes the connection, and says so."""
        if self._stage is _Stage.CONNECTING:
            self._address += 1  # where a host has several, the next may be better
        self._drop()
        return EngineError(f"GET {self._path}: TimeoutError: its time is over")

    def fileno(self) -> int:
        """Of the connection; -1 where there is none."""
        sock = self._sock
        return -1 if sock is None else sock.fileno()

    def close(self) -> None:
        """Closes the connection, from any thread; the next request opens another."""
        self._cuts += 1
        self._drop()

    # --- one exchange ------------------------------------------------------------------------------------------------

    def _start_over(self) -> None:
        self._out, self._in, self._form = self._request(self._path), b"", None

    def _request(self, path: str) -> bytes:
        made = self._requests.get(path)
        if made is None:
            writer = _Writer(self._host, self._port, is_secure=self._is_secure)
            writer.request("GET", self._base + path, headers=self._headers)
            made = self._requests[path] = bytes(writer.sent)
        return made

    def _go_on(self) -> int:
        sock = self._sock
        if sock is None:
            sock = self._connect()
        if self._stage is not _Stage.READY:
            if not self._has_connected(sock):
                return select.POLLOUT
            sock = self._sock or sock  # TLS is another object
        if self._out:
            self._out = self._out[sock.send(self._out) :]
            if self._out:
                return select.POLLOUT
        for _ in range(_MOST_PIECES):
            piece = sock.recv(_PIECE_BYTES)
            if not self._in:
                self._in = piece
            elif isinstance(self._in, bytes):
                self._in = bytearray(self._in) + piece
            else:
                self._in += piece
            if self._is_whole(has_ended=not piece):
                return 0
            if not piece:
                raise http.client.RemoteDisconnected("the connection ended before the answer did")
            if len(piece) < _PIECE_BYTES and not self._is_secure:
                break  # that was all there is now
        return select.POLLIN

    def _connect(self) -> socket.socket:
        if self._address >= len(self._addresses):
            self._addresses = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            self._address = 0
        self._connections += 1
        self._stage = _Stage.CONNECTING
        family, kind, protocol, _, address = self._addresses[self._address]
        self._sock = sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        self._check(sock.connect_ex(address))
        return sock

    def _check(self, code: int) -> None:
        if code not in (0, errno.EINPROGRESS, errno.EAGAIN):
            self._address += 1
            raise OSError(code, os.strerror(code))

    def _has_connected(self, sock: socket.socket) -> bool:
        if self._stage is _Stage.CONNECTING:
            self._check(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            try:
                sock.getpeername()
            except OSError:
                return False
            self._stage = _Stage.READY
            if self._is_secure:
                self._context = self._context or ssl.create_default_context()
                self._sock = self._context.wrap_socket(sock, server_hostname=self._host, do_handshake_on_connect=False)
                self._stage = _Stage.SHAKING_HANDS
        if self._stage is _Stage.SHAKING_HANDS:
            assert isinstance(self._sock, ssl.SSLSocket)
            self._sock.do_handshake()
            self._stage = _Stage.READY
        return True

    def _drop(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes a read in another thread
            sock.close()

    # --- its answer --------------------------------------------------------------------------------------------------

    def _is_whole(self, *, has_ended: bool) -> bool:
        """Whether the answer is there; then `answer` holds it."""
        given = self._in
        form = self._form
        if form is None:
            form = self._form = self._read_head()
            if form is None:
                return False
            given = self._in
        status, begin, length, is_chunked, is_last = form
        if max(len(given) - begin, length or 0) > MAX_BODY_BYTES:
            raise EngineError(f"GET {self._path}: more than {MAX_BODY_BYTES} bytes")
        if length is not None:
            if len(given) < begin + length:
                return False
            body = given[begin : begin + length]
            is_last = is_last or len(given) > begin + length  # nobody asked for more
        elif is_chunked:
            if not given.endswith(_HEAD_END):
                return False
            try:
                body = _response(given).read()
            except http.client.IncompleteRead:
                return False
        elif has_ended:
            body = given[begin:]
        else:
            return False
        if is_last or has_ended:
            self._drop()
        self.answer = status, bytes(body)
        self._in = b""
        return True

    def _read_head(self) -> _Form | None:
        """None while it is not there."""
        while True:
            given = self._in
            end = given.find(_HEAD_END)
            if end < 0:
                if len(given) > _MAX_HEAD_BYTES:
                    raise http.client.LineTooLong("the answer's head")
                return None
            begin = end + len(_HEAD_END)
            if not given.startswith(b"HTTP/1.1 1"):
                break
            self._in = given[begin:]  # an answer before the answer
        head = bytes(given[:begin]).lower()
        lengths = _LENGTH.findall(head)
        if len(lengths) == 1 and head.startswith(b"http/1.1 ") and head[9:12].isdigit() and not _UNUSUAL.search(head):
            return _Form(int(head[9:12]), begin, int(lengths[0]), is_chunked=False, is_last=False)
        # Whatever is not the form in which nearly every engine answers is for the standard library to judge.
        response = _response(given[:begin])
        return _Form(response.status, begin, response.length, bool(response.chunked), response.will_close)


def _response(given: bytes | bytearray) -> http.client.HTTPResponse:
    response = http.client.HTTPResponse(_Given(given), method="GET")  # type: ignore[arg-type] # all that it uses
    response.begin()
    return response


class _Given:
    """What http.client.HTTPResponse wants of a socket, over bytes that are there already."""

    def __init__(self, given: bytes | bytearray) -> None:
        self._given = given

    def makefile(self, *_: object) -> io.BytesIO:
        return io.BytesIO(self._given)


class _Writer(http.client.HTTPConnection):
    """Keeps the request that it would send, so that the standard library checks and writes it."""

    def __init__(self, host: str, port: int, *, is_secure: bool) -> None:
        super().__init__(host, port)
        self.default_port = 443 if is_secure else 80
        self.sent = bytearray()

    def send(self, data: Any) -> None:
        """Keeps it."""
        self.sent += data


class Conversation:
    """What one server is asked, one path after the other: a generator that yields paths and is sent answers.

    Parameters
    ----------
    http : EngineHttp
    asks : generator
        Its return value is what it is about.

    Attributes
    ----------
    result : object
        What the generator returned; None before.
    error : Exception or None
        What ended it instead.
    """

    __slots__ = ("_asks", "_is_begun", "error", "events", "http", "result")

    def __init__(self, http: EngineHttp, asks: Generator[str, Answer, Any]) -> None:
        self.http, self._asks = http, asks
        self._is_begun = False
        self.events = 0
        self.result: Any = None
        self.error: Exception | None = None

    def go_on(self) -> bool:
        """True while it waits for the server."""
        try:
            if not self._is_begun:
                self._is_begun = True
                self.http.begin(next(self._asks))
            while not (events := self.http.step()):
                self.http.begin(self._asks.send(self.http.answer))
            self.events = events
            return True
        except StopIteration as stop:
            self.result = stop.value
        except Exception as error:
            self.error = error
        return False

    def give_up(self) -> None:
        """Its time is over."""
        self.error = self.http.give_up()
        self._asks.close()


def carry_on(conversations: Sequence[Conversation], until_s: float) -> None:
    """Carries conversations on at once until each has ended, or it is `until_s` on `time.monotonic`.

    Of several, answers are left to gather for 2 ms: a wake-up costs more than reading an answer does.
    """
    waiting = [each for each in conversations if each.go_on()]
    while waiting:
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            for each in waiting:
                each.give_up()
            return
        if len(waiting) > 1:
            time.sleep(min(_GATHER_S, left_s))
            waiting = [each for each in waiting if each.go_on()]
            left_s = until_s - time.monotonic()
        if waiting and left_s > 0:
            waiting = _wait(waiting, left_s)


def _wait(waiting: list[Conversation], left_s: float) -> list[Conversation]:
    """Until the first of them can go on; those that wait still."""
    poll = select.poll()
    for each in waiting:
        number = each.http.fileno()
        if number < 0:  # closed by another thread
            return [each for each in waiting if each.go_on()]
        poll.register(number, each.events)
    ready = {number for number, _ in poll.poll(max(left_s * 1e3, 1.0))}
    return [each for each in waiting if each.http.fileno() not in ready or each.go_on()]
