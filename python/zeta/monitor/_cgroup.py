"""The control group that this process runs in, version 1 or 2: what it may use and what it uses."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = ["Cgroup", "CpuUse", "find", "numbers", "read_text"]

_BUFFER_BYTES = 1 << 16
_UNLIMITED_BYTES = 1 << 60  # version 1 says "unlimited" with a number near 2^63


def read_text(path: str) -> str | None:
    """A small file, or None where it cannot be read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # The kernel gives such files whole where they fit, so that one look is enough.
        parts = [os.read(file, _BUFFER_BYTES)]
        while len(parts[-1]) == _BUFFER_BYTES:
            parts.append(os.read(file, _BUFFER_BYTES))
        return b"".join(parts).decode("utf-8", "replace")
    except OSError:
        return None
    finally:
        os.close(file)


def numbers(text: str | None) -> dict[str, float]:
    """Of lines "name value": the values by name."""
    found = {}
    for line in (text or "").splitlines():
        name, _, value = line.partition(" ")
        number = _number(value)
        if number is not None:
            found[name] = number
    return found


@dataclass(frozen=True, slots=True)
class CpuUse:
    """What the group has used so far: CPU seconds, periods of its quota, and those in which the quota ran out."""

    used_s: float | None
    periods: float | None
    throttled: float | None


@dataclass(frozen=True, slots=True)
class Cgroup:
    """Where a process's group stands, from the group itself up to the root that is visible here.

    Each tuple holds directories, the group's own first; empty where the controller is not mounted.
    """

    cpu: tuple[str, ...] = ()
    cpuacct: tuple[str, ...] = ()
    memory: tuple[str, ...] = ()
    is_cpu_v2: bool = False
    is_memory_v2: bool = False

    def cpu_limit(self) -> tuple[float, str | None]:
        """CPUs by the tightest quota, and the directory that sets it; infinite and the group's own without one."""
        return _tightest(self.cpu, self._cpus_of)

    def cpu_use(self, folder: str | None) -> CpuUse:
        """What the group of this directory has used so far."""
        if folder is None:
            return CpuUse(None, None, None)
        stat = numbers(read_text(f"{folder}/cpu.stat"))
        if self.is_cpu_v2:
            used_us = stat.get("usage_usec")
            used_s = None if used_us is None else used_us * 1e-6
        else:
            # The accounting of version 1 may be mounted elsewhere, but groups have the same names there.
            at = self.cpu.index(folder)
            usage = read_text(f"{self.cpuacct[at]}/cpuacct.usage") if len(self.cpuacct) == len(self.cpu) else None
            used_ns = _number(usage)
            used_s = None if used_ns is None else used_ns * 1e-9
        return CpuUse(used_s, stat.get("nr_periods"), stat.get("nr_throttled"))

    def memory_limit_bytes(self) -> tuple[float, str | None]:
        """The tightest limit and the directory that sets it; infinite and the group's own without one."""
        return _tightest(self.memory, self._memory_limit_of)

    def memory_used_bytes(self, folder: str | None) -> float | None:
        """What the group of this directory uses, without the file cache that can be dropped at once."""
        if folder is None:
            return None
        used = _number(read_text(f"{folder}/{'memory.current' if self.is_memory_v2 else 'memory.usage_in_bytes'}"))
        if used is None:
            return None
        stat = numbers(read_text(f"{folder}/memory.stat"))
        return max(used - stat.get("inactive_file" if self.is_memory_v2 else "total_inactive_file", 0.0), 0.0)

    def _cpus_of(self, folder: str) -> float | None:
        if self.is_cpu_v2:
            quota, _, period = (read_text(f"{folder}/cpu.max") or "").strip().partition(" ")
        else:
            quota = read_text(f"{folder}/cpu.cfs_quota_us") or ""
            period = read_text(f"{folder}/cpu.cfs_period_us") or ""
        quota_us, period_us = _number(quota), _number(period)
        return quota_us / period_us if quota_us and period_us and quota_us > 0 and period_us > 0 else None

    def _memory_limit_of(self, folder: str) -> float | None:
        limit = _number(read_text(f"{folder}/{'memory.max' if self.is_memory_v2 else 'memory.limit_in_bytes'}"))
        return limit if limit is not None and limit < _UNLIMITED_BYTES else None

    def pressure(self, resource: str) -> str | None:
        """The group's own pressure file, where the kernel keeps one."""
        folders = self.cpu if resource == "cpu" else self.memory
        is_v2 = self.is_cpu_v2 if resource == "cpu" else self.is_memory_v2
        return read_text(f"{folders[0]}/{resource}.pressure") if folders and is_v2 else None


def find(root: str = "") -> Cgroup:
    """The group of this process; one without directories where there is none. `root` stands before every path."""
    own = _own_paths(read_text(f"{root}/proc/self/cgroup"))
    mounts = _mounts(read_text(f"{root}/proc/self/mountinfo"))

    def folders(controller: str) -> tuple[tuple[str, ...], bool]:
        # Version 1 where the controller is mounted there: a controller serves one hierarchy at a time.
        for name, is_v2 in ((controller, False), ("", True)):
            if name in own and name in mounts:
                found = _upwards(root, *mounts[name], own[name])
                if found:
                    return found, is_v2
        return (), False

    cpu, is_cpu_v2 = folders("cpu")
    memory, is_memory_v2 = folders("memory")
    cpuacct, _ = folders("cpuacct")
    return Cgroup(cpu, () if is_cpu_v2 else cpuacct, memory, is_cpu_v2, is_memory_v2)


def _tightest(folders: tuple[str, ...], limit_of: Callable[[str], float | None]) -> tuple[float, str | None]:
    """The smallest limit on the way up, and where it stands."""
    found = [(limit, folder) for folder in folders if (limit := limit_of(folder)) is not None]
    return min(found) if found else (math.inf, folders[0] if folders else None)


def _own_paths(text: str | None) -> dict[str, str]:
    """Of /proc/self/cgroup: the path by controller, "" for version 2."""
    paths = {}
    for line in (text or "").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                paths[controller] = parts[2]
    return paths


def _mounts(text: str | None) -> dict[str, tuple[str, str]]:
    """Of /proc/self/mountinfo: mount point and the group that is its root, by controller, "" for version 2."""
    mounts: dict[str, tuple[str, str]] = {}
    for line in (text or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or not kind:
            continue
        point, group = fields[4], fields[3]
        if kind[0] == "cgroup2":
            mounts.setdefault("", (point, group))
        elif kind[0] == "cgroup":
            for option in kind[-1].split(","):
                mounts.setdefault(option, (point, group))
    return mounts


def _upwards(root: str, point: str, group: str, own: str) -> tuple[str, ...]:
    """The directories from the process's group up to the mount point, those that exist."""
    path = PurePosixPath(own)
    if ".." in path.parts:  # outside of the namespace: only what is mounted can be seen
        path = PurePosixPath("/")
    elif group != "/" and path.is_relative_to(group):
        path = PurePosixPath("/") / path.relative_to(group)
    candidates = [f"{root}{point}{str(each).rstrip('/')}" for each in (path, *path.parents)]
    return tuple(each for each in dict.fromkeys(candidates) if Path(each).is_dir())


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
