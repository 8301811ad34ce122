"""What is known now, row by row: typed values for Python, and a board that the native core reads by itself."""

from __future__ import annotations

import threading
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zeta._core import ReadingBoard, ReadingColumns, reading_identity
from zeta.monitor.probe import Kind, Reading, fields_of

__all__ = ["Board", "DeviceReadings", "HostReadings", "ReplicaReadings", "Snapshot"]

_NO_AGES: Mapping[str, float | None] = types.MappingProxyType({})
_NO_DETAILS: Mapping[str, Any] = types.MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Readings:
    """One row. Every field is ``None`` where it is unknown or stale; `age_s` says since when."""

    key: str
    age_s: Mapping[str, float | None] = field(default_factory=lambda: _NO_AGES)
    """Per field, seconds since it was last known; ``None``: never."""
    details: Mapping[str, Any] = field(default_factory=lambda: _NO_DETAILS)
    """What the probe said beside numbers: names, indices, reasons."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReadings(_Readings):
    """One device, or part of one; `key` is its UUID. Fields, units and meanings: `zeta.monitor.DEVICE_FIELDS`."""

    utilisation: float | None = None
    memory_utilisation: float | None = None
    memory_used_bytes: float | None = None
    memory_total_bytes: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    energy_j: float | None = None
    sm_clock_mhz: float | None = None
    sm_clock_max_mhz: float | None = None
    memory_clock_mhz: float | None = None
    temperature_c: float | None = None
    throttle_reasons: float | None = None
    process_count: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReadings(_Readings):
    """The machine, container or cgroup around this process. Fields, units, meanings: `zeta.monitor.HOST_FIELDS`."""

    cpu_utilisation: float | None = None
    cpu_limit: float | None = None
    cpu_throttled: float | None = None
    cpu_pressure: float | None = None
    load_1m: float | None = None
    load_5m: float | None = None
    memory_limit_bytes: float | None = None
    memory_used_bytes: float | None = None
    memory_available_bytes: float | None = None
    memory_pressure: float | None = None
    swap_used_bytes: float | None = None
    process_memory_bytes: float | None = None
    process_cpus: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaReadings(_Readings):
    """One replica; `key` is its name. Fields, units and meanings: `zeta.monitor.REPLICA_FIELDS`."""

    running: float | None = None
    waiting: float | None = None
    kv_used: float | None = None
    kv_capacity_tokens: float | None = None
    prompt_tokens_total: float | None = None
    output_tokens_total: float | None = None
    requests_total: float | None = None
    preemptions_total: float | None = None
    prefix_queries_total: float | None = None
    prefix_hits_total: float | None = None
    ttft_sum_s: float | None = None
    ttft_count: float | None = None
    tpot_sum_s: float | None = None
    tpot_count: float | None = None
    queue_wait_sum_s: float | None = None
    queue_wait_count: float | None = None
    is_awake: float | None = None
    memory_used_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is known at one instant.

    Parameters
    ----------
    at_ns : int
        When it was taken, in nanoseconds of the monitor's clock.
    devices : mapping of str to DeviceReadings
        By UUID. A device that is lost stays listed for a while, with every field ``None``.
    host : HostReadings
        Every field ``None`` where no host probe runs.
    replicas : mapping of str to ReplicaReadings
        By name.
    """

    at_ns: int
    devices: Mapping[str, DeviceReadings]
    host: HostReadings
    replicas: Mapping[str, ReplicaReadings]


@dataclass(slots=True)
class _Row:
    index: int
    identity: int
    owner: str
    is_present: bool = True
    seen_ns: int = 0
    details: Mapping[str, Any] = field(default_factory=lambda: _NO_DETAILS)


def _columns(kind: Kind) -> ReadingColumns:
    fields = fields_of(kind)
    return ReadingColumns(kind, [each.low for each in fields], [each.high for each in fields])


_COLUMNS: Mapping[Kind, ReadingColumns] = types.MappingProxyType({kind: _columns(kind) for kind in Kind})
_NAMES: Mapping[Kind, tuple[str, ...]] = types.MappingProxyType(
    {kind: tuple(each.name for each in fields_of(kind)) for kind in Kind}
)


def _as_dict(given: object) -> dict[str, float | None] | None:
    return dict(given) if isinstance(given, Mapping) else None


class Board:
    """The newest reading of every device, the host and every replica, for Python and for the native core.

    Parameters
    ----------
    devices, replicas : int
        The most rows of each kind; memory is taken at once, about 1.8 kB a row.

    Notes
    -----
    Thread-safe. Each key belongs to the probe that first read it. A key that its probe no longer finds keeps its row,
    all unknown, until the row is needed for another.
    """

    def __init__(self, devices: int = 16, replicas: int = 64) -> None:
        if devices < 0 or replicas < 0:
            raise ValueError(f"a board has 0 or more devices and replicas; got {devices} and {replicas}")
        self._core = ReadingBoard(devices + 1 + replicas)
        self._capacity = {Kind.DEVICE: devices, Kind.HOST: 1, Kind.REPLICA: replicas}
        self._lock = threading.Lock()
        self._rows: dict[Kind, dict[str, _Row]] = {}
        self._free: dict[Kind, list[int]] = {}
        self._make_empty()

    @property
    def core(self) -> ReadingBoard:
        """What the native core reads, and `copy_into` for numpy arrays of shape (`rows`, `fields`)."""
        return self._core

    def row_of(self, kind: Kind, key: str) -> int | None:
        """Where a device, the host or a replica stands in arrays that `ReadingBoard.copy_into` fills."""
        found = self._rows[kind].get(key)
        return None if found is None else found.index

    def publish(self, owner: str, kind: Kind, reading: Reading, taken_ns: int, stale_after_ns: int) -> str:
        """Puts one read of the probe `owner` on the board. Its keys that are not in `reading` become unknown.

        Returns
        -------
        str
            What is not on the board and why, as a sentence, empty where all is: a row that is no mapping, a field that
            the kind has not, a key that belongs to another probe, a board that is full. One bad row spoils no other.
        """
        columns = _COLUMNS[kind]
        rows, details, publish = reading.rows, reading.details, self._core.publish_mapping
        wrong = ""
        with self._lock:
            mine = self._rows[kind]
            for key, given in rows.items():
                values = given if type(given) is dict else _as_dict(given)
                if values is None:
                    wrong = f"{owner} read {given!r} of {key!r}; expected a mapping from names of fields to numbers"
                    continue
                row = mine.get(key) or self._take_row(owner, kind, key)
                if row is None:
                    wrong = self._why_no_row(owner, kind, key)
                    continue
                if row.owner != owner:
                    wrong = f"{owner} read {key!r}, which {row.owner} reads already; remove one of the two probes"
                    continue
                row.seen_ns = taken_ns
                row.details = details.get(key, _NO_DETAILS)
                row.is_present = True
                if publish(row.index, row.identity, columns, values, taken_ns, stale_after_ns) != len(values):
                    unknown = sorted(map(str, values.keys() - set(_NAMES[kind])))
                    wrong = f"{owner} read {unknown} of {key!r}; a {kind} has {', '.join(_NAMES[kind])}"
            for key, row in mine.items():
                if row.is_present and row.owner == owner and key not in rows:
                    row.is_present = False
                    self._core.forget(row.index)
        return wrong

    def forget(self, owner: str) -> None:
        """Makes all that the probe `owner` has read unknown; the ages go on."""
        with self._lock:
            for rows in self._rows.values():
                for row in rows.values():
                    if row.owner == owner and row.is_present:
                        row.is_present = False
                        self._core.forget(row.index)

    def remove(self, owner: str) -> None:
        """Frees the rows of the probe `owner`."""
        with self._lock:
            for kind, rows in self._rows.items():
                for key in [key for key, row in rows.items() if row.owner == owner]:
                    self._free_row(kind, key)

    def clear(self) -> None:
        """Frees every row. Also for a forked child, where other threads have left the lock as it was."""
        self._lock = threading.Lock()
        for index in range(self._core.rows):
            self._core.free(index)
        self._make_empty()

    def device(self, key: str, now_ns: int) -> DeviceReadings | None:
        """What is known of one device; None for a UUID that no probe has read."""
        found = self._row(Kind.DEVICE, key, now_ns)
        return None if found is None else DeviceReadings(**found)

    def host(self, now_ns: int) -> HostReadings:
        """What is known of the host."""
        found = self._row(Kind.HOST, "host", now_ns)
        return HostReadings(key="host") if found is None else HostReadings(**found)

    def replica(self, key: str, now_ns: int) -> ReplicaReadings | None:
        """What is known of one replica; None for a name that no probe has read."""
        found = self._row(Kind.REPLICA, key, now_ns)
        return None if found is None else ReplicaReadings(**found)

    def snapshot(self, now_ns: int) -> Snapshot:
        """What is known of everything."""
        with self._lock:
            devices, replicas = list(self._rows[Kind.DEVICE]), list(self._rows[Kind.REPLICA])
        return Snapshot(
            now_ns,
            {key: device for key in devices if (device := self.device(key, now_ns)) is not None},
            self.host(now_ns),
            {key: replica for key in replicas if (replica := self.replica(key, now_ns)) is not None},
        )

    def _row(self, kind: Kind, key: str, now_ns: int) -> dict[str, Any] | None:
        row = self._rows[kind].get(key)
        if row is None:
            return None
        found = self._core.read(row.index, now_ns=now_ns)
        if found is None or found[0] != row.identity:
            return None  # freed meanwhile
        names = _NAMES[kind]
        fields = dict(zip(names, found[1][: len(names)], strict=True))
        ages = types.MappingProxyType(dict(zip(names, found[2][: len(names)], strict=True)))
        return {"key": key, "age_s": ages, "details": row.details, **fields}

    def _make_empty(self) -> None:
        self._rows = {kind: {} for kind in Kind}
        first = 0
        for kind, count in self._capacity.items():
            self._free[kind] = list(range(first + count - 1, first - 1, -1))
            first += count

    def _take_row(self, owner: str, kind: Kind, key: object) -> _Row | None:
        if not isinstance(key, str) or not key:
            return None
        if not self._free[kind]:
            rows = self._rows[kind]
            absent = [each for each, row in rows.items() if not row.is_present]
            if not absent:
                return None
            self._free_row(kind, min(absent, key=lambda each: rows[each].seen_ns))
        row = self._rows[kind][key] = _Row(self._free[kind].pop(), reading_identity(kind, key), owner)
        return row

    def _why_no_row(self, owner: str, kind: Kind, key: object) -> str:
        if not isinstance(key, str) or not key:
            return f"{owner} read a row of key {key!r}; expected a name, such as a UUID"
        room = self._capacity[kind]
        return f"{owner} read {key!r}, but all {room} rows for kind {kind} are taken; make the monitor with more"

    def _free_row(self, kind: Kind, key: str) -> None:
        row = self._rows[kind].pop(key)
        self._core.free(row.index)
        self._free[kind].append(row.index)
