"""GPU readings by NVIDIA's driver: what runs in the child process, and the one place that imports pynvml.

The host's side is `NvmlProbe`, which starts this child and reads from it. No driver is ever called in the host's own
process: it may hang, crash, or write where it should not. The child in turn believes no answer: a device is asked for
its UUID after each reading, a value must be possible, and whatever fails makes one field unknown.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import resource
import select
import socket
import sys
import threading
import time
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from zeta.monitor._nvml_calls import Calls, Missing, code_of, reason, spoils_handle
from zeta.monitor._nvml_wire import CALL_FIELDS, MAX_DEVICES, SLOW_CALLS, VALUES, WHOLE, Crumb, Frames, frame

if TYPE_CHECKING:
    from zeta.monitor._nvml_probe import NvmlHealth, NvmlProbe

__all__ = ["NvmlHealth", "NvmlProbe"]

_NOT_FOUND: Final = 6
_KNOWS_NO_MIG: Final = frozenset({3, 13})  # not supported; no such function
_DATA_BYTES: Final = 4 << 30  # a driver that claims to list 2^32 processes must not take the machine's memory
_HOST_CHECK_MS: Final = 1000

_Row = tuple[dict[str, tuple[float, ...]], dict[str, str]]
"""What was read of a device by call, and why the rest was not."""

_FAST_CALLS: Final = [call for call in CALL_FIELDS if call not in SLOW_CALLS]
_NOTHING: Final = {call: (math.nan,) * len(names) for call, names in CALL_FIELDS.items()}

_HINTS: Final = {
    4: "the device files /dev/nvidia* may not be opened by this user",
    9: "no NVIDIA kernel driver is loaded here; load it, or start the container with GPUs (docker run --gpus all)",
    12: "no libnvidia-ml.so.1 here; install NVIDIA's driver, or start the container with GPUs (docker run --gpus all)",
    18: "driver and library differ in version; restart the machine or the container after a driver update",
    999: "in a container that has lost its GPUs only a restart of the container helps",
}


def __getattr__(name: str) -> Any:
    # The host's side is found here as well, and never loaded by the child.
    if name in __all__:
        from zeta.monitor import _nvml_probe

        return getattr(_nvml_probe, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(slots=True)
class _Device:
    uuid: str
    parent: str | None = None
    handle: Any = None
    index: int | None = None
    name: str | None = None
    pci_bus_id: str | None = None
    is_partitioned: bool | None = None
    slow_values: dict[str, tuple[float, ...]] = field(default_factory=dict)
    slow_missing: dict[str, str] = field(default_factory=dict)
    processes: list[tuple[int, int | None]] | None = None
    has_slow: bool = False
    told: dict[str, Any] | None = None

    @property
    def has_utilisation(self) -> bool:
        """The driver defines none for MIG devices, nor for the GPU that they are parts of."""
        return self.parent is None and self.is_partitioned is False


class Watch:
    """The devices that one child watches, across lost handles and changed indices.

    Parameters
    ----------
    calls : Calls
        The driver.
    known : iterable of (str, str or None)
        UUID, and UUID of the GPU that it is part of, of devices that an earlier child saw.
    """

    def __init__(self, calls: Calls, known: Iterable[tuple[str, str | None]] = ()) -> None:
        self._calls = calls
        self._devices = {uuid: _Device(uuid, parent) for uuid, parent in known}
        self._first = 0
        self._discovery: str | None = None
        self._has_discovered = False
        self._told_uuids: list[str] = []
        self._told_driver: str | None = None
        self.driver_version: str | None = None

    def open(self) -> None:
        """Finds and opens everything; after `Calls.init`."""
        self.discover()
        for device in self._devices.values():
            if device.handle is None:
                with contextlib.suppress(Exception):
                    self._open(device)

    @property
    def count(self) -> int:
        """Devices known, readable or not."""
        return len(self._devices)

    @property
    def discovery(self) -> str | None:
        """Why the last look for devices was incomplete."""
        return self._discovery

    def poll(self, budget_s: float, is_slow: bool, is_discovering: bool) -> tuple[dict[str, Any], array[float]]:
        """Reads every device; those that the budget does not reach have no values this time and go first next time."""
        until = time.monotonic() + budget_s
        self._has_discovered = False
        if is_discovering or not self._devices:
            self.discover()
        if self.driver_version is None:
            self._calls.about("")
            with contextlib.suppress(Exception):
                self.driver_version = self._calls.driver_version()
        devices = list(self._devices.values())
        first = self._first % len(devices) if devices else 0
        rows: dict[str, _Row] = {}
        unreached = None
        for device in devices[first:] + devices[:first]:
            if time.monotonic() < until:
                rows[device.uuid] = self._read(device, is_slow)
            else:
                unreached = unreached or device.uuid
                rows[device.uuid] = {}, {WHOLE: "the driver is too slow to read every device in time"}
        if unreached:
            self._first = [device.uuid for device in devices].index(unreached)
        self._calls.done()
        return self._answer(devices, rows)

    def _answer(self, devices: list[_Device], rows: dict[str, _Row]) -> tuple[dict[str, Any], array[float]]:
        """Every value behind room for the number and the time; of the rest only what has changed."""
        flat = array("d", (0.0, 0.0, all(WHOLE in missing for _, missing in rows.values())))
        told: dict[str, dict[str, Any]] = {}
        for device in devices:
            values, missing = rows[device.uuid]
            for call, nothing in _NOTHING.items():
                flat.extend(values.get(call, nothing))
            now = {
                "parent": device.parent,
                "index": device.index,
                "name": device.name,
                "pci": device.pci_bus_id,
                "missing": missing,
                "processes": device.processes,
            }
            if now != device.told:
                told[device.uuid] = device.told = now
        answer: dict[str, Any] = {"told": told} if told else {}
        if self.driver_version != self._told_driver:
            self._told_driver = answer["driver"] = self.driver_version
        uuids = [device.uuid for device in devices]
        if uuids != self._told_uuids:
            self._told_uuids = answer["uuids"] = uuids
        return answer, flat

    def discover(self) -> None:
        """Looks for devices that are not known yet, and for handles of those that lost theirs."""
        self._has_discovered = True
        self._discovery = None
        found: dict[str, _Device] = {}
        twice: set[str] = set()

        def add(device: _Device) -> None:
            if device.uuid in found:
                twice.add(device.uuid)
                self._discovery = f"the driver names two devices {device.uuid}"
            found[device.uuid] = device

        self._calls.about("")
        try:
            count = self._calls.count()
        except Exception as error:
            self._discovery = reason(error)
            return
        for index in range(count):
            self._calls.about(f"#{index}")
            try:
                handle = self._calls.by_index(index)
                gpu = _Device(self._calls.uuid(handle), handle=handle, index=index)
            except Exception as error:
                self._discovery = f"GPU {index}: {reason(error)}"
                continue
            add(gpu)
            self._calls.about(gpu.uuid)
            self._find_parts(gpu, add)
        self._calls.about("")
        self._calls.done()
        self._merge(found, twice)

    def _find_parts(self, gpu: _Device, add: Any) -> None:
        known = self._devices.get(gpu.uuid)
        gpu.is_partitioned = known.is_partitioned if known else None
        if why := self._ask_mode(gpu):
            self._discovery = f"{gpu.uuid}: {why}"  # and its parts are not forgotten
            return
        if not gpu.is_partitioned:
            return
        try:
            places = self._calls.mig_count(gpu.handle)
        except Exception as error:
            self._discovery = f"{gpu.uuid}: {reason(error)}"
            return
        for place in range(places):
            try:
                handle = self._calls.mig_device(gpu.handle, place)
                add(_Device(self._calls.uuid(handle), parent=gpu.uuid, handle=handle))
            except Exception as error:
                if code_of(error) != _NOT_FOUND:
                    self._discovery = f"{gpu.uuid}, MIG device {place}: {reason(error)}"

    def _ask_mode(self, gpu: _Device) -> str | None:
        """Whether the GPU is in MIG mode; if it does not say, what was known holds and the reason is returned."""
        try:
            gpu.is_partitioned = self._calls.is_partitioned(gpu.handle)
        except Exception as error:
            if code_of(error) not in _KNOWS_NO_MIG or gpu.is_partitioned:
                return reason(error)
            gpu.is_partitioned = False
        return None

    def _merge(self, found: dict[str, _Device], twice: set[str]) -> None:
        for uuid, seen in found.items():
            if uuid in twice:
                continue
            device = self._devices.get(uuid)
            if device is None:
                if len(self._devices) < MAX_DEVICES:
                    self._devices[uuid] = seen
                continue
            device.index, device.is_partitioned = seen.index, seen.is_partitioned
            if device.handle is None:
                device.handle = seen.handle
        for device in list(self._devices.values()):
            if device.uuid in found:
                continue
            device.index = None
            # Parts come and go; a GPU that is gone was lost, and stays listed as unknown.
            if device.parent is not None and self._discovery is None:
                del self._devices[device.uuid]

    def _open(self, device: _Device) -> None:
        """A new handle by UUID. An index proves nothing: it moves when another GPU is lost."""
        device.handle = None
        handle = self._calls.by_uuid(device.uuid)
        self._check(device, handle)
        device.handle = handle

    def _check(self, device: _Device, handle: Any) -> None:
        uuid = self._calls.uuid(handle)
        if uuid != device.uuid:
            raise Missing(f"its handle leads to {uuid} now")

    def _read(self, device: _Device, is_slow: bool) -> _Row:
        self._calls.about(device.uuid)
        try:
            self._ensure_handle(device)
        except Exception as error:
            return self._lost(device, error)
        if device.is_partitioned is None and device.parent is None:
            self._ask_mode(device)  # the look for devices did not come that far
        values: dict[str, tuple[float, ...]] = {}
        missing: dict[str, str] = {}
        is_spoilt = False
        is_slow = is_slow or not device.has_slow
        for call in CALL_FIELDS if is_slow else _FAST_CALLS:
            if call == "utilisation" and not device.has_utilisation:
                missing[call] = "not defined under MIG" if device.is_partitioned or device.parent else "MIG may be on"
                continue
            try:
                answer = self._calls.read(call, device.handle)
            except Exception as error:
                is_spoilt |= spoils_handle(error)
                self._keep(device, call, None, missing, reason(error))
            else:
                self._keep(device, call, answer, values, answer)
            if call == "processes":
                device.processes = self._calls.last_processes
        self._name(device)
        try:
            self._check(device, device.handle)
        except Exception as error:
            return self._lost(device, error)
        device.has_slow = True
        if is_spoilt:
            device.handle = None
        return device.slow_values | values, device.slow_missing | missing

    def _ensure_handle(self, device: _Device) -> None:
        if device.handle is not None:
            return  # checked after the last reading, and checked again after the next
        try:
            self._open(device)
        except Exception:
            # By index then; what is found there says its UUID too.
            if not self._has_discovered:
                self.discover()
            self._calls.about(device.uuid)
            if device.handle is None:
                raise

    def _lost(self, device: _Device, error: Exception) -> _Row:
        """Nothing that was read may be believed: the handle may have led to another device."""
        device.handle = None
        device.slow_values.clear()
        device.slow_missing.clear()
        device.has_slow = False
        device.processes = None
        return {}, {WHOLE: reason(error)}

    def _keep(self, device: _Device, call: str, answer: Any, into: dict[str, Any], what: Any) -> None:
        if call not in SLOW_CALLS:
            into[call] = what
            return
        device.slow_values.pop(call, None)
        device.slow_missing.pop(call, None)
        (device.slow_missing if answer is None else device.slow_values)[call] = what

    def _name(self, device: _Device) -> None:
        if device.name is None:
            with contextlib.suppress(Exception):
                device.name = self._calls.name(device.handle)
        if device.pci_bus_id is None and device.parent is None:
            with contextlib.suppress(Exception):
                device.pci_bus_id = self._calls.pci_bus_id(device.handle)


class _NothingToRead(Exception):
    """There is no driver, no library or no GPU; the text says what to do."""


def _start(
    crumb: Crumb, known: Iterable[tuple[str, str | None]], leave_out: Iterable[tuple[str, str]]
) -> tuple[Calls, Watch]:
    try:
        import pynvml
    except Exception as error:
        raise _NothingToRead(
            f"NVIDIA's Python bindings do not load ({type(error).__name__}: {error}); pip install nvidia-ml-py"
        ) from error
    calls = Calls(pynvml, crumb)
    calls.leave_out(leave_out)
    calls.about("")
    try:
        calls.init()
    except Exception as error:
        hint = _HINTS.get(code_of(error) or 0, "nvidia-smi on the same machine says more")
        raise _NothingToRead(f"the driver does not start: {reason(error)}; {hint}") from error
    watch = Watch(calls, known)
    watch.open()
    calls.about("")
    calls.done()
    if watch.count == 0:
        raise _NothingToRead(
            "the driver names no GPU here"
            + (f" ({watch.discovery})" if watch.discovery else "; give the machine or the container one")
        )
    return calls, watch


def main() -> None:
    """The child: ``python -c ... HOST_PID CRUMB_FD`` with a socket to the host as standard input."""
    host_pid, crumb_fd = int(sys.argv[-2]), int(sys.argv[-1])
    wire = socket.socket(fileno=os.dup(0))
    _set_limits()
    threading.Thread(target=_die_with_host, args=(wire.fileno(), host_pid), daemon=True).start()
    crumb = Crumb(crumb_fd)
    frames = Frames()
    start = _receive(wire, frames)
    try:
        calls, watch = _start(crumb, start["known"], start["leave_out"])
    except _NothingToRead as nothing:
        wire.sendall(frame({"unavailable": str(nothing)}))
        return
    gc.freeze()  # what was made so far stays: no collection walks over it again
    wire.sendall(frame({"ready": watch.count}))
    while True:
        request = _receive(wire, frames)
        began = time.monotonic()
        number, budget_s, is_slow, is_discovering = request[VALUES]
        if "leave_out" in request:
            calls.leave_out(request["leave_out"])
        answer, values = watch.poll(budget_s, bool(is_slow), bool(is_discovering))
        values[0], values[1] = number, round((time.monotonic() - began) * 1e6)
        wire.sendall(frame(answer, values))


def _receive(wire: socket.socket, frames: Frames) -> dict[str, Any]:
    while (message := frames.take()) is None:
        piece = wire.recv(65536)
        if not piece:
            os._exit(0)  # the host is gone or has had enough
        frames.feed(piece)
    return message


def _set_limits() -> None:
    # What a driver prints must not reach the host's terminal, and its crash must not fill the disk with core files.
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    for what, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_DATA, _DATA_BYTES)):
        with contextlib.suppress(OSError, ValueError):
            _, hard = resource.getrlimit(what)
            resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _die_with_host(fd: int, host_pid: int) -> None:
    """Ends the child with its host, also while a driver call hangs. A fork of the host may keep the socket open."""
    hang_up = select.poll()
    hang_up.register(fd, 0)  # hang-up is told without being asked for
    while os.getppid() == host_pid:
        if hang_up.poll(_HOST_CHECK_MS):
            break
    os._exit(0)
