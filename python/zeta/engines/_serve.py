"""Engines in processes of their own: the main loop of one, and how another process starts and ends it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from zeta.engines._http import Server
from zeta.engines._job import Engine, Faults
from zeta.errors import MissingExtraError, NotReadyError, ZetaError

__all__ = ["EngineProcess", "run", "serve_for_parent", "start_process"]

_PARENT_CHECK_S: Final = 0.5


def run(
    make_engine: Callable[[], Engine],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    faults: Faults | None = None,
    ready: Callable[[Server], None],
    grace_s: float = 10.0,
    follows_parent: bool = False,
) -> None:
    """Serves until SIGTERM or SIGINT, then finishes the answers under way for at most `grace_s`.

    Parameters
    ----------
    make_engine : callable
        Called once, with the event loop running.
    host, port
        To listen on; port 0 takes a free one.
    faults : Faults, optional
    ready : callable
        Called with the server once it listens.
    grace_s : float
        A second signal cuts it short.
    follows_parent : bool
        Also ends when the parent process dies or closes standard input; then at once.

    Raises
    ------
    MissingExtraError
        Without uvloop.
    """
    try:
        import uvloop
    except ImportError as error:
        raise MissingExtraError("serving an engine", ["uvloop"], "serve") from error

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        stop, again, orphaned = asyncio.Event(), asyncio.Event(), asyncio.Event()

        def signalled() -> None:
            (again if stop.is_set() else stop).set()

        def left() -> None:
            orphaned.set()
            stop.set()
            again.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, signalled)
        watcher = loop.create_task(_watch_parent(left)) if follows_parent else None
        server = Server(make_engine(), faults)
        await server.start(host, port)
        gc.freeze()
        ready(server)
        await stop.wait()
        closing = loop.create_task(server.close(0.0 if orphaned.is_set() else grace_s))
        hurry = loop.create_task(again.wait())
        await asyncio.wait([closing, hurry], return_when=asyncio.FIRST_COMPLETED)
        for task in (closing, hurry, watcher):
            if task is not None:
                task.cancel()

    uvloop.run(serve())


async def _watch_parent(left: Callable[[], None]) -> None:
    """Calls `left` when standard input ends, or this process has another parent than at first."""
    parent = os.getppid()
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            left()

    loop.add_reader(0, readable)
    while os.getppid() == parent:
        await asyncio.sleep(_PARENT_CHECK_S)
    left()


@dataclasses.dataclass(eq=False, slots=True)
class EngineProcess:
    """An engine in a process of its own. It ends with `close`, with a ``with`` block, and when this process ends.

    Attributes
    ----------
    url : str
        ``http://127.0.0.1:port``; clients add ``/v1``.
    model : str
        The id that clients ask for.
    process : subprocess.Popen
    """

    url: str
    model: str
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        """It runs."""
        return self.process.poll() is None

    def close(self, timeout_s: float = 5.0) -> None:
        """Ends the process and waits for it; kills it after `timeout_s`. Idempotent."""
        _end(self.process, timeout_s)

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start_process(kind: str, options: Mapping[str, Any], *, timeout_s: float = 30.0) -> EngineProcess:
    """Starts an engine in a process of its own and returns once it answers.

    Parameters
    ----------
    kind : str
        ``simulated`` or ``embedded``.
    options : mapping
        JSON; what `zeta.engines.__main__` makes the engine from.
    timeout_s : float
        For the start.

    Raises
    ------
    NotReadyError
        If it does not start, with what it said; nothing is left behind then.
    """
    command = [sys.executable, "-m", "zeta.engines", kind, json.dumps(options)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    told: dict[str, str] = {"error": f"nothing within {timeout_s:g} s"}
    try:
        if select.select([process.stdout], [], [], timeout_s)[0]:
            # It says all in one line and one write, or ends.
            told = json.loads(process.stdout.readline() or b'{"error": "nothing; its error output has the reason"}')
    finally:
        if "url" not in told:
            process.kill()
            _end(process, 1.0)
    if "url" not in told:
        raise NotReadyError(f"the {kind} engine did not start; it said: {told['error']}")
    return EngineProcess(told["url"], told["model"], process)


def serve_for_parent(make_engine: Callable[[], Engine], options: Mapping[str, Any]) -> int:
    """The other end of `start_process`; returns the exit code."""

    def ready(server: Server) -> None:
        _say({"url": server.url, "model": server.engine.model})

    try:
        run(
            make_engine,
            port=int(options.get("port", 0)),
            faults=Faults(**options.get("faults", {})),
            ready=ready,
            follows_parent=True,
        )
    except (ZetaError, OSError) as error:
        _say({"error": str(error)})
        return 2
    return 0


def _say(line: Mapping[str, str]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _end(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
