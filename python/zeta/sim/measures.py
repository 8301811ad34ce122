"""What a finished run amounts to: from the times of its requests to the figures of a `Run`. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from zeta._core import OUTCOME_NAMES
from zeta.sim.results import ReplaySeries
from zeta.sim.workload import BoolArray, Burst, FloatArray, IntArray, Workload

__all__ = ["RequestTimes", "Ticks", "attainment", "backlog_absorbed_s", "percentile_ms", "series_of"]

_SERIES_BINS = 240


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RequestTimes:
    """What became of each request; instants in ns of replayed time, -1 where it never came.

    Attributes
    ----------
    workload : Workload
    placed_ns, first_token_ns, last_token_ns : ndarray of int64
    model : ndarray of int16
        Where it ran; -1 nowhere.
    outcome : ndarray of uint8
        Index into `zeta._core.OUTCOME_NAMES`; ``queued`` and ``placed`` were left when the drain ended.
    """

    workload: Workload
    placed_ns: IntArray
    first_token_ns: IntArray
    last_token_ns: IntArray
    model: NDArray[np.int16]
    outcome: NDArray[np.uint8]

    def ended(self, name: str) -> BoolArray:
        """Which requests ended as `name`."""
        return np.asarray(self.outcome == OUTCOME_NAMES.index(name))

    def met_slo(self) -> BoolArray:
        """Which requests completed with their first and last token in time."""
        in_time = (self.first_token_ns <= self.workload.deadline_ns) & (
            self.last_token_ns <= self.workload.end_deadline_ns
        )
        return np.asarray(self.ended("completed") & in_time)

    def ttft_ms(self) -> FloatArray:
        """From arrival to first token; NaN where there was none."""
        return np.where(self.first_token_ns >= 0, (self.first_token_ns - self.workload.arrival_ns) * 1e-6, np.nan)

    def tpot_ms(self) -> FloatArray:
        """Mean time per output token after the first; NaN where there was none."""
        tokens = self.workload.output_tokens - 1
        span_ms = (self.last_token_ns - self.first_token_ns) * 1e-6
        return np.where(self.ended("completed") & (tokens > 0), span_ms / np.maximum(tokens, 1), np.nan)

    def longest_wait_s(self) -> float:
        """From arrival to placement, the longest."""
        waited = (self.placed_ns - self.workload.arrival_ns)[self.placed_ns >= 0]
        return float(waited.max()) * 1e-9 if len(waited) else 0.0


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Ticks:
    """The allocation loop over time: instants (ticks,), the others (ticks, models)."""

    at_ns: IntArray
    share: FloatArray
    need: FloatArray
    waiting: NDArray[np.uint32]
    running: NDArray[np.uint32]


def attainment(times: RequestTimes, leave_out: BoolArray | None = None) -> float:
    """Requests that met their SLO ÷ all arrivals but those left out (caller cancels always are)."""
    counted = ~(times.ended("cancelled") | times.ended("cancelled_running"))
    if leave_out is not None:
        counted &= ~leave_out
    return float(times.met_slo()[counted].mean()) if counted.any() else 1.0


def percentile_ms(values_ms: FloatArray, percent: float) -> float | None:
    """Of the values that exist; None if none does."""
    known = values_ms[~np.isnan(values_ms)]
    return float(np.percentile(known, percent)) if len(known) else None


def backlog_absorbed_s(times: RequestTimes, burst: Burst, model: int) -> float | None:
    """From the end of a burst until no more requests of its model wait than when it began; None if that never came."""
    mine = times.workload.required_model == model
    arrived = np.sort(times.workload.arrival_ns[mine])
    left = np.sort(np.where(times.placed_ns >= 0, times.placed_ns, np.iinfo(np.int64).max)[mine])
    start_ns = round(burst.start_s * 1e9)
    end_ns = start_ns + round(burst.seconds * 1e9)

    def waiting(at_ns: IntArray) -> IntArray:
        return np.asarray(np.searchsorted(arrived, at_ns, "right") - np.searchsorted(left, at_ns, "right"))

    before = int(waiting(np.array([start_ns]))[0])
    candidates = np.concatenate(([end_ns], left[(left > end_ns) & (left < np.iinfo(np.int64).max)]))
    cleared = candidates[waiting(candidates) <= before]
    return float(cleared[0] - end_ns) * 1e-9 if len(cleared) else None


def series_of(
    times: RequestTimes, ticks: Ticks, policy: str, order: str, seed: int, names: tuple[str, ...]
) -> ReplaySeries:
    """One run over time, in `_SERIES_BINS` bins."""
    workload = times.workload
    end_s = max(float(ticks.at_ns[-1]) * 1e-9 if len(ticks.at_ns) else 0.0, workload.duration_s, 1.0)
    edges_ns = np.linspace(0.0, end_s, _SERIES_BINS + 1) * 1e9
    last_tick = np.clip(np.searchsorted(ticks.at_ns, edges_ns[1:], "right") - 1, 0, max(len(ticks.at_ns) - 1, 0))
    arrived_in = np.clip(np.searchsorted(edges_ns, workload.arrival_ns, "right") - 1, 0, _SERIES_BINS - 1)
    first_in = np.clip(np.searchsorted(edges_ns, times.first_token_ns, "right") - 1, 0, _SERIES_BINS - 1)
    ttft_ms = times.ttft_ms()

    def at_ticks(values: NDArray[np.float64] | NDArray[np.uint32]) -> Mapping[str, FloatArray]:
        return {name: values[last_tick, index].astype(np.float64) for index, name in enumerate(names)}

    def ttft(percent: float) -> Mapping[str, FloatArray]:
        return {
            name: _percentiles(
                ttft_ms, first_in, (workload.required_model == index) & (times.first_token_ns >= 0), percent
            )
            for index, name in enumerate(names)
        }

    arrivals = np.bincount(arrived_in, minlength=_SERIES_BINS)
    met = np.bincount(arrived_in, weights=times.met_slo(), minlength=_SERIES_BINS)
    return ReplaySeries(
        policy=policy,  # type: ignore[arg-type] # one of the names that the spec has checked
        order=order,  # type: ignore[arg-type] # likewise
        seed=seed,
        t_s=edges_ns[:-1] * 1e-9,
        waiting=at_ticks(ticks.waiting),
        running=at_ticks(ticks.running),
        share=at_ticks(ticks.share),
        need=at_ticks(ticks.need),
        ttft_p50_ms=ttft(50.0),
        ttft_p99_ms=ttft(99.0),
        attainment=np.where(arrivals > 0, met / np.maximum(arrivals, 1), np.nan),
    )


def _percentiles(values_ms: FloatArray, bins: IntArray, chosen: BoolArray, percent: float) -> FloatArray:
    out = np.full(_SERIES_BINS, np.nan)
    kept, where = values_ms[chosen], bins[chosen]
    by_bin = np.argsort(where, kind="stable")
    bounds = np.searchsorted(where[by_bin], np.arange(_SERIES_BINS + 1))
    for index in range(_SERIES_BINS):
        low, high = bounds[index], bounds[index + 1]
        if high > low:
            out[index] = np.percentile(kept[by_bin[low:high]], percent)
    return out
