"""In-flight credit: what was sent to a replica since its engine was last read, added to the reading."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Final

from zeta.monitor.snapshot import ReplicaReadings

__all__ = ["InFlightCredit"]

_BUCKET_NS: Final = 5_000_000
_KEEP_NS: Final = 60_000_000_000


class InFlightCredit:
    """Counts requests by when they were sent, so that a stale reading attracts no herd.

    Between two readings of an engine every sender sees the same numbers, and all would choose the same replica. With
    the credit each sees its own requests at once, whether or not the engine has told of them.

    Parameters
    ----------
    grace_s : float, default 0.05
        How long a request may be under way to the engine. Those sent so shortly before a reading count as not in it:
        a request may be counted twice for a moment, and is never overlooked.

    Notes
    -----
    Thread-safe. Time is `CLOCK_MONOTONIC`, as in `Reading.taken_ns`; it may be given instead of read. What was sent
    more than a minute ago is forgotten: a reading that old is of no use anyway.
    """

    def __init__(self, grace_s: float = 0.05) -> None:
        if not grace_s >= 0:
            raise ValueError(f"grace_s is {grace_s}; expected 0 seconds or more")
        self._grace_ns = round(grace_s * 1e9)
        self._lock = threading.Lock()
        self._sent: dict[str, deque[list[int]]] = {}

    def sent(self, replica: str, count: int = 1, *, now_ns: int | None = None) -> None:
        """So many requests are on their way to the replica now."""
        now_ns = time.monotonic_ns() if now_ns is None else now_ns
        bucket = now_ns // _BUCKET_NS
        with self._lock:
            buckets = self._sent.setdefault(replica, deque())
            if buckets and buckets[-1][0] >= bucket:
                buckets[-1][1] += count  # also for a thread that was held up since it read the clock
            else:
                buckets.append([bucket, count])
            while buckets[0][0] < (now_ns - _KEEP_NS) // _BUCKET_NS:
                buckets.popleft()

    def since(self, replica: str, taken_ns: int) -> int:
        """Requests that a reading taken at that instant may not hold."""
        first = (taken_ns - self._grace_ns) // _BUCKET_NS
        total = 0
        with self._lock:
            for bucket, count in reversed(self._sent.get(replica, ())):
                if bucket < first:
                    break
                total += count
        return total

    def load(self, readings: ReplicaReadings, now_ns: int) -> float | None:
        """Requests at the replica: running, waiting, and sent since. None where the engine does not tell both.

        Parameters
        ----------
        readings : ReplicaReadings
            From a snapshot.
        now_ns : int
            `Snapshot.at_ns`: when the snapshot was taken.
        """
        age_s = readings.age_s.get("running")
        if readings.running is None or readings.waiting is None or age_s is None:
            return None
        return readings.running + readings.waiting + self.since(readings.key, now_ns - round(age_s * 1e9))
