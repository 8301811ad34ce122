"""The monitor's threads: one per probe, one that watches them. All are daemons; none is waited for without a limit."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from zeta.clock import Clock, SteadyClock
from zeta.errors import ClosedError
from zeta.monitor import Board, Kind, Probe, ProbeReport, ProbeState, Sampler, Snapshot
from zeta.runtime._external import ExternalLoads

if TYPE_CHECKING:
    from zeta.scheduler import Router

__all__ = ["Monitor", "examine"]

_NS = 1_000_000_000
_CLOSE_S = 1.0  # the most that closing waits for probes, and again for threads
_WATCH_NS = _NS // 4
_EXAMINE_S = 0.1
_EXIT_S = 0.1  # the same at the interpreter's end

_log = logging.getLogger("zeta.monitor")
_monitors: weakref.WeakSet[Monitor] = weakref.WeakSet()
_is_registered = False


class _Gate:
    """Where one thread sleeps until an instant or until it is let go."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._shut = threading.Lock()
        self._shut.acquire()

    def wait_until(self, at_ns: int) -> bool:
        """True when it was let go."""
        return self._shut.acquire(timeout=max((at_ns - self._clock.now_ns()) / _NS, 0.0))

    def let_go(self) -> None:
        with contextlib.suppress(RuntimeError):  # it was already
            self._shut.release()


class _Reader(NamedTuple):
    thread: threading.Thread
    gate: _Gate


class Monitor:
    """Reads probes, each in a daemon thread of its own, and keeps the newest readings for Python and the native core.

    Parameters
    ----------
    probes : iterable of Probe, optional
        More come and go by `add` and `remove`.
    period_s : float, default 0.1
        From one read to the next, in seconds, where `add` does not say otherwise; a probe that is dear to read, such as
        `EnginesProbe`, is read as often as its own ``period_s`` says if that is less often.
    devices, replicas : int
        The most of each that the board holds.
    router : Router, optional
        Told what others hold on its replicas, after each reading of their engines: what their engines say runs and
        waits there, less what the router itself has sent. Replicas go by their names. Held weakly.

    Raises
    ------
    ValueError
        If two probes have one name, or a period is out of range.

    Notes
    -----
    Thread-safe. Nothing starts before `start`. A probe that hangs is unknown within two periods; its thread is left
    behind and another takes its place, after 0.25 s at first and 30 s at most, or as soon as the hanging read returns.
    No thread of the monitor keeps the interpreter from ending. A child after ``fork`` finds the monitor without probes,
    threads or readings, and may add and start probes of its own.

    Examples
    --------
    >>> from zeta.monitor import HostProbe
    >>> with Monitor([HostProbe()]) as monitor:
    ...     host = monitor.snapshot().host  # fields are None until the first read has ended
    """

    def __init__(
        self,
        probes: Iterable[Probe] = (),
        *,
        period_s: float = 0.1,
        devices: int = 16,
        replicas: int = 64,
        router: Router | None = None,
    ) -> None:
        self._threads: dict[str, list[_Reader]] = {}  # per probe, the one that reads last
        self._clock: Clock = SteadyClock()
        self._period_s = period_s
        self._board = Board(devices, replicas)
        self._loads = None if router is None else ExternalLoads(router)
        self._lock = threading.Lock()
        self._samplers: dict[str, Sampler] = {}
        self._watch: _Reader | None = None
        self._is_closed = False
        for probe in probes:
            self.add(probe)
        _look_after(self)

    @property
    def board(self) -> Board:
        """Where the readings stand; `Board.core` is what native code reads."""
        return self._board

    @property
    def is_running(self) -> bool:
        """Whether its threads have been started and not been stopped."""
        return self._watch is not None

    def add(self, probe: Probe, *, period_s: float | None = None, deadline_s: float | None = None) -> None:
        """Takes a probe on; it is read from now on where the monitor runs.

        Parameters
        ----------
        probe : Probe
        period_s : float, optional
            From one read to the next, in seconds; the monitor's by default, or the probe's own if that is longer.
        deadline_s : float, optional
            How long a read may take before it counts as hanging, in seconds; by default the period, or a fifth more
            than the probe allows itself.

        Raises
        ------
        ClosedError
            If the monitor was closed.
        ValueError
            If there is a probe of this name, or a duration is out of range.
        """
        if self._loads is not None and probe.kind is Kind.REPLICA:
            probe = self._loads.watched(probe)
        if period_s is None:
            own_s = getattr(probe, "period_s", None)
            period_s = self._period_s if own_s is None else max(self._period_s, own_s)
        sampler = Sampler(
            probe,
            self._board,
            self._clock,
            period_s=period_s,
            deadline_s=deadline_s,
        )
        with self._lock:
            if self._is_closed:
                raise ClosedError("this monitor was closed; make another one")
            if probe.name in self._samplers:
                raise ValueError(f"there is a probe called {probe.name!r} already; give each its own name")
            self._samplers[probe.name] = sampler
            self._threads[probe.name] = []
            if self.is_running:
                self._start_thread(sampler)

    def remove(self, name: str) -> None:
        """Lets a probe go: it is closed, and its rows are free. Waits a second at most.

        Raises
        ------
        KeyError
            If there is none of this name.
        """
        with self._lock:
            sampler = self._samplers.pop(name)
            readers = self._threads.pop(name)
        self._end([sampler], readers, _CLOSE_S)
        self._board.remove(name)

    def start(self) -> None:
        """Starts the threads. Idempotent.

        Raises
        ------
        ClosedError
            If the monitor was closed.
        """
        with self._lock:
            if self._is_closed:
                raise ClosedError("this monitor was closed; make another one")
            if self.is_running:
                return
            gate = _Gate(self._clock)
            watch = threading.Thread(target=_watch, args=(weakref.ref(self), gate), name="zeta-monitor", daemon=True)
            watch.start()
            self._watch = _Reader(watch, gate)
            for sampler in self._samplers.values():
                self._start_thread(sampler)

    def close(self) -> None:
        """Stops the threads and closes the probes; all readings are unknown from now on. Idempotent.

        Waits two seconds at most; a read that hangs is left to itself.
        """
        self._close(_CLOSE_S)

    def _close(self, wait_s: float) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            samplers = list(self._samplers.values())
            readers = [reader for each in self._threads.values() for reader in each]
            last = [each[-1] for each in self._threads.values() if each]
            if self._watch is not None:
                readers.append(self._watch)
                last.append(self._watch)
            self._threads, self._watch = {}, None
        self._end(samplers, readers, wait_s)
        if self._loads is not None:
            self._loads.forget_all()
        until = time.monotonic() + wait_s
        for reader in last:
            if reader.thread is not threading.current_thread():
                reader.thread.join(max(until - time.monotonic(), 0.0))

    def __enter__(self) -> Monitor:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def snapshot(self) -> Snapshot:
        """What is known now: every missing or stale value is ``None``, with its age."""
        return self._board.snapshot(self._clock.now_ns())

    def probes(self) -> tuple[ProbeReport, ...]:
        """How each probe fares, in the order in which they were added."""
        with self._lock:
            samplers = list(self._samplers.values())
        return tuple(sampler.report() for sampler in samplers)

    # --- threads ---

    def _start_thread(self, sampler: Sampler) -> None:
        """With the lock held."""
        turn = sampler.take_turn()
        if turn is None:
            return
        gate = _Gate(self._clock)
        name = sampler.probe.name
        thread = threading.Thread(
            target=sampler.run, args=(turn, gate.wait_until), name=f"zeta-probe-{name}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            sampler.cannot_start(turn, error)
            return
        self._threads[name] = [each for each in self._threads[name] if each.thread.is_alive()]
        self._threads[name].append(_Reader(thread, gate))

    def _check(self) -> None:
        """Replaces threads that hang."""
        with self._lock:
            for sampler in self._samplers.values():
                if sampler.check():
                    self._start_thread(sampler)
        if self._loads is not None:
            self._loads.forget_stale(self._board, self._clock.now_ns())

    def _end(self, samplers: list[Sampler], readers: list[_Reader], wait_s: float) -> None:
        for sampler in samplers:
            sampler.stop()
        for reader in readers:
            reader.gate.let_go()
        _close_apart([sampler.probe for sampler in samplers], wait_s)

    def __del__(self) -> None:
        # No lock is taken here: this may run inside any call. Let go, every thread ends after its read.
        for readers in getattr(self, "_threads", {}).values():
            for reader in readers:
                reader.gate.let_go()

    def _reset_after_fork(self) -> None:
        self._lock = threading.Lock()
        self._samplers = {}
        self._threads = {}
        self._watch = None
        self._board.clear()
        if self._loads is not None:
            self._loads.reset_after_fork()


def examine(probe: Probe, *, deadline_s: float = 5.0, reads: int = 1) -> tuple[ProbeReport, Snapshot]:
    """Reads a probe once or twice and closes it: how it fares, and what it found.

    Parameters
    ----------
    probe : Probe
    deadline_s : float, default 5.0
        How long a read may take, in seconds. Closing may take one second more.
    reads : int, default 1
        How often to read: what tells differences knows them from the second read on, 0.1 s later.
    """
    clock = SteadyClock()
    board = Board(devices=256, replicas=256)
    sampler = Sampler(probe, board, clock, period_s=deadline_s)
    has_read = threading.Event()
    left = reads

    def wait_until(_: int) -> bool:
        nonlocal left
        left -= 1
        if left <= 0 or sampler.report().state is not ProbeState.READING:
            has_read.set()
            return True
        time.sleep(_EXAMINE_S)
        return False

    turn = sampler.take_turn()
    threading.Thread(target=sampler.run, args=(turn, wait_until), name=f"zeta-probe-{probe.name}", daemon=True).start()
    has_read.wait((deadline_s * 1.01 + _EXAMINE_S) * reads)
    sampler.check()
    found = sampler.report(), board.snapshot(clock.now_ns())
    sampler.stop()
    _close_apart([probe], _CLOSE_S)
    return found


def _watch(of: weakref.ref[Monitor], gate: _Gate) -> None:
    """The watching thread. It holds its monitor only while it looks, so that one that is dropped ends.

    That what hangs is unknown is not its doing: readings are stale two periods after a read began that does not return.
    """
    while not gate.wait_until(time.monotonic_ns() + _WATCH_NS):
        monitor = of()
        if monitor is None:
            return
        try:
            monitor._check()
        except Exception:
            # Nobody else would replace what hangs.
            _log.exception("the monitor's watching thread goes on after an error")
        del monitor


def _close_apart(probes: list[Probe], wait_s: float) -> None:
    """Closes probes in a thread of their own: one whose close hangs would hold up whoever asked."""
    closer = threading.Thread(target=_close, args=(probes,), name="zeta-monitor-close", daemon=True)
    try:
        closer.start()
    except RuntimeError:  # the interpreter is ending
        return
    closer.join(wait_s)


def _close(probes: list[Probe]) -> None:
    for probe in probes:
        try:
            probe.close()
        except Exception:
            _log.exception("probe %s could not be closed", probe.name)


def _look_after(monitor: Monitor) -> None:
    """Lets a forked child start empty, and closes probes when the interpreter ends."""
    global _is_registered
    if not _is_registered:
        _is_registered = True
        os.register_at_fork(after_in_child=_start_empty)
        atexit.register(_stop)
    _monitors.add(monitor)


def _start_empty() -> None:
    for monitor in list(_monitors):
        monitor._reset_after_fork()


def _stop() -> None:
    for monitor in list(_monitors):
        monitor._close(_EXIT_S)
