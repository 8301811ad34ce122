"""The host's end of the NVML child: starts it, talks to it against a deadline, and ends it."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import select
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from zeta.errors import ProbeUnavailable
from zeta.monitor._nvml_view import Answer, DeviceView
from zeta.monitor._nvml_wire import Crumb, Frames, frame

__all__ = ["ChildLost", "ChildSilent", "NvmlChild", "find_bindings", "find_python"]

# The child loads this room and nothing else of zeta: two packages without their doors, which would bring numpy, the
# compiled core and every other probe into a process that needs a few thousand lines of Python.
_PROGRAM: Final = """
import os, sys, types
zeta, bindings = sys.argv[1:3]
sys.path.append(bindings)
for name, folder in (("zeta", zeta), ("zeta.monitor", os.path.join(zeta, "monitor"))):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
from zeta.monitor.nvml import main
main()
"""


class ChildLost(Exception):
    """The child died, or sent what cannot be read."""


class ChildSilent(Exception):
    """The child did not answer in time."""


def find_python() -> str:
    """A Python to run the child with, also where this one is embedded in another program.

    Raises
    ------
    ProbeUnavailable
        If there is none.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    prefixes = dict.fromkeys((sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix))
    candidates = [
        sys.executable or "",
        getattr(sys, "_base_executable", None) or "",
        *(f"{prefix}/bin/{name}" for prefix in prefixes for name in (f"python{version}", "python3", "python")),
    ]
    # An embedding program may say that it is sys.executable; started with -c it would do who knows what.
    for candidate in candidates:
        if Path(candidate).name.startswith(("python", "pypy")) and os.access(candidate, os.X_OK):
            return candidate
    raise ProbeUnavailable(
        f"no Python interpreter to run the NVML child with: sys.executable is {sys.executable!r} and "
        f"{sys.prefix}/bin holds none; give NvmlProbe(python=...) the path of one"
    )


def find_bindings() -> str:
    """The folder from which ``import pynvml`` works, without importing it.

    Raises
    ------
    ProbeUnavailable
        If there is none.
    """
    try:
        spec = importlib.util.find_spec("pynvml")
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        raise ProbeUnavailable("NVIDIA's Python bindings are missing; get them with: pip install nvidia-ml-py")
    folder = Path(spec.origin).parent
    return str(folder.parent if spec.submodule_search_locations else folder)


class NvmlChild:
    """One child process. Starting it does not wait for it.

    Parameters
    ----------
    python : str
        The interpreter.
    bindings : str
        The folder that holds pynvml.
    environment : mapping of str to str, optional
        Of the child; this process's by default.
    known : list of (str, str or None)
        UUID, and UUID of the GPU that it is part of, of the devices that it should find.
    leave_out : list of (str, str)
        Pairs of device and call that it must not make.

    Notes
    -----
    Belongs to the process that made it: after a fork the new process calls `forget`, and nothing else.
    """

    def __init__(
        self,
        python: str,
        bindings: str,
        environment: Mapping[str, str] | None,
        known: list[tuple[str, str | None]],
        leave_out: list[tuple[str, str]],
    ) -> None:
        self._owner = os.getpid()
        self._frames = Frames()
        self._is_closed = False
        self._number = 0
        self.leave_out = leave_out
        self.started_s = time.monotonic()
        self.ready_s: float | None = None
        self.is_proven = False
        self.view = DeviceView()
        self._told_to_leave_out = list(leave_out)
        self._waiting = select.poll()
        self._wire, theirs = socket.socketpair()
        self._waiting.register(self._wire, select.POLLIN)
        with theirs:
            crumb_fd = _above_standard(os.memfd_create("zeta-nvml-crumb"))
            try:
                os.ftruncate(crumb_fd, Crumb.SIZE_BYTES)
                self._crumb = Crumb(crumb_fd)
                # Isolated from this process's PYTHONPATH and from sitecustomize, but not from a PYTHONHOME, without
                # which some embedded Pythons do not start. Its own session: Ctrl-C is for the host.
                has_home = "PYTHONHOME" in (os.environ if environment is None else environment)
                flags = ["-s", "-S", "-P", *([] if has_home else ["-E"])]
                arguments = [str(Path(__file__).parents[1]), bindings, str(self._owner), str(crumb_fd)]
                self._process = subprocess.Popen(
                    [python, *flags, "-c", _PROGRAM, *arguments],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(crumb_fd,),
                    start_new_session=True,
                    env=environment,
                )
            except BaseException:
                self._wire.close()
                raise
            finally:
                os.close(crumb_fd)
        try:
            self._send({"known": known, "leave_out": leave_out})
        except ChildLost:
            self.kill()
            self.is_reaped(0.05)
            self.discard()
            raise

    @property
    def pid(self) -> int:
        """Of the process."""
        return int(self._process.pid)

    @property
    def is_ready(self) -> bool:
        """Whether it has said so."""
        return self.ready_s is not None

    def wait_until_ready(self, until_s: float) -> dict[str, Any]:
        """What it says when it has started: ``ready`` or ``unavailable``.

        Raises
        ------
        ChildLost, ChildSilent
        """
        message = self._receive(until_s)
        if "ready" in message:
            self.ready_s = time.monotonic()
        return message

    def ask(self, leave_out: list[tuple[str, str]], budget_s: float, is_slow: bool, is_discovering: bool) -> None:
        """Asks it to read every device. It may be asked before it is ready.

        Raises
        ------
        ChildLost
        """
        self._number += 1
        changed = {} if leave_out == self._told_to_leave_out else {"leave_out": leave_out}
        self._told_to_leave_out = list(leave_out)
        self._send(changed, array("d", (self._number, budget_s, is_slow, is_discovering)))

    def wait_for_answer(self, until_s: float) -> Answer:
        """Its answer to the last `ask`; those to earlier ones are dropped.

        Raises
        ------
        ChildLost, ChildSilent
        """
        while True:
            try:
                answer = self.view.take(self._receive(until_s))
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                raise ChildLost(f"it sent nonsense ({type(error).__name__}: {error})") from error
            if answer.number == self._number:  # late ones have told what is not told twice
                return answer

    def last_call(self) -> tuple[str, str]:
        """Device and call that it was in last; read it once the child is dead or silent."""
        return self._crumb.read()

    def end_of(self, within_s: float = 0.0) -> str:
        """How it ended, for people."""
        self.is_reaped(within_s)
        status = self._process.poll()
        if status is None:
            return "does not answer"
        return f"died of signal {-status}" if status < 0 else f"exited with status {status}"

    def kill(self) -> None:
        """Ends it without waiting. Idempotent; from any thread, also while another waits for an answer."""
        if os.getpid() != self._owner:
            return
        with contextlib.suppress(OSError):
            self._process.kill()
        if not self._is_closed:
            self._is_closed = True
            with contextlib.suppress(OSError):
                self._wire.shutdown(socket.SHUT_RDWR)  # wakes who waits; the descriptor stays until `discard`

    def is_reaped(self, within_s: float = 0.0) -> bool:
        """Whether a killed child has left the process table; one that hangs inside the kernel stays for a while."""
        until_s = time.monotonic() + within_s
        while self._process.poll() is None:
            if time.monotonic() >= until_s:
                return False
            time.sleep(0.001)
        return True

    def discard(self) -> None:
        """Gives back what this process holds of it; after `kill`, by the thread that asks it."""
        self._wire.close()
        self._crumb.close()

    def forget(self) -> None:
        """In a forked process: lets go of the inherited ends without touching the other process's child."""
        self._is_closed = True
        self.discard()
        self._process.returncode = 0  # nothing here waits for it

    def _send(self, message: dict[str, Any], numbers: array[float] | None = None) -> None:
        data = frame(message, numbers)
        try:
            if self._wire.send(data, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT) != len(data):
                raise ChildLost("it does not take requests")
        except OSError as error:
            raise ChildLost(f"it takes no request: {error}") from error

    def _receive(self, until_s: float) -> dict[str, Any]:
        while True:
            try:
                if (message := self._frames.take()) is not None:
                    return message
            except ValueError as error:
                raise ChildLost(f"it sent no message but {error}") from error
            left_s = until_s - time.monotonic()
            if not self._waiting.poll(int(left_s * 1000) + 1 if left_s > 0 else 0):
                raise ChildSilent
            try:
                piece = self._wire.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            except OSError as error:
                raise ChildLost(str(error)) from error
            if not piece:
                raise ChildLost("it closed its end")
            self._frames.feed(piece)


def _above_standard(fd: int) -> int:
    """The same file under a descriptor above 2: a host that closed its standard ones would see it overwritten."""
    if fd > 2:
        return fd
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return moved
