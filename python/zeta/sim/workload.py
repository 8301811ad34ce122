"""From a trace and a few rules to what the scheduler is given: columns of requests in order of arrival.

Everything is integer arithmetic on seeded integers, so that a workload is the same to the bit on every machine. The
rules rank whole traces, so the trace is held as columns (about 50 bytes a row) rather than streamed.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from zeta.config import Config
from zeta.errors import ConfigError, TraceError
from zeta.sim._random import below, draws
from zeta.traces import TraceChunk, TraceSummary, read_column

__all__ = [
    "MIX_RULES",
    "SLO_RULES",
    "TIE_RULES",
    "BoolArray",
    "Burst",
    "FloatArray",
    "IntArray",
    "MixRule",
    "Rules",
    "SloRule",
    "TieRule",
    "Workload",
    "build_workload",
    "model_of",
    "quality_order",
    "read_complexities",
]

MixRule = Literal["length", "uniform", "shift"]
SloRule = Literal["standard", "mixed"]
TieRule = Literal["auto", "keep", "spread"]
MIX_RULES: tuple[MixRule, ...] = typing.get_args(MixRule)
SLO_RULES: tuple[SloRule, ...] = typing.get_args(SloRule)
TIE_RULES: tuple[TieRule, ...] = typing.get_args(TieRule)

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

_NS_PER_MS = 1_000_000
_NS_PER_S = 1_000_000_000
_LOAD_STEPS = 1_000_000  # a load counts in millionths
_SHIFT_NS = 120 * _NS_PER_S
_LOOSE_PERCENT = 30
_LOOSE_FACTOR = 10
_TRACE_SIZES = ("small", "mid", "large")


@dataclasses.dataclass(frozen=True, slots=True)
class Burst:
    """Extra work for one model.

    Attributes
    ----------
    model : str
        A model of the fleet, or small, mid or large.
    factor : float
        What the model's arrivals become in the burst, as a multiple of its mean rate over the trace: 4 adds three times
        the mean rate to what the trace itself brings. Above 1.
    start_s, seconds : float
        When it begins, counted from the first arrival in replayed time, and how long it lasts.
    """

    model: str
    factor: float
    start_s: float
    seconds: float

    @classmethod
    def parse(cls, text: str) -> Burst:
        """Reads ``MODEL:FACTOR:START_S:SECONDS``; the model's name may contain colons.

        Raises
        ------
        ConfigError
            If the text has another shape, or a number is out of range.
        """
        parts = text.rsplit(":", 3)
        expected = "MODEL:FACTOR:START_S:SECONDS such as large:3:600:120"
        try:
            name, factor, start_s, seconds = parts[0], *map(float, parts[1:])
        except (ValueError, TypeError):
            raise ConfigError(f"burst {text!r}; expected {expected}", "burst", text, expected) from None
        if not (name and 1 < factor <= 1e6 and 0 <= start_s < 1e9 and 0 < seconds < 1e9):
            limits = "a factor above 1, a length above 0, and a start of 0 or later"
            raise ConfigError(f"burst {text!r}; expected {limits}", "burst", text, limits)
        return cls(name, factor, start_s, seconds)


@dataclasses.dataclass(frozen=True, slots=True)
class Rules:
    """How a trace becomes a workload.

    Attributes
    ----------
    load : float
        Multiplies the arrival rate by compressing time; counts in millionths.
    mix : {"length", "uniform", "shift"}
        Draws complexities, uniform in rank, for rows that name neither model nor complexity. ``length``: by rank of
        (prompt + 4 x output) x noise, the noise triangular between 0.5 and 1.5. ``uniform``: by nothing. ``shift``:
        every 120 s of replayed time another model becomes the favourite, and three of four requests are its.
    slo : {"standard", "mixed"}
        ``mixed`` makes the SLO of a seeded 30 % of the requests 10 times looser.
    bursts : tuple of Burst
        Extra work.
    ties : {"auto", "keep", "spread"}
        Whether arrivals of one instant are spread (evenly, seeded) over the tick of the log's clock. ``auto`` does it
        where the clock is plainly coarse: at least 100 instants at regular distance, half of them with two rows or
        more (Mooncake: 3 s, nine rows).
    """

    load: float = 1.0
    mix: MixRule = "length"
    slo: SloRule = "standard"
    bursts: tuple[Burst, ...] = ()
    ties: TieRule = "auto"

    def __post_init__(self) -> None:
        if not 1 / _LOAD_STEPS <= self.load <= 1e6:
            raise ConfigError(f"load = {self.load}; expected 1e-06 to 1e+06", "load", self.load, "1e-06 to 1e+06")
        for key, value, allowed in (
            ("mix", self.mix, MIX_RULES),
            ("slo", self.slo, SLO_RULES),
            ("ties", self.ties, TIE_RULES),
        ):
            if value not in allowed:
                names = " | ".join(allowed)
                raise ConfigError(f"{key} = {value!r}; expected {names}", key, value, names)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """Requests in order of arrival; all arrays have shape (n,).

    Attributes
    ----------
    model_names : tuple of str
        The fleet's models in the order of its file: index i is the core's model i.
    arrival_ns : ndarray of int64
        From the first arrival of the trace, in replayed time.
    prompt_tokens, output_tokens : ndarray of int64
        What the request brings, and what it will turn out to generate.
    complexity : ndarray of float64
        In [0, 1].
    required_model : ndarray of int64
        Index of the smallest model that answers well.
    allowed_mask : ndarray of uint32
        Bit i: model i may serve it, being the required one or one of higher quality.
    deadline_ns, end_deadline_ns : ndarray of int64
        The SLO: absolute instants for the first and for the last token.
    is_loose, is_injected : ndarray of bool
        Whether ``mixed`` loosened the SLO; whether a burst injected the request.
    source : ndarray of int64
        The request's position in the trace's columns (for client and prefix blocks).
    origin_ns : int
        The trace's own time at replayed time 0.
    notes : tuple of str
        What was done that a reader of the results should know.
    """

    model_names: tuple[str, ...]
    arrival_ns: IntArray
    prompt_tokens: IntArray
    output_tokens: IntArray
    complexity: FloatArray
    required_model: IntArray
    allowed_mask: NDArray[np.uint32]
    deadline_ns: IntArray
    end_deadline_ns: IntArray
    is_loose: BoolArray
    is_injected: BoolArray
    source: IntArray
    origin_ns: int
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.arrival_ns)

    @property
    def duration_s(self) -> float:
        """From the trace's first arrival to the last, in seconds of replayed time."""
        return int(self.arrival_ns[-1]) * 1e-9 if len(self) else 0.0


def quality_order(config: Config) -> list[int]:
    """Indices of the fleet's models in ascending quality; equal ones keep the order of the file."""
    return sorted(range(len(config.models)), key=lambda index: config.models[index].quality)


def read_complexities(path: str | Path, trace: TraceSummary) -> FloatArray:
    """Column ``complexity`` of a table with one row for each data row of the trace's file.

    Parameters
    ----------
    path : path-like
        Any kind of file that traces come in.
    trace : TraceSummary
        Of the trace it belongs to.

    Returns
    -------
    ndarray of float64
        By row number of the trace's file; NaN where nothing is given.

    Raises
    ------
    TraceError
        If a value is not in [0, 1] or the number of rows differs.
    """
    values = read_column(path, "complexity", low=0.0, high=1.0)
    rows = trace.rows + trace.bad_row_count
    if len(values) != rows:
        raise TraceError(f"{path} has {len(values)} rows; expected {rows}, one for each row of trace {trace.name}")
    return values


def build_workload(
    trace: TraceChunk, config: Config, rules: Rules, seed: int, complexities: FloatArray | None = None
) -> Workload:
    """The requests that `trace` means to the fleet of `config`.

    Parameters
    ----------
    trace : TraceChunk
        A whole trace, as `Trace.read` gives it.
    config : Config
        At least one model.
    rules : Rules
        Load, mix, SLO and bursts.
    seed : int
        Decides everything that is drawn.
    complexities : ndarray of float64, optional
        By row number of the file, from `read_complexities`; takes the place of the trace's column.

    Raises
    ------
    TraceError
        If the trace is empty or names a model that the fleet does not have.
    ConfigError
        If a burst does, or no request requires its model.

    Notes
    -----
    Required model: the one that the row names (small, mid and large stand for ascending quality), else with n models
    and complexity c the (floor(c n) + 1)-th in ascending quality. SLO: TTFT of the required model (its `ttft_slo_ms`,
    by default 1 to 3 s by rank), end within that plus its `tpot_slo_ms` for each output token; a row's own deadlines
    take their places and are never loosened.
    """
    if not config.models:
        raise ConfigError("the fleet has no model; add one", "models", (), "at least one")
    if len(trace) == 0:
        raise TraceError("the trace has no rows; a workload needs at least one")
    notes: list[str] = []
    order = quality_order(config)
    source = np.arange(len(trace), dtype=np.int64)
    spread_ns = _spread_ties(trace.arrival_ns, rules.ties, seed, notes)
    if spread_ns is not trace.arrival_ns:
        source = np.argsort(spread_ns, kind="stable").astype(np.int64)
        spread_ns = spread_ns[source]
    origin_ns = int(spread_ns[0])
    arrival_ns = compressed(spread_ns - origin_ns, rules.load)
    complexity, rank = _required(trace.take(source), arrival_ns, config, order, rules, seed, complexities, notes)

    is_injected = np.zeros(len(source), dtype=np.bool_)
    trace_s = max(int(arrival_ns[-1]) * 1e-9, 1.0)
    for number, burst in enumerate(rules.bursts):
        where, when_ns = _injected(burst, number, trace_s, rank, is_injected, config, order, seed, notes)
        merged_ns = np.concatenate((arrival_ns, when_ns))
        by_arrival = np.argsort(merged_ns, kind="stable")
        at = np.concatenate((np.arange(len(arrival_ns)), where))[by_arrival]
        is_injected = np.concatenate((is_injected, np.ones(len(where), dtype=np.bool_)))[by_arrival]
        arrival_ns, source, complexity, rank = merged_ns[by_arrival], source[at], complexity[at], rank[at]

    ttft_ns, end_ns, is_loose = _slo(trace, source, rank, config, order, rules, seed)
    masks = np.array([sum(1 << index for index in order[at:]) for at in range(len(order))], dtype=np.uint32)
    return Workload(
        model_names=tuple(model.name for model in config.models),
        arrival_ns=arrival_ns,
        prompt_tokens=trace.prompt_tokens[source],
        output_tokens=trace.output_tokens[source],
        complexity=complexity,
        required_model=np.array(order, dtype=np.int64)[rank],
        allowed_mask=masks[rank],
        deadline_ns=arrival_ns + ttft_ns,
        end_deadline_ns=arrival_ns + end_ns,
        is_loose=is_loose,
        is_injected=is_injected,
        source=source,
        origin_ns=origin_ns,
        notes=tuple(notes),
    )


def compressed(arrival_ns: IntArray, load: float) -> IntArray:
    """`arrival_ns` divided by `load`, rounded down, in integers that do not overflow for 292 years."""
    steps = round(load * _LOAD_STEPS)
    whole, rest = np.divmod(arrival_ns, steps)
    divided: IntArray = whole * _LOAD_STEPS + rest * _LOAD_STEPS // steps
    return divided


def _spread_ties(arrival_ns: IntArray, ties: TieRule, seed: int, notes: list[str]) -> IntArray:
    """Arrivals spread evenly (seeded) over the tick that follows each instant, where the log's clock is coarse."""
    instants, at, sizes = np.unique(arrival_ns, return_inverse=True, return_counts=True)
    if ties == "keep" or len(instants) < 2:
        return arrival_ns
    gaps = np.diff(instants)
    tick_ns = int(np.sort(gaps)[len(gaps) // 20])  # a small gap, yet not the one odd row
    is_regular = np.count_nonzero(np.abs(gaps - tick_ns) * 100 <= tick_ns) * 10 >= 9 * len(gaps)
    if ties == "auto" and not (len(instants) >= 100 and np.median(sizes) >= 2 and is_regular):
        return arrival_ns
    width_ns = np.minimum(np.append(gaps, tick_ns), tick_ns)[at]
    notes.append(
        f"{len(arrival_ns)} arrivals stand in {len(instants)} instants {tick_ns * 1e-9:.3f} s apart; "
        "they are spread evenly (seeded) over that time"
    )
    offset_ns = (draws(seed, "ties", len(arrival_ns)) % width_ns.astype(np.uint64)).astype(np.int64)
    spread_ns: IntArray = arrival_ns + offset_ns
    return spread_ns


def _required(
    trace: TraceChunk,
    arrival_ns: IntArray,
    config: Config,
    order: list[int],
    rules: Rules,
    seed: int,
    complexities: FloatArray | None,
    notes: list[str],
) -> tuple[FloatArray, IntArray]:
    """Complexity, and rank in ascending quality of the required model, for each row."""
    count = len(order)
    complexity = np.full(len(trace), np.nan) if trace.complexity is None else trace.complexity.copy()
    if complexities is not None:
        complexity = complexities[trace.row]
    named = np.full(len(trace), -1, dtype=np.int64)
    if trace.model is not None:
        # One more entry than names: code -1, a row without a name, reads the last.
        ranks = [_rank_of(name, config, order, TraceError) for name in trace.model_names]
        named = np.array([*ranks, -1], dtype=np.int64)[trace.model]
    drawn = np.isnan(complexity) & (named < 0)
    if drawn.any():
        picks = np.flatnonzero(drawn)
        score = _mix_score(rules.mix, trace.take(picks), arrival_ns[picks], count, seed)
        complexity[picks] = _uniform_in_rank(score)
        notes.append(f"{len(picks)} of {len(trace)} complexities are drawn by rule '{rules.mix}' (seeded)")
    from_name = np.isnan(complexity)
    complexity[from_name] = (2 * named[from_name] + 1) / (2 * count)
    by_complexity = np.minimum((complexity * count).astype(np.int64), count - 1)
    return complexity, np.where(named >= 0, named, by_complexity)


def _mix_score(mix: MixRule, rows: TraceChunk, arrival_ns: IntArray, models: int, seed: int) -> IntArray:
    """What the rows are ranked by."""
    if mix == "uniform":
        return (draws(seed, "mix", len(rows)) >> np.uint64(1)).astype(np.int64)
    if mix == "length":
        first, second = np.split(draws(seed, "mix", 2 * len(rows)) >> np.uint64(44), 2)
        noise = (first + second).astype(np.int64) + (1 << 20)
        noisy: IntArray = (rows.prompt_tokens + 4 * rows.output_tokens) * noise
        return noisy
    segment = arrival_ns // _SHIFT_NS
    segments = int(segment[-1]) + 1
    numbers = draws(seed, "favourites", segments)
    steps = below(numbers, max(models - 1, 1)) + 1  # never to where it was
    steps[:1] = below(numbers[:1], models)
    favourite = (np.cumsum(steps) % models)[segment]
    place, chance = np.split(draws(seed, "mix", 2 * len(rows)) >> np.uint64(32), 2)
    score: IntArray = place.astype(np.int64)
    is_its = chance.astype(np.int64) < 3 << 30
    score[is_its] = ((favourite[is_its] << 32) + score[is_its]) // models
    return score


def _uniform_in_rank(score: IntArray) -> FloatArray:
    """(rank + 1/2) / n; equal scores rank by position."""
    rank = np.empty(len(score), dtype=np.int64)
    rank[np.argsort(score, kind="stable")] = np.arange(len(score))
    complexity: FloatArray = (2 * rank + 1) / (2 * len(score))
    return complexity


def model_of(name: str, config: Config) -> str:
    """The fleet's model that `name` means: its own name, or small, mid or large by quality.

    Raises
    ------
    ConfigError
        If there is none.
    """
    order = quality_order(config)
    return config.models[order[_rank_of(name, config, order, ConfigError)]].name


def _rank_of(name: str, config: Config, order: Sequence[int], error: type[TraceError | ConfigError]) -> int:
    """Rank in ascending quality of the model called `name`, or of the one that small, mid or large stands for."""
    names = [config.models[index].name for index in order]
    if name in names:
        return names.index(name)
    if name in _TRACE_SIZES:
        # The middle of its third: with three models each has one, with two the upper one is mid and large.
        return (2 * _TRACE_SIZES.index(name) + 1) * len(order) // 6
    known = [*names, *_TRACE_SIZES]
    near = next(iter(difflib.get_close_matches(name, known, n=1)), None)
    hint = f"; did you mean {near!r}?" if near else ""
    raise error(f"model {name!r} is not in the fleet; expected one of {', '.join(known)}{hint}")


def _injected(
    burst: Burst,
    number: int,
    trace_s: float,
    rank: IntArray,
    is_injected: BoolArray,
    config: Config,
    order: list[int],
    seed: int,
    notes: list[str],
) -> tuple[IntArray, IntArray]:
    """Rows to repeat (with replacement, among the trace's own rows of that model) and when they arrive."""
    wanted = _rank_of(burst.model, config, order, ConfigError)
    name = config.models[order[wanted]].name
    rows = np.flatnonzero((rank == wanted) & ~is_injected)
    if len(rows) == 0:
        raise ConfigError(f"burst for {burst.model!r}: no request of the trace requires {name!r}; choose another model")
    count = round((burst.factor - 1.0) * len(rows) / trace_s * burst.seconds)
    numbers, times = np.split(draws(seed, f"burst {number}", 2 * count), 2)
    start_ns, span_ns = round(burst.start_s * _NS_PER_S), max(round(burst.seconds * _NS_PER_S), 1)
    notes.append(
        f"burst: {count} more requests for {name} ({burst.factor:g} times its mean rate in all) "
        f"from {burst.start_s:g} s for {burst.seconds:g} s"
    )
    return rows[below(numbers, len(rows))], np.sort(start_ns + below(times, span_ns))


def _slo(
    trace: TraceChunk, source: IntArray, rank: IntArray, config: Config, order: list[int], rules: Rules, seed: int
) -> tuple[IntArray, IntArray, BoolArray]:
    """Nanoseconds from arrival to first and last token that each request is promised, and whether they are loose."""
    steps = max(len(order) - 1, 1)
    models = [config.models[index] for index in order]
    ttft_ms = [
        1000 + 2000 * at / steps if model.ttft_slo_ms is None else model.ttft_slo_ms for at, model in enumerate(models)
    ]
    ttft_ns = np.array([round(ms * _NS_PER_MS) for ms in ttft_ms], dtype=np.int64)[rank]
    tpot_ns = np.array([round(model.tpot_slo_ms * _NS_PER_MS) for model in models], dtype=np.int64)[rank]
    stretch_ns = tpot_ns * trace.output_tokens[source]
    is_loose = np.zeros(len(rank), dtype=np.bool_)
    if rules.slo == "mixed":
        is_loose = below(draws(seed, "loose", len(rank)), 100) < _LOOSE_PERCENT
    factor = np.where(is_loose, _LOOSE_FACTOR, 1)
    ttft_ns, stretch_ns = ttft_ns * factor, stretch_ns * factor
    ttft_ns = _given_or(trace.deadline_ms, source, ttft_ns)
    end_ns = _given_or(trace.end_deadline_ms, source, ttft_ns + stretch_ns)
    return ttft_ns, end_ns, is_loose


def _given_or(given_ms: FloatArray | None, source: IntArray, otherwise_ns: IntArray) -> IntArray:
    if given_ms is None:
        return otherwise_ns
    chosen_ms = given_ms[source]
    known = ~np.isnan(chosen_ms)
    given_ns = np.rint(np.minimum(np.where(known, chosen_ms, 0.0), 1e12) * _NS_PER_MS).astype(np.int64)
    return np.where(known, given_ns, otherwise_ns)
