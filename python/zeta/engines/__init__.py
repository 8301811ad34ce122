"""Engines behind the OpenAI protocol: simulated ones with true times, and small real ones that compute.

Needs the extra ``serve``. ::

    async with serving(SimulatedEngine("qwen2.5-7b")) as server:    # on this event loop
        ...  # POST server.url + "/v1/chat/completions"

    with start_simulated("qwen2.5-7b@h100-sxm-80gb", speed=10) as engine:   # in a process of its own
        ...

    with embedded.start("base") as engine:                                  # one that computes
        ...
"""

from __future__ import annotations

import dataclasses
from typing import Any

from zeta.engines import embedded
from zeta.engines._http import Server, serving
from zeta.engines._job import Engine, Faults, Gauges, Job, Refusal
from zeta.engines._profiles import Profile
from zeta.engines._serve import EngineProcess, run, start_process
from zeta.engines.embedded import EmbeddedEngine
from zeta.engines.simulated import SimulatedEngine

__all__ = [
    "EmbeddedEngine",
    "Engine",
    "EngineProcess",
    "Faults",
    "Gauges",
    "Job",
    "Profile",
    "Refusal",
    "Server",
    "SimulatedEngine",
    "embedded",
    "run",
    "serving",
    "start_simulated",
]


def start_simulated(
    profile: str,
    *,
    model: str | None = None,
    speed: float = 1.0,
    port: int = 0,
    faults: Faults | None = None,
    **limits: Any,
) -> EngineProcess:
    """A simulated engine in a process of its own.

    Parameters
    ----------
    profile, model, speed
        As `SimulatedEngine` has them.
    port : int
        0 takes a free one.
    faults : Faults, optional
    **limits
        ``kv_tokens``, ``max_batch``, ``max_batched_tokens``, ``tp``: as `Profile.parse` has them.

    Raises
    ------
    NotReadyError
        If it does not start; says why.
    """
    options = {"profile": profile, "model": model, "speed": speed, "port": port, "limits": limits}
    if faults is not None:
        options["faults"] = dataclasses.asdict(faults)
    return start_process("simulated", options)
