"""What a probe is: where a reading comes from, what its numbers mean, and how the unknown is said."""

from __future__ import annotations

import enum
import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

__all__ = [
    "DEVICE_FIELDS",
    "HOST_FIELDS",
    "REPLICA_FIELDS",
    "Field",
    "Kind",
    "Probe",
    "Reading",
    "fields_of",
    "select",
]


class Kind(enum.StrEnum):
    """What a row of readings is about."""

    DEVICE = "device"
    """One GPU or one part of it (MIG); its key is the UUID, which outlives a change of index."""
    HOST = "host"
    """The machine, container or cgroup that this process runs in; its key is ``"host"``."""
    REPLICA = "replica"
    """One running copy of a model; its key is the replica's name in the configuration."""


@dataclass(frozen=True, slots=True)
class Field:
    """One number that a probe may read.

    Parameters
    ----------
    name : str
        Unique within its kind; the unit ends the name unless the number is a bare count or fraction.
    unit : str
        As written: ``"bytes"``, ``"W"``, ``"MHz"``, ``"°C"``, ``"s"``, ``"1"`` for a fraction from 0 to 1, ``"count"``.
    about : str
        What is counted, in one phrase.
    low, high : float
        No honest value lies outside; one that does is garbage and counts as unknown.
    """

    name: str
    unit: str
    about: str
    low: float = 0.0
    high: float = math.inf


DEVICE_FIELDS: tuple[Field, ...] = (
    Field("utilisation", "1", "part of the last sample period in which a kernel ran", high=1.0),
    Field(
        "memory_utilisation", "1", "part of the last sample period in which device memory was read or written", high=1.0
    ),
    Field("memory_used_bytes", "bytes", "allocated device memory", high=1e15),
    Field("memory_total_bytes", "bytes", "device memory in all", high=1e15),
    Field("power_w", "W", "power drawn", high=1e5),
    Field("power_limit_w", "W", "power limit in force", high=1e5),
    Field("energy_j", "J", "energy drawn since the driver was loaded"),
    Field("sm_clock_mhz", "MHz", "clock of the multiprocessors", high=1e5),
    Field("sm_clock_max_mhz", "MHz", "the highest such clock", high=1e5),
    Field("memory_clock_mhz", "MHz", "clock of the memory", high=1e5),
    Field("temperature_c", "°C", "temperature of the die", low=-60.0, high=200.0),
    Field("throttle_reasons", "bits", "NVML's mask of why clocks are lowered; 0: they are not", high=2.0**53),
    Field("process_count", "count", "processes that compute on the device", high=1e7),
)

HOST_FIELDS: tuple[Field, ...] = (
    Field("cpu_utilisation", "1", "part of the usable CPUs' time that was busy since the last read", high=1.0),
    Field("cpu_limit", "count", "CPUs that this process may use: affinity and cgroup quota, so not always whole"),
    Field(
        "cpu_throttled", "1", "part of the cgroup's periods since the last read in which its quota ran out", high=1.0
    ),
    Field("cpu_pressure", "1", "part of the last 10 s in which some task waited for a CPU", high=1.0),
    Field("load_1m", "count", "runnable and blocked tasks, mean over a minute"),
    Field("load_5m", "count", "runnable and blocked tasks, mean over five minutes"),
    Field("memory_limit_bytes", "bytes", "memory that this process may use: the machine's or the cgroup's"),
    Field("memory_used_bytes", "bytes", "of that, in use and not reclaimable as cache", high=1e15),
    Field("memory_available_bytes", "bytes", "of that, to be had without swapping"),
    Field("memory_pressure", "1", "part of the last 10 s in which some task waited for memory", high=1.0),
    Field("swap_used_bytes", "bytes", "swap in use on the machine"),
    Field("process_memory_bytes", "bytes", "resident memory of this process"),
    Field("process_cpus", "count", "CPUs that this process kept busy since the last read"),
)

REPLICA_FIELDS: tuple[Field, ...] = (
    Field("running", "count", "requests in the engine's batch"),
    Field("waiting", "count", "requests in the engine's own queue"),
    Field("kv_used", "1", "part of the KV cache in use", high=1.0),
    Field("kv_capacity_tokens", "tokens", "tokens that the KV cache holds"),
    Field("prompt_tokens_total", "tokens", "prompt tokens computed since the engine started"),
    Field("output_tokens_total", "tokens", "tokens generated since the engine started"),
    Field("requests_total", "count", "requests finished since the engine started"),
    Field("preemptions_total", "count", "requests put out of the batch for want of KV cache since the engine started"),
    Field("prefix_queries_total", "tokens", "prompt tokens looked up in the prefix cache since the engine started"),
    Field("prefix_hits_total", "tokens", "of those, found there"),
    Field("ttft_sum_s", "s", "sum of times to first token"),
    Field("ttft_count", "count", "first tokens in that sum"),
    Field("tpot_sum_s", "s", "sum of times per output token"),
    Field("tpot_count", "count", "values in that sum"),
    Field("queue_wait_sum_s", "s", "sum of times in the engine's own queue"),
    Field("queue_wait_count", "count", "requests in that sum"),
    Field("is_awake", "1", "1 when the engine serves, 0 when it sleeps or its model is unloaded", high=1.0),
    Field("memory_used_bytes", "bytes", "device memory that the replica holds", high=1e15),
)

_FIELDS: Mapping[Kind, tuple[Field, ...]] = types.MappingProxyType(
    {Kind.DEVICE: DEVICE_FIELDS, Kind.HOST: HOST_FIELDS, Kind.REPLICA: REPLICA_FIELDS}
)
_NOTHING: Mapping[str, Mapping[str, Any]] = types.MappingProxyType({})


def fields_of(kind: Kind) -> tuple[Field, ...]:
    """Every field that a row of this kind has, in the order of its columns."""
    return _FIELDS[kind]


def select(kind: Kind, names: Iterable[str]) -> tuple[Field, ...]:
    """The fields of `kind` with these names, in the order given: what a probe puts into its `Probe.fields`.

    Raises
    ------
    ValueError
        If a row of this kind has no such field.
    """
    known = {each.name: each for each in _FIELDS[kind]}
    chosen = []
    for name in names:
        if name not in known:
            raise ValueError(f"a {kind} has no field {name!r}; expected some of {', '.join(known)}")
        chosen.append(known[name])
    return tuple(chosen)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one read of a probe found.

    Parameters
    ----------
    rows : mapping of str to mapping of str to float or None
        Per key (a device's UUID, ``"host"``, a replica's name), per field, the value in the field's unit. ``None`` and
        a field that is left out say the same: not known now. NaN and infinities count as ``None``. A key that is left
        out was not found by this read: all its fields are unknown.
    taken_ns : int or None
        When the values were true, in nanoseconds of ``CLOCK_MONOTONIC``; ``None`` for "when `Probe.read` was called".
    details : mapping of str to mapping
        Per key, whatever is no number of the schema: a device's name and index, memory by process, why a value is
        missing. For people and for Python; it does not reach the native core.
    """

    rows: Mapping[str, Mapping[str, float | None]]
    taken_ns: int | None = None
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: _NOTHING)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; `from_dict` reads them back."""
        found: dict[str, Any] = {"rows": {key: dict(row) for key, row in self.rows.items()}}
        if self.taken_ns is not None:
            found["taken_ns"] = self.taken_ns
        if self.details:
            found["details"] = {key: dict(each) for key, each in self.details.items()}
        return found

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Reading:
        """The reading that `to_dict` wrote.

        Raises
        ------
        ValueError
            If it has no ``rows``.
        """
        if not isinstance(given.get("rows"), Mapping):
            raise ValueError(f"a recorded reading needs a mapping called rows; got the keys {sorted(given)}")
        return cls(given["rows"], given.get("taken_ns"), given.get("details", _NOTHING))


@runtime_checkable
class Probe(Protocol):
    """One source of readings. The sampler calls `read` from one thread at a time and never from the caller's.

    `read` may block: the probe's own thread waits, nobody else. A read that passes its deadline makes all rows of the
    probe unknown; its thread is left behind and `read` is called from another one, so a probe keeps no lock over the
    call that may hang. Creating a probe opens nothing; what it needs it opens in the first `read` and again after any
    failure.

    It may also have ``period_s``, how often it is to be read at most where nobody says otherwise, and ``deadline_s``,
    how long it lets its own reads take, both in seconds.
    """

    @property
    def name(self) -> str:
        """How metrics, logs and ``zeta doctor`` call it."""
        ...

    @property
    def kind(self) -> Kind:
        """What its rows are about."""
        ...

    @property
    def fields(self) -> tuple[Field, ...]:
        """What it may read: some of `fields_of` its kind. The rest stays unknown."""
        ...

    def read(self) -> Reading:
        """Reads everything once.

        Raises
        ------
        ProbeUnavailable
            If there is nothing to read from here (no driver, no such file). It is asked again, but seldom.
        Exception
            Whatever else goes wrong; its rows are unknown until a read succeeds, and it is asked again soon.
        """
        ...

    def close(self) -> None:
        """Gives back what `read` opened. Idempotent; may be called while a `read` hangs, and must not wait for it.

        Not promised where the interpreter ends: what must not outlive the process ends with it by itself, as a child
        does that reads from a pipe.
        """
        ...
