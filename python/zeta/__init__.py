"""Decides which waiting request goes to which model next, and how much capacity each model gets."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if sys.platform != "linux":
    raise ImportError(
        f"zeta runs on Linux (x86-64 or aarch64, glibc); this is {sys.platform}. "
        "Run it in a Linux container or virtual machine."
    )

from zeta._core import DeadlineQueue, PriorityQueue, build_info, choose_replica, latest_start_ns, suitability
from zeta._paths import get_cmake_dir, get_include
from zeta._version import __version__
from zeta.config import Device, Model, Replica, Tenant, Weights
from zeta.errors import Rejected, UnknownTicket, ZetaError
from zeta.scheduler import LogReplay, Router, replay_log, set_net_loader
from zeta.types import Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from zeta._core import OnnxNet
    from zeta.runtime import AllocationLoop

__all__ = [
    "AllocationLoop",
    "DeadlineQueue",
    "Device",
    "LogReplay",
    "Model",
    "Outcome",
    "PriorityQueue",
    "Rejected",
    "Replica",
    "Router",
    "Tenant",
    "UnknownTicket",
    "Weights",
    "ZetaError",
    "__version__",
    "build_info",
    "choose_replica",
    "get_cmake_dir",
    "get_include",
    "latest_start_ns",
    "replay_log",
    "suitability",
]


def __getattr__(name: str) -> Any:
    if name == "AllocationLoop":  # its room imports the monitor's
        from zeta.runtime import AllocationLoop

        return AllocationLoop
    raise AttributeError(f"module 'zeta' has no attribute {name!r}")


def _load_net(directory: Path, models: int) -> OnnxNet:
    from zeta.runtime import load_net

    return load_net(directory, models)


set_net_loader(_load_net)
