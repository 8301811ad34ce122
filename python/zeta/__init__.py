"""Decides which waiting request goes to which model next, and how much capacity each model gets."""

from __future__ import annotations

import sys

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
from zeta.scheduler import LogReplay, Router, replay_log
from zeta.types import Outcome

__all__ = [
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
