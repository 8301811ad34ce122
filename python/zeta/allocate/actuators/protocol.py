"""What an actuator owes its caller, and what it answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from zeta.allocate.loop import Plan

__all__ = ["Actuator", "Applied", "Change", "changes"]


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One model's share before and after; `before` is ``None`` where this actuator has set none yet.

    Actuators that load and unload models count a resident one as 1 and another as 0; those that set targets count
    replicas.
    """

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
    held_until_ns : int or None
        The plan is kept back, because the device's last change is too recent; from this instant on, the newest plan
        kept back is carried out. None where nothing waits.
    """

    actuator: str
    device: str
    at_ns: int
    changes: tuple[Change, ...]
    is_in_force: bool
    failure: str | None = None
    held_until_ns: int | None = None


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


def changes(before: Mapping[str, float], plan: Plan) -> tuple[Change, ...]:
    """What `plan` would change where the shares `before` are in force."""
    return tuple(
        Change(model, before.get(model), after) for model, after in plan.shares.items() if before.get(model) != after
    )
