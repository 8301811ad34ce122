"""zeta.Router, as its users build it: with its background thread, on the machine's clock."""

from __future__ import annotations

import time
from collections import deque

import numpy as np
from numpy.typing import NDArray

from bench.harness import WrongAnswer
from bench.workload import MODELS, Scale, requests
from zeta.config import Device, Model, Replica, Scheduler
from zeta.scheduler import Lease, Router

__all__ = ["ZetaBatches", "ZetaRouter", "ZetaTick", "build", "fill", "filled"]

_CYCLE = 1 << 14
_SHAPE = requests(_CYCLE)
_ROWS = _SHAPE.rows()
_OUTPUT_TOKENS = 200


def build(scale: Scale, *, is_shared: bool = False, max_queued: int | None = None, background: bool = True) -> Router:
    """A router of three models; `is_shared` puts them on one device, whose time they share."""
    device = "gpu0" if is_shared else None
    models = [
        Model(name, quality, device, replicas=tuple(Replica(f"{name}-{i}") for i in range(scale.replicas)))
        for name, quality in MODELS
    ]
    settings = Scheduler(
        max_queued=max_queued or scale.depth + 20_000,
        max_running=64 * len(MODELS) * scale.replicas + 1_024,
        max_replicas=len(MODELS) * scale.replicas,
    )
    return Router(models, [Device("gpu0")] if is_shared else [], scheduler=settings, background=background)


def fill(router: Router, depth: int) -> None:
    """Submits until `depth` requests wait."""
    while (missing := depth - router.stats()["waiting"]) > 0:
        rows = np.arange(min(missing, _CYCLE))
        router.submit_many(
            prompt_tokens=_SHAPE.prompt_tokens[rows],
            max_tokens=_SHAPE.max_tokens[rows],
            deadline_ms=_SHAPE.deadline_ms[rows],
            complexity=_SHAPE.complexity[rows],
        )


def filled(scale: Scale, *, is_shared: bool = False) -> tuple[Router, deque[Lease]]:
    """A router with `depth` requests waiting, and the leases of what runs already."""
    router = build(scale, is_shared=is_shared)
    fill(router, max(scale.depth, 1))
    return router, deque(router.poll())


def _next_leases(router: Router) -> list[Lease]:
    """Where the router's own thread had its turn while the last running request ended, the next follow in a moment."""
    for _ in range(10_000):
        if leases := router.poll():
            return leases
        time.sleep(1e-4)
    raise WrongAnswer("zeta let the last running request end and placed none of those that wait")


def _check(router: Router, scale: Scale, running: int) -> None:
    stats = router.stats()
    ended = sum(stats["outcomes"].values())
    if stats["submitted"] != ended + stats["waiting"] + stats["running"]:
        raise WrongAnswer(f"zeta's ledger does not add up: {stats}")
    if stats["running"] != running or stats["outcomes"]["completed"] != ended:
        raise WrongAnswer(f"zeta counts {stats['running']} running, {running} leases were handed out: {stats}")
    if abs(stats["waiting"] - scale.depth) > 0.1 * scale.depth + 4_096:
        raise WrongAnswer(f"zeta held {stats['waiting']} waiting requests, the scenario is {scale.depth}")


class ZetaRouter:
    """One request at a time: complete the oldest, submit one, poll."""

    measured = "complete + submit(prompt_tokens, max_tokens, deadline_ms, complexity) + poll, one thread"

    def __init__(self, scale: Scale, *, is_shared: bool = False) -> None:
        self.name = f"zeta, {scale}" + (" (one shared device)" if is_shared else "")
        self._scale = scale
        self._is_shared = is_shared
        self._router: Router | None = None

    def open(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.close()
        self._router, self._running = filled(self._scale, is_shared=self._is_shared)
        self._tickets = {lease.ticket for lease in self._running}

    def run(self, operations: int) -> NDArray[np.float64]:
        router, running, now = self._router, self._running, time.perf_counter_ns
        assert router is not None
        times = [0] * operations
        rows = _ROWS
        taken: list[list[Lease]] = []
        for i in range(operations):
            prompt, most, deadline, complexity = rows[i & (_CYCLE - 1)]
            done = running.popleft()
            started = now()
            router.complete(done, _OUTPUT_TOKENS)
            router.submit(prompt_tokens=prompt, max_tokens=most, deadline_ms=deadline, complexity=complexity)
            leases = router.poll()
            times[i] = now() - started
            taken.append(leases)
            running.extend(leases)
            if not running:
                taken.append(_next_leases(router))
                running.extend(taken[-1])
        seen = [lease.ticket for leases in taken for lease in leases]
        if len(set(seen)) != len(seen) or not self._tickets.isdisjoint(seen):
            raise WrongAnswer("zeta handed one request out twice")
        self._tickets.update(seen)
        return np.array(times, np.float64)

    def check(self) -> None:
        assert self._router is not None
        _check(self._router, self._scale, len(self._running))

    def close(self) -> None:
        if self._router is not None:
            self._router.close()
            self._router = None


class ZetaBatches:
    """Many requests a call, as numpy columns."""

    def __init__(self, scale: Scale, batch: int) -> None:
        self.name = f"zeta, {scale}, batches of {batch}"
        self.measured = f"complete_many + submit_many + poll_many of {batch}; per request"
        self._scale = scale
        self._batch = batch
        self._router: Router | None = None

    def open(self) -> None:
        self._outputs = np.full(4 * self._batch, _OUTPUT_TOKENS, np.uint32)
        self._columns = [
            {
                name: np.ascontiguousarray(getattr(_SHAPE, name)[first : first + self._batch])
                for name in ("prompt_tokens", "max_tokens", "deadline_ms", "complexity")
            }
            for first in range(0, _CYCLE - self._batch, self._batch)
        ]
        self.renew()

    def renew(self) -> None:
        self.close()
        self._router, running = filled(self._scale)
        self._running = np.array([lease.ticket for lease in running], np.uint64)

    def run(self, operations: int) -> NDArray[np.float64]:
        router, running, now, batch = self._router, self._running, time.perf_counter_ns, self._batch
        assert router is not None
        times = []
        for i in range(max(operations // batch, 8)):
            done, running = running[:batch], running[batch:]
            columns, outputs = self._columns[i % len(self._columns)], self._outputs[: len(done)]
            started = now()
            completed = router.complete_many(done, outputs)
            router.submit_many(**columns)
            tickets, _, _ = router.poll_many(batch)
            times.append((now() - started) / batch)
            if completed != len(done):
                raise WrongAnswer(f"zeta completed {completed} of {len(done)} running requests")
            running = np.concatenate([running, tickets])
        if len(np.unique(running)) != len(running):
            raise WrongAnswer("zeta handed one request out twice")
        self._running = running
        return np.array(times, np.float64)

    def check(self) -> None:
        assert self._router is not None
        tickets, _, _ = self._router.poll_many(1 << 16)
        _check(self._router, self._scale, len(self._running) + len(tickets))

    def close(self) -> None:
        if self._router is not None:
            self._router.close()
            self._router = None


class ZetaTick:
    """One round of the allocation loop, called from Python."""

    measured = "tick(), three models on one shared device"

    def __init__(self, depth: int) -> None:
        self.name = f"zeta tick, {depth:,} queued"
        self._scale = Scale(1, depth)
        self._router: Router | None = None

    def open(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.close()
        if self._scale.depth == 0:
            self._router = build(self._scale, is_shared=True)
        else:
            self._router, _ = filled(self._scale, is_shared=True)

    def run(self, operations: int) -> NDArray[np.float64]:
        assert self._router is not None
        tick, now = self._router.tick, time.perf_counter_ns
        times = []
        for _ in range(operations):
            started = now()
            tick()
            times.append(now() - started)
        return np.array(times, np.float64)

    def check(self) -> None:
        assert self._router is not None
        stats = self._router.stats()
        total = sum(model["share"] for model in stats["models"].values())
        if abs(total - 1.0) > 1e-6:
            raise WrongAnswer(f"the shares of one device add up to {total}, not 1")
        if stats["waiting"] < self._scale.depth * 0.9:
            raise WrongAnswer(f"{stats['waiting']} waiting requests, the scenario is {self._scale.depth}")

    def close(self) -> None:
        if self._router is not None:
            self._router.close()
            self._router = None
