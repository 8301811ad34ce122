"""A log of what was changed outside the process, and why: one JSON object per line, in files of bounded size."""

from __future__ import annotations

import datetime
import json
import logging
import logging.handlers
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from zeta.allocate.actuators.protocol import Actuator, Applied
from zeta.allocate.actuators.residency import ResidencyActuator
from zeta.allocate.loop import Plan

__all__ = ["AuditLog", "Audited", "AuditedResidency"]


class _Handler(logging.handlers.RotatingFileHandler):
    """Counts what it could not write; an actuator goes on with a full disk."""

    lost = 0

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - the name of the standard library
        self.lost += 1


class AuditLog:
    """Writes what became of plans. Thread-safe; opens its file at the first line.

    A line has ``at_ns`` (the plan's instant), ``utc`` (the wall clock), ``actuator``, ``device``, ``state`` (one of
    ``in force``, ``dry run``, ``failure``, ``held back``), ``changes`` (model, before, after and, where they are known,
    the reason and the need), and where they apply ``policy``, ``failure``, ``held_until_ns``. What changed nothing, did
    not fail and is not held back leaves no line: a tick comes many times a second.

    Parameters
    ----------
    path : str or Path
        The file. Rotated files are called ``path.1`` and so on.
    max_bytes : int
        Size from which on a file is rotated.
    backups : int
        How many rotated files are kept, at least 1.
    utc_now : callable, optional
        The wall clock, for tests.

    Raises
    ------
    ValueError
        If a bound is below 1: such a log would grow without end.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_bytes: int = 16 << 20,
        backups: int = 3,
        utc_now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        if max_bytes < 1 or backups < 1:
            raise ValueError(f"max_bytes = {max_bytes}, backups = {backups}; expected at least 1 of each")
        self._handler = _Handler(path, maxBytes=max_bytes, backupCount=backups, encoding="utf-8", delay=True)
        self._utc_now = utc_now

    @property
    def lost(self) -> int:
        """Lines that could not be written."""
        return self._handler.lost

    def write(self, applied: Applied, plan: Plan | None = None) -> None:
        """One line about `applied`, with the reasons of the `plan` that it came from."""
        if not applied.changes and applied.failure is None and applied.held_until_ns is None:
            return
        line = json.dumps(_line(applied, plan, self._utc_now()), allow_nan=False, ensure_ascii=False)
        self._handler.handle(logging.LogRecord("zeta.audit", logging.INFO, "", 0, line, None, None))

    def close(self) -> None:
        """Closes the file; a later line opens it again."""
        self._handler.close()

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _line(applied: Applied, plan: Plan | None, utc: datetime.datetime) -> dict[str, Any]:
    why: Mapping[str, dict[str, Any]] = (
        {} if plan is None else {each.model: {"reason": each.reason, "need": each.need} for each in plan.models}
    )
    line: dict[str, Any] = {
        "at_ns": applied.at_ns,
        "utc": utc.isoformat(timespec="milliseconds"),
        "actuator": applied.actuator,
        "device": applied.device,
        "state": _state(applied),
        "changes": [
            {"model": each.model, "before": each.before, "after": each.after, **why.get(each.model, {})}
            for each in applied.changes
        ],
    }
    if plan is not None:
        line["policy"] = plan.policy
    if applied.failure is not None:
        line["failure"] = applied.failure
    if applied.held_until_ns is not None:
        line["held_until_ns"] = applied.held_until_ns
    return line


def _state(applied: Applied) -> str:
    if applied.failure is not None:
        return "failure"
    if applied.held_until_ns is not None:
        return "held back"
    return "in force" if applied.is_in_force else "dry run"


class Audited:
    """Hands plans on to another actuator and writes down what became of them. An `Actuator`.

    Parameters
    ----------
    actuator : Actuator
        Who carries out. Around a `RateLimited`, plans that are kept back leave lines too.
    log : AuditLog
    """

    def __init__(self, actuator: Actuator, log: AuditLog) -> None:
        self._actuator, self._log = actuator, log

    @property
    def name(self) -> str:
        """The other's name."""
        return self._actuator.name

    @property
    def delay_s(self) -> float | None:
        """The other's delay."""
        return self._actuator.delay_s

    def apply(self, plan: Plan) -> Applied:
        """Hands `plan` on."""
        applied = self._actuator.apply(plan)
        self._log.write(applied, plan)
        return applied


class AuditedResidency:
    """Hands loads and unloads on and writes down what became of them. A `ResidencyActuator`.

    Parameters
    ----------
    actuator : ResidencyActuator
    log : AuditLog
    """

    def __init__(self, actuator: ResidencyActuator, log: AuditLog) -> None:
        self._actuator, self._log = actuator, log

    @property
    def name(self) -> str:
        """The other's name."""
        return self._actuator.name

    @property
    def delay_s(self) -> float | None:
        """The other's delay."""
        return self._actuator.delay_s

    def load(self, model: str) -> Applied:
        """Hands the load on."""
        return self._noted(self._actuator.load(model))

    def unload(self, model: str) -> Applied:
        """Hands the unload on."""
        return self._noted(self._actuator.unload(model))

    def resident(self) -> frozenset[str] | None:
        """What the other says."""
        return self._actuator.resident()

    def _noted(self, applied: Applied) -> Applied:
        self._log.write(applied)
        return applied
