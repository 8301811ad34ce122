"""Three ways to give local processes more or less of the CPU: affinity, control groups, nice."""

from __future__ import annotations

import contextlib
import math
import os
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from zeta.allocate.actuators._processes import Process, busyness, process, tasks

__all__ = ["Affinity", "CannotError", "ControlGroups", "CpuForm", "Nice", "cpus_of_shares", "places"]

Engines = Mapping[str, Sequence[Process]]

_NICE_STEP = 1.25  # the kernel's weights differ by about this factor from one nice value to the next
_SLIVER = 0.125


class CannotError(Exception):
    """It cannot be done here; the text is a sentence for a person."""


class CpuForm(Protocol):
    """One way. `put` may be repeated and is confirmed; `restore` brings back what was found."""

    @property
    def name(self) -> str:
        """What is turned."""
        ...

    def put(self, shares: Mapping[str, float], engines: Engines) -> None:
        """Makes the engines' parts of the CPUs follow `shares`. CannotError, OSError."""
        ...

    def restore(self) -> None:
        """Undoes everything, as far as the processes still live."""
        ...


def cpus_of_shares(shares: Mapping[str, float], cpus: Sequence[int]) -> dict[str, dict[frozenset[int], float]]:
    """Where each model may run: sets of CPUs, and how many CPUs' worth of each.

    The shares are laid end to end over the row of CPUs. The CPUs that a model's stretch covers alone make one set,
    those that it covers in part one each; slivers under an eighth of a CPU are left out unless there is nothing else.
    """
    scale = len(cpus) / (sum(shares.values()) or 1.0)
    found, at = {}, 0.0
    for model, share in shares.items():
        until = at + share * scale
        covered = {cpu: min(until, index + 1) - max(at, index) for index, cpu in enumerate(cpus)}
        most = max(covered.values())
        covered = {cpu: part for cpu, part in covered.items() if part > _SLIVER or part == most}
        alone = frozenset(cpu for cpu, part in covered.items() if part >= 1 - _SLIVER)
        parts = {frozenset({cpu}): part for cpu, part in covered.items() if cpu not in alone}
        found[model] = {alone: float(len(alone)), **parts} if alone else parts
        at = until
    return found


def places(parts: Mapping[frozenset[int], float], threads: int) -> list[frozenset[int]]:
    """A set of CPUs for each of so many threads, the busiest first; their numbers follow the parts (Sainte-Laguë)."""
    given = dict.fromkeys(parts, 0)
    found = []
    for _ in range(threads):
        best = min(parts, key=lambda each: ((given[each] + 0.5) / parts[each], sorted(each)))
        given[best] += 1
        found.append(best)
    return found


def _still(of: Process) -> bool:
    return process(of.pid) == of


class Affinity:
    """Which CPUs each engine's threads may run on, by ``sched_setaffinity``. Any user may, for their own.

    The kernel parts a CPU between threads, not between engines, so on a CPU that engines share their parts follow the
    numbers of their busy threads there; an engine of one thread gets one CPU at the most.
    """

    name = "affinity"

    def __init__(self) -> None:
        self._found: dict[Process, frozenset[int]] = {}

    def put(self, shares: Mapping[str, float], engines: Engines) -> None:
        """See `CpuForm`."""
        for each in (each for group in engines.values() for each in group):
            if each not in self._found:
                self._found[each] = frozenset(os.sched_getaffinity(each.pid))
        cpus = sorted(frozenset().union(*(self._found[each] for group in engines.values() for each in group)))
        if len(cpus) < 2:
            raise CannotError("there is one CPU to share, so affinity has nothing to choose; give a delegated cgroup")
        for model, parts in cpus_of_shares(shares, cpus).items():
            threads = [(task, self._found[each]) for each in engines[model] for task in tasks(each.pid) if _still(each)]
            threads.sort(key=lambda thread: busyness(thread[0]), reverse=True)
            for (task, found), place in zip(threads, places(parts, len(threads)), strict=True):
                _set_affinity(task, place & found or found)

    def restore(self) -> None:
        """See `CpuForm`."""
        for each, cpus in self._found.items():
            for task in tasks(each.pid) if _still(each) else ():
                with contextlib.suppress(OSError, CannotError):
                    _set_affinity(task, cpus)
        self._found.clear()


def _set_affinity(task: int, cpus: frozenset[int]) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended in between
        if os.sched_getaffinity(task) != cpus:
            os.sched_setaffinity(task, cpus)
            if os.sched_getaffinity(task) != cpus:
                raise CannotError(f"thread {task} does not stay on CPUs {sorted(cpus)}; does a cpuset forbid them?")


class Nice:
    """How nice each engine is to the others, by ``setpriority``. Lowering it again needs a privilege, which is checked.

    The model with the largest share stays as it was found; the others become nicer.
    """

    name = "nice"

    def __init__(self) -> None:
        self._found: dict[Process, int] = {}

    @staticmethod
    def can_return(nice: int) -> bool:
        """Whether this process may go back to `nice` after being nicer."""
        if os.geteuid() == 0:
            return True
        most = resource.getrlimit(resource.RLIMIT_NICE)[0]
        return most == resource.RLIM_INFINITY or 20 - most <= nice

    def put(self, shares: Mapping[str, float], engines: Engines) -> None:
        """See `CpuForm`."""
        for each in (each for group in engines.values() for each in group):
            if each not in self._found:
                self._found[each] = os.getpriority(os.PRIO_PROCESS, each.pid)
        if not all(map(self.can_return, self._found.values())):
            raise CannotError("a nicer process cannot be brought back by this user; raise RLIMIT_NICE or use affinity")
        most = max(shares.values())
        for model, share in shares.items():
            nicer = round(math.log(most / max(share, 1e-3), _NICE_STEP))
            for each in engines[model]:
                _set_nice(each, min(self._found[each] + nicer, 19))

    def restore(self) -> None:
        """See `CpuForm`."""
        for each, nice in self._found.items():
            if _still(each):
                with contextlib.suppress(OSError):
                    _set_nice(each, nice)
        self._found.clear()


def _set_nice(of: Process, nice: int) -> None:
    for task in tasks(of.pid):
        with contextlib.suppress(ProcessLookupError):
            if os.getpriority(os.PRIO_PROCESS, task) != nice:
                os.setpriority(os.PRIO_PROCESS, task, nice)


class ControlGroups:
    """The weight of each engine's control group: v2 ``cpu.weight``, v1 ``cpu.shares``.

    Parameters
    ----------
    parent : Path
        A directory of the cpu controller in which this user may make groups: delegated, or any for root. One group is
        made per model, its processes are moved there, and back by `restore`.
    """

    name = "control groups"

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._is_v1 = (parent / "cpu.shares").is_file()
        self._groups: dict[str, Path] = {}
        self._found: dict[Process, Path] = {}

    def put(self, shares: Mapping[str, float], engines: Engines) -> None:
        """See `CpuForm`."""
        even = 1024 if self._is_v1 else 100
        for index, (model, share) in enumerate(shares.items()):
            group = self._group(index, model)
            weight = min(max(round(share * len(shares) * even), 2 if self._is_v1 else 1), 10_000)
            file = group / ("cpu.shares" if self._is_v1 else "cpu.weight")
            file.write_text(str(weight))
            if int(file.read_text()) != weight:
                raise CannotError(f"{file} does not keep {weight}; does something else manage that group?")
            for each in engines[model]:
                if each not in self._found:
                    self._found[each] = self._home(each)
                    (group / "cgroup.procs").write_text(str(each.pid))

    def restore(self) -> None:
        """See `CpuForm`."""
        for each, home in self._found.items():
            if _still(each):
                with contextlib.suppress(OSError):
                    (home / "cgroup.procs").write_text(str(each.pid))
        self._found.clear()
        for group in self._groups.values():
            with contextlib.suppress(OSError):
                group.rmdir()
        self._groups.clear()

    def _group(self, index: int, model: str) -> Path:
        if model not in self._groups:
            plain = "".join(each if each.isalnum() else "-" for each in model)[:64]
            group = self._parent / f"zeta-{os.getpid()}-{index}-{plain}"
            group.mkdir(exist_ok=True)
            self._groups[model] = group
            if not (group / ("cpu.shares" if self._is_v1 else "cpu.weight")).exists():
                raise CannotError(
                    f"{self._parent} does not hand the cpu controller on; "
                    f"write +cpu to {self._parent / 'cgroup.subtree_control'}, or name a group that has it"
                )
        return self._groups[model]

    def _home(self, of: Process) -> Path:
        """The group that a process is in, below the same mount as the parent."""
        for line in Path(f"/proc/{of.pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if ("cpu" in controllers.split(",")) if self._is_v1 else controllers == "":
                for root in (self._parent, *self._parent.parents):
                    if not (root.parent / "cgroup.procs").exists():
                        return root / path.lstrip("/")
        raise CannotError(f"process {of.pid} is in no group of the cpu controller; is {self._parent} one?")
