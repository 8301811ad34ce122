"""Settings: frozen dataclasses with every default, and the files and variables that change them."""

from __future__ import annotations

from zeta.config._convert import from_mapping
from zeta.config._load import ENV_PREFIX, load, loads
from zeta.config._schema import (
    ADMISSIONS,
    COLOCATIONS,
    ENGINES,
    MAX_DEVICES,
    MAX_MODELS,
    MAX_REPLICAS,
    ORDERS,
    POLICIES,
    Admission,
    Colocation,
    Config,
    Device,
    Engine,
    Model,
    Order,
    Policy,
    Replica,
    Scheduler,
    Tenant,
    Weights,
    default_fleet,
)

__all__ = [
    "ADMISSIONS",
    "COLOCATIONS",
    "ENGINES",
    "ENV_PREFIX",
    "MAX_DEVICES",
    "MAX_MODELS",
    "MAX_REPLICAS",
    "ORDERS",
    "POLICIES",
    "Admission",
    "Colocation",
    "Config",
    "Device",
    "Engine",
    "Model",
    "Order",
    "Policy",
    "Replica",
    "Scheduler",
    "Tenant",
    "Weights",
    "default_fleet",
    "from_mapping",
    "load",
    "loads",
]
