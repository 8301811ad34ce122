"""What the engines that zeta has measurements of cost: step times, memory, and service models fitted to them."""

from __future__ import annotations

from zeta.engine_tables._kernel_times import StepConstants
from zeta.engine_tables._tables import (
    EngineMemory,
    ServiceModel,
    device_kinds,
    device_memory_bytes,
    engine_memory,
    fit_service_model,
    kv_tokens_on_device,
    models_on,
    profile_step_table,
    service_model,
    serving_constants,
    step_table,
)

__all__ = [
    "EngineMemory",
    "ServiceModel",
    "StepConstants",
    "device_kinds",
    "device_memory_bytes",
    "engine_memory",
    "fit_service_model",
    "kv_tokens_on_device",
    "models_on",
    "profile_step_table",
    "service_model",
    "serving_constants",
    "step_table",
]
