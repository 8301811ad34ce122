"""From the values of a file to checked numpy columns. A whole chunk at a time; only what fails is looked at singly."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeta.traces._columns import FloatArray, IntArray, TraceChunk
from zeta.traces._forms import Form

__all__ = ["Columns", "Refusal", "Vocabulary"]

Raw = Sequence[Any]

_MOST_TOKENS = 2**31 - 1
_MOST_NS = 2**62


class Refusal(ValueError):
    """Something in a chunk cannot be converted; with one row in the chunk, the message is the reason."""


class Vocabulary(dict[str, int]):
    """Names to indices in order of first appearance; the empty name is -1."""

    def __init__(self, aliases: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__({"": -1})
        self._aliases = dict(aliases)
        self.names: list[str] = []

    def __missing__(self, name: str) -> int:
        known = self._aliases.get(name, name)
        if known != name:
            index = self[known]
        else:
            index = len(self.names)
            self.names.append(name)
        self[name] = index
        return index


@dataclasses.dataclass(slots=True)
class Columns:
    """Turns raw columns of one file into a `TraceChunk` and the reasons why rows are left out.

    Attributes
    ----------
    form : Form
        Which column means what.
    origin : numpy.datetime64, optional
        The first date of a form that has dates; set by the first row that can be read.
    """

    form: Form
    models: Vocabulary
    clients: Vocabulary
    origin: np.datetime64 | None = None

    @classmethod
    def of(cls, form: Form) -> Columns:
        """Columns of a file that nothing has been read from yet."""
        return cls(form, Vocabulary(form.model_aliases), Vocabulary())

    def convert(self, raw: dict[str, Raw], row: IntArray) -> tuple[TraceChunk, list[tuple[int, str]]]:
        """All rows at once.

        Parameters
        ----------
        raw : dict of str to sequence
            By column name; all of one length.
        row : ndarray of int64
            The rows' numbers in the file.

        Returns
        -------
        chunk : TraceChunk
            The rows whose values are all in range.
        left_out : list of (int, str)
            Position in `raw` and reason for every other row.

        Raises
        ------
        Refusal
            If a value is no number at all.
        """
        form = self.form
        fields: dict[str, Any] = {
            "row": row,
            "arrival_ns": self._arrival_ns(raw[form.arrival]),
            "prompt_tokens": _column(raw[form.prompt], _whole_numbers, form.prompt, "a whole number of tokens"),
            "output_tokens": _column(raw[form.output], _whole_numbers, form.output, "a whole number of tokens"),
        }
        checks: list[tuple[str, NDArray[np.bool_], str]] = [
            (form.arrival, (fields["arrival_ns"] >= 0) & (fields["arrival_ns"] < _MOST_NS), "a time of 0 or later"),
        ]
        for name, column in (("prompt_tokens", form.prompt), ("output_tokens", form.output)):
            tokens = fields[name]
            checks.append((column, (tokens >= 1) & (tokens <= _MOST_TOKENS), f"1 to {_MOST_TOKENS} tokens"))
        for name, column in form.optional:
            values = raw[column]
            if name == "model":
                fields["model"] = _codes(values, self.models)
            elif name == "client":
                fields["client"] = _codes(values, self.clients)
            elif name == "prefix_blocks":
                fields["prefix_offsets"], fields["prefix_blocks"] = _column(values, _blocks, column, "block ids")
            else:
                known = fields[name] = _column(values, _maybe_numbers, column, "a number or nothing")
                if name == "complexity":
                    checks.append((column, np.isnan(known) | ((known >= 0) & (known <= 1)), "0 to 1"))
                else:
                    checks.append((column, np.isnan(known) | ((known > 0) & np.isfinite(known)), "more than 0 ms"))
        chunk = TraceChunk(**fields, model_names=tuple(self.models.names), client_names=tuple(self.clients.names))
        good = np.logical_and.reduce([passed for _, passed, _ in checks])
        if good.all():
            return chunk, []
        left_out = []
        for at in np.flatnonzero(~good).tolist():
            column, _, expected = next(check for check in checks if not check[1][at])
            left_out.append((at, f"{column} = {raw[column][at]}; expected {expected}"))
        return chunk.take(good), left_out

    def _arrival_ns(self, values: Raw) -> IntArray:
        column, unit_ns = self.form.arrival, self.form.unit_ns
        if unit_ns is None:
            dates = _column(values, _dates, column, "a date and time")
            if self.origin is None and len(dates):
                self.origin = dates[0]
            return np.asarray(dates - self.origin, dtype=np.int64)
        try:
            whole = _whole_numbers(values)
            if len(whole) == 0 or -_MOST_NS // unit_ns < whole.min() <= whole.max() < _MOST_NS // unit_ns:
                return whole * unit_ns
        except (ValueError, TypeError, OverflowError):
            pass
        numbers = _column(values, _numbers, column, "a number")
        scaled = np.rint(numbers * float(unit_ns))
        return np.where(np.abs(scaled) < _MOST_NS, scaled, -1.0).astype(np.int64)


def _column(values: Raw, convert: Callable[[Raw], Any], name: str, expected: str) -> Any:
    try:
        return convert(values)
    except (ValueError, TypeError, OverflowError):
        shown = repr(values[0]) if len(values) == 1 else "..."
        raise Refusal(f"{name} = {shown}; expected {expected}") from None


def _is_text(values: Raw) -> bool:
    """csv gives tuples of text; jsonl and parquet give lists of anything. Text converts faster."""
    return isinstance(values, tuple)


def _whole_numbers(values: Raw) -> IntArray:
    return np.fromiter(map(int if _is_text(values) else _whole, values), np.int64, len(values))


def _whole(value: Any) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(value)
    return int(value)


def _numbers(values: Raw) -> FloatArray:
    numbers = np.fromiter(map(float, values), np.float64, len(values))
    if not np.isfinite(numbers).all():
        raise ValueError("not finite")
    return numbers


def _maybe_numbers(values: Raw) -> FloatArray:
    return np.fromiter((math.nan if v is None or v == "" else float(v) for v in values), np.float64, len(values))


def _dates(values: Raw) -> NDArray[np.datetime64]:
    # numpy reads ISO dates without a time zone; the traces that have one are in UTC.
    plain = [v.strip().removesuffix("Z").removesuffix("+00:00") if isinstance(v, str) else v for v in values]
    dates = np.array(plain, dtype="datetime64[ns]")
    if np.isnat(dates).any():
        raise ValueError("no date")
    return dates


def _codes(values: Raw, vocabulary: Vocabulary) -> IntArray:
    names = values if _is_text(values) else ("" if v is None else str(v) for v in values)
    return np.fromiter(map(vocabulary.__getitem__, names), np.int64, len(values))


def _blocks(values: Raw) -> tuple[IntArray, IntArray]:
    lists = [v.split() if isinstance(v, str) else () if v is None else v for v in values]
    sizes = np.fromiter(map(len, lists), np.int64, len(lists))
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    return offsets, np.fromiter((int(block) for blocks in lists for block in blocks), np.int64, int(offsets[-1]))
