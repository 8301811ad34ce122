"""Time is integer nanoseconds on a monotonic clock, and it is passed in. These are the two places it comes from."""

from __future__ import annotations

import time
from typing import Protocol, runtime_checkable

__all__ = ["Clock", "SteadyClock", "VirtualClock"]


@runtime_checkable
class Clock(Protocol):
    """Anything that tells a monotonic time."""

    def now_ns(self) -> int:
        """Nanoseconds since an arbitrary fixed instant; never less than an earlier answer."""
        ...


class SteadyClock:
    """The machine's monotonic clock (``CLOCK_MONOTONIC``), shared with the native runtime. Thread-safe."""

    __slots__ = ()

    def now_ns(self) -> int:
        """Nanoseconds of ``CLOCK_MONOTONIC``."""
        return time.monotonic_ns()


class VirtualClock:
    """A clock that moves only when told to: for tests, replay and fakes.

    Parameters
    ----------
    start_ns : int, default 0
        The first answer of `now_ns`.

    Notes
    -----
    Not synchronised: one thread moves it.
    """

    __slots__ = ("_now_ns",)

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        """The instant that the clock was last moved to."""
        return self._now_ns

    def advance(self, span_ns: int) -> int:
        """Moves the clock by `span_ns` nanoseconds and returns the new instant.

        Raises
        ------
        ValueError
            If `span_ns` is negative: the clock is monotonic.
        """
        if span_ns < 0:
            raise ValueError(f"a monotonic clock cannot go back by {-span_ns} ns; advance by 0 or more")
        self._now_ns += span_ns
        return self._now_ns

    def advance_to(self, at_ns: int) -> int:
        """Moves the clock to the instant `at_ns` and returns it.

        Raises
        ------
        ValueError
            If `at_ns` lies before the present.
        """
        return self.advance(at_ns - self._now_ns)
