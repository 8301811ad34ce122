"""The host as this process may use it: CPUs, memory, load and pressure, with the limits of its control group."""

from __future__ import annotations

import math
import os
import re
import time
from dataclasses import dataclass
from typing import Any

from zeta.errors import ProbeUnavailable
from zeta.monitor._cgroup import Cgroup, CpuUse, find, read_text
from zeta.monitor.probe import HOST_FIELDS, Field, Kind, Reading

__all__ = ["HostProbe"]

_KB = 1024.0
_SLOW_S = 1.0
_MEMORY = re.compile(r"^(MemTotal|MemAvailable|SwapTotal|SwapFree):\s+(\d+) kB$", re.MULTILINE)
_PRESSURE = re.compile(r"^some avg10=([\d.]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Counts:
    """What only differences tell."""

    at_s: float
    busy: float | None
    total: float | None
    group: CpuUse
    process_s: float


@dataclass(frozen=True, slots=True)
class _Slow:
    """What is read once a second at most."""

    at_s: float
    group: Cgroup
    cpus: set[int]
    quota: float
    cpu_folder: str | None
    row: dict[str, float | None]
    details: dict[str, Any]


class HostProbe:
    """Reads ``/proc`` and ``/sys/fs/cgroup`` (version 1, 2 or both).

    Parameters
    ----------
    name : str, default "host"
    root : str, default ""
        Stands before every path, for tests on a tree of files.

    Notes
    -----
    A file that is missing or odd makes its fields unknown and no others. The CPUs' counters are read each time; limits,
    memory, load and pressure once a second at most and repeated in between, as the kernel itself renews pressure every
    2 s and load every 5 s.

    What is a difference between two reads (`cpu_utilisation`, `cpu_throttled`, `process_cpus`) is unknown until the
    second. Where a quota limits the process, `cpu_utilisation` is the greater of the machine's part and the group's
    part of its quota: whichever is short first.
    """

    def __init__(self, name: str = "host", *, root: str = "") -> None:
        self._name = name
        self._root = root
        self._slow: _Slow | None = None
        self._before: _Counts | None = None

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def kind(self) -> Kind:
        """The host's."""
        return Kind.HOST

    @property
    def fields(self) -> tuple[Field, ...]:
        """All of them."""
        return HOST_FIELDS

    def read(self) -> Reading:
        """Reads everything once.

        Raises
        ------
        ProbeUnavailable
            If there is no ``/proc``.
        """
        now_s = time.monotonic()
        slow = self._slow
        if slow is None or now_s - slow.at_s >= _SLOW_S:
            slow = self._slow = self._read_slow(now_s)
        stat = self._text("/proc/stat")
        if stat is None and slow.row["memory_available_bytes"] is None:
            raise ProbeUnavailable("neither /proc/stat nor /proc/meminfo can be read; is /proc mounted here?")

        busy, total = _cpu_ticks(stat, slow.cpus)
        use = slow.group.cpu_use(slow.cpu_folder if slow.quota < math.inf else None)
        counts = _Counts(now_s, busy, total, use, time.process_time())
        before, self._before = self._before, counts
        rates = _rates(before, counts, slow.quota) if before is not None else {}
        return Reading({"host": slow.row | rates}, details={"host": slow.details})

    def close(self) -> None:
        """Nothing is open between reads."""

    def _text(self, path: str) -> str | None:
        return read_text(self._root + path)

    def _read_slow(self, now_s: float) -> _Slow:
        """All but the CPU's counters."""
        group = self._slow.group if self._slow is not None else find(self._root)
        cpus = os.sched_getaffinity(0)
        quota, cpu_folder = group.cpu_limit()
        memory = _memory_bytes(self._text("/proc/meminfo"))
        limit, used, available = _memory(memory, group)
        load = _floats(self._text("/proc/loadavg"))
        row: dict[str, float | None] = {
            "cpu_limit": min(float(len(cpus)), quota),
            "load_1m": load[0] if load else None,
            "load_5m": load[1] if len(load) > 1 else None,
            "cpu_pressure": _pressure(group.pressure("cpu") or self._text("/proc/pressure/cpu")),
            "memory_pressure": _pressure(group.pressure("memory") or self._text("/proc/pressure/memory")),
            "memory_limit_bytes": limit,
            "memory_used_bytes": used,
            "memory_available_bytes": available,
            "swap_used_bytes": _difference(memory.get("SwapTotal"), memory.get("SwapFree")),
            "process_memory_bytes": self._resident_bytes(),
        }
        return _Slow(now_s, group, cpus, quota, cpu_folder, row, {"cpus": sorted(cpus), "cgroup": cpu_folder})

    def _resident_bytes(self) -> float | None:
        pages = _floats(self._text("/proc/self/statm"))
        return pages[1] * os.sysconf("SC_PAGESIZE") if len(pages) > 1 else None


def _memory(memory: dict[str, float], group: Cgroup) -> tuple[float | None, float | None, float | None]:
    """Limit, use and what is left: the machine's, or the group's where that is tighter."""
    total, available = memory.get("MemTotal"), memory.get("MemAvailable")
    limit, folder = group.memory_limit_bytes()
    if total is not None and limit >= total:
        return total, _difference(total, available), available
    if limit == math.inf:
        return None, None, available
    used = group.memory_used_bytes(folder)
    left = _difference(limit, used)
    if left is not None and available is not None:
        left = min(left, available)
    return limit, used, left


def _rates(before: _Counts, now: _Counts, quota: float) -> dict[str, float | None]:
    """What happened between two reads."""
    passed_s = now.at_s - before.at_s
    if passed_s <= 0:
        return {}
    busy = _part(_difference(now.busy, before.busy), _difference(now.total, before.total))
    used = _part(_difference(now.group.used_s, before.group.used_s), passed_s * quota)
    known = [each for each in (busy, used) if each is not None]
    return {
        "cpu_utilisation": max(known, default=None),
        "cpu_throttled": _part(
            _difference(now.group.throttled, before.group.throttled),
            _difference(now.group.periods, before.group.periods),
        ),
        "process_cpus": (now.process_s - before.process_s) / passed_s,
    }


def _difference(greater: float | None, less: float | None) -> float | None:
    """None where either is unknown, and where a counter went back."""
    return None if greater is None or less is None or greater < less else greater - less


def _part(part: float | None, whole: float | None) -> float | None:
    """A fraction from 0 to 1; clocks that are read one after the other may say a little more."""
    return None if part is None or not whole else min(part / whole, 1.0)


def _cpu_ticks(stat: str | None, cpus: set[int]) -> tuple[float | None, float | None]:
    """Busy and all ticks so far of the CPUs that this process may run on."""
    busy = total = 0.0
    seen = 0
    for line in (stat or "").splitlines():
        if not line.startswith("cpu"):
            break
        name, *rest = line.split()
        if not name[3:].isdigit() or int(name[3:]) not in cpus:
            continue
        ticks = [float(each) for each in rest[:8] if each.isdigit()]  # guest time is in user time already
        if len(ticks) < 5:
            continue
        seen += 1
        idle = ticks[3] + ticks[4]  # idle, iowait
        total += sum(ticks)
        busy += sum(ticks) - idle
    return (busy, total) if seen else (None, None)


def _memory_bytes(text: str | None) -> dict[str, float]:
    """Of /proc/meminfo: bytes by name, those that are used here."""
    return {name: float(value) * _KB for name, value in _MEMORY.findall(text or "")}


def _pressure(text: str | None) -> float | None:
    found = _PRESSURE.search(text or "")
    return float(found[1]) / 100.0 if found else None


def _floats(text: str | None) -> list[float]:
    """The numbers at the beginning of a line."""
    found: list[float] = []
    for word in (text or "").split():
        try:
            found.append(float(word))
        except ValueError:
            break
    return found
