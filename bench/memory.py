"""Bytes that one queued request costs, from the size of a process: ``python -m bench.memory`` prints them."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
from pathlib import Path

from bench.baselines.zeta_router import build, fill
from bench.workload import Scale

__all__ = ["bytes_per_queued_request"]

_SMALL, _LARGE = 100_000, 600_000
# Every large array is mapped on its own and given back when freed, so that none hides in another's leavings.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


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

    Counts all that the core keeps for it: slot, heap node, timer node, free list, ring of endings. Measured in a
    process of its own.
    """
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "bench.memory"],
        env=os.environ | _MALLOC,
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


if __name__ == "__main__":
    _grown(1_000)  # what is loaded once
    print((_grown(_LARGE) - _grown(_SMALL)) / (_LARGE - _SMALL))
