"""What every actuator owes its caller, asked of all of them; engines are stubs over real HTTP."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.contract.engine_stub import FAULTS, State, Stub, llama_cpp, ollama, sglang, vllm

from zeta.allocate import (
    Actuator,
    Applied,
    Audited,
    AuditedResidency,
    AuditLog,
    Change,
    CpuWeightActuator,
    DryRunActuator,
    FakeActuator,
    FakeResidency,
    LlamaCppRouterActuator,
    ModelDemand,
    OllamaActuator,
    Plan,
    RateLimited,
    ReplicaTargetActuator,
    ResidencyActuator,
    SglangMemoryActuator,
    Snapshot,
    VllmSleepActuator,
    swap,
    tick,
)

DEADLINE_S = 0.4
ENGINES = {"vllm": vllm, "sglang": sglang, "llama.cpp": llama_cpp, "ollama": ollama}


def plan(need: float, device: str = "gpu0", at_s: float = 0.0) -> Plan:
    models = (ModelDemand("a", due_pressure=need), ModelDemand("b"))
    return tick(Snapshot(models, device=device), None, round(at_s * 1e9))


# ---- those that carry out plans


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes that wait for the end of the test."""
    started = [
        subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
        for _ in range(2)
    ]
    yield started
    for each in started:
        each.communicate()


@pytest.fixture(params=["dry", "fake", "rate limited", "audited", "cpu weight", "cpu weight, dry"])
def actuator(
    request: pytest.FixtureRequest, tmp_path: Path, sleepers: list[subprocess.Popen[bytes]]
) -> Iterator[Actuator]:
    engines = {"a": [sleepers[0].pid], "b": [sleepers[1].pid]}
    with (
        CpuWeightActuator(engines, form="nice", dry_run=False) as weights,
        CpuWeightActuator(engines) as dry_weights,
        AuditLog(tmp_path / "audit.jsonl") as log,
    ):
        yield {
            "dry": DryRunActuator(),
            "fake": FakeActuator(),
            "rate limited": RateLimited(FakeActuator(), 1e-6),
            "audited": Audited(FakeActuator(), log),
            "cpu weight": weights,
            "cpu weight, dry": dry_weights,
        }[request.param]


def test_an_actuator_of_plans_is_one_and_has_a_name(actuator: Actuator) -> None:
    assert isinstance(actuator, Actuator)
    assert actuator.name
    assert actuator.delay_s in (None, 0.0)


def test_the_first_plan_changes_everything_and_the_same_again_nothing(actuator: Actuator) -> None:
    first = actuator.apply(plan(0.7))
    assert (first.actuator, first.device, first.at_ns, first.failure) == (actuator.name, "gpu0", 0, None)
    assert [(each.model, each.before) for each in first.changes] == [("a", None), ("b", None)]
    again = actuator.apply(plan(0.7, at_s=1))
    assert (again.changes, again.failure) == ((), None)


def test_a_change_of_plan_is_told_from_the_plan_in_force(actuator: Actuator) -> None:
    actuator.apply(plan(0.7))
    back = actuator.apply(plan(0.1, at_s=1))
    assert back.changes[0] == Change("a", 0.7, 0.5)


def test_a_failing_actuator_leaves_the_last_plan_in_force_behind_every_wrapper(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    for wrap in (lambda inner: inner, lambda inner: RateLimited(inner, 1e-6), lambda inner: Audited(inner, log)):
        inner = FakeActuator()
        actuator = wrap(inner)
        calm = plan(0.1)
        actuator.apply(calm)
        inner.fail_next("the engine does not answer; is it up?")
        failed = actuator.apply(plan(0.7, at_s=1))
        assert (failed.failure, failed.is_in_force) == ("the engine does not answer; is it up?", False)
        assert inner.in_force == {"gpu0": calm}
        assert actuator.apply(plan(0.7, at_s=2)).changes[0] == Change("a", 0.5, 0.7)
    log.close()


# ---- those that load and unload


def residency(engine: str, url: str, *, dry_run: bool = False, deadline_s: float = DEADLINE_S) -> ResidencyActuator:
    if engine == "vllm":
        return VllmSleepActuator({"a": url}, dry_run=dry_run, deadline_s=deadline_s)
    if engine == "sglang":
        return SglangMemoryActuator(
            {"a": url}, released=["a"], tags=["kv_cache", "weights"], dry_run=dry_run, deadline_s=deadline_s
        )
    form = LlamaCppRouterActuator if engine == "llama.cpp" else OllamaActuator
    return form(url, models=["a", "b"], dry_run=dry_run, deadline_s=deadline_s)


@dataclasses.dataclass
class Bench:
    name: str
    stub: Stub | None
    actuator: ResidencyActuator


@pytest.fixture(params=["fake", "audited", *ENGINES])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    name = request.param
    if name in ENGINES:
        stub = Stub(ENGINES[name])
        yield Bench(name, stub, residency(name, stub.url, deadline_s=20.0))
        stub.close()
    elif name == "fake":
        yield Bench(name, None, FakeResidency())
    else:
        with AuditLog(tmp_path / "audit.jsonl") as log:
            yield Bench(name, None, AuditedResidency(FakeResidency(), log))


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[tuple[str, Stub]]:
    stub = Stub(ENGINES[request.param])
    yield request.param, stub
    stub.close()


def test_an_actuator_of_residency_is_one(bench: Bench) -> None:
    assert isinstance(bench.actuator, ResidencyActuator)
    assert bench.actuator.resident() == frozenset()


def test_what_is_loaded_is_resident_and_loading_again_changes_nothing(bench: Bench) -> None:
    first = bench.actuator.load("a")
    assert (first.changes, first.is_in_force, first.failure) == ((Change("a", 0.0, 1.0),), True, None)
    assert bench.actuator.resident() == {"a"}
    posts = [call for call in (bench.stub.calls if bench.stub else ()) if call[0] == "POST"]
    again = bench.actuator.load("a")
    assert (again.changes, again.is_in_force, again.failure) == ((), True, None)
    assert [call for call in (bench.stub.calls if bench.stub else ()) if call[0] == "POST"] == posts


def test_what_is_unloaded_is_gone_and_unloading_again_changes_nothing(bench: Bench) -> None:
    bench.actuator.load("a")
    assert bench.actuator.unload("a").changes == (Change("a", 1.0, 0.0),)
    assert bench.actuator.resident() == frozenset()
    again = bench.actuator.unload("a")
    assert (again.changes, again.is_in_force, again.failure) == ((), True, None)


def test_the_delay_of_an_engine_is_what_its_loads_took(engine: tuple[str, Stub]) -> None:
    name, stub = engine
    actuator = residency(name, stub.url, deadline_s=20.0)
    assert actuator.delay_s is None
    from_s = time.monotonic()
    actuator.load("a")
    took_s = time.monotonic() - from_s
    assert actuator.delay_s is not None
    assert 0 < actuator.delay_s <= took_s
    measured = actuator.delay_s
    actuator.load("a")  # nothing to do, so nothing to measure
    assert actuator.delay_s == measured


def test_a_dry_run_is_the_default_and_asks_nobody_anything(engine: tuple[str, Stub]) -> None:
    name, stub = engine
    made = {
        "vllm": lambda: VllmSleepActuator({"a": stub.url}),
        "sglang": lambda: SglangMemoryActuator({"a": stub.url}),
        "llama.cpp": lambda: LlamaCppRouterActuator(stub.url),
        "ollama": lambda: OllamaActuator(stub.url),
    }[name]()
    shown = made.load("a")
    assert (shown.is_in_force, shown.failure, shown.changes) == (False, None, (Change("a", None, 1.0),))
    assert made.load("a").changes == ()
    assert made.unload("a").changes == (Change("a", 1.0, 0.0),)
    assert made.resident() is None
    assert made.delay_s is None
    assert stub.calls == []


SAYS = {
    "500": "see its log",
    "404": {
        "vllm": "--enable-sleep-mode and VLLM_SERVER_DEV_MODE=1",
        "sglang": "--enable-memory-saver",
        "llama.cpp": "which makes it a router",
        "ollama": "ollama pull a",
    },
    "401": "pass its key in headers",
    "garbage": "is no JSON",
    "hang": "in time",
    "drip": "in time",
    "drip-head": "in time",
    "close": "see its log, and check the address",
    "cut": "see its log, and check the address",
    "huge": "more than 16777216 bytes",
    "redirect": "give the engine's own address",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_a_sentence_within_the_deadline_and_the_last_order_stays(
    engine: tuple[str, Stub], fault: str
) -> None:
    name, stub = engine
    actuator = residency(name, stub.url, deadline_s=20.0 if fault == "huge" else DEADLINE_S)
    stub.fault, stub.fault_on = fault, ("POST",)
    from_s = time.monotonic()
    failed = actuator.load("a")
    took_s = time.monotonic() - from_s
    assert failed.failure is not None
    assert failed.changes == ()
    assert not failed.is_in_force
    hint = SAYS[fault]
    assert (hint if isinstance(hint, str) else hint[name]) in failed.failure
    assert stub.url in failed.failure
    assert stub.state.loaded == set()
    assert fault == "huge" or took_s < DEADLINE_S + 2.0  # the machine may be busy; a fault lasts 30 s
    assert actuator.delay_s is None


@pytest.mark.parametrize("fault", FAULTS)
def test_an_engine_that_does_not_say_what_is_there_makes_it_unknown_not_empty(
    engine: tuple[str, Stub], fault: str
) -> None:
    name, stub = engine
    if name == "sglang":
        pytest.skip("SGLang is not asked; its actuator keeps account")
    stub.fault, stub.fault_on = fault, ("GET",)
    actuator = residency(name, stub.url, deadline_s=20.0 if fault == "huge" else DEADLINE_S)
    assert actuator.resident() is None
    assert actuator.load("a").failure is not None
    assert not any(method == "POST" for method, _ in stub.calls)  # no order where the state is unknown


def test_a_server_that_is_down_is_a_failure_and_its_return_ends_it(engine: tuple[str, Stub]) -> None:
    name, stub = engine
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    actuator = residency(name, f"http://127.0.0.1:{port}")
    failed = actuator.load("a")
    assert failed.failure is not None
    assert "is it up, and is the address right?" in failed.failure
    good = residency(name, stub.url, deadline_s=20.0)
    stub.fault = "500"
    assert good.load("a").failure is not None
    stub.fault = None
    assert good.load("a").is_in_force is True


def test_a_key_stands_in_no_message(engine: tuple[str, Stub]) -> None:
    name, stub = engine
    stub.fault = "401"
    actuator = VllmSleepActuator({"a": stub.url}, headers={"Authorization": "Bearer sesame"}, dry_run=False)
    assert "sesame" not in str(actuator.load("a"))
    with pytest.raises(ValueError, match="pass them in headers") as raised:
        residency(name, "http://me:sesame@127.0.0.1:1")
    assert "sesame" not in str(raised.value)


def test_a_model_that_it_does_not_have_is_refused_with_those_it_has(engine: tuple[str, Stub]) -> None:
    name, stub = engine
    failure = residency(name, stub.url).load("z").failure
    assert failure is not None
    assert "no model 'z'; it has a" in failure
    assert stub.calls == []


def test_sglang_gets_no_second_order_while_what_became_of_the_first_is_unknown() -> None:
    stub = Stub(sglang)
    actuator = SglangMemoryActuator(
        {"a": stub.url}, released=["a"], tags=["kv_cache", "weights"], dry_run=False, deadline_s=DEADLINE_S
    )
    stub.fault, stub.fault_on = "hang", ("POST",)
    assert actuator.load("a").failure is not None
    stub.fault = None
    orders = len(stub.calls)
    failure = actuator.load("a").failure
    assert failure is not None
    assert "restarted('a')" in failure
    assert len(stub.calls) == orders
    assert actuator.resident() is None
    actuator.restarted("a")
    assert actuator.resident() == {"a"}
    stub.close()


def test_a_load_that_llama_cpp_gives_up_is_told_at_once() -> None:
    stub = Stub(llama_cpp, State(refuses_loading=True))
    actuator = LlamaCppRouterActuator(stub.url, dry_run=False, deadline_s=20.0)
    failure = actuator.load("a").failure
    assert failure is not None
    assert "could not load 'a' (exit code 1)" in failure
    stub.close()


def test_a_load_that_never_arrives_fails_at_the_deadline() -> None:
    stub = Stub(lambda _, asked: (200, b"") if asked.method == "POST" else (200, {"is_sleeping": True}))
    actuator = VllmSleepActuator({"a": stub.url}, dry_run=False, deadline_s=DEADLINE_S)
    failure = actuator.load("a").failure
    assert failure is not None
    assert "had not done it within 0.4 s" in failure or "in time" in failure
    stub.close()


# ---- the swap of one model for another


def test_a_swap_takes_one_out_and_puts_the_other_in(bench: Bench) -> None:
    if bench.name in ("vllm", "sglang"):
        pytest.skip("its stub has one model")
    bench.actuator.load("a")
    done = swap(bench.actuator, "a", "b")
    assert (done.resident, done.failure) == ("b", None)
    assert [step.changes for step in done.steps] == [(Change("a", 1.0, 0.0),), (Change("b", 0.0, 1.0),)]
    assert bench.actuator.resident() == {"b"}


def test_a_swap_whose_load_fails_puts_the_first_back() -> None:
    actuator = FakeResidency(["a"])
    failing = _FailsToLoad(actuator, "b")
    done = swap(failing, "a", "b")
    assert (done.resident, done.failure) == ("a", "no memory")
    assert actuator.resident() == {"a"}


def test_a_swap_whose_unload_fails_loads_nothing() -> None:
    actuator = FakeResidency(["a"])
    actuator.fail_next("busy")
    done = swap(actuator, "a", "b")
    assert (done.resident, done.failure, actuator.asked) == ("a", "busy", [("unload", "a")])


def test_a_dry_swap_leaves_what_is_there() -> None:
    actuator = OllamaActuator("http://127.0.0.1:1")
    assert swap(actuator, "a", "b").resident == "a"


class _FailsToLoad(FakeResidency):
    def __init__(self, inner: FakeResidency, model: str) -> None:
        super().__init__()
        self.inner, self.model = inner, model

    def load(self, model: str) -> Applied:
        if model == self.model:
            return Applied("fake", "device0", 0, (), is_in_force=False, failure="no memory")
        return self.inner.load(model)

    def unload(self, model: str) -> Applied:
        return self.inner.unload(model)

    def resident(self) -> frozenset[str] | None:
        return self.inner.resident()


# ---- replica targets


def write_target(path: Path) -> list[str]:
    code = "import sys; open(sys.argv[1], 'a').write(f'{sys.argv[2]}={sys.argv[3]} ')"
    return [sys.executable, "-c", code, str(path), "{model}", "{replicas}"]


@pytest.mark.parametrize("form", ["function", "command"])
def test_targets_are_handed_out_once(form: str, tmp_path: Path) -> None:
    out = tmp_path / "targets"
    out.touch()

    def note(model: str, target: int) -> None:
        out.write_text(f"{out.read_text()}{model}={target} ")

    def make(calls: Callable[[str, int], object] | list[str]) -> ReplicaTargetActuator:
        return ReplicaTargetActuator(calls, dry_run=False)

    actuator = make(note) if form == "function" else make(write_target(out))
    done = actuator.apply({"a": 2, "x; rm -r $HOME": 1}, at_ns=5)
    assert (done.at_ns, done.is_in_force, done.failure) == (5, True, None)
    assert done.changes == (Change("a", None, 2.0), Change("x; rm -r $HOME", None, 1.0))
    assert actuator.apply({"a": 2}, at_ns=6).changes == ()
    assert actuator.apply({"a": 3}, at_ns=7).changes == (Change("a", 2.0, 3.0),)
    assert out.read_text() == "a=2 x; rm -r $HOME=1 a=3 "
    assert actuator.delay_s is not None


def test_targets_are_a_dry_run_by_default(tmp_path: Path) -> None:
    out = tmp_path / "targets"
    actuator = ReplicaTargetActuator(write_target(out))
    shown = actuator.apply({"a": 2}, at_ns=0)
    assert (shown.changes, shown.is_in_force) == ((Change("a", None, 2.0),), False)
    assert not out.exists()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["/nowhere/scale", "{model}", "{replicas}"], "give the path of a program"),
        ([sys.executable, "-c", "import sys; sys.exit('quota: ' + sys.argv[2])", "{model}", "{replicas}"], "quota: 2"),
        ([sys.executable, "-c", "import time; time.sleep(30)", "{model}", "{replicas}"], "was killed after 0.4 s"),
    ],
)
def test_a_command_that_fails_leaves_the_target_and_says_why(command: list[str], says: str) -> None:
    actuator = ReplicaTargetActuator(command, dry_run=False, deadline_s=DEADLINE_S if "30" in command[2] else 20.0)
    failed = actuator.apply({"a": 2}, at_ns=0)
    assert failed.failure is not None
    assert says in failed.failure
    assert (failed.changes, failed.is_in_force, actuator.in_force) == ((), False, {})


def test_one_model_that_fails_does_not_hold_up_the_others() -> None:
    def refuse(model: str, target: int) -> None:
        if model == "a":
            raise RuntimeError(f"no room for {target}")

    actuator = ReplicaTargetActuator(refuse, dry_run=False)
    done = actuator.apply({"a": 9, "b": 1, "c": -1}, at_ns=0)
    assert done.changes == (Change("b", None, 1.0),)
    assert done.failure is not None
    assert "'a' stays" in done.failure
    assert "no room for 9" in done.failure
    assert "expected a whole number from 0 to 4096" in done.failure


@pytest.mark.parametrize("wrong", ["scale a 2", ["scale"], ["scale", "{model}"], []])
def test_a_command_that_cannot_work_is_refused_when_made(wrong: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        ReplicaTargetActuator(wrong)  # type: ignore[arg-type]
