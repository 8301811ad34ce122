"""From a live router's decisions to whatever carries them out: threads of their own, far from the hot path."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType

from zeta import _core
from zeta.allocate import (
    Actuator,
    Applied,
    Audited,
    AuditedResidency,
    AuditLog,
    LoadForecast,
    ModelLoad,
    ModelShare,
    Plan,
    RateLimited,
    ReplicaTargetActuator,
    ResidencyActuator,
    Scaling,
    ScalingConfig,
    scale,
    swap,
)
from zeta.errors import ClosedError, ConfigError
from zeta.runtime._foresight import LiveForecast
from zeta.scheduler import Router

__all__ = ["ActuationDriver", "DriverReport", "plans_of"]

_CLOSE_S = 1.0
_LOOK_FOR_SWAPS_S = 0.1
_FORECAST_S = 1.0
_RECENT_S = 60.0
_GIVEN_UP_AFTER = 3.0  # start-up times

_BACKLOG, _ARRIVED, _SHARE, _NEED = 2, 7, 8, 9  # columns of Router._demands

_log = logging.getLogger("zeta.allocate")


@dataclasses.dataclass(frozen=True, slots=True)
class DriverReport:
    """What a driver has done so far.

    Attributes
    ----------
    changes : int
        Changes that were carried out, or shown by dry runs.
    swaps : int
        Changes of resident models that ended, in success or not.
    failures : int
        What could not be done.
    last_failure : str or None
        Why the last of those could not.
    """

    changes: int = 0
    swaps: int = 0
    failures: int = 0
    last_failure: str | None = None


def plans_of(router: Router, now_ns: int) -> tuple[Plan, ...]:
    """The shares in force on each device that several models share.

    Raises
    ------
    ClosedError
        If the router is closed.
    """
    rows, devices = router._demands()
    names, policy = router.model_names, router.config.scheduler.policy
    plans = []
    for device in sorted(set(devices.tolist()) - {-1}):
        members = [number for number, its in enumerate(devices.tolist()) if its == device]
        even = 1.0 / len(members)
        shares = [float(rows[number, _SHARE]) for number in members]
        reasons = ["even" if max(shares) == min(shares) else "need" if share > even else "level" for share in shares]
        models = tuple(
            ModelShare(names[number], share, float(rows[number, _NEED]), reason)
            for number, share, reason in zip(members, shares, reasons, strict=True)
        )
        plans.append(Plan(router._device_names[device], now_ns, policy, models, False, False, _core.SharePlan()))
    return tuple(plans)


class ActuationDriver:
    """Carries a live router's decisions out, from `start` to `close`.

    Three things, each only where something is given for it. Shares in force go to actuators of plans. Changes of the
    resident model, on devices with ``colocation = "swap"``, are carried out by residency actuators, and the router is
    told what the device holds then. Replica targets are decided by `zeta.allocate.scale` and handed out.

    Parameters
    ----------
    router : Router
        Held weakly; when it goes, or is closed, the driver ends.
    shares : iterable of Actuator
        Given every device's plan, each at most once in `least_change_s`.
    residency : mapping of str to ResidencyActuator
        By the device's name.
    scaling : mapping of str to ScalingConfig
        By the model's name: whose replicas are scaled.
    targets : ReplicaTargetActuator, optional
        Who is told how many replicas there should be.
    forecast : LoadForecast, optional
        For `scaling`. A `LiveForecast` is kept up to date.
    audit : AuditLog, optional
        Where all that is changed, shown or failed is written down.
    period_s : float, default 1.0
        From one look at the shares to the next, in seconds.
    least_change_s : float, default 10.0
        Least time between two changes of one device by one actuator of `shares`, in seconds.
    scale_period_s : float, default 10.0
        From one decision about replicas to the next, in seconds.

    Raises
    ------
    ConfigError
        If a device or model is unknown, a device awaits loads that nobody here carries out, or scaling has no target.
    ValueError
        If a period is not above 0.

    Notes
    -----
    Whatever reaches outside the process is a dry run unless its actuator was made with ``dry_run=False``. After a dry
    run, and after a swap that failed, the router is told what the device holds still; it asks again after 5 s.

    Each actuator has a daemon thread, and each swap: one that blocks holds up no other, no request, and not the
    interpreter's end. A child after ``fork`` has none of them.
    """

    def __init__(
        self,
        router: Router,
        *,
        shares: Iterable[Actuator] = (),
        residency: Mapping[str, ResidencyActuator] | None = None,
        scaling: Mapping[str, ScalingConfig] | None = None,
        targets: ReplicaTargetActuator | None = None,
        forecast: LoadForecast | None = None,
        audit: AuditLog | None = None,
        period_s: float = 1.0,
        least_change_s: float = 10.0,
        scale_period_s: float = 10.0,
    ) -> None:
        for name, value in (("period_s", period_s), ("scale_period_s", scale_period_s)):
            if not value > 0:
                raise ValueError(f"{name}: got {value}, expected more than 0 seconds")
        self._router = weakref.ref(router)
        self._residency = {
            name: actuator if audit is None else AuditedResidency(actuator, audit)
            for name, actuator in (residency or {}).items()
        }
        self._devices = _checked(router, self._residency)
        self._scaling = dict(scaling or {})
        for model in self._scaling:
            router._known_model(model)
        if self._scaling and targets is None:
            raise ConfigError("scaling is given and nobody who takes targets; pass targets=ReplicaTargetActuator(...)")
        self._targets, self._audit = targets, audit
        self._forecast = forecast
        self._scalers: dict[str, _Scaler] = {}
        self._scale_period_s = scale_period_s
        self._scale_due_s = 0.0
        self._lock = threading.Lock()
        self._report = DriverReport()
        self._is_over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lanes: list[tuple[str, float, Callable[[Router], None]]] = []
        for actuator in shares:
            limited = RateLimited(actuator, least_change_s)
            carried = limited if audit is None else Audited(limited, audit)
            self._lanes.append((actuator.name, period_s, self._share_round(carried)))
        if self._residency:
            self._lanes.append(("swaps", _LOOK_FOR_SWAPS_S, self._swap_round))
        if self._scaling or isinstance(forecast, LiveForecast):
            self._lanes.append(("replicas", min(_FORECAST_S, scale_period_s), self._scale_round))

    def start(self) -> ActuationDriver:
        """Starts the threads; again while they run, does nothing.

        Raises
        ------
        ClosedError
            If the driver was closed.
        """
        if self._is_over.is_set():
            raise ClosedError("this driver was closed; make another one")
        if not self._threads:
            for name, period_s, lane in self._lanes:
                thread = threading.Thread(
                    target=self._run, args=(name, period_s, lane), name=f"zeta-actuate-{name}", daemon=True
                )
                self._threads.append(thread)
                thread.start()
        return self

    def close(self) -> None:
        """Ends the threads, waiting a second at most; a call of an engine that hangs is left to itself. Idempotent."""
        self._is_over.set()
        until_s = time.monotonic() + _CLOSE_S
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(until_s - time.monotonic(), 0.0))

    def __enter__(self) -> ActuationDriver:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def report(self) -> DriverReport:
        """What it has done."""
        return self._report

    # --- threads -----------------------------------------------------------------------------------------------------

    def _run(self, name: str, period_s: float, lane: Callable[[Router], None]) -> None:
        has_failed = False
        while not self._is_over.is_set():
            router = self._router()
            if router is None or router.is_closed:
                return
            try:
                lane(router)
                has_failed = False
            except ClosedError:
                return
            except Exception as error:  # an actuator's own, which promises to raise for bugs only
                self._note(failure=f"{name} raised {type(error).__name__}: {error}")
                if not has_failed:
                    _log.exception("%s failed; it is tried again", name)
                has_failed = True
            del router
            self._is_over.wait(period_s)

    def _note(self, changes: int = 0, swaps: int = 0, failure: str | None = None) -> None:
        with self._lock:
            last = self._report
            self._report = DriverReport(
                last.changes + changes,
                last.swaps + swaps,
                last.failures + (failure is not None),
                failure or last.last_failure,
            )

    def _note_applied(self, applied: Applied) -> None:
        held = applied.held_until_ns is not None
        self._note(changes=0 if held else len(applied.changes), failure=applied.failure)

    # --- shares ------------------------------------------------------------------------------------------------------

    def _share_round(self, actuator: Actuator) -> Callable[[Router], None]:
        def round_(router: Router) -> None:
            for plan in plans_of(router, time.monotonic_ns()):
                self._note_applied(actuator.apply(plan))

        return round_

    # --- resident models ---------------------------------------------------------------------------------------------

    def _swap_round(self, router: Router) -> None:
        for device in self._devices.values():
            if device.is_told or not device.awaits_load:
                continue
            device.is_told = True
            # What is there when the driver begins is the engine's to say; nobody else knows.
            known = device.actuator.resident()
            held = None if known is None else device.held(known)
            if known is not None and held != device.assumed:
                router._loaded(device.number, held)
        for number, out, into in router._next_swaps():
            found = self._devices.get(number)
            if found is None:
                _log.error("device %s has no residency actuator here; nobody swaps there", router._device_names[number])
                continue
            names = router.model_names
            unload, load = (None if model is None else names[model] for model in (out, into))
            threading.Thread(
                target=self._swap, args=(found, unload, load), name=f"zeta-swap-{found.name}", daemon=True
            ).start()

    def _swap(self, device: _SwapDevice, unload: str | None, load: str | None) -> None:
        with device.turn:  # one at a time, also where the router does not wait for the end
            try:
                done = swap(device.actuator, unload, load)
                resident, failure = done.resident, done.failure
                changes = sum(len(step.changes) for step in done.steps if step.failure is None)
            except Exception as error:
                _log.exception("%s raised while it swapped %s for %s", device.actuator.name, unload, load)
                failure, changes = f"{device.actuator.name} raised {type(error).__name__}: {error}", 0
                resident = None
                with contextlib.suppress(Exception):
                    known = device.actuator.resident() or frozenset()
                    resident = next((each for each in (load, unload) if each in known), None)
            if failure is not None:
                _log.warning("%s: %s could not be swapped for %s: %s", device.name, unload, load, failure)
            self._note(changes=changes, swaps=1, failure=failure)
            router = self._router()
            if router is not None and device.awaits_load:
                with contextlib.suppress(ClosedError):
                    router._loaded(device.number, device.models.get(resident or ""))

    # --- replicas ----------------------------------------------------------------------------------------------------

    def _scale_round(self, router: Router) -> None:
        now_ns = time.monotonic_ns()
        if isinstance(self._forecast, LiveForecast):
            self._forecast.update(now_ns)
        rows, _ = router._demands()
        now_s = now_ns * 1e-9
        for model, config in self._scaling.items():
            scaler = self._scalers.setdefault(model, _Scaler(config))
            scaler.note_work(now_s, float(rows[router._known_model(model), _ARRIVED]))
        if not self._scaling or now_s < self._scale_due_s:
            return
        self._scale_due_s = now_s + self._scale_period_s
        replicas = router.stats()["replicas"].values()
        wanted = {}
        for model, scaler in self._scalers.items():
            there = sum(each["model"] == model and not each["is_draining"] for each in replicas)
            backlog_s = float(rows[router._known_model(model), _BACKLOG])
            wanted[model] = scaler.decide(model, now_s, there, backlog_s, self._forecast)
        assert self._targets is not None
        applied = self._targets.apply(wanted, now_ns)
        if self._audit is not None:
            self._audit.write(applied)
        self._note_applied(applied)


@dataclasses.dataclass(slots=True)
class _SwapDevice:
    number: int
    name: str
    actuator: ResidencyActuator
    models: dict[str, int]
    awaits_load: bool
    assumed: int | None
    """What the router takes for resident until it is told: the first with a replica."""
    is_told: bool = False
    turn: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def held(self, known: frozenset[str]) -> int | None:
        """The number of the model that it holds; None for none, and for more than one."""
        found = [number for model, number in self.models.items() if model in known]
        return found[0] if len(found) == 1 else None


def _checked(router: Router, residency: Mapping[str, ResidencyActuator]) -> dict[int, _SwapDevice]:
    swapped = {device.name: device for device in router.config.devices if device.colocation == "swap"}
    numbers = {name: number for number, name in enumerate(router._device_names)}
    for name in residency.keys() - (swapped.keys() & numbers.keys()):
        known = ", ".join(sorted(swapped.keys() & numbers.keys())) or "none"
        raise ConfigError(
            f"residency names the device {name!r}; devices that hold one model at a time: {known}",
            "residency",
            name,
            known,
        )
    for name, device in swapped.items():
        if device.awaits_load and name in numbers and residency and name not in residency:
            raise ConfigError(
                f"device {name!r} awaits its loads, and nobody here carries them out; give residency[{name!r}]",
                "residency",
                name,
                "one for each device that awaits loads",
            )
    models = router.config.models
    return {
        numbers[name]: _SwapDevice(
            numbers[name],
            name,
            actuator,
            {model.name: number for number, model in enumerate(models) if model.device == name},
            swapped[name].awaits_load,
            next((number for number, model in enumerate(models) if model.device == name and model.replicas), None),
        )
        for name, actuator in residency.items()
    }


class _Scaler:
    """One model's decisions about replicas, one after the other."""

    def __init__(self, config: ScalingConfig) -> None:
        self._config = config
        self._arrived: collections.deque[tuple[float, float]] = collections.deque()
        self._last: Scaling | None = None
        self._ordered_s: list[float] = []  # when each replica was asked for that has not joined
        self._there: int | None = None

    def note_work(self, now_s: float, arrived_work_s: float) -> None:
        """So much work has ever arrived."""
        self._arrived.append((now_s, arrived_work_s))
        while len(self._arrived) > 2 and self._arrived[1][0] <= now_s - _RECENT_S:
            self._arrived.popleft()

    def decide(self, model: str, now_s: float, there: int, backlog_work_s: float, forecast: LoadForecast | None) -> int:
        """How many replicas there should be; `there` have joined."""
        joined = max(there - (there if self._there is None else self._there), 0)
        given_up_s = now_s - _GIVEN_UP_AFTER * max(self._config.start_up_s, 1.0)
        self._ordered_s = [at for at in self._ordered_s[joined:] if at > given_up_s]
        self._there = there
        (began_s, before), (ended_s, after) = self._arrived[0], self._arrived[-1]
        load = ModelLoad(
            model,
            now_s,
            there + len(self._ordered_s),
            (after - before) / (ended_s - began_s) if ended_s > began_s else 0.0,
            backlog_work_s,
            tuple(max(at + self._config.start_up_s - now_s, 0.0) for at in self._ordered_s),
        )
        self._last = scale(self._config, load, forecast, self._last)
        self._ordered_s += [now_s] * max(self._last.target - load.replicas, 0)
        return self._last.target
