"""The scheduler that one writes in an afternoon: heaps and a lock, in plain Python. Needs nothing but Python.

Does the part of zeta's job that the lifecycle exercises: earliest latest-start first, the smallest model that suits a
request's complexity or any larger one, the least loaded replica with room, bounded in-flight, tickets and outcomes.
No tenants, promise, bands, holds, estimates, shares, decision log or safe sharing beyond one lock.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque

import numpy as np
from numpy.typing import NDArray

from bench.harness import WrongAnswer
from bench.workload import MODELS, Scale, requests

__all__ = ["HeapqContender", "HeapqScheduler"]

_CYCLE = 1 << 14
_ROWS = requests(_CYCLE).rows()
_WINDOW = 64
_PREFILL_S_PER_TOKEN = (1.5e-5, 1.7e-5, 3.0e-5)


class HeapqScheduler:
    """Thread-safe by one lock. Tickets are numbers from 1."""

    def __init__(self, replicas_per_model: int) -> None:
        self._lock = threading.Lock()
        self._heaps: list[list[tuple[float, int]]] = [[] for _ in MODELS]
        self._loads: list[list[tuple[int, int]]] = [[(0, i) for i in range(replicas_per_model)] for _ in MODELS]
        self._in_flight = [[0] * replicas_per_model for _ in MODELS]
        self._where: dict[int, tuple[int, int]] = {}
        self._ready: deque[tuple[int, int, int]] = deque()
        self._room = replicas_per_model * _WINDOW
        self._busy = [0] * len(MODELS)
        self._last_ticket = 0
        self.completed = 0

    @property
    def waiting(self) -> int:
        return sum(map(len, self._heaps))

    def submit(self, prompt_tokens: int, deadline_ms: float, complexity: float) -> int:
        smallest = min(int(complexity * len(MODELS)), len(MODELS) - 1)
        start = time.monotonic() + deadline_ms * 1e-3 - prompt_tokens * _PREFILL_S_PER_TOKEN[smallest]
        with self._lock:
            self._last_ticket += 1
            heapq.heappush(self._heaps[smallest], (start, self._last_ticket))
            self._place()
            return self._last_ticket

    def complete(self, ticket: int) -> bool:
        with self._lock:
            place = self._where.pop(ticket, None)
            if place is None:
                return False
            model, replica = place
            self._in_flight[model][replica] -= 1
            self._busy[model] -= 1
            heapq.heappush(self._loads[model], (self._in_flight[model][replica], replica))
            self.completed += 1
            self._place()
            return True

    def poll(self) -> list[tuple[int, int, int]]:
        """(ticket, model, replica) of each request whose turn has come."""
        with self._lock:
            placed = list(self._ready)
            self._ready.clear()
            return placed

    def _place(self) -> None:
        for model in range(len(MODELS)):
            while self._busy[model] < self._room:
                best = min((heap for heap in self._heaps[: model + 1] if heap), default=None)
                if best is None:
                    break
                _, ticket = heapq.heappop(best)
                replica = self._least_loaded(model)
                self._in_flight[model][replica] += 1
                self._busy[model] += 1
                if self._in_flight[model][replica] < _WINDOW:
                    heapq.heappush(self._loads[model], (self._in_flight[model][replica], replica))
                self._where[ticket] = (model, replica)
                self._ready.append((ticket, model, replica))

    def _least_loaded(self, model: int) -> int:
        while True:  # entries that a later change made stale are skipped
            load, replica = heapq.heappop(self._loads[model])
            if load == self._in_flight[model][replica]:
                return replica


class HeapqContender:
    """The same lifecycle as zeta's."""

    measured = "complete + submit + poll of a heapq scheduler in plain Python with one lock"

    def __init__(self, scale: Scale) -> None:
        self.name = f"plain Python heapq, {scale}"
        self._scale = scale

    def open(self) -> None:
        self.renew()

    def renew(self) -> None:
        self._scheduler = HeapqScheduler(self._scale.replicas)
        self._running: deque[tuple[int, int, int]] = deque()
        i = 0
        while self._scheduler.waiting < self._scale.depth:
            prompt, _, deadline, complexity = _ROWS[i & (_CYCLE - 1)]
            self._scheduler.submit(prompt, deadline, complexity)
            i += 1
        self._running.extend(self._scheduler.poll())
        self._completed = 0

    def run(self, operations: int) -> NDArray[np.float64]:
        scheduler, running, now = self._scheduler, self._running, time.perf_counter_ns
        times = [0] * operations
        for i in range(operations):
            prompt, _, deadline, complexity = _ROWS[i & (_CYCLE - 1)]
            ticket, _, _ = running.popleft()
            started = now()
            scheduler.complete(ticket)
            scheduler.submit(prompt, deadline, complexity)
            placed = scheduler.poll()
            times[i] = now() - started
            running.extend(placed)
        self._completed += operations
        return np.array(times, np.float64)

    def check(self) -> None:
        if self._scheduler.completed != self._completed:
            raise WrongAnswer(f"{self._scheduler.completed} completions counted, {self._completed} done")

    def close(self) -> None:
        self._running.clear()
