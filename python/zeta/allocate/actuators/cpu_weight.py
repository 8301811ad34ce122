"""Shares as parts of the CPU, for engines that run as processes of this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal

from zeta.allocate.actuators._cpu_forms import Affinity, CannotError, ControlGroups, CpuForm, Engines, Nice
from zeta.allocate.actuators._processes import Process, descendants, process
from zeta.allocate.actuators.delay import DelayMeter
from zeta.allocate.actuators.protocol import Applied, changes
from zeta.allocate.loop import Plan

__all__ = ["CpuWeightActuator"]


class CpuWeightActuator:
    """Gives the engine processes of one device's models the CPU by their shares. An `Actuator`; `close` restores.

    Parameters
    ----------
    processes : mapping of str to (iterable of int or callable)
        The process ids of each model's engine, or a function that finds them at every plan. All threads and all
        processes that they have started are included.
    form : {"auto", "affinity", "groups", "nice"}
        What is turned. ``affinity``: which CPUs each engine may run on; any user may do that to their own processes,
        and undo it; coarse, see Notes. ``groups``: weights of control groups made in `cgroup`; exact while the
        CPUs are busy. ``nice``: how nice engines are to each other; only where this user may undo it. ``auto``: groups
        where `cgroup` is given, else affinity where there are two CPUs or more, else nice.
    cgroup : str or Path, optional
        A directory of the cpu controller that was delegated to this user.
    name : str
        For metrics and logs.
    dry_run : bool, default True
        Say what would be changed, and touch no process.

    Raises
    ------
    ValueError
        If the form is unknown, or ``groups`` comes without `cgroup`.

    Notes
    -----
    A plan whose models are not those of `processes` fails. If a plan cannot be carried out, the last one is put back.
    No process is ever stopped.

    With ``affinity`` an engine has the CPUs that its share covers to itself; on one that two engines share, each gets
    by the number of its busy threads there. On two CPUs, of two engines of two threads the one with 0.75 gets two
    thirds.
    """

    def __init__(
        self,
        processes: Mapping[str, Iterable[int] | Callable[[], Iterable[int]]],
        *,
        form: Literal["auto", "affinity", "groups", "nice"] = "auto",
        cgroup: str | Path | None = None,
        name: str = "cpu-weight",
        dry_run: bool = True,
    ) -> None:
        self._processes: dict[str, Callable[[], Iterable[int]]] = {
            model: each if callable(each) else _always(tuple(each)) for model, each in processes.items()
        }
        self._form = _form(form, None if cgroup is None else Path(cgroup))
        self._name, self._dry_run = name, dry_run
        self._delay = DelayMeter()
        self._shares: dict[str, dict[str, float]] = {}
        self._engines: dict[str, tuple[Process, ...]] = {}

    @property
    def name(self) -> str:
        """How metrics and logs call it."""
        return self._name

    @property
    def form(self) -> str:
        """What is turned: ``affinity``, ``control groups`` or ``nice``."""
        return self._form.name

    @property
    def delay_s(self) -> float | None:
        """Seconds until a plan was in force and read back: the 0.9 quantile of the last 32; None before the first."""
        return self._delay.delay_s

    def apply(self, plan: Plan) -> Applied:
        """Puts `plan` in force, or says why not and leaves the last one."""
        shares = plan.shares
        last = self._shares.get(plan.device, {})
        asked = changes(last, plan)
        if shares.keys() != self._processes.keys():
            return self._failed(
                plan,
                f"the plan is for {', '.join(shares)}, the processes are of {', '.join(self._processes)}; "
                "name the same",
            )
        if self._dry_run:
            self._shares[plan.device] = shares
            return Applied(self._name, plan.device, plan.at_ns, asked, is_in_force=False)
        from_s = time.monotonic()
        try:
            engines = self._find()
            if asked or engines != self._engines:
                self._put(shares, engines, last)
                self._delay.note(time.monotonic() - from_s)
        except CannotError as error:
            return self._failed(plan, str(error))
        self._shares[plan.device], self._engines = shares, engines
        return Applied(self._name, plan.device, plan.at_ns, asked, is_in_force=True)

    def close(self) -> None:
        """Every process is left as it was found."""
        self._form.restore()
        self._shares.clear()
        self._engines = {}

    def __enter__(self) -> CpuWeightActuator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _find(self) -> dict[str, tuple[Process, ...]]:
        found: dict[str, tuple[Process, ...]] = {}
        for model, pids in self._processes.items():
            try:
                asked = tuple(pids())
            except Exception as error:  # whatever a stranger's function raises
                raise CannotError(f"the processes of {model!r} cannot be found: {error}") from error
            if gone := [pid for pid in asked if process(pid) is None]:
                raise CannotError(f"process {gone[0]} of {model!r} is gone; give a function that finds its engine anew")
            found[model] = tuple(
                sorted(filter(None, map(process, descendants(asked))), key=lambda each: (each.pid, each.started))
            )
            if not found[model]:
                raise CannotError(f"{model!r} has no process; start its engine, or give its process id")
        return found

    def _put(self, shares: Mapping[str, float], engines: Engines, last: Mapping[str, float]) -> None:
        try:
            self._form.put(shares, engines)
        except (OSError, CannotError) as error:
            if last:
                try:
                    self._form.put(last, engines)
                except (OSError, CannotError):
                    self._form.restore()  # then even, as found, is the nearest to the last plan that can be had
            else:
                self._form.restore()
            raise CannotError(_sentence(error, self._form)) from error

    def _failed(self, plan: Plan, why: str) -> Applied:
        return Applied(self._name, plan.device, plan.at_ns, (), is_in_force=False, failure=why)


def _always(pids: tuple[int, ...]) -> Callable[[], Iterable[int]]:
    return lambda: pids


def _form(form: str, cgroup: Path | None) -> CpuForm:
    if form == "groups" or (form == "auto" and cgroup is not None):
        if cgroup is None:
            raise ValueError("form = 'groups' needs cgroup: a directory of the cpu controller delegated to this user")
        return ControlGroups(cgroup)
    if form == "nice" or (form == "auto" and (os.cpu_count() or 1) < 2):
        return Nice()
    if form in ("auto", "affinity"):
        return Affinity()
    raise ValueError(f"form = {form!r}; expected auto, affinity, groups or nice")


def _sentence(error: OSError | CannotError, form: CpuForm) -> str:
    if isinstance(error, PermissionError):
        return f"this user may not set {form.name} there ({error}); run as the engines' user, or delegate a cgroup"
    return str(error)
