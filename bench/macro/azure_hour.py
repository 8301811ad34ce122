"""How much faster than it happened the Azure hour is replayed, on one core: scheduler, engines and metrics included."""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from zeta.traces import EMBEDDED_NAME, Trace

__all__ = ["Unavailable", "measure"]


class Unavailable(Exception):
    """The replay cannot run here, and why."""


def _replay(out: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "zeta.cli", "replay", EMBEDDED_NAME, "--policy", "water-fill", "--json", str(out)]
    core = min(os.sched_getaffinity(0))
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    if done.returncode != 0:
        raise Unavailable(f"`zeta replay {EMBEDDED_NAME}` failed: {done.stderr.strip()[-300:]}")
    document: dict[str, Any] = json.loads(out.read_text())
    return document


def measure(rounds: int) -> dict[str, Any]:
    """Replays the embedded trace at its own rate, pinned to one core.

    Raises
    ------
    Unavailable
        If this build has no replay.
    """
    if importlib.util.find_spec("zeta.sim.replay") is None:
        raise Unavailable("this build has no zeta.sim.replay")
    walls = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            document = _replay(Path(folder) / "out.json")
            walls.append(document["results"][0]["wall_s"])
    trace = Trace.embedded()
    trace.read()
    span_s = trace.summary.duration_s
    return {
        "requests": document["requests"],
        "span_s": span_s,
        "wall_s": walls,
        "times_real_time": span_s / statistics.median(walls),
    }
