"""Measured kernel times, and how they become the tables that the C++ engine model looks up.

Everything here is plain float arithmetic, one operation at a time: simulated event times depend on it, and numpy's
loops may fuse or reorder operations differently from one CPU to the next.
"""

from __future__ import annotations

import csv
import gzip
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zeta._core import StepTable, octave_knot

__all__ = ["Curve", "Family", "KernelTimes", "StepConstants", "profile_kernel_times", "read_rows", "step_kernel_times"]

# Every layer class that sees each token of a step, with how often a profile's model runs it per block.
_BLOCK_LAYERS = {
    "layernorm": 2,
    "qkv_proj": 1,
    "rotary_emb": 1,
    "o_proj": 1,
    "gate_up_proj": 1,
    "act_fn": 1,
    "down_proj": 1,
}
_ONCE_LAYERS = ("embedding", "final_layernorm")
# The profiled piece whose mixed steps stand for all: decode attention beside a prefill hardly depends on its length.
_MIXED_PIECE_TOKENS = 512


@dataclass(frozen=True, slots=True)
class StepConstants:
    """The few numbers of a step's time that are fitted to serving runs rather than taken from kernels.

    Parameters
    ----------
    kernel_factor : float
        Multiplies every kernel time.
    prefill_surcharge : float
        Adds this fraction to the kernel times, weighted by the prefill part of the step's tokens.
    step_overhead_us, sequence_overhead_us : float
        Host and launch time of a step, and of each sequence in it, in microseconds.
    """

    kernel_factor: float = 1.0
    prefill_surcharge: float = 0.0
    step_overhead_us: float = 0.0
    sequence_overhead_us: float = 0.0


class Curve:
    """Points joined by straight lines; level before the first point, the last slope continued after the last one."""

    def __init__(self, points: Iterable[tuple[float, float]]) -> None:
        ordered = sorted(points)
        self.xs = [x for x, _ in ordered]
        self.ys = [y for _, y in ordered]

    def at(self, x: float) -> float:
        """The value at `x`."""
        xs, ys = self.xs, self.ys
        if x <= xs[0] or len(xs) == 1:
            return ys[0]
        i = min(bisect_right(xs, x), len(xs) - 1)
        return ys[i - 1] + (ys[i] - ys[i - 1]) * ((x - xs[i - 1]) / (xs[i] - xs[i - 1]))


class Family:
    """One curve per measured value of a first variable.

    With ``per_unit`` the values are divided by the first variable before they are interpolated along it, so that a
    parabola through the origin is met exactly: attention within a prompt grows with its square.
    """

    def __init__(self, points: Iterable[tuple[float, float, float]], *, per_unit: bool = False) -> None:
        rows: dict[float, list[tuple[float, float]]] = {}
        for first, second, value in points:
            rows.setdefault(first, []).append((second, value))
        self._firsts = sorted(rows)
        self._curves = [Curve(rows[first]) for first in self._firsts]
        self._per_unit = per_unit

    def at(self, first: float, second: float) -> float:
        """The value at (`first`, `second`); 0 where `first` is 0."""
        if first == 0:
            return 0.0
        lowest = self._firsts[0]
        if first <= lowest:
            # Below the shortest measured piece the launch dominates; a batch shrinks to nothing.
            return self._curves[0].at(second) * (1.0 if self._per_unit else first / lowest)
        i = min(bisect_right(self._firsts, first), len(self._firsts) - 1)
        low, high = self._firsts[i - 1], self._firsts[i]
        at_low, at_high = self._curves[i - 1].at(second), self._curves[i].at(second)
        part = (first - low) / (high - low)
        if not self._per_unit:
            return at_low + (at_high - at_low) * part
        return first * (at_low / low + (at_high / high - at_low / low) * part)


@dataclass(frozen=True, slots=True)
class KernelTimes:
    """Kernel times of one model on one kind of device, in nanoseconds.

    Parameters
    ----------
    dense : Curve
        All layers that see each token once, by tokens in the step.
    head : Curve
        Output head and sampling, by sequences.
    decode, mixed_decode : Family
        Attention of all layers by (sequences, mean context), in steps that only decode and in steps that also prefill.
    prefill : Family
        Attention of all layers by (tokens of the piece, tokens of that prompt already in KV).
    max_tokens, max_sequences, max_context : int
        Up to where the tables are laid out; lookups beyond continue the last slope.
    """

    dense: Curve
    head: Curve
    decode: Family
    mixed_decode: Family
    prefill: Family
    max_tokens: int
    max_sequences: int
    max_context: int

    def step_table(self, constants: StepConstants) -> StepTable:
        """The table that simulated engines share."""
        return StepTable(
            dense_ns=[0.0, *(self.dense.at(tokens) for tokens in range(1, self.max_tokens + 1))],
            per_sequence_ns=[0.0, *(self.head.at(count) for count in range(1, self.max_sequences + 1))],
            decode_attention_ns=_surface(self.decode, self.max_sequences, self.max_context),
            mixed_decode_attention_ns=_surface(self.mixed_decode, self.max_sequences, self.max_context),
            prefill_attention_ns=_surface(self.prefill, self.max_tokens, self.max_context),
            kernel_factor=constants.kernel_factor,
            prefill_surcharge=constants.prefill_surcharge,
            step_overhead_ns=constants.step_overhead_us * 1e3,
            sequence_overhead_ns=constants.sequence_overhead_us * 1e3,
        )


def _knots(limit: int) -> list[int]:
    knots: list[int] = []
    while not knots or knots[-1] < limit:
        knots.append(octave_knot(len(knots)))
    return knots


def _surface(family: Family, rows: int, columns: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    seconds = _knots(columns)
    return np.array([[family.at(first, second) for second in seconds] for first in _knots(rows)], dtype=np.float64)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a csv or csv.gz file."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return list(csv.DictReader(data.decode("utf-8").splitlines()))


def profile_kernel_times(dense: Path, attention: Path, per_sequence: Path, *, layers: int) -> KernelTimes:
    """Kernel times of a per-layer profile.

    Parameters
    ----------
    dense : Path
        Columns ``layer, tokens, time_us``; the profile of one transformer block's layers and of those that run once.
    attention : Path
        Columns ``prefill_chunk, kv_prefill, n_decode, kv_decode, time_us``; one block.
    per_sequence : Path
        Columns ``layer, sequences, time_us``.
    layers : int
        Transformer blocks of the model.
    """
    by_tokens: dict[int, float] = {}
    repeats = {layer: float(layers * times) for layer, times in _BLOCK_LAYERS.items()} | dict.fromkeys(
        _ONCE_LAYERS, 1.0
    )
    for row in read_rows(dense):
        tokens = int(row["tokens"])
        by_tokens[tokens] = by_tokens.get(tokens, 0.0) + repeats[row["layer"]] * float(row["time_us"]) * 1e3
    by_sequences: dict[int, float] = {}
    for row in read_rows(per_sequence):
        sequences = int(row["sequences"])
        by_sequences[sequences] = by_sequences.get(sequences, 0.0) + float(row["time_us"]) * 1e3

    measured = {
        (int(row["prefill_chunk"]), int(row["kv_prefill"]), int(row["n_decode"]), int(row["kv_decode"])): layers
        * float(row["time_us"])
        * 1e3
        for row in read_rows(attention)
    }
    piece_alone = measured[_MIXED_PIECE_TOKENS, 0, 0, 0]
    return KernelTimes(
        dense=Curve(by_tokens.items()),
        head=Curve(by_sequences.items()),
        decode=Family((n, kv, ns) for (piece, _, n, kv), ns in measured.items() if piece == 0 and n),
        mixed_decode=Family(
            (n, kv, max(ns - piece_alone, 0.0))
            for (piece, before, n, kv), ns in measured.items()
            if piece == _MIXED_PIECE_TOKENS and before == 0 and n
        ),
        prefill=Family(
            ((piece, before, ns) for (piece, before, n, _), ns in measured.items() if piece and n == 0), per_unit=True
        ),
        max_tokens=max(by_tokens),
        max_sequences=max(by_sequences),
        max_context=max(kv for _, _, _, kv in measured),
    )


def step_kernel_times(rows: Sequence[dict[str, str]]) -> KernelTimes:
    """Kernel times from whole prefills and decode steps of one model on one kind of device.

    Both phases measure the same dense curve: a decode step of n sequences and a prefill of n tokens multiply the same
    matrices. Where both give a value their mean is taken. Attention of a piece behind `before` tokens of its prompt is
    that of the whole less that of what came before, plus one launch: the work is the same, row by row. Nothing here
    says that decode attention is slower beside a prefill, so it is taken as equal.

    Parameters
    ----------
    rows : sequence of dict
        Rows of one (hw, model, tp) of ``step_times_qwen_llama_bf16.csv.gz``.
    """
    dense: dict[int, list[float]] = {}
    whole: list[tuple[float, float, float]] = []
    decode: list[tuple[float, float, float]] = []
    for row in rows:
        tokens, attention_ns = int(row["tokens"]), float(row["attention_ms"]) * 1e6
        in_step = tokens if row["phase"] == "prefill" else int(row["batch"])
        dense.setdefault(in_step, []).append((float(row["gemm_ms"]) + float(row["allreduce_ms"])) * 1e6)
        if row["phase"] == "prefill":
            whole.append((float(tokens), 0.0, attention_ns))
        else:
            decode.append((float(in_step), float(tokens), attention_ns))
    # Decode rows repeat one matrix time for each context: weigh the phases equally.
    dense_curve = Curve((tokens, _mean_of_distinct(values)) for tokens, values in dense.items())
    prompt = Family(whole, per_unit=True)
    launch_ns = min(ns for _, _, ns in whole)
    max_tokens = max(dense)
    befores = [0, *(x for x in _knots(max_tokens) if x >= 16)]
    pieces = [x for x in _knots(max_tokens) if x >= 16]
    prefill = Family(
        (
            (piece, before, prompt.at(piece + before, 0) - prompt.at(before, 0) + (launch_ns if before else 0.0))
            for piece in pieces
            for before in befores
        ),
        per_unit=True,
    )
    decode_family = Family(decode)
    return KernelTimes(
        dense=dense_curve,
        head=Curve([(0, 0.0), (1, 0.0)]),
        decode=decode_family,
        mixed_decode=decode_family,
        prefill=prefill,
        max_tokens=max_tokens,
        max_sequences=max(int(first) for first, _, _ in decode),
        max_context=max(int(second) for _, second, _ in decode),
    )


def _mean_of_distinct(values: Sequence[float]) -> float:
    distinct = sorted(set(values))
    return sum(distinct) / len(distinct)
