"""The embedded hour, the default fleet, and short ways to run one on the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from zeta.config import Config, Order, Policy, default_fleet
from zeta.sim.fleet import SimulatedFleet, build_fleet
from zeta.sim.replay import Played, play
from zeta.sim.workload import Rules, Workload, build_workload
from zeta.traces import Trace, TraceChunk

Play = Callable[..., Played]


@pytest.fixture(scope="session")
def hour() -> TraceChunk:
    return Trace.embedded().read()


@pytest.fixture(scope="session")
def slice_of_hour(hour: TraceChunk) -> TraceChunk:
    """The first 1,500 requests: about five minutes."""
    return hour.take(np.arange(1500))


@pytest.fixture(scope="session")
def fleet() -> SimulatedFleet:
    return build_fleet(default_fleet())


@pytest.fixture(scope="session")
def workload() -> Callable[..., Workload]:
    def build(rows: TraceChunk, seed: int = 0, **rules: object) -> Workload:
        return build_workload(rows, default_fleet(), Rules(**rules), seed)  # type: ignore[arg-type]

    return build


@pytest.fixture(scope="session")
def run(fleet: SimulatedFleet) -> Play:
    """Plays a workload on the default fleet; a queue as large as the workload keeps the checks of every slot short."""

    def run(
        work: Workload, policy: Policy = "water-fill", order: Order = "edf", admission: str = "queue", **options: object
    ) -> Played:
        return play(work, configured(policy, order, admission, len(work)), fleet, **options)  # type: ignore[arg-type]

    return run


def configured(policy: Policy, order: Order, admission: str, max_queued: int) -> Config:
    config = default_fleet()
    settings = dataclasses.replace(
        config.scheduler,
        policy=policy,
        order=order,
        admission=admission,  # type: ignore[arg-type]
        max_queued=max_queued,
    )
    return dataclasses.replace(config, scheduler=settings)


@pytest.fixture
def trace_of(tmp_path: Path) -> Callable[[str], TraceChunk]:
    """A trace from the text of a csv file."""

    def read(text: str) -> TraceChunk:
        path = tmp_path / "trace.csv"
        path.write_text(text)
        return Trace(path).read()

    return read
