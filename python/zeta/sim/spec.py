"""What a replay is asked to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from zeta._core import FORECASTS
from zeta.config import ADMISSIONS, ORDERS, POLICIES, Admission, Config, Order, Policy, default_fleet
from zeta.errors import ConfigError
from zeta.sim.workload import Burst, MixRule, Rules, SloRule, TieRule

__all__ = ["DEFAULT_FLEET_NAME", "FORECASTS", "Progress", "ReplaySpec"]

DEFAULT_FLEET_NAME = "default"


class Progress(Protocol):
    """Told how far a replay has come."""

    def __call__(self, done: float, label: str) -> None:
        """`done` of the whole replay, from 0 to 1, and what is running now."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class ReplaySpec:
    """Every option of ``zeta replay``.

    Attributes
    ----------
    trace : Path or None
        The trace's file; None: the one that comes with the package.
    fleet : Config
        Models, replicas, devices and scheduler settings.
    fleet_name : str
        What the results call the fleet.
    policies : tuple of str
        At least one, each once.
    order : {"edf", "fifo"} or None
        None: ``water-fill`` runs ``edf``, every other policy runs both.
    admission : {"queue", "reject", "downgrade"}
        For all policies alike.
    load, mix, slo, bursts, ties
        See `zeta.sim.workload.Rules`.
    complexity : Path or None
        A table with column ``complexity``, one row for each of the trace.
    actuation_delay_s : float
        From a plan to its effect, in seconds.
    forecast : str
        One of `FORECASTS`: what the allocation loop knows of the load to come. It listens where the delay is 5 s or
        more. ``auto`` is what runs live; ``ewma`` a 30 s mean; ``perfect`` the trace's own future; the others faults.
    seeds : tuple of int
        At least one, each once; not negative.
    capacity_at : float or None
        Attainment in (0, 1) to find the highest load for; None: not asked.
    ticks : Path or None
        Where a line of JSON goes for each tick.
    wants_series : bool
        Whether results carry time series (for the HTML report).
    """

    trace: Path | None = None
    fleet: Config = dataclasses.field(default_factory=default_fleet)
    fleet_name: str = DEFAULT_FLEET_NAME
    policies: tuple[Policy, ...] = ("water-fill",)
    order: Order | None = None
    admission: Admission = "queue"
    load: float = 1.0
    mix: MixRule = "length"
    slo: SloRule = "standard"
    bursts: tuple[Burst, ...] = ()
    ties: TieRule = "auto"
    complexity: Path | None = None
    actuation_delay_s: float = 0.0
    forecast: str = "auto"
    seeds: tuple[int, ...] = (0,)
    capacity_at: float | None = None
    ticks: Path | None = None
    wants_series: bool = False

    def __post_init__(self) -> None:
        for policy in self.policies:
            _need("policy", policy, policy in POLICIES, " | ".join(POLICIES))
        _need("policy", self.policies, len(set(self.policies)) == len(self.policies) > 0, "at least one, each once")
        _need("order", self.order, self.order is None or self.order in ORDERS, " | ".join(ORDERS))
        _need("admission", self.admission, self.admission in ADMISSIONS, " | ".join(ADMISSIONS))
        _need("seed", self.seeds, len(set(self.seeds)) == len(self.seeds) > 0, "at least one, each once")
        _need("seed", self.seeds, all(0 <= seed < 1 << 64 for seed in self.seeds), "0 to 2**64 - 1")
        delay_s = self.actuation_delay_s
        _need("actuation-delay", delay_s, 0 <= delay_s <= 86_400, "0 to 86400 s")
        _need("forecast", self.forecast, self.forecast in FORECASTS, " | ".join(FORECASTS))
        at = self.capacity_at
        _need("capacity-at", at, at is None or 0 < at < 1, "an attainment between 0 and 1")
        _ = self.rules  # checks load, mix and SLO

    @property
    def rules(self) -> Rules:
        """The part that makes the workload."""
        return Rules(load=self.load, mix=self.mix, slo=self.slo, bursts=self.bursts, ties=self.ties)

    def pairs(self) -> Iterator[tuple[Policy, Order]]:
        """The policies with the orders that each of them runs in."""
        for policy in self.policies:
            if self.order is not None:
                yield policy, self.order
            else:
                yield policy, "edf"
                if policy != "water-fill":
                    yield policy, "fifo"


def _need(key: str, value: object, holds: bool, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"{key} = {value!r}; expected {allowed}", key, value, allowed)
