"""How fast one request's life is, as ratios to others in the same run: machines and their load differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bench.baselines.dynamo import DynamoSelection
from bench.baselines.heapq_scheduler import HeapqContender
from bench.baselines.litellm_router import LiteLLMPick, LiteLLMScheduler
from bench.baselines.ray_serve import RayServePowerOfTwo
from bench.baselines.zeta_router import ZetaBatches, ZetaRouter
from bench.harness import interleave
from bench.workload import Scale

if TYPE_CHECKING:
    from bench.harness import Contender, Row


def _best(row: Row) -> float:
    """The p50 of the least disturbed round, in microseconds."""
    return row.us_p50.least


def test_a_lifecycle_takes_at_most_four_fifths_of_plain_python_heaps() -> None:
    scale = Scale(10, 20_000)
    (zeta, plain), _ = interleave([ZetaRouter(scale), HeapqContender(scale)], rounds=5, seconds=0.05)
    assert _best(zeta) <= 0.8 * _best(plain), f"zeta {_best(zeta):.2f} µs, plain Python {_best(plain):.2f} µs"


def test_batches_take_less_time_per_request_than_single_calls() -> None:
    scale = Scale(10, 20_000)
    (single, batch), _ = interleave([ZetaRouter(scale), ZetaBatches(scale, 64)], rounds=5, seconds=0.05)
    assert _best(batch) < _best(single), f"batch {_best(batch):.2f} µs, single {_best(single):.2f} µs"


# The promise is 1.5 times, which instructions keep (test_native) and time does not yet where two cores share their
# cache with other work: 1.6 to 2.3. `make bench` prints it as missed; this keeps it from growing.
@pytest.mark.nightly
@pytest.mark.parametrize("replicas", [1, 10, 85])
def test_a_hundred_thousand_queued_cost_little_more_than_a_thousand(replicas: int) -> None:
    contenders = [ZetaRouter(Scale(replicas, depth)) for depth in (1_000, 100_000)]
    (shallow, deep), _ = interleave(contenders, rounds=9, seconds=0.2)
    assert _best(deep) <= 2.75 * _best(shallow), f"{_best(shallow):.2f} µs at 1 k, {_best(deep):.2f} µs at 100 k"


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("peer", "times"),
    [
        (DynamoSelection(Scale(10, 100_000), is_whole=False), 25.0),
        (LiteLLMPick(Scale(10, 100_000), "simple-shuffle"), 8.0),
        (RayServePowerOfTwo(Scale(10, 100_000)), 4.0),
        (LiteLLMScheduler(5_000), 500.0),
    ],
    ids=["dynamo", "litellm", "ray-serve", "litellm-scheduler"],
)
def test_a_lifecycle_is_many_times_faster_than_a_peers_decision(peer: Contender, times: float) -> None:
    rows, absent = interleave([ZetaRouter(Scale(10, 100_000)), peer], rounds=5, seconds=0.2)
    if absent:
        pytest.skip(f"{absent}")
    zeta, other = rows
    assert times * _best(zeta) <= _best(other), f"zeta {_best(zeta):.2f} µs, {other.name} {_best(other):.2f} µs"
