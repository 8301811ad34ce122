"""What one NVML child has told: values at every poll, the rest when it changes."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from zeta.monitor._nvml_wire import CALL_FIELDS, FIELD_NAMES, MAX_DEVICES, VALUES, WHOLE
from zeta.monitor.probe import Reading

__all__ = ["Answer", "DeviceView"]

_WIDTH: Final = len(FIELD_NAMES)


@dataclass(frozen=True, slots=True)
class Answer:
    """One poll: the request's number, how long it took, whether no device could be read at all, and what was read."""

    number: int
    took_us: int
    is_lost: bool
    reading: Reading


class DeviceView:
    """Turns a child's answers into readings. One per child: each begins by telling everything."""

    def __init__(self) -> None:
        self._uuids: list[str] = []
        self._details: dict[str, Mapping[str, Any]] = {}
        self.driver: str | None = None

    def take(self, answer: Mapping[str, Any]) -> Answer:
        """What the message says.

        Raises
        ------
        AttributeError, IndexError, KeyError, TypeError, ValueError
            If it is no answer.
        """
        if told := answer.get("told"):
            self._details = {**self._details, **{uuid: _detail(each) for uuid, each in told.items()}}
        if (driver := answer.get("driver")) is not None:
            self.driver = str(driver)
        if (uuids := answer.get("uuids")) is not None:
            if len(uuids) > MAX_DEVICES:
                raise ValueError(f"{len(uuids)} devices; expected at most {MAX_DEVICES}")
            self._uuids = [str(uuid) for uuid in uuids]
            self._details = {uuid: self._details[uuid] for uuid in self._uuids}
        number, took_us, is_lost, *values = answer[VALUES]
        if len(values) != _WIDTH * len(self._uuids):
            raise ValueError(f"{len(values)} values of {len(self._uuids)} devices; expected {_WIDTH} of each")
        numbers = [None if value != value else value for value in values]
        rows = {
            uuid: dict(zip(FIELD_NAMES, numbers[at * _WIDTH : (at + 1) * _WIDTH], strict=True))
            for at, uuid in enumerate(self._uuids)
        }
        reading = Reading(rows, details=types.MappingProxyType(self._details))
        return Answer(int(number), int(took_us), bool(is_lost), reading)

    @property
    def parents(self) -> dict[str, str | None]:
        """Each device and the GPU that it is part of."""
        return {uuid: self._details[uuid]["parent"] for uuid in self._uuids}


def _detail(told: Mapping[str, Any]) -> Mapping[str, Any]:
    processes, missing = told["processes"], told["missing"]
    if WHOLE in missing:
        by_field = dict.fromkeys(FIELD_NAMES, missing[WHOLE])
    else:
        by_field = {name: why for call, why in missing.items() for name in CALL_FIELDS[call]}
    return types.MappingProxyType(
        {
            "name": told["name"],
            "pci_bus_id": told["pci"],
            "index": told["index"],
            "parent": told["parent"],
            "processes": None if processes is None else dict(processes),
            "missing": by_field,
        }
    )
