"""What the control application needs of a gateway, as Protocols: the real one and tests' fakes both fit them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from zeta.config import Config, Replica
from zeta.gateway._observed import Observed
from zeta.monitor import Snapshot
from zeta.scheduler import Router

__all__ = [
    "CatalogueView",
    "GatewayView",
    "IdentityView",
    "KeysView",
    "MonitorView",
    "ReplicaView",
    "WaitingView",
]


class CatalogueView(Protocol):
    """What clients may ask for."""

    @property
    def names(self) -> Sequence[str]:
        """Models, aliases, and the name that leaves the choice to zeta."""
        ...


class IdentityView(Protocol):
    """Whose request it is."""

    @property
    def tenant(self) -> str:
        """The name in the configuration."""
        ...

    @property
    def is_admin(self) -> bool:
        """Whether replicas may be added, drained and removed, and everything be seen."""
        ...


class KeysView(Protocol):
    """The keys that are let in."""

    @property
    def is_open(self) -> bool:
        """Whether no key is asked for."""
        ...

    def identify(self, shown: str | None, /) -> IdentityView | None:
        """Whose key an ``Authorization`` shows; None: nobody's."""
        ...


class ReplicaView(Protocol):
    """One replica as the gateway sees it."""

    @property
    def name(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def is_healthy(self) -> bool: ...
    @property
    def is_ejected(self) -> bool: ...
    @property
    def is_draining(self) -> bool: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def failures(self) -> int: ...
    @property
    def last_error(self) -> str | None: ...
    @property
    def since_s(self) -> float: ...


class WaitingView(Protocol):
    """One waiting request, for the tenant whose it is."""

    @property
    def request_id(self) -> str: ...
    @property
    def ticket(self) -> int: ...
    @property
    def model(self) -> str | None: ...
    @property
    def position(self) -> int: ...
    @property
    def eta_ms(self) -> float | None: ...
    @property
    def waited_ms(self) -> float: ...


class MonitorView(Protocol):
    """Where readings come from."""

    def snapshot(self) -> Snapshot:
        """What is known now."""
        ...


class GatewayView(Protocol):
    """A gateway, as health checks, metrics, dashboard and admin routes see it. Called in its event loop's thread."""

    @property
    def router(self) -> Router: ...
    @property
    def config(self) -> Config: ...
    @property
    def keys(self) -> KeysView: ...
    @property
    def catalogue(self) -> CatalogueView: ...
    @property
    def is_draining(self) -> bool: ...
    @property
    def observed(self) -> Observed: ...
    @property
    def monitor(self) -> MonitorView | None: ...

    def replicas(self) -> Sequence[ReplicaView]:
        """All that are there."""
        ...

    def waiting_of(self, tenant: str) -> Sequence[WaitingView]:
        """What a tenant has waiting, in the order of arrival."""
        ...

    def recent_decisions(self, n: int) -> Sequence[Mapping[str, Any]]:
        """The last placements, newest first."""
        ...

    def add_replica(self, model: str, replica: Replica) -> None:
        """Lets one more take requests.

        Raises
        ------
        ConfigError
            If it cannot be.
        """
        ...

    def drain_replica(self, name: str) -> None:
        """No new requests; what runs finishes.

        Raises
        ------
        ConfigError
            If there is none of that name.
        """
        ...

    def resume_replica(self, name: str) -> None:
        """Takes requests again.

        Raises
        ------
        ConfigError
            If there is none of that name.
        """
        ...

    def remove_replica(self, name: str) -> None:
        """Gone; what runs there is queued again.

        Raises
        ------
        ConfigError
            If there is none of that name.
        """
        ...
