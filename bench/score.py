"""The scoring kernel beside numpy on the same arrays, and the choice among replicas, from Python."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

import zeta
from bench.harness import Contender, Row, WrongAnswer
from bench.report import Target

__all__ = ["SIZES", "NumpyChoice", "NumpyScores", "ZetaChoice", "ZetaScores", "choices", "scores", "targets"]

SIZES = ((1_000, 3), (1_000, 8), (100_000, 3), (100_000, 8))
REPLICAS = (2, 64, 256)
_CALLS = 32  # of a choice per timed part: one call takes little more than reading the clock

Floats = NDArray[np.float64]


class Columns:
    """Features of `n` requests on `m` models, drawn by one seed; rows of models."""

    def __init__(self, n: int, m: int) -> None:
        rng = np.random.default_rng(n + m)
        self.complexity = rng.random(n)
        self.time_left_s = rng.uniform(-0.2, 5.0, n)
        self.quality = np.linspace(0.4, 0.9, m)
        self.relative_cost = rng.random((m, n))
        self.first_token_s = rng.uniform(0.0, 3.0, (m, n))
        self.prefix_held = np.where(rng.random((m, n)) < 0.1, rng.random((m, n)), 0.0)


def _numpy_scores(columns: Columns, weights: zeta.Weights) -> tuple[Floats, NDArray[np.int64]]:
    """zeta.suitability in numpy, in as few passes as its factors allow: one exponential and division per request."""
    c = columns
    with np.errstate(all="ignore"):
        hardness = np.where(c.complexity >= 0.0, np.exp(4.0 * (c.complexity - 0.5)), np.inf)
        p_good = 1.0 / (1.0 + ((1.0 - c.quality) / c.quality)[:, None] * hardness)
        late = c.time_left_s < 1e-9
        per_second = np.where(late, 0.0, 1.0 / c.time_left_s)
        risk = np.maximum(late, np.minimum(1.0, np.minimum(c.first_token_s, 1e9) * per_second))
        total = weights.quality * p_good - weights.cost * c.relative_cost - weights.deadline * risk
        total += weights.affinity * c.prefix_held
        total = np.where(np.isnan(total), -np.inf, total)
    best = total.argmax(axis=0)
    best[np.take_along_axis(total, best[None], axis=0)[0] == -np.inf] = -1
    return total, best


class NumpyScores:
    """numpy, as one would write it."""

    def __init__(self, n: int, m: int) -> None:
        self.name = f"numpy, {n:,} × {m}"
        self.measured = f"the same formula on the same columns: {n:,} requests × {m} models"
        self._columns = Columns(n, m)
        self._weights = zeta.Weights()

    def open(self) -> None:
        self.renew()

    def renew(self) -> None: ...

    def run(self, operations: int) -> Floats:
        times, now = [0] * operations, time.perf_counter_ns
        for i in range(operations):
            started = now()
            _numpy_scores(self._columns, self._weights)
            times[i] = now() - started
        return np.array(times, np.float64)

    def check(self) -> None: ...

    def close(self) -> None: ...


class ZetaScores:
    """zeta.suitability into arrays that the caller keeps."""

    def __init__(self, n: int, m: int) -> None:
        self.name = f"zeta, {n:,} × {m}"
        self.measured = f"zeta.suitability(..., out=, best_out=): {n:,} requests × {m} models"
        self._columns = Columns(n, m)
        self._weights = zeta.Weights()
        self._scores = np.empty((m, n))
        self._best = np.empty(n, np.int64)

    def open(self) -> None:
        self.renew()

    def renew(self) -> None:
        self._scores.fill(np.nan)
        self._best.fill(-2)

    def run(self, operations: int) -> Floats:
        c, scores, best, weights = self._columns, self._scores, self._best, self._weights
        times, now, suitability = [0] * operations, time.perf_counter_ns, zeta.suitability
        for i in range(operations):
            started = now()
            suitability(
                c.complexity,
                c.time_left_s,
                c.quality,
                c.relative_cost,
                c.first_token_s,
                c.prefix_held,
                weights=weights,
                out=scores,
                best_out=best,
            )
            times[i] = now() - started
        return np.array(times, np.float64)

    def check(self) -> None:
        scores, best = _numpy_scores(self._columns, self._weights)
        if not np.allclose(self._scores, scores, rtol=0.0, atol=1e-12):
            raise WrongAnswer(f"{self.name}: off by {np.abs(self._scores - scores).max():g}")
        regret = scores.max(axis=0) - np.take_along_axis(scores, self._best[None], axis=0)[0]
        if regret.max() > 1e-12 or (best < 0).any():
            raise WrongAnswer(f"{self.name}: a better model stood beside the chosen one")

    def close(self) -> None: ...


class _Choice:
    def __init__(self, replicas: int) -> None:
        rng = np.random.default_rng(replicas)
        self._load_s = rng.uniform(0.0, 4.0, replicas)
        self._room = np.where(rng.random(replicas) < 0.2, 0.0, rng.integers(1, 64, replicas))
        self._room[-1] = 1.0
        self._prefix_held = np.where(rng.random(replicas) < 0.1, rng.random(replicas), 0.0)
        self._chosen = -2

    def open(self) -> None:
        self.renew()

    def renew(self) -> None:
        self._chosen = -2

    def _choose(self) -> int:
        """The contender's own: the number of the chosen replica."""
        raise NotImplementedError

    def run(self, operations: int) -> Floats:
        times, now, choose = [], time.perf_counter_ns, self._choose
        for _ in range(max(operations // _CALLS, 40)):
            started = now()
            for _ in range(_CALLS):
                chosen = choose()
            times.append((now() - started) / _CALLS)
        self._chosen = chosen
        return np.array(times, np.float64)

    def check(self) -> None:
        wait_s = np.where(self._room >= 1.0, self._load_s + 0.5 * (1.0 - self._prefix_held), np.inf)
        if self._chosen != int(wait_s.argmin()):
            raise WrongAnswer(f"replica {self._chosen} chosen, {int(wait_s.argmin())} is the first of the best")

    def close(self) -> None: ...


class ZetaChoice(_Choice):
    """zeta.choose_replica; what is timed includes a Python call around it."""

    def __init__(self, replicas: int) -> None:
        super().__init__(replicas)
        self.name = f"zeta.choose_replica, {replicas}"
        self.measured = f"load, room, prefix → one of {replicas}; mean of {_CALLS} calls"

    def _choose(self) -> int:
        return zeta.choose_replica(self._load_s, self._room, self._prefix_held, 0.5)


class NumpyChoice(_Choice):
    """The same in numpy."""

    def __init__(self, replicas: int) -> None:
        super().__init__(replicas)
        self.name = f"numpy argmin, {replicas}"
        self.measured = ZetaChoice(replicas).measured

    def _choose(self) -> int:
        wait_s = self._load_s + 0.5 * (1.0 - self._prefix_held)
        return int(np.where(self._room >= 1.0, wait_s, np.inf).argmin())


def scores() -> list[Contender]:
    """zeta and numpy at every size."""
    return [contender for n, m in SIZES for contender in (ZetaScores(n, m), NumpyScores(n, m))]


def choices() -> list[Contender]:
    """zeta at every number of replicas, and numpy at the largest."""
    return [*(ZetaChoice(replicas) for replicas in reversed(REPLICAS)), NumpyChoice(REPLICAS[-1])]


def targets(score_rows: list[Row], choice_rows: list[Row]) -> list[Target]:
    """What the kernel promises, from medians of one run."""
    by_name = {row.name: row.us_p50.median for row in [*score_rows, *choice_rows]}
    found = []
    for n, m in SIZES:
        ours, theirs = by_name[ZetaScores(n, m).name], by_name[NumpyScores(n, m).name]
        found.append(Target(f"scores, {n:,} × {m}, faster than numpy", "×", theirs / ours, 8.0, None, True))
        found.append(Target(f"scores, {n:,} × {m}, one core", "M/s", n * m / ours, 50.0, None, True))
    choice = by_name[ZetaChoice(REPLICAS[-1]).name]
    found.append(Target(f"choice among {REPLICAS[-1]} replicas", "µs", choice, 0.6))
    return found
