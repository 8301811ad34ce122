"""Runs contenders in turn, round after round, so that what disturbs the machine disturbs all of them alike."""

from __future__ import annotations

import dataclasses
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["GC_POLICY", "Absent", "Contender", "Row", "Spread", "WrongAnswer", "interleave"]

GC_POLICY = "collected before every timed part, then off until it ends; the same for every contender"

_WARM_UP_OPERATIONS = 64
_FEWEST, _MOST = 40, 60_000  # operations per contender and round


class WrongAnswer(AssertionError):
    """A contender was fast and wrong; its figures are worth nothing."""


class Absent(Exception):
    """A contender cannot run here: what is missing, and the command that brings it."""


class Contender(Protocol):
    """One way to do the job.

    Attributes
    ----------
    name : str
        For the table.
    measured : str
        Exactly what one operation is.
    """

    @property
    def name(self) -> str: ...
    @property
    def measured(self) -> str: ...
    def open(self) -> None:
        """Makes ready; raises `Absent` where it cannot."""

    def renew(self) -> None:
        """Before every round: back to the state that the scenario asks for."""

    def run(self, operations: int) -> NDArray[np.float64]:
        """Does so many operations; nanoseconds of each (of the mean of a batch, where the operation is a batch)."""

    def check(self) -> None:
        """Raises `WrongAnswer` if what was answered since `renew` cannot be right."""

    def close(self) -> None: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Spread:
    """A figure's median over the rounds, with the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one contender; times in microseconds per operation."""

    name: str
    measured: str
    rounds: int
    operations_per_round: int
    us_p50: Spread
    us_p99: Spread
    us_p999: Spread
    per_second: Spread


def _timed(contender: Contender, operations: int) -> NDArray[np.float64]:
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return contender.run(operations)
    finally:
        if was_enabled:
            gc.enable()


def _operations_for(contender: Contender, seconds: float) -> int:
    """How many operations fill the time, judged by a few."""
    contender.renew()
    started = time.perf_counter()
    contender.run(_WARM_UP_OPERATIONS)
    each = (time.perf_counter() - started) / _WARM_UP_OPERATIONS
    return max(_FEWEST, min(_MOST, int(seconds / each)))


def interleave(
    contenders: Sequence[Contender],
    *,
    rounds: int,
    seconds: float,
    say: Callable[[str], Any] = lambda _: None,
) -> tuple[list[Row], dict[str, str]]:
    """Measures all contenders in turn, `rounds` times, each about `seconds` per turn.

    Every round starts with another contender. Before each timed part the contender is renewed and warmed up; after
    it, its answers are checked.

    Returns
    -------
    rows : list of Row
        In the order given.
    absent : dict of str to str
        Contenders that could not run, by name, with what would bring them.
    """
    present: list[Contender] = []
    absent: dict[str, str] = {}
    for contender in contenders:
        try:
            contender.open()
        except Absent as missing:
            absent[contender.name] = str(missing)
            say(f"absent: {contender.name}: {missing}")
        else:
            present.append(contender)
    try:
        counts = [_operations_for(contender, seconds) for contender in present]
        samples: list[list[NDArray[np.float64]]] = [[] for _ in present]
        for turn in range(rounds):
            for step in range(len(present)):
                i = (step + turn) % len(present)
                present[i].renew()
                present[i].run(max(_WARM_UP_OPERATIONS // 2, counts[i] // 10))
                samples[i].append(_timed(present[i], counts[i]))
                present[i].check()
            say(f"round {turn + 1} of {rounds}")
    finally:
        for contender in present:
            contender.close()
    return [_row(*measured) for measured in zip(present, counts, samples, strict=True)], absent


def _row(contender: Contender, count: int, samples: list[NDArray[np.float64]]) -> Row:
    def percentile(q: float) -> Spread:
        return Spread.of([float(np.percentile(taken, q)) / 1e3 for taken in samples])

    return Row(
        name=contender.name,
        measured=contender.measured,
        rounds=len(samples),
        operations_per_round=count,
        us_p50=percentile(50),
        us_p99=percentile(99),
        us_p999=percentile(99.9),
        per_second=Spread.of([1e9 / float(np.mean(taken)) for taken in samples]),
    )
