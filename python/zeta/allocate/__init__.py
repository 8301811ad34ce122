"""How much capacity each model gets: the pure tick, its policies, and what carries a plan out."""

from __future__ import annotations

from zeta.allocate.actuators import Actuator, Applied, Change, DryRunActuator, FakeActuator
from zeta.allocate.loop import LoadForecast, ModelDemand, ModelShare, Plan, Snapshot, tick
from zeta.allocate.policies import POLICIES, REASONS, PolicyConfig
from zeta.allocate.scaling import ModelLoad, Scaling, ScalingConfig, scale

__all__ = [
    "POLICIES",
    "REASONS",
    "Actuator",
    "Applied",
    "Change",
    "DryRunActuator",
    "FakeActuator",
    "LoadForecast",
    "ModelDemand",
    "ModelLoad",
    "ModelShare",
    "Plan",
    "PolicyConfig",
    "Scaling",
    "ScalingConfig",
    "Snapshot",
    "scale",
    "tick",
]
