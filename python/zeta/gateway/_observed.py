"""What the gateway sees of each request, recorded in a fraction of a microsecond and folded into histograms later."""

from __future__ import annotations

import collections
import math
import re
from array import array
from collections.abc import Hashable, Sequence
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["NO_MODEL", "OTHER", "Distribution", "Observed", "class_name"]

NO_MODEL: Final = "none"
"""Stands for the model of a request that was never placed."""
OTHER: Final = "other"
"""Stands for names past the bound of what is told apart."""

RECENT_S: Final = 60
"""Percentiles and attainment of late are over the last 50 to 60 seconds."""

_SLOT_NS: Final = 10_000_000_000
_SLOTS: Final = 6
_FOLD_AT: Final = 1024  # a fold of so many takes under half a millisecond
_PARTS: Final = 8  # fine bins per bucket of the exposition: a percentile is read within 5 %
_MAX_CLASSES: Final = 8
_MAX_REFUSALS: Final = 64
_MAX_TENANTS: Final = 256
_LABEL: Final = re.compile(r"[a-z][a-z0-9_]{0,47}")
_NAN: Final = math.nan
_CLASS_NAMES: Final = ("urgent", "normal", "batch", "idle")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_Counts = collections.Counter[tuple[int, str | None]]
"""By a model's row and a word."""


def class_name(priority: int, classes: int = len(_CLASS_NAMES)) -> str:
    """What people call a priority class: urgent, normal, batch, idle where there are four; else its number."""
    return _CLASS_NAMES[priority] if classes == len(_CLASS_NAMES) and 0 <= priority < classes else str(priority)


class Distribution:
    """How values spread, one row per label: since the start in buckets of 1-2-5, and of late in finer bins.

    Parameters
    ----------
    rows : int
        How many distributions stand beside each other.
    low_ms, high_ms : float
        The first and the last bucket's upper bound, in milliseconds: 1, 2 or 5 times a power of ten.

    Notes
    -----
    Belongs to one thread. Memory is fixed: about 5 kB a row.
    """

    def __init__(self, rows: int, low_ms: float, high_ms: float) -> None:
        self.bounds_ms = _one_two_five(low_ms, high_ms)
        coarse = np.log(np.array(self.bounds_ms))
        steps = coarse[:-1, None] + np.diff(coarse)[:, None] * (np.arange(_PARTS) / _PARTS)
        self._edges = np.append(np.exp(steps).ravel(), self.bounds_ms[-1])
        self._edges[::_PARTS] = self.bounds_ms  # exactly, so that a value on a bound counts below it
        self._bins = len(self._edges) + 1
        self._rows = rows
        self._counts = np.zeros((rows, self._bins), dtype=np.int64)
        self._sums_ms = np.zeros(rows)
        self._recent = np.zeros((_SLOTS, rows, self._bins), dtype=np.int32)
        self._slot = 0

    def add(self, rows: Ints, values_ms: Floats) -> None:
        """Counts each value in its row. What is no number, or below 0, counts as 0."""
        values = np.fmax(values_ms, 0.0)
        where = rows * self._bins + np.searchsorted(self._edges, values, side="left")
        size = self._rows * self._bins
        found = np.bincount(where, minlength=size).reshape(self._rows, self._bins)
        self._counts += found
        self._recent[self._slot] += found.astype(np.int32)
        self._sums_ms += np.bincount(rows, weights=values, minlength=self._rows)

    def turn(self, slots: int = 1) -> None:
        """Ten seconds have passed, `slots` times: the oldest values of late are forgotten."""
        for _ in range(min(slots, _SLOTS)):
            self._slot = (self._slot + 1) % _SLOTS
            self._recent[self._slot] = 0

    def count(self, row: int) -> int:
        """Values since the start."""
        return int(self._counts[row].sum())

    def buckets(self, row: int) -> tuple[list[tuple[str, float]], float]:
        """Prometheus' cumulative buckets in seconds, and the sum in seconds."""
        up_to = np.cumsum(self._counts[row])
        found = [(f"{bound * 1e-3:.10g}", float(up_to[at * _PARTS])) for at, bound in enumerate(self.bounds_ms)]
        return [*found, ("+Inf", float(up_to[-1]))], float(self._sums_ms[row]) * 1e-3

    def percentiles_ms(self, row: int, *parts: float) -> tuple[float, ...] | None:
        """Percentiles of late (parts from 0 to 1), within 5 %; None: there was nothing of late."""
        counts = self._recent[:, row].sum(axis=0)
        up_to = np.cumsum(counts)
        total = int(up_to[-1])
        if total == 0:
            return None
        return tuple(self._value_at(counts, up_to, part * total) for part in parts)

    def _value_at(self, counts: NDArray[np.int64], up_to: NDArray[np.int64], rank: float) -> float:
        at = int(np.searchsorted(up_to, max(rank, 1e-9), side="left"))
        if at == 0:
            return float(self._edges[0]) / 2
        if at >= len(self._edges):
            return float(self._edges[-1])
        below = float(up_to[at] - counts[at])
        inside = (rank - below) / float(counts[at])
        low, high = float(self._edges[at - 1]), float(self._edges[at])
        return low * math.exp(inside * math.log(high / low))


class _Rows(dict[str, int]):
    """Row by name. A name that is not known has the last row."""

    def __missing__(self, name: str) -> int:
        return len(self) - 1


_Word = TypeVar("_Word", bound=Hashable)


class _Words(dict[_Word, int]):
    """Numbers words as they first come, so that a record of them is one number."""

    def __missing__(self, word: _Word) -> int:
        number = self[word] = len(self)
        return number

    def take(self, recorded: array[int]) -> tuple[list[_Word], Ints]:
        """The words, and which of them were recorded; no record is left."""
        words = list(self)
        found = np.array(recorded, dtype=np.int64)
        del recorded[:]
        if len(self) > _FOLD_AT:
            self.clear()  # names that clients choose are not kept
        return words, found


class Observed:
    """What the hot path has to say, and what is known from it.

    Recording appends numbers; each thousandth call folds what was recorded, and so does whoever reads. Reads see
    everything that was recorded before them.

    Parameters
    ----------
    models : sequence of str
        The names that are told apart; any other counts as `OTHER`.
    classes : int, default 4
        Priority classes, at most 8.

    Notes
    -----
    Belongs to the event loop's thread. Memory is fixed whatever is recorded: names that clients choose are not kept.
    """

    def __init__(self, models: Sequence[str], classes: int = len(_CLASS_NAMES)) -> None:
        self.models = (*dict.fromkeys(models), NO_MODEL, OTHER)
        self.classes = min(max(classes, 1), _MAX_CLASSES)
        rows = len(self.models)
        self._row = _Rows({name: row for row, name in enumerate(self.models)})
        # What was recorded since the last fold: numbers in arrays, words by a number of their own.
        self._placed_words = _Words[tuple[str, int, str | None]]()
        self._placed = array("q")
        self._queued_ms = array("d")
        self._decision_us = array("d")
        self._first_words = _Words[str]()
        self._first = array("q")
        self._ttft_ms = array("d")
        self._ended_words = _Words[tuple[str | None, str, str, bool | None]]()
        self._ended = array("q")
        self._tpot_ms = array("d")
        self._e2e_ms = array("d")
        self._output_tokens = array("d")
        self.queue_wait = Distribution(rows * self.classes, 0.1, 500_000.0)
        self.decision = Distribution(1, 0.001, 100.0)
        self.ttft = Distribution(rows, 1.0, 500_000.0)
        self.tpot = Distribution(rows, 0.1, 10_000.0)
        self.duration = Distribution(rows, 1.0, 1_000_000.0)
        self._reasons: _Counts = collections.Counter()
        self._outcomes: _Counts = collections.Counter()
        self._tenants: dict[str, list[int]] = {}
        self._refusals: collections.Counter[tuple[int, str]] = collections.Counter()
        self._tokens = np.zeros(rows)
        self._slo = np.zeros((2, rows), dtype=np.int64)  # judged, met
        self._recent_slo = np.zeros((_SLOTS, 2, rows), dtype=np.int64)
        self._slot = 0
        self._turned_ns: int | None = None

    # What the hot path calls ------------------------------------------------------------------------------------------

    def placed(
        self, model: str, priority: int, queued_ms: float, decision_us: float, reason: str | None = None
    ) -> None:
        """A request's turn has come: after how long a wait, and how long the router took to decide.

        `reason` is the router's word for why it went, where it was asked.
        """
        recorded = self._placed
        recorded.append(self._placed_words[model, priority, reason])
        self._queued_ms.append(queued_ms)
        self._decision_us.append(decision_us)
        if len(recorded) >= _FOLD_AT:
            self.fold()

    def first_token(self, model: str, ttft_ms: float) -> None:
        """The first token of a stream has gone out, so long after the request came in."""
        recorded = self._first
        recorded.append(self._first_words[model])
        self._ttft_ms.append(ttft_ms)
        if len(recorded) >= _FOLD_AT:
            self.fold()

    def ended(
        self,
        model: str | None,
        tenant: str,
        outcome: str,
        ttft_ms: float | None,  # noqa: ARG002 - told by first_token already; here so that one call says everything
        tpot_ms: float | None,
        e2e_ms: float,
        output_tokens: int | None,
        met_slo: bool | None,
    ) -> None:
        """A request that had a ticket is over. Call it once for each.

        Parameters
        ----------
        model : str or None
            Where it ran; None: nowhere.
        tenant : str
            Whose it was: one of the configured tenants.
        outcome : str
            A final `zeta.Outcome`.
        ttft_ms, tpot_ms : float or None
            As measured at the client's connection; None where there was no stream.
        e2e_ms : float
            From the request's head to the last byte of its answer.
        output_tokens : int or None
            As the server counted them.
        met_slo : bool or None
            Whether it kept its promise; refused, expired and failed ones did not. None: it had none, or its client
            left, so it is not judged.
        """
        recorded = self._ended
        recorded.append(self._ended_words[model, tenant, outcome, met_slo])
        self._tpot_ms.append(_NAN if tpot_ms is None else tpot_ms)
        self._e2e_ms.append(e2e_ms)
        self._output_tokens.append(0.0 if output_tokens is None else output_tokens)
        if len(recorded) >= _FOLD_AT:
            self.fold()

    def refused(self, status: int, reason: str) -> None:
        """A request was answered with an error before it got a ticket; `reason` is the error's code."""
        key = (status, reason)
        if key not in self._refusals:
            if len(self._refusals) >= _MAX_REFUSALS:
                key = (0, OTHER)
            elif not _LABEL.fullmatch(reason):
                key = (status, OTHER)
        self._refusals[key] += 1

    # What readers call ------------------------------------------------------------------------------------------------

    def fold(self) -> None:
        """Counts what was recorded since the last fold."""
        if self._placed:
            self._fold_placed()
        if self._first:
            models, where = self._first_words.take(self._first)
            self.ttft.add(self._rows_of(models)[where], _taken(self._ttft_ms))
        if self._ended:
            self._fold_ended()

    def advance(self, now_ns: int) -> None:
        """Folds, and forgets what is no longer of late. To be called about once a second."""
        self.fold()
        if self._turned_ns is None:
            self._turned_ns = now_ns
        slots = (now_ns - self._turned_ns) // _SLOT_NS
        if slots <= 0:
            return
        self._turned_ns += slots * _SLOT_NS
        for each in (self.queue_wait, self.decision, self.ttft, self.tpot, self.duration):
            each.turn(slots)
        for _ in range(min(slots, _SLOTS)):
            self._slot = (self._slot + 1) % _SLOTS
            self._recent_slo[self._slot] = 0

    def row(self, model: str) -> int:
        """Where a model's distributions stand in `ttft`, `tpot` and `duration`."""
        return self._row[model]

    def queue_row(self, model: str, priority: int) -> int:
        """Where the waits of a model's class stand in `queue_wait`."""
        return self._row[model] * self.classes + min(max(priority, 0), self.classes - 1)

    def reasons(self) -> dict[tuple[str, str], int]:
        """Placements by model and reason, of those whose reason was told."""
        self.fold()
        return self._labelled(self._reasons)

    def outcomes(self) -> dict[tuple[str, str], int]:
        """Requests that are over, by model (`NO_MODEL`: never placed) and outcome."""
        self.fold()
        return self._labelled(self._outcomes)

    def refusals(self) -> dict[tuple[int, str], int]:
        """Answers with an error before there was a ticket, by status and reason."""
        return dict(self._refusals)

    def tenants(self) -> dict[str, tuple[int, int, int]]:
        """By tenant: requests that are over, those judged, those that met their SLO."""
        self.fold()
        return {name: (counts[0], counts[1], counts[2]) for name, counts in self._tenants.items()}

    def output_tokens(self, model: str) -> int:
        """Tokens generated since the start."""
        self.fold()
        return int(self._tokens[self._row[model]])

    def slo(self, model: str) -> tuple[int, int]:
        """Requests judged since the start, and those of them that met their SLO."""
        self.fold()
        judged, met = self._slo[:, self._row[model]]
        return int(judged), int(met)

    def attainment(self, model: str | None = None) -> float | None:
        """Part of the requests judged of late that met their SLO; of one model or of all. None: none was judged."""
        self.fold()
        recent = self._recent_slo.sum(axis=0)
        judged, met = recent.sum(axis=1) if model is None else recent[:, self._row[model]]
        return float(met / judged) if judged else None

    # ------------------------------------------------------------------------------------------------------------------

    def _labelled(self, counts: _Counts) -> dict[tuple[str, str], int]:
        """By model and word, as labels; words that are not ours are one."""
        found: dict[tuple[str, str], int] = {}
        for (row, word), count in counts.items():
            if word is not None:
                key = self.models[row], word if _LABEL.fullmatch(word) else OTHER
                found[key] = found.get(key, 0) + count
        return found

    def _rows_of(self, models: Sequence[str]) -> Ints:
        return np.fromiter(map(self._row.__getitem__, models), dtype=np.int64, count=len(models))

    def _fold_placed(self) -> None:
        words, where = self._placed_words.take(self._placed)
        models = self._rows_of([model for model, _, _ in words])
        classes = np.clip(np.array([priority for _, priority, _ in words], dtype=np.int64), 0, self.classes - 1)
        self.queue_wait.add((models * self.classes + classes)[where], _taken(self._queued_ms))
        self.decision.add(np.zeros(len(where), dtype=np.int64), _taken(self._decision_us) * 1e-3)
        counts = np.bincount(where, minlength=len(words)).tolist()
        for (_, _, reason), row, count in zip(words, models.tolist(), counts, strict=True):
            if count:
                self._reasons[row, reason] += count

    def _fold_ended(self) -> None:
        words, where = self._ended_words.take(self._ended)
        models = self._rows_of([NO_MODEL if model is None else model for model, _, _, _ in words])
        rows = models[where]
        self.duration.add(rows, _taken(self._e2e_ms))
        tpot = _taken(self._tpot_ms)
        streamed = ~np.isnan(tpot)
        self.tpot.add(rows[streamed], tpot[streamed])
        self._tokens += np.bincount(rows, weights=_taken(self._output_tokens), minlength=len(self.models))
        slo = np.zeros_like(self._slo)
        counts = np.bincount(where, minlength=len(words)).tolist()
        for (_, tenant, outcome, met), row, count in zip(words, models.tolist(), counts, strict=True):
            if not count:
                continue
            self._outcomes[row, outcome] += count
            judged, kept = (0, 0) if met is None else (count, count * met)
            slo[:, row] += judged, kept
            name = tenant if tenant in self._tenants or len(self._tenants) < _MAX_TENANTS else OTHER
            totals = self._tenants.setdefault(name, [0, 0, 0])
            totals[0] += count
            totals[1] += judged
            totals[2] += kept
        self._slo += slo
        self._recent_slo[self._slot] += slo


def _taken(values: array[float]) -> Floats:
    """The values as an array of their own; none are left."""
    found = np.array(values, dtype=np.float64)
    del values[:]
    return found


def _one_two_five(low: float, high: float) -> tuple[float, ...]:
    """1, 2, 5, 10, … from `low` to `high`, both included."""
    steps = (float(f"{digit}e{power}") for power in range(-9, 10) for digit in (1, 2, 5))
    return tuple(step for step in steps if low <= step <= high)
