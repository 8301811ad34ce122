"""Decision logs: everything that a router was told and what it answered, in one file that can be done again."""

from __future__ import annotations

import dataclasses
import json
import os
import struct
from pathlib import Path
from typing import Any

from zeta import _core
from zeta.config import Config, from_mapping
from zeta.engine_tables import ServiceModel
from zeta.errors import ConfigError
from zeta.scheduler._native_config import native_config

__all__ = ["LogReplay", "header_of", "replay_log"]

_MAGIC = b"zeta-events-1\n\0\0"
_SIZES = struct.Struct("=II")


@dataclasses.dataclass(frozen=True, slots=True)
class LogReplay:
    """What doing a recorded run again showed.

    Attributes
    ----------
    events : int
        Events done again.
    hash : int
        Fingerprint of every decision; equal runs have equal ones.
    first_difference : int or None
        Number of the first event after which the decisions differ from the recorded ones; None: none.
    cut_bytes : int
        At the end of the file, of a record that was not written whole (the process was killed).
    """

    events: int
    hash: int
    first_difference: int | None
    cut_bytes: int = 0

    @property
    def is_exact(self) -> bool:
        """Whether every decision was made again as recorded."""
        return self.first_difference is None


def header_of(config: Config, services: dict[str, ServiceModel]) -> str:
    """A log's header: the resolved configuration, so that the log needs no other file."""
    return json.dumps(
        {
            "config": dataclasses.asdict(config),
            "service_models": {k: dataclasses.asdict(v) for k, v in services.items()},
        }
    )


def replay_log(path: str | os.PathLike[str]) -> LogReplay:
    """Does a run again that ``Router(decision_log=path)`` recorded, and compares every decision.

    Parameters
    ----------
    path : path-like
        The log. Written and read on machines of the same byte order and the same build of zeta.

    Raises
    ------
    ConfigError
        If the file is no decision log, or one of another build.
    """
    file = Path(path)
    data = file.read_bytes()
    start = len(_MAGIC) + _SIZES.size
    if len(data) < start or not data.startswith(_MAGIC):
        raise ConfigError(f"{file} is no decision log; expected a file that Router(decision_log=...) wrote")
    record_bytes, header_bytes = _SIZES.unpack_from(data, len(_MAGIC))
    if record_bytes != _core.LOGGED_EVENT_BYTES:
        raise ConfigError(
            f"{file} has events of {record_bytes} bytes, this build of zeta writes {_core.LOGGED_EVENT_BYTES}; replay "
            "it with the version that wrote it"
        )
    events = start + header_bytes
    header: dict[str, Any] = json.loads(data[start:events])
    services = {name: ServiceModel(**fields) for name, fields in header["service_models"].items()}
    native, _ = native_config(from_mapping(Config, header["config"]), service_models=services)
    cut_bytes = (len(data) - events) % record_bytes
    whole = memoryview(data)[events : len(data) - cut_bytes]
    answer = _core.replay_log(native, whole)
    return LogReplay(answer["events"], answer["hash"], answer["first_difference"], cut_bytes)
