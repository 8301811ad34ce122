"""Decides which waiting request goes to which replica next: the router, and the settings of its core."""

from __future__ import annotations

from zeta._core import Lease
from zeta.scheduler._decision_log import LogReplay, replay_log
from zeta.scheduler._native_config import Names, native_config, resolve
from zeta.scheduler._net import SHIPPED_NET, load_net, set_net_loader
from zeta.scheduler._router import Router

__all__ = [
    "SHIPPED_NET",
    "Lease",
    "LogReplay",
    "Names",
    "Router",
    "load_net",
    "native_config",
    "replay_log",
    "resolve",
    "set_net_loader",
]
