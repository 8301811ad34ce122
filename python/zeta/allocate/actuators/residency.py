"""Loading and unloading models: what such an actuator owes its caller, and the swap of one model for another."""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

from zeta.allocate.actuators.protocol import Applied

__all__ = ["ResidencyActuator", "Swap", "swap"]


@runtime_checkable
class ResidencyActuator(Protocol):
    """Loads models into a device's memory and takes them out. One caller at a time, and not the tick: calls block.

    Asking for what is so already changes nothing. What cannot be done is said in `Applied.failure`; only a bug raises.
    """

    @property
    def name(self) -> str:
        """How metrics and logs call it."""
        ...

    @property
    def delay_s(self) -> float | None:
        """Seconds until a load acts, as measured; ``None`` while that is unknown."""
        ...

    def load(self, model: str) -> Applied:
        """Makes `model` ready to serve, or says why not."""
        ...

    def unload(self, model: str) -> Applied:
        """Frees the memory of `model`, or says why not."""
        ...

    def resident(self) -> frozenset[str] | None:
        """The models that are ready to serve; ``None`` while that is unknown."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Swap:
    """What became of a swap.

    Parameters
    ----------
    steps : tuple of Applied
        In the order they were made.
    resident : str or None
        The model that the device holds now, for the scheduler to be told; None for none of the two.
    failure : str or None
        Why the model that was asked for is not there.
    """

    steps: tuple[Applied, ...]
    resident: str | None
    failure: str | None = None


def swap(actuator: ResidencyActuator, unload: str | None, load: str | None) -> Swap:
    """Takes one model out and puts another in; if the other does not come, the first is put back.

    Parameters
    ----------
    actuator : ResidencyActuator
    unload, load : str or None
        None where there is nothing to take out, or nothing to put in.

    Returns
    -------
    Swap
        What the device holds now. A dry run leaves it as it was and says so.
    """
    out = None if unload is None else actuator.unload(unload)
    steps: tuple[Applied, ...] = () if out is None else (out,)
    if out is not None and out.failure is not None:  # there is no room for another
        return Swap(steps, _held(actuator, (unload,), otherwise=unload), out.failure)
    into = None if load is None else actuator.load(load)
    if into is None:
        return Swap(steps, None if out is None or out.is_in_force else unload)
    steps += (into,)
    if into.failure is None:
        return Swap(steps, load if into.is_in_force else unload)
    back = None if unload is None else actuator.load(unload)
    if back is None:
        return Swap(steps, _held(actuator, (load,), otherwise=None), into.failure)
    is_back = back.failure is None
    return Swap((*steps, back), _held(actuator, (unload, load), otherwise=unload if is_back else None), into.failure)


def _held(actuator: ResidencyActuator, candidates: tuple[str | None, ...], otherwise: str | None) -> str | None:
    """Which of them is there after a failure, where that can be asked."""
    known = actuator.resident()
    return otherwise if known is None else next((each for each in candidates if each in known), None)
