"""The scoring kernel beside numpy, and a choice of a replica: the quickest of several runs in turn."""

from __future__ import annotations

import pytest
from bench.harness import Contender
from bench.score import SIZES, NumpyScores, ZetaChoice, ZetaScores

from zeta import _core

_needs_vectors = pytest.mark.skipif("avx2" not in _core.simd_levels(), reason="the processor has no AVX2")


def _quickest_us(contenders: list[Contender], operations: int) -> list[float]:
    for contender in contenders:
        contender.open()
    runs = [[float(contender.run(operations).min()) for contender in contenders] for _ in range(5)]
    for contender in contenders:
        contender.check()
    return [min(run[i] for run in runs) / 1e3 for i in range(len(contenders))]


# Columns that fit the cache. Those that do not are bound by the memory, which others share: 7 to 13.5 times as fast at
# 100,000 × 8; `make bench` says how much it was.
@_needs_vectors
@pytest.mark.parametrize(("n", "m"), [(n, m) for n, m in SIZES if n * m <= 10_000])
def test_scores_come_eight_times_as_fast_as_from_numpy(n: int, m: int) -> None:
    ours, theirs = _quickest_us([ZetaScores(n, m), NumpyScores(n, m)], 200)
    assert theirs / ours >= 8.0


def test_choosing_among_256_replicas_takes_at_most_600_ns() -> None:
    [each] = _quickest_us([ZetaChoice(256)], 2_000)
    assert each <= 0.6
