"""How many requests may be tried a second time at once."""

from __future__ import annotations

from typing import Final

__all__ = ["RetryBudget"]

_AT_LEAST: Final = 3  # so that few requests in flight may be tried again at all


class RetryBudget:
    """Second tries as a part of what is in flight, so that a failing fleet is not given a multiple of its load.

    Parameters
    ----------
    fraction : float
        Of the requests in flight.

    Notes
    -----
    Envoy's retry budget (20 % of the active requests, at least 3) is the model.
    """

    def __init__(self, fraction: float) -> None:
        self._fraction = fraction
        self._active = 0
        self.taken_total = 0
        self.refused_total = 0

    def take(self, in_flight: int) -> bool:
        """Whether one more may be tried again now; `give_back` when it has ended."""
        if self._active >= max(_AT_LEAST, self._fraction * in_flight):
            self.refused_total += 1
            return False
        self._active += 1
        self.taken_total += 1
        return True

    def give_back(self) -> None:
        """A request that was tried again has ended."""
        self._active -= 1
