"""Bytes that one queued request costs, from the process's own size."""

from __future__ import annotations

import gc
import resource
from pathlib import Path

from bench.baselines.zeta_router import build, fill
from bench.workload import Scale

__all__ = ["bytes_per_queued_request"]

_SMALL, _LARGE = 300_000, 900_000  # each array is mapped on its own, so that freeing one leaves no room for the next


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _grown(depth: int) -> int:
    before = _resident()
    router = build(Scale(1, depth), max_queued=depth)
    fill(router, depth)
    grown = _resident() - before
    router.close()
    return grown


def bytes_per_queued_request() -> float:
    """Growth of the resident set per request, between two routers that are full: fixed parts cancel out.

    Counts all that the core keeps: slot, heap node, timer node, free list.
    """
    return (_grown(_LARGE) - _grown(_SMALL)) / (_LARGE - _SMALL)
