"""A program under test: started on one core, watched, and ended by its own ids."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["Program", "cores", "free_ports", "machine_busy_s"]

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def cores() -> tuple[int, int]:
    """Two cores of those this process may use: for what is measured, and for what measures."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[-1], allowed[0]


def free_ports(count: int) -> list[int]:
    """Ports of the kernel's choice on the loopback interface, free a moment ago."""
    with contextlib.ExitStack() as open_until_all_are_known:
        ports = []
        for _ in range(count):
            listener = open_until_all_are_known.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            ports.append(int(listener.getsockname()[1]))
    return ports


def machine_busy_s() -> float:
    """Seconds of work that all cores have done since the machine started, other machines' theft included."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _wait, interrupt, soft, steal = (int(word) for word in words)
    return (user + nice + system + interrupt + soft + steal) / _TICKS


class Program:
    """A process and its descendants.

    Parameters
    ----------
    command : sequence of str
        What to run.
    core : int
        The only core that it and its descendants may use.
    environment : dict of str to str
        In addition to this process's own.
    log : Path
        What it prints goes there.
    """

    def __init__(self, command: Sequence[str], core: int, environment: dict[str, str], log: Path) -> None:
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ | environment,
                cwd=log.parent,
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )
        self._log = log

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def said(self, characters: int = 1_000) -> str:
        """The end of what it printed."""
        return self._log.read_text(errors="replace")[-characters:]

    def cpu_s(self) -> float:
        """User and system time of all its processes since they started."""
        return sum((int(words[11]) + int(words[12])) / _TICKS for words in self._stats())

    def resident_mb(self) -> float:
        """Memory of all its processes that is in RAM; pages that they share count for each."""
        return sum(int(words[21]) * _PAGE / 1e6 for words in self._stats())

    def end(self, patience_s: float = 5.0) -> None:
        """Asks it to end, then insists; descendants that outlive it are ended too."""
        family = self._ids()
        self._process.terminate()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        until = time.monotonic() + patience_s
        for process_id in family[1:]:
            while Path(f"/proc/{process_id}").exists() and time.monotonic() < until:
                time.sleep(0.02)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGKILL)

    def _ids(self) -> list[int]:
        found = [self._process.pid]
        for process_id in found:  # grows while it is read
            for children in Path(f"/proc/{process_id}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    found += [int(word) for word in children.read_text().split()]
        return found

    def _stats(self) -> Iterator[list[str]]:
        """Fields of /proc/PID/stat from the state on."""
        for process_id in self._ids():
            with contextlib.suppress(OSError):
                yield Path(f"/proc/{process_id}/stat").read_text().rsplit(") ", 1)[1].split()
