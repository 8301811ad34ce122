"""A probe that reads what it is told to, and one that remembers what another read."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from zeta.monitor.probe import Field, Kind, Probe, Reading, fields_of

__all__ = ["HANG", "FakeProbe", "Hang", "RecordingProbe", "Step"]


class Hang:
    """A step of a script: the read blocks until `FakeProbe.release`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "HANG"


HANG = Hang()
"""The one `Hang`."""

Step = Reading | BaseException | Hang | None | Callable[[], Reading | None]
"""What one read does: returns the reading, raises, hangs, returns None (which no honest probe does), or calls."""


class FakeProbe:
    """Reads from a script: for tests, demonstrations and replays of what another probe recorded.

    Parameters
    ----------
    script : iterable of Step
        What each read does, in order.
    name : str, default "fake"
    kind : Kind, default Kind.DEVICE
    fields : tuple of Field, optional
        What it claims to read; all fields of its kind by default.
    repeats : bool, default False
        After the last step begin again. Otherwise the last step is done for ever.

    Attributes
    ----------
    reads : int
        How often `read` was entered.
    hanging : int
        How many reads hang at this moment.
    is_closed : bool

    Notes
    -----
    Thread-safe. A hanging read that is released does the step after the hang.
    """

    def __init__(
        self,
        script: Iterable[Step],
        *,
        name: str = "fake",
        kind: Kind = Kind.DEVICE,
        fields: tuple[Field, ...] | None = None,
        repeats: bool = False,
    ) -> None:
        self._script = list(script)
        if not self._script:
            raise ValueError("the script is empty; give at least one step, such as Reading({})")
        self._name = name
        self._kind = kind
        self._fields = fields_of(kind) if fields is None else fields
        self._repeats = repeats
        self._next = 0
        self._lock = threading.Lock()
        self._has_changed = threading.Condition(self._lock)
        self._releases = 0
        self.reads = 0
        self.hanging = 0
        self.is_closed = False

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def kind(self) -> Kind:
        """As given."""
        return self._kind

    @property
    def fields(self) -> tuple[Field, ...]:
        """As given."""
        return self._fields

    def read(self) -> Reading:
        """Does the next step of the script."""
        with self._lock:
            self.reads += 1
            self._has_changed.notify_all()
            step = self._advance()
            while isinstance(step, Hang):
                if self.is_closed:
                    raise RuntimeError(f"probe {self._name} was closed")
                released = self._releases
                self.hanging += 1
                self._has_changed.notify_all()
                self._has_changed.wait_for(lambda: self._releases != released)  # noqa: B023 (used in this turn only)
                self.hanging -= 1
                step = self._advance()
        if isinstance(step, BaseException):
            raise step.with_traceback(None)  # one that is raised again and again would grow
        if callable(step):
            step = step()
        return step  # type: ignore[return-value]  # None is what a dishonest probe returns

    def close(self) -> None:
        """Marks the probe closed and lets hanging reads go on; from now on, one that comes to a hang raises."""
        self.is_closed = True
        self.release()

    def release(self) -> None:
        """Ends the hang of all reads that hang now."""
        with self._lock:
            self._releases += 1
            self._has_changed.notify_all()

    def then(self, *steps: Step) -> None:
        """Forgets the rest of the script; the next reads do these steps, the last of them for ever."""
        with self._lock:
            self._script = list(steps) or self._script[-1:]
            self._next = 0

    def wait_for_reads(self, count: int, timeout_s: float = 10.0) -> bool:
        """Waits until `read` was entered `count` times in all; False if that took longer than `timeout_s` seconds."""
        with self._lock:
            return self._has_changed.wait_for(lambda: self.reads >= count, timeout_s)

    def wait_for_hanging(self, count: int = 1, timeout_s: float = 10.0) -> bool:
        """Waits until `count` reads hang at once; False if that took longer than `timeout_s` seconds."""
        with self._lock:
            return self._has_changed.wait_for(lambda: self.hanging >= count, timeout_s)

    @classmethod
    def replay(
        cls, source: Path | Iterable[str], *, name: str = "fake", kind: Kind = Kind.DEVICE, repeats: bool = False
    ) -> FakeProbe:
        """A probe that repeats what a `RecordingProbe` wrote: a file, or its lines.

        Failures are repeated as `RuntimeError` with the recorded text. Instants are left out: a replay is read now.

        Raises
        ------
        ValueError
            If a line is not a recorded reading.
        """
        if isinstance(source, Path):
            with source.open(encoding="utf-8") as lines:
                return cls(_steps(lines), name=name, kind=kind, repeats=repeats)
        return cls(_steps(source), name=name, kind=kind, repeats=repeats)

    def _advance(self) -> Step:
        at = self._next
        if at + 1 < len(self._script):
            self._next = at + 1
        elif self._repeats:
            self._next = 0
        return self._script[at]


def _steps(lines: Iterable[str]) -> Iterator[Step]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            given = dict(json.loads(line))
            if "failure" in given:
                yield RuntimeError(given["failure"])
            else:
                yield Reading.from_dict({key: value for key, value in given.items() if key != "taken_ns"})
        except (ValueError, TypeError) as error:
            raise ValueError(f"line {number} is no recorded reading: {error}") from error


class RecordingProbe:
    """Reads what another probe reads, and keeps each read as a line of JSON for `FakeProbe.replay`.

    Parameters
    ----------
    probe : Probe
        Who reads.
    keep : int, default 10000
        The most lines to hold; later reads are passed on and not kept.
    """

    def __init__(self, probe: Probe, keep: int = 10_000) -> None:
        self._probe = probe
        self._keep = keep
        self._lines: list[str] = []

    @property
    def name(self) -> str:
        """The other probe's."""
        return self._probe.name

    @property
    def kind(self) -> Kind:
        """The other probe's."""
        return self._probe.kind

    @property
    def fields(self) -> tuple[Field, ...]:
        """The other probe's."""
        return self._probe.fields

    @property
    def period_s(self) -> float | None:
        """The other probe's; None where it has none."""
        return getattr(self._probe, "period_s", None)

    @property
    def deadline_s(self) -> float | None:
        """The other probe's; None where it has none."""
        return getattr(self._probe, "deadline_s", None)

    @property
    def lines(self) -> Sequence[str]:
        """One line of JSON for each read so far."""
        return tuple(self._lines)

    def read(self) -> Reading:
        """Reads by the other probe; a failure is kept and raised on."""
        try:
            reading = self._probe.read()
        except Exception as error:
            self._append({"failure": f"{type(error).__name__}: {error}"})
            raise
        self._append(reading.to_dict())
        return reading

    def close(self) -> None:
        """Closes the other probe."""
        self._probe.close()

    def save(self, path: Path) -> None:
        """Writes the lines to a file."""
        path.write_text("".join(f"{line}\n" for line in self._lines), encoding="utf-8")

    def _append(self, what: object) -> None:
        if len(self._lines) < self._keep:
            self._lines.append(json.dumps(what, default=str))
