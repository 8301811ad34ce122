"""When a simulated engine's tokens come: by the core's engine model on a live clock, or at fixed times."""

from __future__ import annotations

import heapq
import itertools
from typing import Protocol

from zeta._core import LiveDevice
from zeta.engines._profiles import Profile

__all__ = ["FixedPace", "Pace", "make_pace"]

First = tuple[int, int, int]
Output = tuple[int, int]


class Pace(Protocol):
    """A clockless engine: whoever drives it says what time it is, never going back. `LiveDevice` is one."""

    @property
    def next_event_ns(self) -> int | None:
        """When `advance` has something to do; None: not by itself."""
        ...

    def advance(self, now_ns: int) -> tuple[list[First], list[Output], list[Output]]:
        """To this instant: first tokens (tag, scheduled_ns, at_ns), outputs (tag, tokens so far), ends (tag, at_ns)."""
        ...

    def enqueue(
        self, now_ns: int, *, tag: int, prompt_tokens: int, output_tokens: int, priority: int = 0
    ) -> int | None:
        """A handle; None where it does not fit or too many wait."""
        ...

    def abort(self, now_ns: int, handle: int) -> bool:
        """Withdraws a request."""
        ...

    def running(self) -> int:
        """Requests in the batch."""
        ...

    def waiting(self) -> int:
        """Requests before it."""
        ...

    def kv_tokens_used(self) -> int:
        """Of the capacity."""
        ...

    def kv_tokens_capacity(self) -> int:
        """In tokens."""
        ...

    def preemptions(self) -> int:
        """So far."""
        ...


class _Run:
    """One request that runs at fixed times."""

    __slots__ = ("first_ns", "given", "kv", "output_tokens", "started_ns")

    def __init__(self, started_ns: int, first_ns: int, output_tokens: int, kv: int) -> None:
        self.started_ns, self.first_ns, self.output_tokens, self.kv = started_ns, first_ns, output_tokens, kv
        self.given = 0


class FixedPace:
    """Each request's first token comes a fixed time after its start, each further one a fixed time later.

    Parameters
    ----------
    ttft_ns, tpot_ns : int
    max_batch : int
        Requests that run at once; the others wait by priority and arrival.
    kv_tokens : int
        A larger request never fits. It does not bound how many run.
    max_waiting : int
    """

    def __init__(
        self, ttft_ns: int, tpot_ns: int, max_batch: int = 1 << 30, kv_tokens: int = 1 << 40, max_waiting: int = 65_536
    ) -> None:
        self._ttft_ns, self._tpot_ns, self._max_batch = ttft_ns, tpot_ns, max_batch
        self._kv_tokens, self._max_waiting = kv_tokens, max_waiting
        self._runs: dict[int, _Run] = {}
        self._due: list[tuple[int, int]] = []
        self._queue: list[tuple[int, int, int, int, int]] = []
        self._queued: set[int] = set()
        self._order = itertools.count()
        self._kv_used = 0

    @property
    def next_event_ns(self) -> int | None:
        while self._due and self._due[0][1] not in self._runs:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def advance(self, now_ns: int) -> tuple[list[First], list[Output], list[Output]]:
        firsts: list[First] = []
        outputs: list[Output] = []
        ends: list[Output] = []
        due, runs, tpot_ns = self._due, self._runs, self._tpot_ns
        while due and due[0][0] <= now_ns:
            _, tag = heapq.heappop(due)
            run = runs.get(tag)
            if run is None:
                continue
            if run.given == 0:
                firsts.append((tag, run.started_ns, run.first_ns))
            total = run.output_tokens
            given = min(total, (now_ns - run.first_ns) // tpot_ns + 1) if tpot_ns else total
            if given == total:
                at_ns = run.first_ns + (total - 1) * tpot_ns
                ends.append((tag, at_ns))
                self._leave(tag, at_ns)
            else:
                run.given = given
                outputs.append((tag, given))
                heapq.heappush(due, (run.first_ns + given * tpot_ns, tag))
        return firsts, outputs, ends

    def enqueue(
        self, now_ns: int, *, tag: int, prompt_tokens: int, output_tokens: int, priority: int = 0
    ) -> int | None:
        kv = prompt_tokens + output_tokens
        if kv > self._kv_tokens or len(self._queued) >= self._max_waiting:
            return None
        if len(self._runs) < self._max_batch:
            self._start(now_ns, tag, output_tokens, kv)
        else:
            self._queued.add(tag)
            heapq.heappush(self._queue, (priority, next(self._order), tag, output_tokens, kv))
        return tag

    def abort(self, now_ns: int, handle: int) -> bool:
        if handle in self._queued:
            self._queued.remove(handle)
            return True
        if handle not in self._runs:
            return False
        self._leave(handle, now_ns)
        return True

    def running(self) -> int:
        return len(self._runs)

    def waiting(self) -> int:
        return len(self._queued)

    def kv_tokens_used(self) -> int:
        return min(self._kv_used, self._kv_tokens)

    def kv_tokens_capacity(self) -> int:
        return self._kv_tokens

    def preemptions(self) -> int:
        return 0

    def _start(self, now_ns: int, tag: int, output_tokens: int, kv: int) -> None:
        self._runs[tag] = _Run(now_ns, now_ns + self._ttft_ns, output_tokens, kv)
        self._kv_used += kv
        heapq.heappush(self._due, (now_ns + self._ttft_ns, tag))

    def _leave(self, tag: int, at_ns: int) -> None:
        self._kv_used -= self._runs.pop(tag).kv
        while self._queue and len(self._runs) < self._max_batch:
            _, _, waiting, output_tokens, kv = heapq.heappop(self._queue)
            if waiting in self._queued:  # else it was withdrawn
                self._queued.remove(waiting)
                self._start(at_ns, waiting, output_tokens, kv)


def make_pace(profile: Profile) -> Pace:
    """The pace of this profile."""
    if profile.ttft_ms is not None and profile.tpot_ms is not None:
        ttft_ns, tpot_ns = round(profile.ttft_ms * 1e6), round(profile.tpot_ms * 1e6)
        return FixedPace(ttft_ns, tpot_ns, profile.max_batch, profile.kv_tokens)
    return LiveDevice([profile.engine_spec()])
