"""Rate series: how many requests per second came in each window of some length, instead of the requests themselves."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zeta.errors import TraceError
from zeta.traces._columns import BoolArray, FloatArray
from zeta.traces._sources import open_source

__all__ = ["RateSeries", "is_rate_series", "read_rates"]

_BLOCK_ROWS = 16_384
_MOST_WINDOWS = 10_000_000


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RateSeries:
    """The rate of one workload in windows of one length.

    Attributes
    ----------
    workload : str
        Empty where the file has no such column.
    start_s : float
        When the first window begins, on the file's own time axis.
    window_s : float
        Length of a window.
    rate_rps : ndarray of float64, shape (n,)
        Requests per second; 0 where `is_gap`.
    is_gap : ndarray of bool, shape (n,)
        The window is missing: marked so in the file, not in it, or without a number.
    """

    workload: str
    start_s: float
    window_s: float
    rate_rps: FloatArray
    is_gap: BoolArray


def is_rate_series(path: str | os.PathLike[str]) -> bool:
    """Whether a file has the columns of a rate series.

    Raises
    ------
    TraceError
        If the file cannot be read.
    """
    return {"rate_rps", "t_s"} <= set(open_source(Path(path), 1).columns)


def read_rates(path: str | os.PathLike[str]) -> tuple[RateSeries, ...]:
    """The series of a file with the columns ``t_s``, ``rate_rps`` and optionally ``workload`` and ``gap``.

    Parameters
    ----------
    path : path-like
        csv, csv.gz, jsonl, jsonl.gz or parquet (extra ``cli``).

    Returns
    -------
    tuple of RateSeries
        One for each workload, in order of first appearance. A window's length is the most common distance between two.

    Raises
    ------
    TraceError
        If the file cannot be read, has other columns, or a window does not stand a whole number of windows after the
        first.
    """
    source = open_source(Path(path), _BLOCK_ROWS)
    if not {"rate_rps", "t_s"} <= set(source.columns):
        raise TraceError(f"{path} is no rate series; expected the columns t_s and rate_rps")
    rows: dict[str, list[tuple[float, float]]] = {}
    for block in source.blocks:
        for line, reason in block.ragged:
            raise TraceError(f"{path}, line {line}: {reason}", line=line)
        blank: Sequence[Any] = ("",) * len(block.lines)
        columns = [block.columns.get(name, blank) for name in ("t_s", "rate_rps", "workload", "gap")]
        for line, t_s, rate_rps, workload, gap in zip(block.lines, *columns, strict=True):
            at_s = _number(path, line, "t_s", t_s)
            rate = _number(path, line, "rate_rps", rate_rps)
            if math.isnan(at_s):
                raise TraceError(f"{path}, line {line}: t_s is empty; expected seconds", line=line)
            if rate < 0:
                raise TraceError(f"{path}, line {line}: rate_rps = {rate:g}; expected 0 or more", line=line)
            is_gap = str(gap or "0").strip().lower() not in ("0", "0.0", "false")
            rows.setdefault(str(workload or ""), []).append((at_s, math.nan if is_gap else rate))
    if not rows:
        raise TraceError(f"{path} has no rows")
    return tuple(_series(path, workload, np.array(found)) for workload, found in rows.items())


def _number(path: object, line: int, column: str, value: object) -> float:
    if value is None or value == "":
        return math.nan
    try:
        number = float(str(value))
    except ValueError:
        number = math.inf
    if math.isinf(number):
        raise TraceError(f"{path}, line {line}: {column} = {value!r}; expected a number", line=line)
    return number


def _series(path: object, workload: str, rows: FloatArray) -> RateSeries:
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    steps = np.diff(rows[:, 0])
    named = f"{path}{f', workload {workload}' if workload else ''}"
    if len(steps) == 0 or not np.any(steps > 0):
        raise TraceError(f"{named}: a rate series needs at least two windows")
    lengths, counts = np.unique(steps[steps > 0], return_counts=True)
    window_s = float(lengths[np.argmax(counts)])
    exact = (rows[:, 0] - rows[0, 0]) / window_s
    at = np.rint(exact).astype(np.int64)
    if np.any(np.abs(exact - at) > 0.01) or at[-1] >= _MOST_WINDOWS or len(np.unique(at)) < len(at):
        raise TraceError(f"{named}: windows do not follow each other every {window_s:g} s; expected one row for each")
    rate_rps = np.full(int(at[-1]) + 1, np.nan)
    rate_rps[at] = rows[:, 1]
    is_gap = np.isnan(rate_rps)
    return RateSeries(workload, float(rows[0, 0]), window_s, np.where(is_gap, 0.0, rate_rps), is_gap)
