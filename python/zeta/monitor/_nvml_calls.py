"""Each driver call that the monitor makes, with what may come back. Runs in the NVML child only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from zeta.monitor._nvml_wire import ANY, ANYTHING, MAX_DEVICES, Crumb

__all__ = ["Calls", "Missing", "NotMade", "code_of", "reason"]

Values = tuple[float, ...]

# Codes that say "not here" or "not now"; after any other the handle is not trusted and the device is opened again.
# 3 not supported, 4 no permission, 13 function not found, 21 no data, 25 version mismatch, 26 deprecated, 27 not ready
_HANDLE_IS_GOOD_AFTER: Final = frozenset({3, 4, 13, 21, 25, 26, 27})
# The library or the bindings lack the call: an older name may do.
_TRY_OLDER_NAME_AFTER: Final = frozenset({13, 25, 26})

_UUID: Final = re.compile(r"(GPU|MIG)-[0-9A-Za-z][0-9A-Za-z./-]{6,88}")
_VERSION: Final = re.compile(r"[0-9]+(\.[0-9]+){1,3}")
_PCI: Final = re.compile(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]")

_MAX_BYTES: Final = 1 << 46
_MAX_POWER_MW: Final = 20_000_000
_MAX_ENERGY_MJ: Final = 1 << 60
_MAX_CLOCK_MHZ: Final = 20_000
_MAX_PID: Final = 1 << 22
_MAX_PROCESSES: Final = 4096
_REASON_BITS: Final = 16  # eleven are defined

_CLOCK_SM: Final = 1
_CLOCK_MEMORY: Final = 2
_SENSOR_DIE: Final = 0
_MIG_IS_ON: Final = 1


class Missing(Exception):
    """The driver answered with what cannot be."""


class NotMade(Exception):
    """The call was left out on the host's word: it hung or crashed before."""


def code_of(error: BaseException) -> int | None:
    """NVML's error code, where the error carries one."""
    value = getattr(error, "value", None)
    return value if isinstance(value, int) else None


def reason(error: BaseException) -> str:
    """Why a value is missing. Never by str(): pynvml asks the driver for the text of codes that it does not know."""
    if isinstance(error, NotMade | Missing):
        return str(error)
    code = code_of(error)
    kind = type(error).__name__
    if code is None:
        return f"{kind}: {error}"[:200]
    return f"NVML error {code} ({kind.removeprefix('NVMLError_')})"


def spoils_handle(error: BaseException) -> bool:
    """Whether the device should be opened again after this error."""
    return not isinstance(error, NotMade) and code_of(error) not in _HANDLE_IS_GOOD_AFTER


class _Named:
    """A function under its newest name that works; older names follow where library or bindings lack it."""

    def __init__(self, bindings: Any, *names: str) -> None:
        self._bindings = bindings
        self._names = [name for name in names if hasattr(bindings, name)] or [names[-1]]
        self._first = 0

    def __call__(self, *args: Any) -> Any:
        for at in range(self._first, len(self._names)):
            try:
                answer = getattr(self._bindings, self._names[at])(*args)
            except Exception as error:
                is_absent = code_of(error) in _TRY_OLDER_NAME_AFTER or (
                    type(error).__name__ == "NVMLLibraryMismatchError"
                )
                if is_absent and at + 1 < len(self._names):
                    continue
                if is_absent:
                    self._first = 0  # none is there now; next time all are tried
                raise
            self._first = at
            return answer
        raise AssertionError("a function without a name")


class Calls:
    """The driver as the monitor sees it: each call leaves its crumb, and each answer is checked.

    Parameters
    ----------
    bindings : module
        ``pynvml`` or what looks like it.
    crumb : Crumb
        Where the host reads which call did not come back.
    """

    def __init__(self, bindings: Any, crumb: Crumb) -> None:
        self._nvml = bindings
        self._crumb = crumb
        self._uuid = ""
        self._left_out: frozenset[tuple[str, str]] = frozenset()
        self._temperature = _Named(bindings, "nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature")
        self._reasons = _Named(
            bindings, "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"
        )
        self._processes = _Named(
            bindings,
            "nvmlDeviceGetComputeRunningProcesses_v3",
            "nvmlDeviceGetComputeRunningProcesses_v2",
            "nvmlDeviceGetComputeRunningProcesses",
        )
        self.last_processes: list[tuple[int, int | None]] | None = None
        self._readers: Mapping[str, Callable[[Any], Values]] = {
            "utilisation": self._read_utilisation,
            "memory": self._read_memory,
            "power": self._read_power,
            "power_limit": self._read_power_limit,
            "energy": self._read_energy,
            "sm_clock": self._read_sm_clock,
            "sm_clock_max": self._read_sm_clock_max,
            "memory_clock": self._read_memory_clock,
            "temperature": self._read_temperature,
            "throttle_reasons": self._read_throttle_reasons,
            "processes": self._read_processes,
        }

    def leave_out(self, pairs: Iterable[Sequence[str]]) -> None:
        """From now on the calls of these pairs of device and call are not made; `ANY` stands for all."""
        self._left_out = frozenset((uuid, call) for uuid, call in pairs)

    def about(self, uuid: str) -> None:
        """The calls that follow concern this device; ``""`` while it is not known."""
        self._uuid = uuid
        self._crumb.about(uuid)

    def done(self) -> None:
        """The driver is left alone now."""
        self._crumb.enter("")

    # --- the library ---------------------------------------------------------------------------------------------

    def init(self) -> None:
        """Loads the library and starts it. Once in the life of a process."""
        self._make("init", self._nvml.nvmlInit)

    def driver_version(self) -> str:
        """Such as ``"570.86.15"``."""
        version = _text(self._make("driver", self._nvml.nvmlSystemGetDriverVersion))
        if not _VERSION.fullmatch(version):
            raise Missing(f"the driver calls its version {version[:40]!r}; expected numbers and dots")
        return version

    # --- finding devices -----------------------------------------------------------------------------------------

    def count(self) -> int:
        """GPUs, lost ones sometimes included."""
        count = self._make("count", self._nvml.nvmlDeviceGetCount)
        if not 0 <= count <= MAX_DEVICES:
            raise Missing(f"the driver counts {count} GPUs; expected at most {MAX_DEVICES}")
        return int(count)

    def by_index(self, index: int) -> Any:
        """The handle of the GPU that has this index now."""
        return self._make("by_index", self._nvml.nvmlDeviceGetHandleByIndex, index)

    def by_uuid(self, uuid: str) -> Any:
        """The handle of the GPU or MIG device."""
        # Older bindings take bytes only, newer ones encode what they are given.
        return self._make("by_uuid", self._nvml.nvmlDeviceGetHandleByUUID, uuid.encode())

    def uuid(self, handle: Any) -> str:
        """The device's UUID, as the driver says now."""
        uuid = _text(self._make("uuid", self._nvml.nvmlDeviceGetUUID, handle))
        if not _UUID.fullmatch(uuid):
            raise Missing(f"the driver names a device {uuid[:40]!r}; expected GPU-... or MIG-...")
        return uuid

    def name(self, handle: Any) -> str:
        """The product's name."""
        name = _text(self._make("name", self._nvml.nvmlDeviceGetName, handle))
        if not name or not name.isprintable():
            raise Missing("the driver gives no printable product name")
        return name

    def pci_bus_id(self, handle: Any) -> str:
        """Such as ``"00000000:3B:00.0"``."""
        bus_id = _text(self._make("pci", self._nvml.nvmlDeviceGetPciInfo, handle).busId)
        if not _PCI.fullmatch(bus_id):
            raise Missing(f"the driver gives the bus id {bus_id[:40]!r}; expected domain:bus:device.function")
        return bus_id

    def is_partitioned(self, handle: Any) -> bool:
        """Whether MIG is on, which leaves the whole GPU without a utilisation of its own."""
        mode, _ = self._make("mig_mode", self._nvml.nvmlDeviceGetMigMode, handle)
        return _within(mode, 0, _MIG_IS_ON, "as MIG mode") == _MIG_IS_ON

    def mig_count(self, handle: Any) -> int:
        """The most MIG devices that the GPU can have."""
        count = self._make("mig_count", self._nvml.nvmlDeviceGetMaxMigDeviceCount, handle)
        if not 0 <= count <= MAX_DEVICES:
            raise Missing(f"the driver offers {count} MIG devices; expected at most {MAX_DEVICES}")
        return int(count)

    def mig_device(self, handle: Any, index: int) -> Any:
        """The handle of one MIG device; NVML error 6 where the place is empty."""
        return self._make("mig_device", self._nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index)

    # --- reading one ---------------------------------------------------------------------------------------------

    def read(self, call: str, handle: Any) -> Values:
        """The values of the call's fields; raises where there are none."""
        return self._readers[call](handle)

    def _read_utilisation(self, handle: Any) -> Values:
        rates = self._make("utilisation", self._nvml.nvmlDeviceGetUtilizationRates, handle)
        return _within(rates.gpu, 0, 100, "% busy") / 100, _within(rates.memory, 0, 100, "% busy memory") / 100

    def _read_memory(self, handle: Any) -> Values:
        memory = self._make("memory", self._nvml.nvmlDeviceGetMemoryInfo, handle)
        total = _within(memory.total, 1, _MAX_BYTES, "bytes of memory")
        return _within(memory.used, 0, total, "bytes used"), total

    def _read_power(self, handle: Any) -> Values:
        return (_within(self._make("power", self._nvml.nvmlDeviceGetPowerUsage, handle), 0, _MAX_POWER_MW, "mW") / 1e3,)

    def _read_power_limit(self, handle: Any) -> Values:
        limit = self._make("power_limit", self._nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
        return (_within(limit, 1, _MAX_POWER_MW, "mW allowed") / 1e3,)

    def _read_energy(self, handle: Any) -> Values:
        energy = self._make("energy", self._nvml.nvmlDeviceGetTotalEnergyConsumption, handle)
        return (_within(energy, 0, _MAX_ENERGY_MJ, "mJ") / 1e3,)

    def _read_sm_clock(self, handle: Any) -> Values:
        return (self._clock("sm_clock", self._nvml.nvmlDeviceGetClockInfo, handle, _CLOCK_SM),)

    def _read_sm_clock_max(self, handle: Any) -> Values:
        return (self._clock("sm_clock_max", self._nvml.nvmlDeviceGetMaxClockInfo, handle, _CLOCK_SM),)

    def _read_memory_clock(self, handle: Any) -> Values:
        return (self._clock("memory_clock", self._nvml.nvmlDeviceGetClockInfo, handle, _CLOCK_MEMORY),)

    def _clock(self, call: str, function: Callable[..., Any], handle: Any, which: int) -> float:
        return _within(self._make(call, function, handle, which), 0, _MAX_CLOCK_MHZ, "MHz")

    def _read_temperature(self, handle: Any) -> Values:
        return (_within(self._make("temperature", self._temperature, handle, _SENSOR_DIE), 1, 200, "°C"),)

    def _read_throttle_reasons(self, handle: Any) -> Values:
        mask = self._make("throttle_reasons", self._reasons, handle)
        return (_within(mask, 0, (1 << _REASON_BITS) - 1, "as reasons"),)

    def _read_processes(self, handle: Any) -> Values:
        self.last_processes = None
        found = self._make("processes", self._processes, handle)
        if len(found) > _MAX_PROCESSES:
            raise Missing(f"the driver lists {len(found)} processes; expected at most {_MAX_PROCESSES}")
        listed = []
        for each in found:
            # A container that does not see the process has its pid as 0; the memory is None where it is not told.
            pid = int(_within(each.pid, 0, _MAX_PID, "as a pid"))
            used = each.usedGpuMemory
            listed.append((pid, None if used is None else int(_within(used, 0, _MAX_BYTES, "bytes of a process"))))
        self.last_processes = listed
        return (float(len(listed)),)

    def _make(self, call: str, function: Callable[..., Any], *args: Any) -> Any:
        if self._left_out and not self._left_out.isdisjoint(
            ((self._uuid, call), (self._uuid, ANY), (ANY, call), ANYTHING)
        ):
            raise NotMade("not asked: this call hung or crashed the driver; it is tried again from time to time")
        self._crumb.enter(call)
        return function(*args)


def _within(value: Any, least: float, most: float, unit: str) -> float:
    if not isinstance(value, int | float) or not least <= value <= most:
        raise Missing(f"the driver says {value!r:.40} {unit}; expected {least} to {most}")
    return float(value)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
