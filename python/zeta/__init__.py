"""Decides which waiting request goes to which model next, and how much capacity each model gets."""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError(
        f"zeta runs on Linux (x86-64 or aarch64, glibc); this is {sys.platform}. "
        "Run it in a Linux container or virtual machine."
    )

from zeta._core import build_info
from zeta._paths import get_cmake_dir, get_include
from zeta._version import __version__
from zeta.config import Device, Model, Replica, Tenant
from zeta.errors import Rejected, UnknownTicket, ZetaError
from zeta.scheduler import LogReplay, Router, replay_log
from zeta.types import Outcome

__all__ = [
    "Device",
    "LogReplay",
    "Model",
    "Outcome",
    "Rejected",
    "Replica",
    "Router",
    "Tenant",
    "UnknownTicket",
    "ZetaError",
    "__version__",
    "build_info",
    "get_cmake_dir",
    "get_include",
    "replay_log",
]
