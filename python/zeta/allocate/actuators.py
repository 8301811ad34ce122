"""What carries a plan out. Everything that reaches outside the process is a dry run unless asked for by name."""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

from zeta.allocate.loop import Plan

__all__ = ["Actuator", "Applied", "Change", "DryRunActuator", "FakeActuator"]


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One model's share before and after; `before` is ``None`` where this actuator has set none yet."""

    model: str
    before: float | None
    after: float


@dataclasses.dataclass(frozen=True, slots=True)
class Applied:
    """What became of one plan.

    Parameters
    ----------
    actuator : str
        Who was asked.
    device : str
        For which device.
    at_ns : int
        The plan's own instant.
    changes : tuple of Change
        What differs from the plan that was last in force; empty when nothing does.
    is_in_force : bool
        Whether the world was changed. A dry run says what it would have done and leaves this False.
    failure : str or None
        Why it could not be done, as a sentence. The plan before it stays in force.
    """

    actuator: str
    device: str
    at_ns: int
    changes: tuple[Change, ...]
    is_in_force: bool
    failure: str | None = None


@runtime_checkable
class Actuator(Protocol):
    """Carries plans out. One caller at a time; each device's plans in the order of their instants.

    An actuator that cannot do what it is asked says so in `Applied.failure`; it raises only for a bug. Applying the
    same plan twice changes nothing the second time.
    """

    @property
    def name(self) -> str:
        """How metrics and logs call it."""
        ...

    @property
    def delay_s(self) -> float | None:
        """Seconds until a plan acts, as measured; ``None`` while that is unknown."""
        ...

    def apply(self, plan: Plan) -> Applied:
        """Puts `plan` in force, or says why not."""
        ...


def _changes(before: dict[str, float], plan: Plan) -> tuple[Change, ...]:
    return tuple(
        Change(model, before.get(model), after) for model, after in plan.shares.items() if before.get(model) != after
    )


class DryRunActuator:
    """Says what it would change, and changes nothing.

    Parameters
    ----------
    name : str, default "dry-run"
        How metrics and logs call it.

    Notes
    -----
    `Applied.changes` is relative to the last plan it was shown for the device, as if that had been carried out.
    """

    def __init__(self, name: str = "dry-run") -> None:
        self._name = name
        self._shown: dict[str, dict[str, float]] = {}

    @property
    def name(self) -> str:
        """How metrics and logs call it."""
        return self._name

    @property
    def delay_s(self) -> float | None:
        """``None``: nothing is ever carried out, so there is nothing to measure."""
        return None

    def apply(self, plan: Plan) -> Applied:
        """Reports the changes that `plan` asks for."""
        changes = _changes(self._shown.get(plan.device, {}), plan)
        self._shown[plan.device] = plan.shares
        return Applied(self._name, plan.device, plan.at_ns, changes, is_in_force=False)


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
            self._name, plan.device, plan.at_ns, _changes(before.shares if before else {}, plan), is_in_force=True
        )
