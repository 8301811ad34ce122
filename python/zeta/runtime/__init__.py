"""Where threads start."""

from __future__ import annotations

from zeta.runtime._actuation import ActuationDriver, DriverReport, plans_of
from zeta.runtime._allocation import AllocationLoop, LoopReport, Policy
from zeta.runtime._foresight import LiveForecast
from zeta.runtime._monitor import Monitor, examine
from zeta.runtime._net import load_net
from zeta.runtime._remote import RemoteExchange

__all__ = [
    "ActuationDriver",
    "AllocationLoop",
    "DriverReport",
    "LiveForecast",
    "LoopReport",
    "Monitor",
    "Policy",
    "RemoteExchange",
    "examine",
    "load_net",
    "plans_of",
]
