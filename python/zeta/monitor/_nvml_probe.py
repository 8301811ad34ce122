"""The probe of NVIDIA GPUs: the host's side of the NVML child."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from zeta.errors import ClosedError, ProbeUnavailable
from zeta.monitor._nvml_child import ChildLost, ChildSilent, NvmlChild, find_bindings, find_python
from zeta.monitor._nvml_view import Answer
from zeta.monitor._nvml_wire import ANY, ANYTHING, FIELD_NAMES
from zeta.monitor.probe import Field, Kind, Reading, select

__all__ = ["NvmlHealth", "NvmlProbe"]

_log = logging.getLogger("zeta.monitor")

_LEAST_DELAY_S: Final = 0.5
_MOST_DELAY_S: Final = 30.0
_PATIENCE: Final = 1 / 8  # of how long the trouble has lasted; so it is over at most that much later than it could be
_BUDGET: Final = 0.6  # of the time left that the child may spend reading
_RETRY_UNAVAILABLE_S: Final = 30.0
_REAP_WITHIN_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class NvmlHealth:
    """How the probe of the GPUs fares.

    Parameters
    ----------
    state : str
        ``idle`` (not read yet), ``starting``, ``ok``, ``failing`` (the driver does not let itself be read),
        ``unavailable`` (no driver, library or GPU) or ``closed``.
    why : str or None
        What is wrong or missing, and what to do about it.
    driver : str or None
        The driver's version.
    devices : int
        GPUs and MIG devices known.
    child_pid : int or None
        Of the process that calls the driver.
    child_starts : int
        How many there have been.
    left_out : tuple of (str, str)
        Device and call that hung or crashed the driver and are not asked for the moment; ``*`` stands for all.
    poll_us : int or None
        How long the child's last poll took.
    """

    state: str
    why: str | None = None
    driver: str | None = None
    devices: int = 0
    child_pid: int | None = None
    child_starts: int = 0
    left_out: tuple[tuple[str, str], ...] = ()
    poll_us: int | None = None


class _Trouble:
    """When to try again what keeps failing: soon at first, then after an eighth of how long it has lasted."""

    __slots__ = ("_next_s", "_since_s")

    def __init__(self, now_s: float, delay_s: float | None = None) -> None:
        self._since_s = now_s
        self._next_s = now_s + (_LEAST_DELAY_S if delay_s is None else delay_s)

    def again(self, now_s: float) -> None:
        """It has failed once more."""
        lasted_s = now_s - self._since_s
        self._next_s = now_s + min(max(lasted_s * _PATIENCE, _LEAST_DELAY_S), _MOST_DELAY_S)

    def is_due(self, now_s: float) -> bool:
        """Whether it is worth another try."""
        return now_s >= self._next_s


class NvmlProbe:
    """Reads NVIDIA GPUs and their MIG devices, by UUID, from a child process.

    Per device: utilisation, memory, power, energy, clocks, temperature, throttle reasons; in the details its name, PCI
    bus id, index, memory by process, and why a value is missing.

    Parameters
    ----------
    deadline_s : float, default 0.25
        The longest that `read` takes. A child that has not answered by then is killed and replaced. The sampler allows
        a fifth more by itself, so that it sees what this probe makes of a hang.
    start_deadline_s : float, default 10.0
        The longest that a child may take to start: without persistence mode a driver needs seconds to wake the GPUs.
        `read` does not wait for that; nothing is known until the child is there.
    slow_period_s : float, default 1.0
        Processes, limits, energy, temperature and the memory's clock are read this often and repeated in between.
    discovery_period_s : float, default 5.0
        New GPUs and MIG devices are looked for this often.
    child_life_s : float, default 21600.0
        A child is replaced after this long, in case the driver leaks.
    python : str, optional
        The interpreter for the child; found by itself in most embedding programs too.
    environment : mapping of str to str, optional
        The child's environment; this process's by default.

    Notes
    -----
    Thread-safe. A driver that hangs, crashes, fails or answers nonsense costs single fields, never a wrong device's
    value: a call that hung or crashed the child is left out and tried again after 0.25 s, later after an eighth of how
    long the trouble has lasted and at most 30 s. MIG devices and GPUs in MIG mode have no utilisation: it is None.

    After a fork the child belongs to the parent; the forked process starts its own when it reads. The child ends with
    its host, however the host ends.
    """

    def __init__(
        self,
        *,
        deadline_s: float = 0.25,
        start_deadline_s: float = 10.0,
        slow_period_s: float = 1.0,
        discovery_period_s: float = 5.0,
        child_life_s: float = 6 * 3600.0,
        python: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if not deadline_s > 0 or not start_deadline_s > 0:
            raise ValueError(f"deadlines must be above 0 s; got {deadline_s} and {start_deadline_s}")
        self._deadline_s = deadline_s
        self._start_deadline_s = start_deadline_s
        self._slow_period_s = slow_period_s
        self._discovery_period_s = discovery_period_s
        self._child_life_s = child_life_s
        self._python = python
        self._environment = dict(environment) if environment is not None else None
        self._fields = select(Kind.DEVICE, FIELD_NAMES)
        self._is_closed = False
        self._child_starts = 0
        self._number = 0
        self._begin_anew()
        _look_after(self)

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._child: NvmlChild | None = None
        self._next: NvmlChild | None = None
        self._dying: NvmlChild | None = None
        self._known: dict[str, str | None] = {}
        self._left_out: dict[tuple[str, str], _Trouble] = {}
        self._child_trouble: _Trouble | None = None
        self._lost_trouble: _Trouble | None = None
        self._slow_at_s = self._discovery_at_s = -1e9
        self._unavailable: str | None = None
        self._retry_s = -1e9
        self._logged: str | None = None
        self._state = "idle"
        self._why: str | None = None
        self._driver: str | None = None
        self._poll_us: int | None = None

    @property
    def name(self) -> str:
        """``"nvml"``."""
        return "nvml"

    @property
    def kind(self) -> Kind:
        """Devices."""
        return Kind.DEVICE

    @property
    def fields(self) -> tuple[Field, ...]:
        """What a GPU may tell; older ones tell less."""
        return self._fields

    @property
    def deadline_s(self) -> float:
        """The longest that `read` takes, in seconds."""
        return self._deadline_s

    def health(self) -> NvmlHealth:
        """How the probe fares. Never waits."""
        child = self._child
        return NvmlHealth(
            "closed" if self._is_closed else self._state,
            self._why,
            self._driver,
            len(self._known),
            child.pid if child is not None else None,
            self._child_starts,
            tuple(self._left_out),
            self._poll_us,
        )

    def read(self) -> Reading:
        """Reads every device once, within the deadline.

        Returns
        -------
        Reading
            A row for each device known, by UUID. While the driver cannot be read, all values are None and the details
            say why.

        Raises
        ------
        ProbeUnavailable
            If there is no driver, library or GPU, and never was; it says what to do.
        ClosedError
            After `close`.
        """
        until_s = time.monotonic() + self._deadline_s
        lock = self._lock
        if not lock.acquire(timeout=self._deadline_s):
            return self._unknown("another thread reads")
        try:
            return self._read(until_s)
        finally:
            if self._is_closed:
                self._give_back()
            lock.release()

    def close(self) -> None:
        """Ends the child. Idempotent; does not wait for a `read` under way, which ends at once."""
        self._is_closed = True
        self._kill()
        if self._lock.acquire(blocking=False):  # otherwise who reads gives back what is left
            try:
                self._give_back()
            finally:
                self._lock.release()

    # --- one read, under the lock --------------------------------------------------------------------------------

    def _read(self, until_s: float) -> Reading:
        if self._is_closed:
            raise ClosedError("this NvmlProbe was closed; make a new one")
        self._attend_next()
        child = self._child or self._start_child(time.monotonic())
        if child is None:
            return self._unknown(self._why or "the child is started again soon")
        if not child.is_ready and not self._await_ready(child, until_s):
            return self._unknown(self._why or "the child starts")
        # The deadline is for the driver: a start that took most of it leaves the poll to the next read.
        if until_s - time.monotonic() < self._deadline_s / 2:
            return self._unknown("the child has just started")
        return self._poll(child, until_s)

    def _start_child(self, now_s: float) -> NvmlChild | None:
        if self._unavailable is not None and now_s < self._retry_s:
            self._raise_or_fail(self._unavailable)
            return None
        if self._child_trouble is not None and not self._child_trouble.is_due(now_s):
            return None
        if ANYTHING in self._left_out_now(now_s):
            return None
        # With devices to read, what is left out is tried by a second child that nobody depends on.
        is_first = not self._known or ANYTHING in self._left_out
        try:
            child = self._spawn(self._left_out_now(now_s) if is_first else list(self._left_out))
        except ProbeUnavailable as error:
            self._be_unavailable(str(error))
            return None
        if child is not None:
            self._child = child
            self._slow_at_s = self._discovery_at_s = -1e9
            self._state = "starting"
        return child

    def _spawn(self, leave_out: list[tuple[str, str]]) -> NvmlChild | None:
        if self._dying is not None:
            if not self._dying.is_reaped(_REAP_WITHIN_S):
                # Another child would hang in the same place.
                self._fail(f"the driver holds process {self._dying.pid}, which not even a signal ends")
                return None
            self._dying.discard()
            self._dying = None
        python, bindings = self._python or find_python(), find_bindings()
        try:
            child = NvmlChild(python, bindings, self._environment, list(self._known.items()), leave_out)
        except (OSError, ChildLost) as error:
            self._count_trouble(time.monotonic())
            self._fail(f"the child does not start: {error}")
            return None
        self._child_starts += 1
        return child

    def _await_ready(self, child: NvmlChild, until_s: float) -> bool:
        try:
            message = child.wait_until_ready(until_s)
        except ChildSilent:
            if time.monotonic() - child.started_s > self._start_deadline_s:
                self._replace(child, f"it did not start within {self._start_deadline_s:g} s")
            return False
        except ChildLost:
            self._replace(child, "the driver crashed while it started", is_lost=True)
            return False
        if not child.is_ready:
            self._child = None
            self._end(child)
            self._be_unavailable(str(message.get("unavailable", "the child gives no reason")))
            return False
        self._unavailable = None
        return True

    def _poll(self, child: NvmlChild, until_s: float) -> Reading:
        now_s = time.monotonic()
        is_slow = now_s - self._slow_at_s >= self._slow_period_s
        is_discovering = now_s - self._discovery_at_s >= self._discovery_period_s
        try:
            child.ask(child.leave_out, (until_s - now_s) * _BUDGET, is_slow, is_discovering)
            answer = child.wait_for_answer(until_s)
        except ChildSilent:
            self._replace(child, f"the driver did not answer within {self._deadline_s:g} s")
        except ChildLost:
            self._replace(child, "the driver crashed", is_lost=True)
        else:
            if is_slow:
                self._slow_at_s = now_s
            if is_discovering:
                self._discovery_at_s = now_s
            self._accept(child, answer)
            return answer.reading
        if self._is_closed:
            raise ClosedError("this NvmlProbe was closed while it was read")
        # The next child starts while the caller waits for its next turn.
        self._start_child(time.monotonic())
        return self._unknown(self._why or "the driver failed")

    def _accept(self, child: NvmlChild, answer: Answer) -> None:
        if list(self._known) != list(answer.reading.rows):
            self._known = child.view.parents
        self._have_returned(child.leave_out)
        self._state, self._why = "ok", None
        self._driver, self._poll_us = child.view.driver, answer.took_us
        if answer.is_lost:
            first = next(iter(answer.reading.details.values()))
            self._fail(f"no device can be read: {first['missing'][FIELD_NAMES[0]]}")
            if self._lost_trouble is None:
                self._lost_trouble = _Trouble(time.monotonic())
        else:
            self._say(None)
            self._lost_trouble = self._child_trouble = None
            child.is_proven = True

    # --- the second child: tries what failed, and takes over --------------------------------------------------------

    def _attend_next(self) -> None:
        """Starts a second child when something is to be tried again, and looks after it. Never waits."""
        now_s = time.monotonic()
        if self._next is not None:
            self._look_at_next(self._next, now_s)
            return
        child = self._child
        if child is None or not child.is_ready:
            return
        is_old = now_s - child.started_s > self._child_life_s
        # A driver that was loaded anew takes new processes only.
        is_lost = self._lost_trouble is not None and self._lost_trouble.is_due(now_s)
        left_out = self._left_out_now(now_s)
        if not is_old and not is_lost and all(pair in left_out for pair in child.leave_out):
            return
        try:
            self._next = self._spawn(left_out)
            if self._next is not None:
                self._next.ask(left_out, self._deadline_s * _BUDGET, is_slow=True, is_discovering=True)
        except (ProbeUnavailable, ChildLost) as error:
            self._give_up_next(now_s, str(error))

    def _look_at_next(self, child: NvmlChild, now_s: float) -> None:
        try:
            if not child.is_ready:
                message = child.wait_until_ready(now_s)
                if not child.is_ready:
                    self._give_up_next(now_s, str(message.get("unavailable")))
                    return
            answer = child.wait_for_answer(now_s)
        except ChildSilent:
            if child.ready_s is None:
                is_late = now_s - child.started_s > self._start_deadline_s
            else:
                is_late = now_s - child.ready_s > self._deadline_s
            if is_late:
                self._give_up_next(now_s, "the driver did not answer", is_guilty=True)
        except ChildLost:
            self._give_up_next(now_s, "the driver crashed", is_guilty=True)
        else:
            if answer.is_lost:
                self._give_up_next(now_s, "no device can be read")
                return
            self._next = None
            if self._child is not None:
                self._end(self._child)
            self._child = child
            self._slow_at_s = self._discovery_at_s = -1e9
            self._have_returned(child.leave_out)
            self._known = child.view.parents

    def _give_up_next(self, now_s: float, why: str, is_guilty: bool = False) -> None:
        child, self._next = self._next, None
        tried = self._left_out
        if child is not None:
            tried = {pair: trouble for pair, trouble in self._left_out.items() if pair not in child.leave_out}
            uuid, call = child.last_call()
            if is_guilty and call and call != "init":
                self._leave_out(uuid, call, now_s)
                if self._child is not None:
                    self._child.leave_out = list(self._left_out)
            self._end(child)
        for trouble in tried.values():
            trouble.again(now_s)
        if self._lost_trouble is not None:
            self._lost_trouble.again(now_s)
        if self._child is not None and now_s - self._child.started_s > self._child_life_s:
            self._child.started_s = now_s  # keep the old one for another life
        _log.debug("a second NVML child was given up: %s", why)

    def _unknown(self, why: str) -> Reading:
        nothing: dict[str, float | None] = dict.fromkeys(FIELD_NAMES)
        known = list(self._known.items())
        return Reading(
            {uuid: dict(nothing) for uuid, _ in known},
            details={uuid: {"parent": parent, "missing": dict.fromkeys(FIELD_NAMES, why)} for uuid, parent in known},
        )

    # --- what went wrong -----------------------------------------------------------------------------------------

    def _left_out_now(self, now_s: float) -> list[tuple[str, str]]:
        return [pair for pair, trouble in self._left_out.items() if not trouble.is_due(now_s)]

    def _have_returned(self, leave_out: list[tuple[str, str]]) -> None:
        """A child with this list answered a poll: what was not in it was called, and came back."""
        for pair in [pair for pair in self._left_out if pair not in leave_out]:
            del self._left_out[pair]

    def _replace(self, child: NvmlChild, what: str, is_lost: bool = False) -> None:
        """Ends the child. If it was in a call, that is left out and the next one starts at once."""
        if self._is_closed:
            return
        now_s = time.monotonic()
        uuid, call = child.last_call()
        end = child.end_of(_REAP_WITHIN_S if is_lost else 0.0)
        self._child = None
        self._end(child)
        where = f" in the call {call!r}" + (f" of {uuid}" if uuid else "") if call else ""
        if call and call != "init":
            self._leave_out(uuid, call, now_s)
        elif child.is_proven:
            # Somebody killed it; but somebody who kills them all shall not keep the machine busy.
            self._child_trouble = _Trouble(now_s, 0.0 if now_s - child.started_s > 1.0 else _LEAST_DELAY_S / 2)
        else:
            self._count_trouble(now_s)
        self._fail(f"{what}{where}; the child {end} and is replaced")

    def _leave_out(self, uuid: str, call: str, now_s: float) -> None:
        """Puts the call aside; a call that fails for two devices, for all; a device with three such calls, wholly."""
        held = self._left_out
        pair = (uuid, call)
        if ANYTHING in held:
            pair = ANYTHING
        elif uuid in self._known:
            if sum(each[0] == uuid for each in held if each != pair) >= 2:
                pair = (uuid, ANY)
            elif any(each[0] in self._known and each[0] != uuid and each[1] == call for each in held):
                pair = (ANY, call)
            if all((each, ANY) in held or each == uuid for each in self._known) and pair[1] == ANY:
                held.clear()
                pair = ANYTHING
        if pair in self._left_out:
            self._left_out[pair].again(now_s)
        else:
            self._left_out[pair] = _Trouble(now_s)

    def _count_trouble(self, now_s: float) -> None:
        if self._child_trouble is None:
            self._child_trouble = _Trouble(now_s)
        else:
            self._child_trouble.again(now_s)

    def _end(self, child: NvmlChild) -> None:
        child.kill()
        if child.is_reaped() or (self._dying is not None and child.is_reaped(_REAP_WITHIN_S)):
            child.discard()
        else:
            self._dying = child

    def _be_unavailable(self, why: str) -> None:
        self._unavailable = why
        # What was there a moment ago may be back soon.
        is_soon = bool(self._known or self._left_out)
        self._retry_s = time.monotonic() + (_LEAST_DELAY_S if is_soon else _RETRY_UNAVAILABLE_S)
        self._raise_or_fail(why)

    def _raise_or_fail(self, why: str) -> None:
        if self._known:
            self._fail(why)
            return
        self._state, self._why = "unavailable", why
        self._say(f"no GPU readings: {why}")
        raise ProbeUnavailable(f"no GPU readings: {why}")

    def _fail(self, why: str) -> None:
        self._state, self._why = "failing", why
        self._say(f"GPU readings are unknown for now: {why}")

    def _say(self, what: str | None) -> None:
        """One line when it begins and one when it is over, however often it is noticed."""
        if what is None:
            if self._logged is not None:
                _log.info("GPU readings are back")
                self._logged = None
        elif self._logged is None:
            _log.warning("%s", what)
            self._logged = what

    # --- the process ---------------------------------------------------------------------------------------------

    def _kill(self) -> None:
        for child in (self._child, self._next):
            if child is not None:
                child.kill()

    def _give_back(self) -> None:
        children = (self._child, self._next, self._dying)
        self._child = self._next = self._dying = None
        for child in children:
            if child is not None:
                child.kill()
                child.is_reaped(_REAP_WITHIN_S)
                child.discard()

    def _forget(self) -> None:
        """In a forked process: the children are the other's."""
        for child in (self._child, self._next, self._dying):
            if child is not None:
                child.forget()
        self._begin_anew()

    def __del__(self) -> None:
        if hasattr(self, "_dying"):
            self._give_back()


_probes: weakref.WeakSet[NvmlProbe] = weakref.WeakSet()
_is_registered = False


def _look_after(probe: NvmlProbe) -> None:
    global _is_registered
    if not _is_registered:
        _is_registered = True
        os.register_at_fork(after_in_child=_forget_all)
        atexit.register(_end_all)
    _probes.add(probe)


def _forget_all() -> None:
    for probe in list(_probes):
        probe._forget()


def _end_all() -> None:
    for probe in list(_probes):
        probe._is_closed = True
        probe._kill()
