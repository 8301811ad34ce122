"""What the actuators that need nothing outside promise; every Actuator promises the first group."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from zeta.allocate import Actuator, Change, DryRunActuator, FakeActuator, ModelDemand, Plan, Snapshot, tick


def plan(need: float, device: str = "gpu0", at_ns: int = 0) -> Plan:
    return tick(Snapshot((ModelDemand("a", due_pressure=need), ModelDemand("b")), device=device), None, at_ns)


every_actuator = pytest.mark.parametrize("make", [DryRunActuator, FakeActuator])


@every_actuator
def test_it_is_an_actuator(make: Callable[[], Actuator]) -> None:
    assert isinstance(make(), Actuator)


@every_actuator
def test_the_first_plan_changes_everything_and_the_same_again_nothing(make: Callable[[], Actuator]) -> None:
    actuator = make()
    first = actuator.apply(plan(0.7, at_ns=3))
    assert (first.actuator, first.device, first.at_ns, first.failure) == (actuator.name, "gpu0", 3, None)
    assert first.changes == (Change("a", None, 0.7), Change("b", None, first.changes[1].after))
    assert actuator.apply(plan(0.7, at_ns=4)).changes == ()


@every_actuator
def test_devices_are_told_apart(make: Callable[[], Actuator]) -> None:
    actuator = make()
    actuator.apply(plan(0.7, device="gpu0"))
    assert [change.before for change in actuator.apply(plan(0.7, device="gpu1")).changes] == [None, None]
    assert actuator.apply(plan(0.6, device="gpu0")).changes[0] == Change("a", 0.7, 0.6)


def test_a_dry_run_puts_nothing_in_force() -> None:
    actuator = DryRunActuator()
    assert not actuator.apply(plan(0.7)).is_in_force
    assert actuator.delay_s is None


def test_the_fake_keeps_what_it_was_given_and_what_is_in_force() -> None:
    actuator = FakeActuator(delay_s=12.0)
    calm, busy = plan(0.1), plan(0.7, at_ns=1)
    assert actuator.apply(calm).is_in_force
    actuator.apply(busy)
    assert actuator.plans == [calm, busy]
    assert actuator.in_force == {"gpu0": busy}
    assert actuator.delay_s == 12.0


def test_a_failed_plan_leaves_the_one_before_in_force() -> None:
    actuator = FakeActuator()
    calm, busy = plan(0.1), plan(0.7, at_ns=1)
    actuator.apply(calm)
    actuator.fail_next("the engine does not answer; is it up?")
    failed = actuator.apply(busy)
    assert failed.failure == "the engine does not answer; is it up?"
    assert (failed.is_in_force, failed.changes) == (False, ())
    assert actuator.in_force == {"gpu0": calm}
    assert actuator.apply(busy).is_in_force
