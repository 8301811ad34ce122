"""The allocation loop as a Python thread, for policies and forecasts that are Python code."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType

from zeta.allocate import LoadForecast, ModelDemand, Plan, PolicyConfig, Snapshot, tick
from zeta.errors import ClosedError
from zeta.runtime._foresight import LiveForecast
from zeta.scheduler import Router

__all__ = ["AllocationLoop", "LoopReport", "Policy"]

Policy = Callable[[Snapshot, LoadForecast | None, int], Plan]
"""From what is known, a forecast and the present (ns) to a plan for one device; `zeta.allocate.tick` is one."""

_CLOSE_S = 1.0

_log = logging.getLogger("zeta.allocate")


@dataclasses.dataclass(frozen=True, slots=True)
class LoopReport:
    """How a Python loop fares.

    Attributes
    ----------
    ticks : int
        Rounds so far.
    failures : int
        Rounds in which the policy raised, or gave shares that are none.
    last_error : str or None
        What the last of those was.
    is_in_charge : bool
        Whether its plans are in force; if not, the native loop plans.
    late_ms_max, duration_ms_max : float
        The worst begin of a round after its time, and the longest round, in milliseconds.
    forecast_age_s : float or None
        Of a `LiveForecast`, in the last round; None: there is none, or nothing in it is valid.
    """

    ticks: int = 0
    failures: int = 0
    last_error: str | None = None
    is_in_charge: bool = False
    late_ms_max: float = 0.0
    duration_ms_max: float = 0.0
    forecast_age_s: float | None = None


class AllocationLoop:
    """Plans a router's shares on a Python thread, in place of the router's native loop, from `start` to `close`.

    For policies and forecasters that are Python code. Where neither is, leave it to the native loop: that one needs no
    interpreter, while this one waits for the interpreter's lock, 5 ms and more beside a busy Python thread.

    Parameters
    ----------
    router : Router
        Whose shares it plans. It is held weakly; when it goes, or is closed, the loop ends.
    policy : callable, optional
        As `zeta.allocate.tick`, which is the default. It is called once per round for each shared device.
    forecast : LoadForecast, optional
        Handed to the policy. A `LiveForecast`, say over a `RemoteForecaster`, is brought up to date in every round.
    period_s : float, optional
        From one round to the next, in seconds; the router's ``tick_interval_ms`` by default.

    Raises
    ------
    ValueError
        If the period is not above 0.

    Notes
    -----
    Thread-safe. A policy that raises, or whose shares are no shares, is reported once and leaves the native loop in
    charge until it answers again. A child after ``fork`` has the native loop only. The thread is a daemon and keeps no
    interpreter from ending.

    Examples
    --------
    >>> def even(snapshot, forecast, now_ns):
    ...     return zeta.allocate.tick(dataclasses.replace(snapshot, config=PolicyConfig("even")), None, now_ns)
    >>> with AllocationLoop(router, policy=even) as loop:  # doctest: +SKIP
    ...     serve(router)
    """

    def __init__(
        self,
        router: Router,
        policy: Policy = tick,
        forecast: LoadForecast | None = None,
        *,
        period_s: float | None = None,
    ) -> None:
        if period_s is None:
            period_s = router.config.scheduler.tick_interval_ms * 1e-3
        if not period_s > 0:
            raise ValueError(f"period_s: got {period_s}, expected more than 0 seconds")
        settings = router.config.scheduler
        self._config = PolicyConfig(
            policy=settings.policy,
            floor=settings.share_floor,
            max_step=settings.share_step,
            hysteresis=settings.share_hysteresis,
            boost_share=settings.boost_share,
        )
        self._router = weakref.ref(router)
        self._policy = policy
        self._forecast = forecast
        self._period_s = period_s
        self._plans: dict[int, Plan] = {}
        self._report = LoopReport()
        self._round = threading.Lock()
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the thread. Idempotent.

        Raises
        ------
        ClosedError
            If the loop was closed.
        """
        if self._is_over.is_set():
            raise ClosedError("this loop was closed; make another one")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="zeta-allocation", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Ends the thread, waiting a second at most, and gives the shares back to the native loop. Idempotent."""
        self._is_over.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_CLOSE_S)
        self._hand_over(False)

    def tick(self) -> None:
        """One round, now: what the thread does each period."""
        router = self._router()
        if router is None or router.is_closed:
            self._is_over.set()
            return
        began = time.perf_counter()
        error: str | None = None
        with self._round:
            try:
                self._plan(router)
            except ClosedError:
                self._is_over.set()
                return
            except Exception as raised:  # the policy's own, which may be anything
                error = f"{type(raised).__name__}: {raised}"
                if self._report.last_error is None or not self._report.failures:
                    _log.exception("the policy failed; the native loop plans until it answers again")
            if (error is None) != self._report.is_in_charge:
                self._hand_over(error is None)
            took_ms = (time.perf_counter() - began) * 1e3
            last = self._report
            self._report = dataclasses.replace(
                last,
                ticks=last.ticks + 1,
                failures=last.failures + (error is not None),
                last_error=error or last.last_error,
                is_in_charge=error is None,
                duration_ms_max=max(last.duration_ms_max, took_ms),
            )

    def report(self) -> LoopReport:
        """How it fares."""
        return self._report

    def __enter__(self) -> AllocationLoop:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _plan(self, router: Router) -> None:
        rows, devices = router._demands()
        now_ns = time.monotonic_ns()
        if isinstance(self._forecast, LiveForecast):
            self._forecast.update(now_ns)
            self._report = dataclasses.replace(self._report, forecast_age_s=self._forecast.age_s)
        names = router.model_names
        for device in sorted(set(devices.tolist()) - {-1}):
            members = [number for number, its in enumerate(devices) if its == device]
            demands = tuple(
                ModelDemand(
                    names[number],
                    decode_pace=rows[number, 0],
                    due_pressure=rows[number, 1],
                    backlog_work_s=rows[number, 2],
                    waiting=int(rows[number, 3]),
                    running=int(rows[number, 4]),
                    service_rate_rps=rows[number, 5],
                )
                for number in members
            )
            snapshot = Snapshot(demands, self._config, self._plans.get(device), device=f"device{device}")
            plan = self._policy(snapshot, self._forecast, now_ns)
            shares = plan.shares
            router._set_shares([(number, shares[names[number]]) for number in members])
            self._plans[device] = plan

    def _hand_over(self, is_ours: bool) -> None:
        router = self._router()
        if router is not None:
            with contextlib.suppress(ClosedError):
                router._set_planned_elsewhere(is_ours)

    def _run(self) -> None:
        due = time.monotonic() + self._period_s
        while not self._is_over.wait(max(due - time.monotonic(), 0.0)):
            late_ms = max(time.monotonic() - due, 0.0) * 1e3
            self._report = dataclasses.replace(self._report, late_ms_max=max(self._report.late_ms_max, late_ms))
            self.tick()
            due = max(due + self._period_s, time.monotonic())
