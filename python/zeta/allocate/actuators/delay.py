"""How long it takes until what was asked for acts, as measured."""

from __future__ import annotations

import collections
import math

__all__ = ["DelayMeter"]


class DelayMeter:
    """A high quantile of the most recent delays.

    Parameters
    ----------
    quantile : float, default 0.9
        In (0, 1]; the smallest delay that at least this part of the recent ones did not exceed.
    recent : int, default 32
        How many are kept.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    def __init__(self, quantile: float = 0.9, recent: int = 32) -> None:
        if not 0 < quantile <= 1 or recent < 1:
            raise ValueError(f"quantile = {quantile}, recent = {recent}; expected (0, 1] and at least 1")
        self._quantile = quantile
        self._delays_s: collections.deque[float] = collections.deque(maxlen=recent)

    def note(self, delay_s: float) -> None:
        """One more delay, in seconds, from the asking to the confirmed effect."""
        self._delays_s.append(delay_s)

    @property
    def delay_s(self) -> float | None:
        """The quantile in seconds; None until there is a measurement."""
        if not self._delays_s:
            return None
        ranked = sorted(self._delays_s)
        return ranked[math.ceil(self._quantile * len(ranked)) - 1]
