"""How the shares of a device answered a backlog on one of its models. Pure."""

from __future__ import annotations

import dataclasses

import numpy as np

from zeta.sim.measures import Ticks
from zeta.sim.workload import BoolArray, Burst

__all__ = ["ShareResponse", "share_response"]

_POINT = 0.01
_BACKED_UP = 0.02  # a need further above even than this counts as a backlog
_RETURN_TICKS = 3


@dataclasses.dataclass(frozen=True, slots=True)
class ShareResponse:
    """From the ticks of one run with a burst.

    Attributes
    ----------
    model : str
    even : float
        1 ÷ number of models.
    before, peak : float
        The model's share when the burst began, and its highest while it was backed up.
    rise_ticks : int or None
        Ticks from the first whose need is 2 points above even, the burst having begun, to the first whose share is at
        least one point above even: 1 is the same tick. None: it never rose.
    raised_part : float
        Of the ticks from then on in which the need is 2 points above even: those whose share is at least one point so.
    returns : int
        Times that every need came back to even or less for three ticks in a row.
    returned_part : float
        Of these: those after which every share was within a point of even at the third tick.
    backlog_s : float
        From the first tick with such a need to the last, in seconds.
    """

    model: str
    even: float
    before: float
    peak: float
    rise_ticks: int | None
    raised_part: float
    returns: int
    returned_part: float
    backlog_s: float

    @property
    def holds(self) -> bool:
        """Risen within 2 ticks, up while needed, and even within 3 ticks of every need's return."""
        return (
            self.rise_ticks is not None
            and self.rise_ticks <= 2
            and self.raised_part >= 0.99
            and self.returns > 0
            and self.returned_part == 1.0
        )

    def lines(self) -> list[str]:
        """For people."""
        rise = "never rose" if self.rise_ticks is None else f"rose within {self.rise_ticks} tick(s)"
        share = f"{self.before:.2f} before the burst, {rise} of the need passing {self.even:.2f}, up to {self.peak:.2f}"
        raised = f"{100 * self.raised_part:.1f} % of the ticks that needed it, over {self.backlog_s:.0f} s"
        returned = f"{100 * self.returned_part:.0f} % of {self.returns} returns"
        return [
            f"{self.model}: share {share}",
            f"raised in {raised}",
            f"every share within 1 point of even 3 ticks after every need was back: {returned}",
            "the core idea holds" if self.holds else "THE CORE IDEA DOES NOT HOLD",
        ]


def share_response(ticks: Ticks, burst: Burst, model: int, name: str) -> ShareResponse:
    """How `model`'s share answered `burst`.

    Parameters
    ----------
    ticks : Ticks
        Of a run in which all models share one device.
    burst : Burst
    model : int
        Index of the burst's model.
    name : str
        What to call it.
    """
    even = 1.0 / ticks.share.shape[1]
    share, need = ticks.share[:, model], ticks.need[:, model]
    begins = int(np.searchsorted(ticks.at_ns, round(burst.start_s * 1e9)))
    is_needed = (need > even + _BACKED_UP) & (np.arange(len(need)) >= begins)
    is_raised = share >= even + _POINT
    first = int(np.argmax(is_needed)) if is_needed.any() else len(need)
    risen = np.flatnonzero(is_raised[first:])
    rise_ticks = int(risen[0]) + 1 if len(risen) else None
    after = is_needed & (np.arange(len(need)) >= first + (rise_ticks or 1) - 1)
    needed_at = np.flatnonzero(is_needed)
    returns, returned = _returns(ticks, even, begins)
    return ShareResponse(
        model=name,
        even=even,
        before=float(share[max(begins - 1, 0)]),
        peak=float(share[begins:].max()),
        rise_ticks=rise_ticks,
        raised_part=float(is_raised[after].mean()) if after.any() else 0.0,
        returns=returns,
        returned_part=returned / returns if returns else 0.0,
        backlog_s=float(ticks.at_ns[needed_at[-1]] - ticks.at_ns[needed_at[0]]) * 1e-9 if len(needed_at) else 0.0,
    )


def _returns(ticks: Ticks, even: float, begins: int) -> tuple[int, int]:
    """Times that every need fell to even or less for three ticks in a row, and how often the shares followed."""
    calm: BoolArray = np.asarray((ticks.need <= even).all(axis=1))
    is_even: BoolArray = np.asarray((np.abs(ticks.share - even) <= _POINT).all(axis=1))
    returns = returned = 0
    for at in range(max(begins, 1), len(calm) - _RETURN_TICKS):
        if calm[at] and not calm[at - 1] and calm[at : at + _RETURN_TICKS].all():
            returns += 1
            returned += int(is_even[at + _RETURN_TICKS - 1])
    return returns, returned
