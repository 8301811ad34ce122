"""GET over one kept connection, against a deadline for the whole exchange."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
import urllib.parse
from collections.abc import Mapping
from typing import Final

__all__ = ["EngineError", "EngineHttp"]

MAX_BODY_BYTES: Final = 16 << 20


class EngineError(Exception):
    """The engine does not answer, or not in its own words. The text names neither key nor query."""


class EngineHttp:
    """Asks one server. Redirects are not followed: an engine has no reason to send its scheduler elsewhere.

    Parameters
    ----------
    url : str
        Scheme, host, port and perhaps a path before the engine's own paths.
    headers : mapping of str to str
        Sent with every request.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url is {url!r}; expected http://host:port or https://host:port")
        self._secure = parts.scheme == "https"
        self._host, self._port, self._base = parts.hostname, parts.port, parts.path.rstrip("/")
        self._headers = dict(headers)
        self._connection: http.client.HTTPConnection | None = None

    def get(self, path: str, until_s: float) -> tuple[int, bytes]:
        """Status and body.

        Parameters
        ----------
        path : str
            Such as ``"/metrics"``.
        until_s : float
            When the answer must be whole, on `time.monotonic`.

        Raises
        ------
        EngineError
            If it is not.
        """
        is_kept = self._connection is not None
        try:
            return self._get(path, until_s)
        except (http.client.HTTPException, OSError) as error:
            self.close()
            # A server may have closed an idle connection; a fresh one deserves one try.
            if not is_kept or isinstance(error, TimeoutError):
                raise EngineError(f"GET {path}: {type(error).__name__}: {error}") from error
        try:
            return self._get(path, until_s)
        except (http.client.HTTPException, OSError) as error:
            self.close()
            raise EngineError(f"GET {path}: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Closes the connection; the next request opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                if connection.sock is not None:
                    connection.sock.shutdown(socket.SHUT_RDWR)  # wakes a read in another thread
            connection.close()

    def _get(self, path: str, until_s: float) -> tuple[int, bytes]:
        connection = self._connection
        if connection is None:
            form = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
            connection = form(self._host, self._port, timeout=_left(until_s))
            connection.connect()
            self._connection = connection
        connection.sock.settimeout(_left(until_s))
        connection.request("GET", self._base + path, headers=self._headers)
        connection.sock.settimeout(_left(until_s))
        sock = connection.sock
        response = connection.getresponse()
        body = bytearray()
        while True:
            sock.settimeout(_left(until_s))  # a server that drips does not get a fresh deadline with every byte
            piece = response.read1(1 << 16)
            if not piece:
                break
            body += piece
            if len(body) > MAX_BODY_BYTES:
                self.close()
                raise EngineError(f"GET {path}: more than {MAX_BODY_BYTES} bytes")
        response.read()  # nothing is left; but this is what makes the connection ready for the next request
        if response.will_close:
            self.close()
        return response.status, bytes(body)


def _left(until_s: float) -> float:
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("its time is over")
    return left_s
