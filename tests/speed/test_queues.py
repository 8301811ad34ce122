"""What a push and a pop of the queues cost in instructions, and that the comparison with the peers can be trusted."""

from __future__ import annotations

import shutil

import pytest
from bench.native import queues

_needs_valgrind = pytest.mark.skipif(shutil.which("valgrind") is None, reason="no valgrind; apt-get install valgrind")

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("c++") is None, reason="no C++ compiler; apt-get install g++"
)


# By g++ 12 at -O3 on x86-64, at 100,000 keys, some fifty to a bucket of the calendar: 203, 132 and 77 when set.
@_needs_valgrind
@pytest.mark.parametrize(
    ("queue", "operation", "most"),
    [("zeta_deadline", "pop", 220), ("zeta_deadline", "push", 170), ("zeta_priority", "push", 80)],
)
def test_an_operation_stays_within_its_instructions(queue: str, operation: str, most: int) -> None:
    assert queues.instructions(queue, operation) <= most


@_needs_valgrind
@pytest.mark.parametrize("operation", ["push", "pop"])
def test_instructions_too_many_would_be_counted(operation: str) -> None:
    plain, burning = (queues.instructions(queue, operation, size=1_000) for queue in ("std_spin", "burning"))
    assert 1_000 <= burning - plain <= 1_100


def test_no_queue_of_the_comparison_loses_or_doubles_an_item() -> None:
    rows = queues.measure(["closed:llm:1000", "closed:us:1000"], rounds=1, seconds=0.002)["rows"]
    assert {row["threads"] for row in rows} == {1, 2, 4}
    assert all(row["misses"] == 0 for row in rows)


def test_rank_error_is_zero_for_a_locked_heap_and_large_for_a_relaxed_queue() -> None:
    rows = {row["queue"]: row for row in queues.measure(["rank:llm:10000:4:20000"], rounds=1, seconds=0.01)["rows"]}
    assert rows["std::priority_queue + std::mutex"]["quanta_most"] == 0
    assert rows["sample: two locked heaps, taken in turn"]["quanta_mean"] > 10
