"""Actuators that keep what they are given, for tests."""

from __future__ import annotations

from collections.abc import Iterable

from zeta.allocate.actuators.protocol import Applied, Change, changes
from zeta.allocate.loop import Plan
from zeta.clock import Clock, SteadyClock

__all__ = ["FakeActuator", "FakeResidency"]


class FakeActuator:
    """Keeps every plan it is given, and fails when told to. For tests of loops.

    Parameters
    ----------
    name : str, default "fake"
        How metrics and logs call it.
    delay_s : float or None, default 0.0
        What it claims about itself.

    Attributes
    ----------
    plans : list of Plan
        Every plan it was given, failed ones included.
    in_force : dict of str to Plan
        The last plan that did not fail, by device.
    """

    def __init__(self, name: str = "fake", delay_s: float | None = 0.0) -> None:
        self._name = name
        self._delay_s = delay_s
        self._failures: list[str] = []
        self.plans: list[Plan] = []
        self.in_force: dict[str, Plan] = {}

    @property
    def name(self) -> str:
        """How metrics and logs call it."""
        return self._name

    @property
    def delay_s(self) -> float | None:
        """What it was told to claim."""
        return self._delay_s

    def fail_next(self, why: str, times: int = 1) -> None:
        """Lets the next `times` calls of `apply` fail for the reason `why`."""
        self._failures.extend([why] * times)

    def apply(self, plan: Plan) -> Applied:
        """Records `plan`; puts it in force unless a failure is due."""
        self.plans.append(plan)
        if self._failures:
            return Applied(self._name, plan.device, plan.at_ns, (), is_in_force=False, failure=self._failures.pop(0))
        before = self.in_force.get(plan.device)
        self.in_force[plan.device] = plan
        return Applied(
            self._name, plan.device, plan.at_ns, changes(before.shares if before else {}, plan), is_in_force=True
        )


class FakeResidency:
    """Keeps a set of resident models, and fails when told to. A `ResidencyActuator` for tests.

    Parameters
    ----------
    resident : iterable of str
        What is there at first.
    name : str, default "fake"
    device : str, default "device0"
    clock : Clock, optional
        Where `Applied.at_ns` comes from.

    Attributes
    ----------
    asked : list of (str, str)
        ``("load" or "unload", model)`` of every call, failed ones included.
    """

    def __init__(
        self, resident: Iterable[str] = (), *, name: str = "fake", device: str = "device0", clock: Clock | None = None
    ) -> None:
        self._name, self._device = name, device
        self._clock = clock or SteadyClock()
        self._resident = set(resident)
        self._failures: list[str] = []
        self.asked: list[tuple[str, str]] = []

    @property
    def name(self) -> str:
        """How metrics and logs call it."""
        return self._name

    @property
    def delay_s(self) -> float | None:
        """``0.0``: it acts at once."""
        return 0.0

    def fail_next(self, why: str, times: int = 1) -> None:
        """Lets the next `times` calls of `load` or `unload` fail for the reason `why`."""
        self._failures.extend([why] * times)

    def load(self, model: str) -> Applied:
        """Makes `model` resident unless a failure is due."""
        return self._move(model, True)

    def unload(self, model: str) -> Applied:
        """Takes `model` away unless a failure is due."""
        return self._move(model, False)

    def resident(self) -> frozenset[str] | None:
        """What is there."""
        return frozenset(self._resident)

    def _move(self, model: str, want: bool) -> Applied:
        self.asked.append(("load" if want else "unload", model))
        at_ns = self._clock.now_ns()
        if self._failures:
            return Applied(self._name, self._device, at_ns, (), is_in_force=False, failure=self._failures.pop(0))
        is_there = model in self._resident
        (self._resident.add if want else self._resident.discard)(model)
        moved = () if is_there is want else (Change(model, float(is_there), float(want)),)
        return Applied(self._name, self._device, at_ns, moved, is_in_force=True)
