"""A live router's decisions, carried out: swaps on engines that speak HTTP, shares, and replica targets."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.engine_stub import State, Stub, llama_cpp, ollama

from zeta import Device, Model, Replica, Router, replay_log
from zeta.allocate import (
    Applied,
    AuditLog,
    FakeActuator,
    FakeResidency,
    LlamaCppRouterActuator,
    OllamaActuator,
    Plan,
    ReplicaTargetActuator,
    ScalingConfig,
)
from zeta.errors import ClosedError, ConfigError
from zeta.runtime import ActuationDriver, plans_of
from zeta.runtime._actuation import _Scaler


def wait_for(holds: Callable[[], object], within_s: float = 30.0) -> None:
    until_s = time.monotonic() + within_s
    pause = threading.Event()
    while not holds():
        assert time.monotonic() < until_s
        pause.wait(0.01)


def fleet(colocation: str = "swap", **device: Any) -> dict[str, Any]:
    """Models a and b on one device, each with a replica."""
    return {
        "models": [Model(name, 0.5, device="gpu", replicas=[Replica(f"{name}-0")]) for name in "ab"],
        "devices": [Device("gpu", colocation=colocation, **device)],  # type: ignore[arg-type]
    }


def serve(router: Router, model: str) -> str:
    """One request for a model, waited for and completed; the replica."""
    ticket = router.submit(prompt_tokens=100, max_tokens=1, models=model, deadline_ms=60_000)
    found: list[str] = []

    def is_placed() -> bool:
        for lease in router.poll():
            assert lease.ticket == ticket
            router.complete(lease, 1)
            found.append(lease.replica)
        return bool(found)

    wait_for(is_placed)
    return found[0]


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Iterator[Stub]:
    """The engine that the test names, with model a loaded."""
    stub = Stub(request.param, State(loaded={"a"}))
    yield stub
    stub.close()


# --- swaps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [ollama], indirect=True, ids=["ollama"])
def test_a_request_for_a_model_that_is_not_there_brings_it_in(engine: Stub, tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    router = Router(**fleet(swap_s=0.1, awaits_load=True), decision_log=tmp_path / "log")
    actuator = OllamaActuator(engine.url, models=("a", "b"), dry_run=False)
    with router, log, ActuationDriver(router, residency={"gpu": actuator}, audit=log) as driver:
        assert serve(router, "b") == "b-0"
        assert engine.state.loaded == {"b"}
        assert serve(router, "a") == "a-0"
        assert engine.state.loaded == {"a"}
        wait_for(lambda: driver.report().swaps == 2)
        assert driver.report().failures == 0
        assert driver.report().changes == 4
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    moved = [(line["changes"][0]["model"], line["changes"][0]["after"], line["state"]) for line in lines]
    assert moved == [("a", 0.0, "in force"), ("b", 1.0, "in force"), ("b", 0.0, "in force"), ("a", 1.0, "in force")]
    assert replay_log(tmp_path / "log").is_exact


@pytest.mark.parametrize("engine", [llama_cpp], indirect=True, ids=["llama.cpp"])
def test_a_model_that_cannot_be_loaded_leaves_the_one_that_was_there_serving(engine: Stub) -> None:
    engine.state.refuses_loading = True
    actuator = LlamaCppRouterActuator(engine.url, models=("a", "b"), dry_run=False)
    with (
        Router(**fleet(swap_s=0.1, awaits_load=True)) as router,
        ActuationDriver(router, residency={"gpu": actuator}) as driver,
    ):
        router.submit(prompt_tokens=100, max_tokens=1, models="b")
        wait_for(lambda: engine.state.failed)
        engine.state.refuses_loading = False
        engine.state.failed.clear()
        wait_for(lambda: driver.report().swaps >= 1)
        assert "could not load 'b'" in str(driver.report().last_failure)
        # Nobody is there now, or a is again: in either case the next attempt brings b in.
        wait_for(lambda: [lease for lease in router.poll() if lease.model == "b"])
        assert engine.state.loaded == {"b"}


def test_a_dry_run_asks_nobody_and_the_resident_model_serves_on() -> None:
    with Router(**fleet(swap_s=0.1, awaits_load=True)) as router:
        actuator = OllamaActuator("http://127.0.0.1:9")
        with ActuationDriver(router, residency={"gpu": actuator}) as driver:
            waits = router.submit(prompt_tokens=100, max_tokens=1, models="b")
            wait_for(lambda: driver.report().swaps >= 1)
            assert driver.report().failures == 0
            assert router.outcome(waits) == "queued"
            served = router.submit(prompt_tokens=100, max_tokens=1, models="a")
            wait_for(lambda: router.outcome(served) == "placed")


def test_the_router_is_told_what_the_device_holds_when_the_driver_begins() -> None:
    with (
        Router(**fleet(awaits_load=True)) as router,
        ActuationDriver(router, residency={"gpu": FakeResidency({"b"})}) as driver,
    ):
        assert serve(router, "b") == "b-0"
        assert driver.report().swaps == 0


def test_an_actuator_that_raises_is_a_failure_and_asked_what_is_there() -> None:
    class Broken(FakeResidency):
        def load(self, model: str) -> Applied:
            if not self.asked:
                self.asked.append(("load", model))
                raise RuntimeError("a bug")
            return super().load(model)

        def unload(self, model: str) -> Applied:
            return super().unload(model) if self.asked else Applied("broken", "gpu", 0, (), is_in_force=True)

    with (
        Router(**fleet(swap_s=0.1, awaits_load=True)) as router,
        ActuationDriver(router, residency={"gpu": Broken({"a"})}) as driver,
    ):
        assert serve(router, "b") == "b-0"  # at the second attempt
        assert driver.report().failures == 1
        assert driver.report().last_failure == "fake raised RuntimeError: a bug"


def test_a_device_that_loads_by_itself_is_told_and_not_waited_for() -> None:
    blocked = threading.Event()

    class Slow(FakeResidency):
        def load(self, model: str) -> Applied:
            blocked.wait(20.0)
            return super().load(model)

    with Router(**fleet(swap_s=0.1)) as router, ActuationDriver(router, residency={"gpu": Slow({"a"})}) as driver:
        assert serve(router, "b") == "b-0"
        blocked.set()
        wait_for(lambda: driver.report().swaps == 1)


# --- shares ----------------------------------------------------------------------------------------------------------


def test_the_shares_in_force_reach_every_actuator_at_most_once_per_interval(tmp_path: Path) -> None:
    fakes = [FakeActuator("one"), FakeActuator("two")]
    with Router(**fleet("timeslice"), background=False) as router, AuditLog(tmp_path / "audit.jsonl") as log:
        router._set_shares([(0, 0.8), (1, 0.2)])
        with ActuationDriver(router, shares=fakes, audit=log, period_s=0.01, least_change_s=1_000.0) as driver:
            wait_for(lambda: all(fake.plans for fake in fakes))
            wait_for(lambda: driver.report().changes == 4)
            router._set_shares([(0, 0.5), (1, 0.5)])
            wait_for(lambda: all(fake.in_force for fake in fakes))
            (plan,) = plans_of(router, 7)
            assert (plan.device, plan.at_ns, plan.policy) == ("gpu", 7, "water-fill")
            assert plan.shares == {"a": 0.5, "b": 0.5}
            assert {each.reason for each in plan.models} == {"even"}
    assert [[each.shares for each in fake.plans] for fake in fakes] == [[{"a": 0.8, "b": 0.2}]] * 2
    assert {each.reason for each in fakes[0].plans[0].models} == {"need", "level"}
    assert (tmp_path / "audit.jsonl").read_text().count('"in force"') == 2


def test_an_actuator_that_hangs_or_raises_holds_up_no_other() -> None:
    blocked = threading.Event()

    class Hanging(FakeActuator):
        def apply(self, plan: Plan) -> Applied:
            blocked.wait(20.0)
            return super().apply(plan)

    class Raising(FakeActuator):
        def apply(self, plan: Plan) -> Applied:
            raise RuntimeError(f"a bug on {plan.device}")

    well = FakeActuator("well")
    with (
        Router(**fleet("timeslice")) as router,
        ActuationDriver(router, shares=[Hanging("hanging"), Raising("raising"), well], period_s=0.01) as driver,
    ):
        wait_for(lambda: well.plans and driver.report().failures > 2)
        assert driver.report().last_failure == "raising raised RuntimeError: a bug on gpu"
        began_s = time.monotonic()
        assert time.monotonic() - began_s < 5.0
    blocked.set()


# --- replicas --------------------------------------------------------------------------------------------------------


def test_targets_follow_the_work_that_arrives() -> None:
    asked: list[tuple[str, int]] = []
    targets = ReplicaTargetActuator(lambda model, replicas: asked.append((model, replicas)), dry_run=False)
    scaling = {"a": ScalingConfig(start_up_s=30.0, max_replicas=8)}
    with (
        Router(models=[Model("a", 0.5, replicas=[Replica("a-0")])]) as router,
        ActuationDriver(router, scaling=scaling, targets=targets, scale_period_s=0.05) as driver,
    ):
        wait_for(lambda: asked == [("a", 1)])
        for _ in range(200):
            router.submit(prompt_tokens=100_000, max_tokens=1_000)
        wait_for(lambda: len(asked) > 1)
        assert asked[1][1] > 1
        wait_for(lambda: driver.report().changes >= 2)


def test_replicas_that_start_are_not_ordered_again_and_those_that_never_come_are() -> None:
    scaler = _Scaler(ScalingConfig(start_up_s=30.0, headroom=1.0, max_replicas=8))
    for second in range(61):
        scaler.note_work(float(second), 3.0 * second)
    assert scaler.decide("a", 60.0, 1, 0.0, None) == 3
    assert scaler._ordered_s == [60.0, 60.0]
    assert scaler.decide("a", 70.0, 1, 0.0, None) == 3
    assert scaler.decide("a", 90.0, 2, 0.0, None) == 3  # one has joined
    assert scaler._ordered_s == [60.0]
    for second in range(61, 200):
        scaler.note_work(float(second), 3.0 * second)
    assert scaler.decide("a", 160.0, 2, 0.0, None) == 3  # the other has not, and is asked for anew
    assert scaler._ordered_s == [160.0]


# --- as a whole ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"residency": {"gpo": FakeResidency()}}, "names the device 'gpo'"),
        ({"scaling": {"c": ScalingConfig(1.0)}}, "no model is called 'c'"),
        ({"scaling": {"a": ScalingConfig(1.0)}}, "nobody who takes targets"),
        ({"period_s": 0.0}, "period_s: got 0.0"),
        ({"shares": [FakeActuator()], "least_change_s": 0.0}, "interval_s = 0.0"),
    ],
)
def test_what_cannot_be_driven_is_refused(options: dict[str, Any], says: str) -> None:
    with Router(**fleet(), background=False) as router, pytest.raises((ConfigError, ValueError), match=says):
        ActuationDriver(router, **options)


def test_every_device_that_awaits_loads_needs_somebody_who_loads() -> None:
    models = [Model(name, 0.5, device=f"gpu{name}", replicas=[Replica(name)]) for name in "ab"]
    devices = [Device(f"gpu{name}", colocation="swap", awaits_load=True) for name in "ab"]
    with (
        Router(models=models, devices=devices, background=False) as router,
        pytest.raises(ConfigError, match="'gpub' awaits its loads"),
    ):
        ActuationDriver(router, residency={"gpua": FakeResidency()})


def test_a_driver_ends_with_its_router_and_starts_once() -> None:
    fake = FakeActuator()
    router = Router(**fleet("timeslice"))
    driver = ActuationDriver(router, shares=[fake], period_s=0.01).start()
    assert driver.start() is driver
    wait_for(lambda: fake.plans)
    assert threading.active_count() >= 2
    router.close()
    wait_for(lambda: not any(thread.is_alive() for thread in driver._threads))
    driver.close()
    driver.close()
    with pytest.raises(ClosedError):
        driver.start()
    with contextlib.closing(Router(**fleet("timeslice"))) as gone:
        driver = ActuationDriver(gone, shares=[fake], period_s=0.01)
    driver.start()
    wait_for(lambda: not any(thread.is_alive() for thread in driver._threads))
