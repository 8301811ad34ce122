"""The scheduler's eyes: probes that read devices, host and engines. The unknown is ``None`` with an age, never zero."""

from __future__ import annotations

from zeta.monitor._nvml_probe import NvmlHealth, NvmlProbe
from zeta.monitor.fake import HANG, FakeProbe, Hang, RecordingProbe, Step
from zeta.monitor.probe import (
    DEVICE_FIELDS,
    HOST_FIELDS,
    REPLICA_FIELDS,
    Field,
    Kind,
    Probe,
    Reading,
    fields_of,
    select,
)

__all__ = [
    "DEVICE_FIELDS",
    "HANG",
    "HOST_FIELDS",
    "REPLICA_FIELDS",
    "FakeProbe",
    "Field",
    "Hang",
    "Kind",
    "NvmlHealth",
    "NvmlProbe",
    "Probe",
    "Reading",
    "RecordingProbe",
    "Step",
    "fields_of",
    "select",
]
