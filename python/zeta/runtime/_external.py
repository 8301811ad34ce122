"""From what engines tell of themselves to what a router must leave to others."""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING

from zeta.errors import ClosedError
from zeta.monitor import Board, Field, Kind, Probe, Reading

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from zeta.scheduler import Router

    Loads = NDArray[np.int64]

__all__ = ["ExternalLoads", "others_on"]

_log = logging.getLogger("zeta.monitor")

_IN_FLIGHT, _KV_RESERVED, _KV_TOKENS, _OTHERS, _OTHERS_KV = range(5)


def others_on(
    row: Mapping[str, float | None], in_flight: int, kv_reserved: int, kv_tokens: int
) -> tuple[int, int] | None:
    """Requests and KV tokens that others than the router hold on a replica; None where its engine does not say.

    Parameters
    ----------
    row : mapping of str to (float or None)
        What the engine told: all its requests, the router's among them.
    in_flight, kv_reserved : int
        What the router itself had there when the engine was asked: placed and not ended, and the tokens set aside.
    kv_tokens : int
        The replica's capacity, as the router sees it.

    Notes
    -----
    A request that is on its way to the engine, or whose end the router has not heard of, makes this too small, never
    too great. Tokens are those in use beyond what the router set aside: others', or of answers longer than expected.
    """
    running, waiting, kv_used = row.get("running"), row.get("waiting"), row.get("kv_used")
    if running is None or waiting is None:
        return None
    requests = max(round(running + waiting) - in_flight, 0)
    tokens = 0 if kv_used is None else max(round(kv_used * kv_tokens) - kv_reserved, 0)
    return requests, min(tokens, kv_tokens)


class ExternalLoads:
    """Tells a router, after each reading of a replica's engine, what others hold there.

    Parameters
    ----------
    router : Router
        Held weakly.

    Notes
    -----
    Thread-safe. What was told is taken back when the reading is stale or fails.
    """

    def __init__(self, router: Router) -> None:
        self._router = weakref.ref(router)
        self._lock = threading.Lock()
        self._told: set[str] = set()
        self._is_over = False

    def watched(self, probe: Probe) -> Probe:
        """The same probe, whose readings the router is told of."""
        return _Watched(probe, self)

    def before(self) -> Loads | None:
        """What the router has in flight now, to be handed to `after`."""
        router = self._router()
        if router is None or router.is_closed:
            return None
        with contextlib.suppress(ClosedError):
            return router._replica_loads()
        return None

    def after(self, reading: Reading, before: Loads | None) -> None:
        """The reading began after `before` and is there now."""
        router, now = self._router(), self.before()
        if router is None or before is None or now is None:
            return
        changed: list[tuple[int, int | None, int]] = []
        numbers = router._replica_ids
        with self._lock:
            if self._is_over:  # a read that hung until after the end
                return
            for name, row in reading.rows.items():
                number = numbers.get(name)
                if number is None or number >= min(len(before), len(now)):
                    continue
                # Between asking and answering, requests came and went; taking the most errs towards "ours".
                held = [max(int(before[number, at]), int(now[number, at])) for at in (_IN_FLIGHT, _KV_RESERVED)]
                found = others_on(row, held[0], held[1], int(now[number, _KV_TOKENS]))
                if found is None:
                    self._forget(name, number, now, changed, "its engine does not tell what runs and waits")
                    continue
                self._told.add(name)
                if found != (int(now[number, _OTHERS]), int(now[number, _OTHERS_KV])):
                    changed.append((number, *found))
            self._tell(router, changed)

    def forget_stale(self, board: Board, now_ns: int) -> None:
        """Takes back what was told of replicas whose readings are not known any more."""
        router, now = self._router(), self.before()
        if router is None or now is None:
            return
        changed: list[tuple[int, int | None, int]] = []
        with self._lock:
            for name in tuple(self._told):
                found = board.replica(name, now_ns)
                if found is not None and found.running is not None and found.waiting is not None:
                    continue
                age_s = None if found is None else found.age_s.get("running")
                since = "its reading is gone" if age_s is None else f"its reading is {age_s:.1f} s old"
                self._forget(name, router._replica_ids.get(name), now, changed, since)
            self._tell(router, changed)

    def forget_all(self) -> None:
        """Takes everything back, for good: nobody reads any more."""
        self._is_over = True
        router, now = self._router(), self.before()
        if router is None or now is None:
            return
        changed: list[tuple[int, int | None, int]] = []
        with self._lock:
            for name in tuple(self._told):
                self._forget(name, router._replica_ids.get(name), now, changed, None)
            self._tell(router, changed)

    def reset_after_fork(self) -> None:
        """The child's router has been told nothing."""
        self._lock = threading.Lock()
        self._told = set()

    def _forget(
        self,
        name: str,
        number: int | None,
        now: Loads,
        changed: list[tuple[int, int | None, int]],
        why: str | None,
    ) -> None:
        was_told = name in self._told
        self._told.discard(name)
        if number is None or number >= len(now) or now[number, _OTHERS] < 0:
            return
        changed.append((number, None, 0))
        if was_told and why is not None:
            _log.warning("what others hold on replica %s is not known any more, and not counted: %s", name, why)

    def _tell(self, router: Router, changed: list[tuple[int, int | None, int]]) -> None:
        if changed:
            with contextlib.suppress(ClosedError):
                router._set_external_loads(changed)


class _Watched:
    """A probe of replicas that tells of its readings."""

    def __init__(self, probe: Probe, loads: ExternalLoads) -> None:
        self._probe, self._loads = probe, loads

    @property
    def name(self) -> str:
        """The probe's."""
        return self._probe.name

    @property
    def kind(self) -> Kind:
        """The probe's."""
        return self._probe.kind

    @property
    def fields(self) -> tuple[Field, ...]:
        """The probe's."""
        return self._probe.fields

    @property
    def period_s(self) -> float | None:
        """The probe's; None where it has none."""
        return getattr(self._probe, "period_s", None)

    @property
    def deadline_s(self) -> float | None:
        """The probe's; None where it has none."""
        return getattr(self._probe, "deadline_s", None)

    def read(self) -> Reading:
        """Reads, and tells the router."""
        before = self._loads.before()
        reading = self._probe.read()
        self._loads.after(reading, before)
        return reading

    def close(self) -> None:
        """Closes the probe."""
        self._probe.close()
