"""What a plan would change, without changing it."""

from __future__ import annotations

from zeta.allocate.actuators.protocol import Applied, changes
from zeta.allocate.loop import Plan

__all__ = ["DryRunActuator"]


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
        asked = changes(self._shown.get(plan.device, {}), plan)
        self._shown[plan.device] = plan.shares
        return Applied(self._name, plan.device, plan.at_ns, asked, is_in_force=False)
