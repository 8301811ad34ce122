"""Single calls of zeta.Router: ``pytest bench/micro --benchmark-only``, from the root of the repository."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from bench.baselines.zeta_router import filled
from bench.workload import Scale

from zeta.scheduler import Router

_DEPTH = 10_000


@pytest.fixture
def router() -> Iterator[Router]:
    made, _ = filled(Scale(10, _DEPTH))
    yield made
    made.close()


def test_submit_then_cancel(benchmark: Any, router: Router) -> None:
    def once() -> None:
        router.cancel(router.submit(prompt_tokens=812, max_tokens=256, deadline_ms=60_000.0, complexity=0.5))

    benchmark(once)
    assert router.stats()["outcomes"]["cancelled"] > 0


def test_poll_with_nothing_ready(benchmark: Any, router: Router) -> None:
    assert benchmark(router.poll) == []


def test_outcome_of_a_waiting_ticket(benchmark: Any, router: Router) -> None:
    ticket = router.submit(prompt_tokens=812, deadline_ms=60_000.0)
    assert benchmark(router.outcome, ticket).value == "queued"


def test_explain_of_a_waiting_ticket(benchmark: Any, router: Router) -> None:
    ticket = router.submit(prompt_tokens=812, deadline_ms=60_000.0)
    assert benchmark(router.explain, ticket)["state"] == "waiting"


def test_stats(benchmark: Any, router: Router) -> None:
    assert benchmark(router.stats)["waiting"] >= _DEPTH
