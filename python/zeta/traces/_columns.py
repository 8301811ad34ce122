"""The columns of a trace."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BoolArray", "FloatArray", "IntArray", "TraceChunk"]

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class TraceChunk:
    """Some rows of a trace, in order of arrival; rows of one instant keep their order in the file.

    Attributes
    ----------
    row : ndarray of int64, shape (n,)
        Number of each row among the file's data rows, from 0, unusable rows included.
    arrival_ns : ndarray of int64, shape (n,)
        On the file's own time axis, not negative. Azure's raw form starts at its first row.
    prompt_tokens, output_tokens : ndarray of int64, shape (n,)
        At least 1.
    model : ndarray of int64, shape (n,), or None
        Index into `model_names`; -1 where the row names none. None where the file has no such column.
    client : ndarray of int64, shape (n,), or None
        Index into `client_names`, likewise.
    complexity : ndarray of float64, shape (n,), or None
        In [0, 1]; NaN where not given.
    deadline_ms, end_deadline_ms : ndarray of float64, shape (n,), or None
        From arrival to first and last token, in milliseconds; NaN where not given.
    prefix_offsets : ndarray of int64, shape (n + 1,), or None
        Row i's prompt blocks are ``prefix_blocks[prefix_offsets[i]:prefix_offsets[i + 1]]``.
    prefix_blocks : ndarray of int64, or None
        Equal ids mean equal prompt blocks.
    model_names, client_names : tuple of str
        In order of first appearance in the file.
    """

    row: IntArray
    arrival_ns: IntArray
    prompt_tokens: IntArray
    output_tokens: IntArray
    model: IntArray | None = None
    client: IntArray | None = None
    complexity: FloatArray | None = None
    deadline_ms: FloatArray | None = None
    end_deadline_ms: FloatArray | None = None
    prefix_offsets: IntArray | None = None
    prefix_blocks: IntArray | None = None
    model_names: tuple[str, ...] = ()
    client_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.row)

    def take(self, at: IntArray | NDArray[np.bool_] | slice) -> TraceChunk:
        """The rows `at`, in that order."""
        columns = {name: getattr(self, name) for name in _PLAIN}
        taken: dict[str, Any] = {name: None if column is None else column[at] for name, column in columns.items()}
        offsets, blocks = self.prefix_offsets, self.prefix_blocks
        if offsets is not None and blocks is not None:
            starts, sizes = offsets[:-1][at], np.diff(offsets)[at]
            offsets = np.concatenate(([0], np.cumsum(sizes)))
            blocks = blocks[np.repeat(starts - offsets[:-1], sizes) + np.arange(offsets[-1])]
        return dataclasses.replace(self, **taken, prefix_offsets=offsets, prefix_blocks=blocks)

    @staticmethod
    def join(chunks: Sequence[TraceChunk]) -> TraceChunk:
        """The rows of `chunks` one after another. They must come from one file, so that they have the same columns."""
        if len(chunks) == 1:
            return chunks[0]
        last = chunks[-1]
        joined: dict[str, Any] = {
            name: None if getattr(last, name) is None else np.concatenate([getattr(chunk, name) for chunk in chunks])
            for name in (*_PLAIN, "prefix_blocks")
        }
        offsets = None
        if last.prefix_offsets is not None:
            sizes = [np.diff(chunk.prefix_offsets) for chunk in chunks if chunk.prefix_offsets is not None]
            offsets = np.concatenate(([0], np.cumsum(np.concatenate(sizes))))
        return dataclasses.replace(last, **joined, prefix_offsets=offsets)


_PLAIN = (
    "row",
    "arrival_ns",
    "prompt_tokens",
    "output_tokens",
    "model",
    "client",
    "complexity",
    "deadline_ms",
    "end_deadline_ms",
)
