"""A trace file, read in chunks and put in order of arrival."""

from __future__ import annotations

import dataclasses
import importlib.resources
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeta.errors import TraceError
from zeta.traces._columns import IntArray, TraceChunk
from zeta.traces._forms import recognise
from zeta.traces._sources import Block, open_source
from zeta.traces._values import Columns, Refusal

__all__ = ["EMBEDDED_NAME", "BadRow", "Trace", "TraceSummary", "read_column"]

EMBEDDED_NAME = "azure_conv_2023"

_BLOCK_ROWS = 16_384
_REORDER_NS = 60 * 1_000_000_000
_BAD_ROWS_KEPT = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was left out: its line in the file (1-based, header included; the row in parquet) and why."""

    line: int
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class TraceSummary:
    """What one pass over a trace found.

    Attributes
    ----------
    name, form : str
        The file's name without endings, and the form its columns have.
    rows : int
        Rows that were used.
    bad_row_count : int
        Rows that were left out.
    bad_rows : tuple of BadRow
        The first 1000 of those.
    moved_rows : int
        Rows that stood after a row of later arrival and were put back into order.
    first_ns, last_ns : int
        First and last arrival.
    model_names : tuple of str
        The models that rows name.
    """

    name: str
    form: str
    rows: int
    bad_row_count: int
    bad_rows: tuple[BadRow, ...]
    moved_rows: int
    first_ns: int
    last_ns: int
    model_names: tuple[str, ...]

    @property
    def duration_s(self) -> float:
        """From the first to the last arrival, in seconds."""
        return (self.last_ns - self.first_ns) * 1e-9


class Trace:
    """A request trace on disk.

    Parameters
    ----------
    path : path-like
        csv, csv.gz, jsonl, jsonl.gz or parquet (extra ``cli``).

    Raises
    ------
    TraceError
        From `chunks` and `read`: if the file cannot be read, its columns are no request trace, no row can be used, or
        rows are further out of order than 60 s.

    Notes
    -----
    Order: a row that arrives up to 60 s before an earlier row of the file is put back into its place (stably, and
    counted in the summary); a row that is later than that raises, because the file is then not in order of arrival at
    all. Memory: one block of 16,384 rows, and the rows of 60 s.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.name = self.path.name.split(".", 1)[0]
        self._summary: TraceSummary | None = None

    @classmethod
    def embedded(cls) -> Trace:
        """An hour of a chat service, 19,366 requests, that comes with the package (Azure, 2023; CC-BY 4.0)."""
        at = importlib.resources.files("zeta") / "artefacts" / "traces" / f"{EMBEDDED_NAME}.csv.gz"
        return cls(Path(str(at)))

    @property
    def summary(self) -> TraceSummary:
        """What the last complete pass found.

        Raises
        ------
        TraceError
            Before the first pass has come to its end.
        """
        if self._summary is None:
            raise TraceError("the trace has not been read to its end yet; walk chunks() or call read() first")
        return self._summary

    def read(self) -> TraceChunk:
        """The whole trace as one chunk, about 50 bytes a row."""
        return TraceChunk.join(list(self.chunks()))

    def chunks(self) -> Iterator[TraceChunk]:
        """The trace piece by piece, in order of arrival over all pieces. Each call reads the file anew."""
        source = open_source(self.path, _BLOCK_ROWS)
        if not source.columns:
            raise TraceError(f"{self.path} is empty; expected a header and rows")
        try:
            form = recognise(source.columns)
        except TraceError as error:
            raise TraceError(f"{self.path}: {error.message}") from None
        columns = Columns.of(form)
        bad = _BadRows()
        order = _InOrder(self.path)
        rows_seen = 0
        for block in source.blocks:
            chunk = _converted(columns, block, rows_seen, bad)
            rows_seen += len(block.lines) + len(block.ragged)
            if chunk is not None and (ready := order.add(chunk)) is not None:
                yield ready
        if order.rows == 0:
            first = f"; line {bad.kept[0].line}: {bad.kept[0].reason}" if bad.kept else ""
            raise TraceError(f"{self.path} has no row that can be used ({bad.count} left out{first})")
        rest = order.flush()
        self._summary = TraceSummary(
            name=self.name,
            form=form.name,
            rows=order.rows,
            bad_row_count=bad.count,
            bad_rows=tuple(sorted(bad.kept, key=lambda row: row.line)),
            moved_rows=order.moved,
            first_ns=order.first_ns or 0,
            last_ns=order.last_ns,
            model_names=tuple(columns.models.names),
        )
        yield rest


class _BadRows:
    def __init__(self) -> None:
        self.kept: list[BadRow] = []
        self.count = 0

    def add(self, line: int, reason: str) -> None:
        self.count += 1
        if len(self.kept) < _BAD_ROWS_KEPT:
            self.kept.append(BadRow(line, reason))


class _InOrder:
    """Holds back the rows of the last 60 s until nothing can come before them any more."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: TraceChunk | None = None
        self.rows = 0
        self.moved = 0
        self.first_ns: int | None = None
        self.last_ns = 0

    def add(self, chunk: TraceChunk) -> TraceChunk | None:
        """Takes the file's next rows; returns those that are now sure of their place."""
        if len(chunk) == 0:
            return None
        latest = np.maximum.accumulate(np.maximum(chunk.arrival_ns, self.last_ns))
        behind_ns = latest - chunk.arrival_ns
        late = int(np.argmax(behind_ns))
        if behind_ns[late] > _REORDER_NS:
            behind_s = int(behind_ns[late]) * 1e-9
            raise TraceError(
                f"{self._path}: data row {int(chunk.row[late]) + 1} arrives {behind_s:.3f} s before a row above it; "
                "at most 60 s can be put right here; sort the file by arrival"
            )
        self.moved += int(np.count_nonzero(behind_ns))
        self.rows += len(chunk)
        self.last_ns = int(latest[-1])
        held = chunk if self._held is None else TraceChunk.join([self._held, chunk])
        if np.any(np.diff(held.arrival_ns) < 0):
            held = held.take(np.argsort(held.arrival_ns, kind="stable"))
        sure_ns = self.last_ns - _REORDER_NS
        cut = int(np.searchsorted(held.arrival_ns, sure_ns, side="right"))
        self._held = held.take(slice(cut, None))
        if cut == 0:
            return None
        return self._noted(held.take(slice(0, cut)))

    def flush(self) -> TraceChunk:
        """The rows still held."""
        assert self._held is not None
        return self._noted(self._held)

    def _noted(self, given: TraceChunk) -> TraceChunk:
        if len(given) and self.first_ns is None:
            self.first_ns = int(given.arrival_ns[0])
        return given


def _converted(columns: Columns, block: Block, first_row: int, bad: _BadRows) -> TraceChunk | None:
    """The usable rows of `block`; the others go to `bad`."""
    row = first_row + np.arange(len(block.lines), dtype=np.int64)
    if block.ragged:
        for line, reason in block.ragged:
            bad.add(line, reason)
        every = np.sort(np.array([*block.lines, *(line for line, _ in block.ragged)], dtype=np.int64))
        row = first_row + np.searchsorted(every, np.asarray(block.lines, dtype=np.int64))
    pieces = list(_sifted(columns, block.columns, row, np.asarray(block.lines, dtype=np.int64), bad))
    return TraceChunk.join(pieces) if pieces else None


def _sifted(
    columns: Columns, raw: dict[str, Any], row: IntArray, lines: IntArray, bad: _BadRows
) -> Iterator[TraceChunk]:
    """Converts all rows at once; where that fails, halves them until the rows at fault stand alone."""
    if len(row) == 0:
        return
    try:
        chunk, left_out = columns.convert(raw, row)
    except Refusal as refusal:
        if len(row) == 1:
            bad.add(int(lines[0]), str(refusal))
            return
        middle = len(row) // 2
        for half in (slice(0, middle), slice(middle, None)):
            part = {name: values[half] for name, values in raw.items()}
            yield from _sifted(columns, part, row[half], lines[half], bad)
        return
    for at, reason in left_out:
        bad.add(int(lines[at]), reason)
    yield chunk


def read_column(path: str | os.PathLike[str], column: str, *, low: float, high: float) -> NDArray[np.float64]:
    """One column of numbers from a table of any kind that traces come in; NaN where a cell is empty.

    Raises
    ------
    TraceError
        If the file cannot be read, has no such column, or a value is no number from `low` to `high`.
    """
    source = open_source(Path(path), _BLOCK_ROWS)
    if column not in source.columns:
        raise TraceError(f"{path} has no column {column!r}; it has {', '.join(source.columns) or 'none'}")
    numbers: list[float] = []
    for block in source.blocks:
        for line, reason in block.ragged:
            raise TraceError(f"{path}, line {line}: {reason}", line=line)
        for line, value in zip(block.lines, block.columns[column], strict=True):
            try:
                number = math.nan if value is None or value == "" else float(value)
            except (TypeError, ValueError):
                number = math.inf
            if not (math.isnan(number) or low <= number <= high):
                raise TraceError(f"{path}, line {line}: {column} = {value!r}; expected {low:g} to {high:g}", line=line)
            numbers.append(number)
    return np.array(numbers, dtype=np.float64)
