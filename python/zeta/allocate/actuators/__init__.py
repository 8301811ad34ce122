"""What carries a plan out. Everything that reaches outside the process is a dry run unless asked for by name."""

from __future__ import annotations

from zeta.allocate.actuators.audit import Audited, AuditedResidency, AuditLog
from zeta.allocate.actuators.cpu_weight import CpuWeightActuator
from zeta.allocate.actuators.delay import DelayMeter
from zeta.allocate.actuators.dry import DryRunActuator
from zeta.allocate.actuators.engines import (
    LlamaCppRouterActuator,
    OllamaActuator,
    SglangMemoryActuator,
    VllmSleepActuator,
)
from zeta.allocate.actuators.fake import FakeActuator, FakeResidency
from zeta.allocate.actuators.protocol import Actuator, Applied, Change
from zeta.allocate.actuators.rate_limit import RateLimited
from zeta.allocate.actuators.replica_targets import ReplicaTargetActuator
from zeta.allocate.actuators.residency import ResidencyActuator, Swap, swap

__all__ = [
    "Actuator",
    "Applied",
    "AuditLog",
    "Audited",
    "AuditedResidency",
    "Change",
    "CpuWeightActuator",
    "DelayMeter",
    "DryRunActuator",
    "FakeActuator",
    "FakeResidency",
    "LlamaCppRouterActuator",
    "OllamaActuator",
    "RateLimited",
    "ReplicaTargetActuator",
    "ResidencyActuator",
    "SglangMemoryActuator",
    "Swap",
    "VllmSleepActuator",
    "swap",
]
