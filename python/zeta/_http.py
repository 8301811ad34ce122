"""One HTTP exchange against one deadline, on a connection of its own. For calls that are rare and must not hang."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import io
import socket
import time
import urllib.parse
from collections.abc import Mapping
from typing import Final

__all__ = ["Answer", "Server", "Unanswered"]

MAX_BODY_BYTES: Final = 16 << 20


class Unanswered(Exception):
    """No whole answer. `why` completes a sentence that begins with the server's name; it names no key."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Parameters
    ----------
    status : int
    body : bytes
    """

    status: int
    body: bytes


class Server:
    """A server to ask. Redirects are not followed: an engine has no reason to send its scheduler elsewhere.

    Parameters
    ----------
    url : str
        ``http://host:port`` or ``https://host:port``, perhaps with a path that goes before those asked for.
    headers : mapping of str to str, optional
        Sent with every request.

    Attributes
    ----------
    shown : str
        The address as messages name it, without user, password and query.

    Raises
    ------
    ValueError
        If `url` is no such address, or carries a user or a password.
    """

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
        if parts.username is not None or parts.password is not None:
            raise ValueError(f"the address of {parts.hostname} carries a user or a password; pass them in headers")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"url is {url!r}; expected http://host:port or https://host:port")
        self._is_secure = parts.scheme == "https"
        self._host, self._port, self._base = parts.hostname, parts.port, parts.path.rstrip("/")
        self._headers = dict(headers or {})
        self.shown = f"{parts.scheme}://{parts.netloc}{self._base}"

    def ask(self, method: str, path: str, body: bytes | None, until_s: float) -> Answer:
        """The whole answer to one request.

        Parameters
        ----------
        method : str
        path : str
            Such as ``"/sleep?level=1"``.
        body : bytes or None
            JSON, where the request has a body.
        until_s : float
            When the answer must be whole, on `time.monotonic`. A server that drips gets no fresh deadline with every
            byte. Only the look-up of a host's name is not cut short; addresses need none.

        Raises
        ------
        Unanswered
            If it is not.
        """
        form = http.client.HTTPSConnection if self._is_secure else http.client.HTTPConnection
        try:
            connection = form(self._host, self._port, timeout=_left_s(until_s))
            with contextlib.closing(connection):
                connection.connect()
                connection.sock.settimeout(_left_s(until_s))
                headers = {**self._headers, "Connection": "close"}
                if body is not None:
                    headers["Content-Type"] = "application/json"
                connection.request(method, self._base + path, body=body, headers=headers)
                return _read(connection.sock, method, until_s)
        except TimeoutError:
            raise Unanswered(f"did not finish its answer to {method} {path} in time") from None
        except ConnectionRefusedError:
            raise Unanswered("refuses connections; is it up, and is the address right?") from None
        except (http.client.HTTPException, OSError, ValueError) as error:
            raise Unanswered(
                f"broke off {method} {path} ({type(error).__name__}: {error}); see its log, and check the address"
            ) from error


class _Incoming(io.RawIOBase):
    """A socket's bytes, each read against the same deadline."""

    def __init__(self, sock: socket.socket, until_s: float) -> None:
        self._sock, self._until_s = sock, until_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override] # any buffer will do
        self._sock.settimeout(_left_s(self._until_s))
        return self._sock.recv_into(buffer)


def _read(sock: socket.socket, method: str, until_s: float) -> Answer:
    response = http.client.HTTPResponse(sock, method=method)
    response.fp.close()
    response.fp = io.BufferedReader(_Incoming(sock, until_s))
    with contextlib.closing(response):
        response.begin()
        body = response.read(MAX_BODY_BYTES + 1)
        if len(body) > MAX_BODY_BYTES:
            raise ValueError(f"more than {MAX_BODY_BYTES} bytes")
        if response.length:
            raise http.client.IncompleteRead(body, response.length)
        return Answer(response.status, body)


def _left_s(until_s: float) -> float:
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s
