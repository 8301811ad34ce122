"""At most one change per device and interval."""

from __future__ import annotations

import dataclasses

from zeta.allocate.actuators.protocol import Actuator, Applied, changes
from zeta.allocate.loop import Plan

__all__ = ["RateLimited"]


@dataclasses.dataclass(slots=True)
class _Device:
    due_ns: int | None = None
    pending: Plan | None = None
    shares: dict[str, float] = dataclasses.field(default_factory=dict)
    is_in_force: bool = False


class RateLimited:
    """Hands plans on to another actuator, at most one change per device and interval. An `Actuator`.

    A plan that comes too early is kept back; a newer one takes its place. It is carried out by the first call of
    `apply` for its device, or of `apply_due`, at or after `Applied.held_until_ns`. An attempt that fails counts as a
    change: what it has touched is not known.

    Parameters
    ----------
    actuator : Actuator
        Who carries out.
    interval_s : float
        Least time from one change of a device to the next, in seconds of the plans' own clock.

    Raises
    ------
    ValueError
        If `interval_s` is not above 0.
    """

    def __init__(self, actuator: Actuator, interval_s: float) -> None:
        if not interval_s > 0:
            raise ValueError(f"interval_s = {interval_s}; expected seconds above 0")
        self._actuator = actuator
        self._interval_ns = round(interval_s * 1e9)
        self._devices: dict[str, _Device] = {}

    @property
    def name(self) -> str:
        """The other's name."""
        return self._actuator.name

    @property
    def delay_s(self) -> float | None:
        """The other's delay; the time that a plan is kept back is not in it."""
        return self._actuator.delay_s

    def apply(self, plan: Plan) -> Applied:
        """Hands `plan` on, or keeps it back and says until when."""
        device = self._devices.setdefault(plan.device, _Device())
        if device.due_ns is None or plan.at_ns >= device.due_ns:
            return self._carry_out(device, plan, plan.at_ns)
        if not changes(device.shares, plan):
            device.pending = None  # the newest plan wants what is so
            return Applied(self.name, plan.device, plan.at_ns, (), device.is_in_force)
        device.pending = plan
        return Applied(self.name, plan.device, plan.at_ns, (), is_in_force=False, held_until_ns=device.due_ns)

    def apply_due(self, now_ns: int) -> tuple[Applied, ...]:
        """Carries out what was kept back and is due at `now_ns`, for loops that fall silent."""
        due = [
            (device, device.pending)
            for device in self._devices.values()
            if device.pending is not None and device.due_ns is not None and now_ns >= device.due_ns
        ]
        return tuple(self._carry_out(device, plan, now_ns) for device, plan in due)

    def _carry_out(self, device: _Device, plan: Plan, now_ns: int) -> Applied:
        device.pending = None
        applied = self._actuator.apply(plan)
        if applied.failure is None:
            device.shares, device.is_in_force = plan.shares, applied.is_in_force
        if applied.failure is not None or applied.changes:
            device.due_ns = now_ns + self._interval_ns
        return applied
