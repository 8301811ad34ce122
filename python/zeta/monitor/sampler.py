"""When a probe is read, what becomes of its readings, and what to do when it hangs. No thread starts here.

One `Sampler` per probe. The probe's thread calls `run`; whoever watches calls `check` now and then. The clock is given,
so that all of it can be tested on virtual time.
"""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from zeta.clock import Clock
from zeta.errors import MonitorError, ProbeUnavailable
from zeta.monitor.probe import Kind, Probe, Reading
from zeta.monitor.snapshot import Board

__all__ = ["MAX_LEFT_BEHIND", "ProbeReport", "ProbeState", "Sampler"]

_NS = 1_000_000_000
_STALE_PERIODS = 3
_PATIENCE = 1.2  # so that the sampler sees what a probe with a deadline of its own makes of a hang
_FAILURE_RETRY_NS = 1 * _NS  # at most, so that a probe is back within 2 s after its fault ends
_RETRY_NS = 30 * _NS  # at most: of what is absent, and of a thread that replaces one that hangs
_FIRST_RETRY_NS = _NS // 4
_LOG_EVERY_NS = 10 * _NS
MAX_LEFT_BEHIND = 16
"""So many reads of one probe may hang at once, about five minutes' worth; then it waits for one of them to return."""

_log = logging.getLogger("zeta.monitor")


class ProbeState(enum.StrEnum):
    """How a probe fares."""

    STARTING = "starting"
    """No read has ended yet."""
    READING = "reading"
    """The last read gave values."""
    FAILING = "failing"
    """The last read raised, or gave something that is no reading; it is read again within a second."""
    UNAVAILABLE = "unavailable"
    """There is nothing to read from here; looked for again every 30 s at most."""
    HANGING = "hanging"
    """A read has passed its deadline; another thread tries again, every 30 s at most."""
    GIVEN_UP = "given up"
    """As many reads hang as may; the probe is read again when one of them returns."""
    STOPPED = "stopped"
    """Nobody reads it."""


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """How one probe fares, for people and metrics.

    Parameters
    ----------
    name : str
    kind : Kind
    state : ProbeState
    message : str
        What is wrong, as a sentence; empty while nothing is.
    period_s, deadline_s : float
        Time from one read to the next, and how long one may take, in seconds.
    reads, failures, hangs : int
        Reads that ended, those of them that failed, and those that passed their deadline.
    left_behind : int
        Threads that hang at this moment.
    last_read_age_s : float or None
        Seconds since the last read that gave values began; ``None``: never.
    last_duration_s : float or None
        How long the last read that ended took, in seconds.
    """

    name: str
    kind: Kind
    state: ProbeState
    message: str
    period_s: float
    deadline_s: float
    reads: int
    failures: int
    hangs: int
    left_behind: int
    last_read_age_s: float | None
    last_duration_s: float | None


class Sampler:
    """Reads one probe by its period and puts what it reads on a board.

    Parameters
    ----------
    probe : Probe
    board : Board
    clock : Clock
    period_s : float, default 0.1
        From the start of one read to the start of the next, in seconds.
    deadline_s : float, optional
        How long a read may take, in seconds. One that takes longer hangs: all that the probe has read is unknown, and
        the thread in it is left behind until it returns by itself. By default the period, or 1.2 times what the probe
        itself allows its reads (its ``deadline_s``) if that is more, and at most three periods.

    Raises
    ------
    ValueError
        If a duration is not positive, or the deadline is longer than three periods, when readings are stale anyway.

    Notes
    -----
    Thread-safe. At most one thread, the one of the present *turn*, reads for the sampler; threads of earlier turns are
    left behind in a read that hangs. When such a read returns and nobody else reads, its thread takes the next turn at
    once, so a probe is back with the read that follows the end of its fault.
    """

    def __init__(
        self, probe: Probe, board: Board, clock: Clock, *, period_s: float = 0.1, deadline_s: float | None = None
    ) -> None:
        if not 0.001 <= period_s <= 3600.0:
            raise ValueError(f"probe {probe.name!r}: period_s is {period_s}; expected 0.001 to 3600 seconds")
        if deadline_s is None:
            own_s = getattr(probe, "deadline_s", None) or 0.0
            deadline_s = min(max(period_s, _PATIENCE * own_s), _STALE_PERIODS * period_s)
        if not 0.001 <= deadline_s <= _STALE_PERIODS * period_s:
            raise ValueError(
                f"probe {probe.name!r}: deadline_s is {deadline_s}; expected 0.001 to {_STALE_PERIODS * period_s} "
                f"seconds, {_STALE_PERIODS} periods: later readings would be stale on arrival"
            )
        self.probe = probe
        self._board = board
        self._clock = clock
        self.period_ns = round(period_s * _NS)
        self.deadline_ns = round(deadline_s * _NS)
        self._lock = threading.Lock()
        self._state = ProbeState.STARTING
        self._message = ""
        self._turn = 0  # the thread that may read; 0: none
        self._turns = 0
        self._began_ns: int | None = None  # of the read in progress in this turn
        self._due_ns: int | None = clock.now_ns()  # when a thread is wanted, while none has the turn
        self._left_behind = 0
        self._hangs_in_a_row = 0
        self._failures_in_a_row = 0
        self._reads = self._failures = self._hangs = 0
        self._last_read_ns: int | None = None
        self._last_duration_ns: int | None = None
        self._logged_ns: int | None = None

    @property
    def stale_after_ns(self) -> int:
        """Three periods: how long a reading is believed."""
        return _STALE_PERIODS * self.period_ns

    def take_turn(self) -> int | None:
        """The number of a new turn, for a thread that will call `run` with it; None while no thread is wanted."""
        with self._lock:
            if self._turn or self._state is ProbeState.STOPPED:
                return None
            if self._due_ns is None or self._clock.now_ns() < self._due_ns:
                return None
            return self._next_turn()

    def run(self, turn: int, wait_until: Callable[[int], bool]) -> None:
        """Reads until the turn is over. `wait_until` waits for an instant and returns True when it is time to end."""
        while self._is_turn(turn):
            began_ns = self._begin(turn)
            try:
                found: object = self.probe.read()
            except BaseException as error:  # a probe's thread answers for everything that the probe does
                found = error.with_traceback(None)  # nobody's frames are kept until the next read
            next_turn, at_ns = self._end(turn, began_ns, found)
            if next_turn is None or wait_until(at_ns):
                return
            turn = next_turn

    def check(self) -> bool:
        """For the supervisor: leaves a read behind that has passed its deadline. True when a thread is wanted."""
        with self._lock:
            now_ns = self._clock.now_ns()
            if self._turn and self._began_ns is not None and now_ns - self._began_ns > self.deadline_ns:
                self._leave_behind(now_ns)
            return (
                not self._turn
                and self._state is not ProbeState.STOPPED
                and self._due_ns is not None
                and now_ns >= self._due_ns
            )

    def cannot_start(self, turn: int, error: Exception) -> None:
        """Gives a turn back whose thread could not be started."""
        with self._lock:
            if turn == self._turn:
                self._turn = 0
                self._due_ns = self._clock.now_ns() + _FAILURE_RETRY_NS
                self._say(ProbeState.FAILING, f"no thread can be started for it: {error}")

    def stop(self) -> None:
        """Ends the turn; a read in progress is not waited for. What was read becomes unknown."""
        with self._lock:
            self._turn = 0
            self._state, self._message = ProbeState.STOPPED, ""
            self._board.forget(self.probe.name)

    def report(self) -> ProbeReport:
        """How the probe fares."""
        with self._lock:
            now_ns = self._clock.now_ns()
            return ProbeReport(
                name=self.probe.name,
                kind=self.probe.kind,
                state=self._state,
                message=self._message,
                period_s=self.period_ns / _NS,
                deadline_s=self.deadline_ns / _NS,
                reads=self._reads,
                failures=self._failures,
                hangs=self._hangs,
                left_behind=self._left_behind,
                last_read_age_s=None if self._last_read_ns is None else (now_ns - self._last_read_ns) / _NS,
                last_duration_s=None if self._last_duration_ns is None else self._last_duration_ns / _NS,
            )

    # --- a thread's way through one read ---

    def _is_turn(self, turn: int) -> bool:
        with self._lock:
            return turn == self._turn

    def _begin(self, turn: int) -> int:
        with self._lock:
            now_ns = self._clock.now_ns()
            if turn == self._turn:
                self._began_ns = now_ns
            return now_ns

    def _end(self, turn: int, began_ns: int, found: object) -> tuple[int | None, int]:
        """Files what a read gave. Returns the turn to go on with, or None, and when to read next."""
        with self._lock:
            now_ns = self._clock.now_ns()
            if turn != self._turn:
                self._left_behind = max(self._left_behind - 1, 0)
                if self._turn or self._state is ProbeState.STOPPED:
                    return None, now_ns
                turn = self._next_turn()  # it hangs no longer, and nobody else is at it
            self._began_ns = None
            self._reads += 1
            self._last_duration_ns = now_ns - began_ns
            self._hangs_in_a_row = 0
            if not isinstance(found, Reading | BaseException):
                found = MonitorError(f"read() returned {found!r}; expected a zeta.monitor.Reading")
            if isinstance(found, BaseException):
                return turn, now_ns + self._fail(found)
            self._failures_in_a_row = 0
            self._say(ProbeState.READING, self._publish(found, began_ns, now_ns))
            return turn, max(began_ns + self.period_ns, now_ns)

    def _publish(self, reading: Reading, began_ns: int, now_ns: int) -> str:
        taken_ns = began_ns if reading.taken_ns is None else min(reading.taken_ns, now_ns)
        if self._last_read_ns is not None and taken_ns < self._last_read_ns:
            return self._message  # of a read that hung while another one went through
        self._last_read_ns = taken_ns
        return self._board.publish(self.probe.name, self.probe.kind, reading, taken_ns, self.stale_after_ns)

    def _fail(self, error: BaseException) -> int:
        """Notes a failed read; returns the nanoseconds to wait for the next."""
        self._board.forget(self.probe.name)
        self._failures += 1
        self._failures_in_a_row += 1
        what = str(error) or type(error).__name__
        if isinstance(error, ProbeUnavailable):
            self._say(ProbeState.UNAVAILABLE, what)
            return _backoff_ns(_NS, self._failures_in_a_row, _RETRY_NS)
        if not isinstance(error, MonitorError):
            what = f"{type(error).__name__}: {what}"
        self._say(ProbeState.FAILING, what)
        return _backoff_ns(self.period_ns, self._failures_in_a_row, _FAILURE_RETRY_NS)

    def _leave_behind(self, now_ns: int) -> None:
        began_ns = self._began_ns or now_ns
        self._turn, self._began_ns = 0, None
        self._hangs += 1
        self._left_behind += 1
        self._hangs_in_a_row += 1
        self._board.forget(self.probe.name)
        what = f"a read has taken {(now_ns - began_ns) / _NS:.2g} s, its deadline is {self.deadline_ns / _NS:g} s"
        if self._left_behind < MAX_LEFT_BEHIND:
            self._due_ns = now_ns + _backoff_ns(_FIRST_RETRY_NS, self._hangs_in_a_row, _RETRY_NS)
            self._say(ProbeState.HANGING, what)
        else:
            self._due_ns = None
            self._say(ProbeState.GIVEN_UP, f"{what}, and {self._left_behind} reads hang; waiting for one to return")

    def _next_turn(self) -> int:
        self._turns += 1
        self._turn = self._turns
        self._due_ns = None
        return self._turn

    def _say(self, state: ProbeState, message: str) -> None:
        """Notes how the probe fares; logs a line where that has changed, at most one in ten seconds."""
        has_changed = state is not self._state or bool(message) != bool(self._message)
        self._state, self._message = state, message
        now_ns = self._clock.now_ns()
        if not has_changed or (self._logged_ns is not None and now_ns - self._logged_ns < _LOG_EVERY_NS):
            return
        is_expected = state is ProbeState.UNAVAILABLE or not message
        self._logged_ns = now_ns
        _log.log(
            logging.INFO if is_expected else logging.WARNING,
            "probe %s is %s%s%s",
            self.probe.name,
            state,
            ": " if message else "",
            message,
        )


def _backoff_ns(first_ns: int, times: int, most_ns: int) -> int:
    return min(first_ns << min(times - 1, 40), most_ns)
