"""The scheduler's eyes: probes that read devices, host and engines. The unknown is ``None`` with an age, never zero."""

from __future__ import annotations

from zeta.monitor._nvml_probe import NvmlHealth, NvmlProbe
from zeta.monitor.credit import InFlightCredit
from zeta.monitor.engine import EngineProbe
from zeta.monitor.engine_fleet import EnginesProbe
from zeta.monitor.fake import HANG, FakeProbe, Hang, RecordingProbe, Step
from zeta.monitor.host import HostProbe
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
from zeta.monitor.sampler import ProbeReport, ProbeState, Sampler
from zeta.monitor.snapshot import Board, DeviceReadings, HostReadings, ReplicaReadings, Snapshot

__all__ = [
    "DEVICE_FIELDS",
    "HANG",
    "HOST_FIELDS",
    "REPLICA_FIELDS",
    "Board",
    "DeviceReadings",
    "EngineProbe",
    "EnginesProbe",
    "FakeProbe",
    "Field",
    "Hang",
    "HostProbe",
    "HostReadings",
    "InFlightCredit",
    "Kind",
    "NvmlHealth",
    "NvmlProbe",
    "Probe",
    "ProbeReport",
    "ProbeState",
    "Reading",
    "RecordingProbe",
    "ReplicaReadings",
    "Sampler",
    "Snapshot",
    "Step",
    "fields_of",
    "select",
]
