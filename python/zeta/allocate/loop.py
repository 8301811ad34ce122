"""One tick of the allocation loop: a pure function from what is known to what each model gets.

The decision itself is C++ (``zeta::share::tick``), the same code that the native loop, the simulator and replay run.
This is its Python form, for loops written in Python and for looking at decisions.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol, runtime_checkable

import numpy as np

from zeta import _core
from zeta.allocate.policies import PolicyConfig

__all__ = ["LoadForecast", "ModelDemand", "ModelShare", "Plan", "Snapshot", "tick"]


@runtime_checkable
class LoadForecast(Protocol):
    """What the allocation loop may ask about the load to come.

    Only actions that take 5 s or more to act (starting a replica, swapping, waking) gain from it. A share acts at the
    next take, feedback is better there, so `tick` gives the same shares with a forecast as with ``None``. Policies
    for slow actions will read it here; missing, stale or losing, it answers ``None`` and they do without.
    """

    def work_pace(self, model: str, horizon_s: float, quantile: float) -> float | None:
        """GPU-seconds per second of work that `model` will bring, as a mean over the next `horizon_s` seconds.

        Returns
        -------
        float or None
            The given quantile (0 to 1) of that mean; ``None`` where there is no forecast worth using.
        """
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class ModelDemand:
    """What one model asks of the device that it shares.

    Parameters
    ----------
    model : str
        Its name.
    decode_pace : float or None
        Fraction of the device that keeps the TPOT of what runs. ``None``: unknown; the last known value stands in.
    due_pressure : float or None
        Fraction of the device that starts what waits in time. ``None`` likewise.
    backlog_work_s : float
        Waiting work in GPU-seconds.
    waiting, running : int
        Requests in the queue and on replicas.
    service_rate_rps : float
        Requests per second that the model completes when it has the device for itself.
    """

    model: str
    decode_pace: float | None = 0.0
    due_pressure: float | None = 0.0
    backlog_work_s: float = 0.0
    waiting: int = 0
    running: int = 0
    service_rate_rps: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class ModelShare:
    """One model's part of a plan.

    Parameters
    ----------
    model : str
        Its name.
    share : float
        Fraction of predicted GPU-seconds per second; the shares of a plan add up to 1.
    need : float
        The need that the share was computed from, as a fraction of the device: held against jitter by ``water-fill``,
        as read by the others.
    reason : str
        One of `REASONS`.
    """

    model: str
    share: float
    need: float
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What one tick decided for one device. Hand it to the next tick in its `Snapshot`.

    Parameters
    ----------
    device : str
        The device whose models these are.
    at_ns : int
        When it was decided, in nanoseconds of the caller's clock.
    policy : str
        The policy that decided.
    models : tuple of ModelShare
        In the snapshot's order.
    is_held : bool
        The shares are the last ones, because the moves were below the hysteresis.
    is_step_limited : bool
        The shares are on their way, because a share would have moved by more than the step.
    """

    device: str
    at_ns: int
    policy: str
    models: tuple[ModelShare, ...]
    is_held: bool
    is_step_limited: bool
    _native: _core.SharePlan = dataclasses.field(repr=False, compare=False)

    @property
    def shares(self) -> dict[str, float]:
        """Share by model name."""
        return {each.model: each.share for each in self.models}


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that one tick decides from, for one device.

    Parameters
    ----------
    models : tuple of ModelDemand
        The models that share the device, 1 to 32, each name once.
    config : PolicyConfig
        The policy and its numbers.
    previous : Plan or None
        The last tick's plan for this device. Where it is ``None``, or was for other models, shares start from even.
    device : str
        The device's name.

    Raises
    ------
    ValueError
        If there are no models or more than 32, or a name stands twice.
    """

    models: tuple[ModelDemand, ...]
    config: PolicyConfig = PolicyConfig()  # noqa: RUF009 - frozen, so one may serve all
    previous: Plan | None = None
    device: str = "device0"

    def __post_init__(self) -> None:
        names = [each.model for each in self.models]
        if not 1 <= len(names) <= 32:
            raise ValueError(f"a snapshot of {self.device} has {len(names)} models; expected 1 to 32")
        if len(set(names)) != len(names):
            raise ValueError(f"a snapshot of {self.device} names a model twice: {', '.join(names)}; name each once")


def tick(snapshot: Snapshot, forecast: LoadForecast | None, now_ns: int) -> Plan:
    """The next shares of one device's models.

    Parameters
    ----------
    snapshot : Snapshot
        Demand, policy and the last plan.
    forecast : LoadForecast or None
        For actions that are slow to act; shares are not, so they come out the same with any forecast (see
        `LoadForecast`).
    now_ns : int
        The present, in nanoseconds of the clock that the last plan's `Plan.at_ns` is on.

    Returns
    -------
    Plan
        Shares that add up to 1, none below ``min(floor, 1/2n)``, none moved by more than the step.

    Notes
    -----
    Pure and deterministic; thread-safe. Microseconds, most of them for the conversion; the decision itself takes
    under one.
    """
    del forecast
    demand = np.array(
        [
            (
                math.nan if each.decode_pace is None else each.decode_pace,
                math.nan if each.due_pressure is None else each.due_pressure,
                each.backlog_work_s,
                each.waiting,
                each.running,
                each.service_rate_rps,
            )
            for each in snapshot.models
        ],
        dtype=np.float64,
    )
    names = [each.model for each in snapshot.models]
    last = snapshot.previous
    goes_on = last is not None and [each.model for each in last.models] == names
    held = last._native if last is not None and goes_on else _core.SharePlan()
    decided = _core.share_tick(snapshot.config._native, demand, held, now_ns)
    models = map(ModelShare, names, decided.shares(), decided.needs(), decided.reasons())
    return Plan(
        device=snapshot.device,
        at_ns=now_ns,
        policy=decided.policy,
        models=tuple(models),
        is_held=decided.is_held,
        is_step_limited=decided.is_step_limited,
        _native=decided,
    )
