"""Local processes by /proc: who belongs to an engine, and whether a number still means the same process."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["Process", "busyness", "descendants", "process", "tasks"]

_PROC = Path("/proc")


@dataclasses.dataclass(frozen=True, slots=True)
class Process:
    """A process and the instant of its start, so that a number used again is not taken for it."""

    pid: int
    started: int


def process(pid: int) -> Process | None:
    """The process that has this number now; None where there is none, or only what is left of one."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else Process(pid, int(fields[19]))


def busyness(task: int) -> tuple[bool, int]:
    """Whether a thread runs or could run now, and what it has had of the CPU so far, in clock ticks."""
    try:
        fields = (_PROC / str(task) / "task" / str(task) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False, 0
    return fields[0] == "R", int(fields[11]) + int(fields[12])


def tasks(pid: int) -> list[int]:
    """Its threads."""
    try:
        return [int(each.name) for each in (_PROC / str(pid) / "task").iterdir()]
    except OSError:
        return []


def descendants(pids: Iterable[int]) -> Iterator[int]:
    """These processes and all that they have started, each once."""
    seen: set[int] = set()
    left = list(pids)
    while left:
        pid = left.pop()
        if pid in seen:
            continue
        seen.add(pid)
        yield pid
        for task in tasks(pid):
            try:
                left += map(int, (_PROC / str(pid) / "task" / str(task) / "children").read_text().split())
            except OSError:
                continue  # it ended, or the kernel does not tell
