"""What the core's hot loop costs, in counts that are the same on a busy machine: allocations and instructions."""

from __future__ import annotations

import shutil

import pytest
from bench import native

# Instructions of complete + submit + poll, 3 models × 10 replicas, by g++ 12 at -O3 on x86-64; compilers differ.
_MOST_INSTRUCTIONS = 6_600  # 5,490 when this was set

_needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("c++") is None, reason="no C++ compiler; apt-get install g++"
)
_needs_valgrind = pytest.mark.skipif(shutil.which("valgrind") is None, reason="no valgrind; apt-get install valgrind")

pytestmark = _needs_compiler


@pytest.mark.parametrize("replicas", [1, 85])
def test_complete_submit_and_poll_allocate_nothing(replicas: int) -> None:
    row = native.run(depth=20_000, replicas=replicas, count=20_000)
    assert row["allocations"] == 0


def test_an_allocation_in_the_loop_would_be_counted() -> None:
    assert native.run(depth=1_000, replicas=1, count=1_000, mode="allocating")["allocations"] == 1_000


@_needs_valgrind
def test_a_lifecycle_stays_within_its_instructions_at_any_depth() -> None:
    shallow, deep = (native.instructions(depth=depth, replicas=10) for depth in (1_000, 100_000))
    assert deep <= _MOST_INSTRUCTIONS
    assert deep <= 1.5 * shallow
