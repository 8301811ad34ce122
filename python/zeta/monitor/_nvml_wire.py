"""What the NVML child and its host say to each other. Only the standard library: both ends load it."""

from __future__ import annotations

import json
import mmap
import struct
from array import array
from typing import Any, Final

__all__ = [
    "ANY",
    "ANYTHING",
    "CALL_FIELDS",
    "FIELD_NAMES",
    "MAX_DEVICES",
    "MAX_FRAME_BYTES",
    "SLOW_CALLS",
    "VALUES",
    "WHOLE",
    "Crumb",
    "Frames",
    "frame",
]

ANY: Final = "*"
"""In a pair of device and call to leave out: all of them."""

WHOLE: Final = ""
"""Among what is missing of a device: all of it."""

ANYTHING: Final = (ANY, ANY)

MAX_DEVICES: Final = 256
"""GPUs and MIG devices together; a driver that names more is not believed."""

MAX_FRAME_BYTES: Final = 4 << 20

CALL_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "utilisation": ("utilisation", "memory_utilisation"),
    "memory": ("memory_used_bytes", "memory_total_bytes"),
    "power": ("power_w",),
    "power_limit": ("power_limit_w",),
    "energy": ("energy_j",),
    "sm_clock": ("sm_clock_mhz",),
    "sm_clock_max": ("sm_clock_max_mhz",),
    "memory_clock": ("memory_clock_mhz",),
    "temperature": ("temperature_c",),
    "throttle_reasons": ("throttle_reasons",),
    "processes": ("process_count",),
}
"""Each call that reads a device, and the fields that it fills."""

SLOW_CALLS: Final = frozenset({"power_limit", "energy", "sm_clock_max", "memory_clock", "temperature", "processes"})
"""Calls that cost more or change seldom: made in the slow period, their last answer repeated in between."""

FIELD_NAMES: Final = tuple(name for names in CALL_FIELDS.values() for name in names)
"""The order of a device's values in an answer."""

# The calls that find and open devices; the rest are those above. The position is the number in the crumb.
_CALLS: Final = (
    "",
    "init",
    "driver",
    "count",
    "by_index",
    "by_uuid",
    "uuid",
    "name",
    "pci",
    "mig_mode",
    "mig_count",
    "mig_device",
    *CALL_FIELDS,
)
_NUMBERS: Final = {name: bytes([number]) for number, name in enumerate(_CALLS)}


class Crumb:
    """Which driver call the child is in: a few bytes of memory that both ends map.

    The child writes before each call. The host reads only what a dead or hanging child left behind, so no value is
    ever read while it changes.
    """

    SIZE_BYTES: Final = 128
    _UUID_BYTES: Final = 126

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, self.SIZE_BYTES)
        self._uuid = ""

    def enter(self, call: str) -> None:
        """The child is about to make this call; ``""``: it is in none."""
        self._map[0:1] = _NUMBERS[call]

    def about(self, uuid: str) -> None:
        """The calls that follow concern this device; ``""``: none yet known."""
        if uuid != self._uuid:
            self._uuid = uuid
            text = uuid.encode()[: self._UUID_BYTES]
            self._map[1 : len(text) + 2] = text + b"\0"

    def read(self) -> tuple[str, str]:
        """The device and the call; the call is ``""`` when the child is in none."""
        number = self._map[0]
        uuid = self._map[1:].split(b"\0", 1)[0].decode(errors="replace")
        return uuid, _CALLS[number] if number < len(_CALLS) else ""

    def close(self) -> None:
        """Gives the memory back."""
        self._map.close()


_HEADER: Final = struct.Struct("<II")
VALUES: Final = "values"
"""The key under which a message carries numbers: they follow its JSON as doubles, NaN for None. A request begins with
its own number, the budget in seconds, whether slow calls are made, whether devices are looked for; its answer with the
request's number, the microseconds that it took, whether no device could be read, and then has the devices' values."""


def frame(message: dict[str, Any], values: array[float] | None = None) -> bytes:
    """A message as it goes over the wire: the lengths of both parts, JSON, doubles."""
    body = json.dumps(message, separators=(",", ":"), allow_nan=False).encode() if message else b""
    numbers = values.tobytes() if values is not None else b""
    return _HEADER.pack(len(body), len(numbers)) + body + numbers


class Frames:
    """Puts the messages together again from whatever pieces arrive."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, piece: bytes) -> None:
        """Takes the next bytes."""
        self._held += piece

    def take(self) -> dict[str, Any] | None:
        """The next whole message, its numbers under `VALUES`, or None until more arrives.

        Raises
        ------
        ValueError
            If the bytes are no message: the other end is out of its mind.
        """
        if len(self._held) < _HEADER.size:
            return None
        body, numbers = _HEADER.unpack_from(self._held)
        if body + numbers > MAX_FRAME_BYTES:
            raise ValueError(f"a message of {body + numbers} bytes; expected at most {MAX_FRAME_BYTES}")
        middle = _HEADER.size + body
        end = middle + numbers
        if len(self._held) < end:
            return None
        message = json.loads(bytes(self._held[_HEADER.size : middle])) if body else {}
        if not isinstance(message, dict):
            raise ValueError(f"a message that is a {type(message).__name__}; expected an object")
        if numbers:
            message[VALUES] = array("d", bytes(self._held[middle:end]))
        del self._held[:end]
        return message
