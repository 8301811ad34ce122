"""The engines of many replicas, all asked at once by one probe."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from zeta.config import Config
from zeta.errors import MonitorError, ProbeUnavailable
from zeta.monitor._engine_forms import Row
from zeta.monitor._engine_http import carry_on
from zeta.monitor.engine import ENGINE_PERIOD_S, ENGINES, EngineProbe
from zeta.monitor.probe import REPLICA_FIELDS, Field, Kind, Reading

__all__ = ["EnginesProbe"]

_FAILURE_PAUSE_S: Final = 1.0
_MOST_PAUSE_S: Final = 30.0

_log = logging.getLogger("zeta.monitor")


@dataclass(slots=True)
class _Trouble:
    error: Exception
    times: int
    until_s: float  # asked again from then on


class EnginesProbe:
    """Reads the engines of many replicas in one thread: all are asked at once, and answers are read as they come.

    Parameters
    ----------
    probes : iterable of EngineProbe
        One for each replica; their own deadlines do not count.
    name : str, default "engines"
        How metrics and logs call it.
    deadline_s : float, default 0.25
        The longest that a read takes, in seconds. Replicas that have not answered by then are unknown, the others are
        not.

    Raises
    ------
    ValueError
        If two are for one replica, or the deadline is not above 0.

    Notes
    -----
    A replica that failed is left out for a second; one that has nothing to tell (`ProbeUnavailable`) for 1, 2, 4 … 30.
    Its row is all None, and its details say why under ``"failure"``. Only if every replica fails does the read.
    Each begin and end of trouble is one line of the log ``zeta.monitor``.
    """

    def __init__(self, probes: Iterable[EngineProbe] = (), *, name: str = "engines", deadline_s: float = 0.25) -> None:
        if not deadline_s > 0:
            raise ValueError(f"deadline_s is {deadline_s}; expected more than 0 seconds")
        self._name, self._deadline_s = name, deadline_s
        self._lock = threading.Lock()
        self._probes: dict[str, EngineProbe] = {}
        self._troubles: dict[str, _Trouble] = {}
        for probe in probes:
            self.add(probe)

    @classmethod
    def from_config(cls, config: Config, *, deadline_s: float = 0.25) -> EnginesProbe:
        """Of every replica of a configuration whose engine tells something and whose address is given.

        A replica's address ends where its OpenAI interface begins (``/v1``); the engine's own pages stand before that.
        """
        return cls(
            (
                EngineProbe(replica.name, replica.url.rstrip("/").removesuffix("/v1"), engine=replica.engine)
                for model in config.models
                for replica in model.replicas
                if replica.url is not None and replica.engine in ENGINES
            ),
            deadline_s=deadline_s,
        )

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def kind(self) -> Kind:
        """Replicas."""
        return Kind.REPLICA

    @property
    def fields(self) -> tuple[Field, ...]:
        """Whatever some engine tells."""
        return REPLICA_FIELDS

    @property
    def period_s(self) -> float:
        """How often the monitor reads it by itself: once a second."""
        return ENGINE_PERIOD_S

    @property
    def deadline_s(self) -> float:
        """The longest that a read takes, in seconds."""
        return self._deadline_s

    @property
    def replicas(self) -> tuple[str, ...]:
        """Who is asked."""
        return tuple(self._probes)

    def add(self, probe: EngineProbe) -> None:
        """One more, from the next read on.

        Raises
        ------
        ValueError
            If there is one for this replica.
        """
        if probe.replica in self._probes:
            raise ValueError(f"replica {probe.replica!r} has a probe already; give each replica one")
        self._probes = {**self._probes, probe.replica: probe}

    def remove(self, replica: str) -> None:
        """One less, from the next read on.

        Raises
        ------
        KeyError
            If there is none.
        """
        self._probes[replica].close()
        self._probes = {name: probe for name, probe in self._probes.items() if name != replica}

    def read(self) -> Reading:
        """Asks every engine once, within the deadline.

        Raises
        ------
        ProbeUnavailable
            If there is no replica, or none that has something to tell.
        MonitorError
            If none answers.
        """
        until_s = time.monotonic() + self._deadline_s
        if not self._lock.acquire(timeout=self._deadline_s):
            raise MonitorError(f"{self._name}: another thread reads them; give each thread its own probe")
        try:
            return self._read(until_s)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Closes the connections. Idempotent; a read under way ends soon."""
        for probe in self._probes.values():
            probe.close()

    def _read(self, until_s: float) -> Reading:
        probes, troubles = self._probes, self._troubles
        now_s, taken_ns = time.monotonic(), time.monotonic_ns()
        due = list(probes.values())
        if troubles:
            due = [probe for name, probe in probes.items() if name not in troubles or now_s >= troubles[name].until_s]
        asked = [(probe, probe.ask()) for probe in due]
        carry_on([conversation for _, conversation in asked], until_s)
        rows: dict[str, Row] = {}
        details: dict[str, Any] = {}
        for probe, conversation in asked:
            name = probe.replica
            try:
                rows[name] = probe.answer_of(conversation)
            except Exception as error:
                self._note(name, error, now_s)
            else:
                details[name] = probe.details()
                if name in troubles:
                    _log.info("replica %s answers again", name)
                    del troubles[name]
        if troubles or not rows:
            self._without(rows, details)
        return Reading(rows, taken_ns, details)

    def _note(self, name: str, error: Exception, now_s: float) -> None:
        before = self._troubles.get(name)
        times = 1 if before is None else before.times + 1
        is_expected = isinstance(error, ProbeUnavailable)
        pause_s = min(_FAILURE_PAUSE_S * 2 ** min(times - 1, 10), _MOST_PAUSE_S) if is_expected else _FAILURE_PAUSE_S
        self._troubles[name] = _Trouble(error.with_traceback(None), times, now_s + pause_s)
        if before is None:
            _log.log(logging.INFO if is_expected else logging.WARNING, "%s", _said(name, error))

    def _without(self, rows: dict[str, Row], details: dict[str, Any]) -> None:
        """Completes a reading in which some are missing; raises where all are."""
        self._troubles = troubles = {name: each for name, each in self._troubles.items() if name in self._probes}
        if not rows:
            if not troubles:
                raise ProbeUnavailable(f"{self._name}: there is no replica to ask; add some with add(EngineProbe(...))")
            name, first = next(iter(troubles.items()))
            what = f"none of {len(troubles)} replicas answers; {_said(name, first.error)}"
            if all(isinstance(each.error, ProbeUnavailable) for each in troubles.values()):
                raise ProbeUnavailable(what)
            raise MonitorError(what)
        for name, trouble in troubles.items():
            rows[name] = {}
            details[name] = {"failure": _said(name, trouble.error)}


def _said(name: str, error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if repr(name) in text else f"replica {name!r}: {text}"
