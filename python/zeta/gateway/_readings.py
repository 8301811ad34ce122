"""The monitor that runs beside a gateway: host, GPUs, and the engines of replicas that come and go."""

from __future__ import annotations

import contextlib

from zeta.config import Config, Replica
from zeta.monitor import EngineProbe, EnginesProbe, HostProbe, NvmlProbe, Snapshot
from zeta.runtime import Monitor
from zeta.scheduler import Router

__all__ = ["Readings"]

_PERIOD_S = 0.5
_NVML_DEADLINE_S = 0.4


class Readings:
    """What the dashboard and metrics show of the machine; the router is told what others hold on its replicas.

    Parameters
    ----------
    config : Config
        Whose replicas' engines are read. Nothing starts before `start`.
    router : Router
    """

    def __init__(self, config: Config, router: Router) -> None:
        replicas = sum(len(model.replicas) for model in config.models)
        self._engines = EnginesProbe.from_config(config)
        self._monitor = Monitor(period_s=_PERIOD_S, replicas=max(2 * replicas, 64), router=router)
        self._monitor.add(HostProbe())
        self._monitor.add(NvmlProbe(), deadline_s=_NVML_DEADLINE_S)
        self._monitor.add(self._engines)

    def start(self) -> None:
        """Starts reading."""
        self._monitor.start()

    def snapshot(self) -> Snapshot:
        """What is known now."""
        return self._monitor.snapshot()

    def add(self, replica: Replica) -> None:
        """One more engine, where it tells anything."""
        address = (replica.url or "").rstrip("/").removesuffix("/v1")
        with contextlib.suppress(ValueError):  # it has no address, or is an engine that tells nothing
            self._engines.add(EngineProbe(replica.name, address, engine=replica.engine))

    def remove(self, name: str) -> None:
        """One less."""
        with contextlib.suppress(KeyError):
            self._engines.remove(name)

    def close(self) -> None:
        """Stops reading; waits two seconds at most."""
        self._monitor.close()
