"""Shares as parts of the CPU, tried on real processes of this machine; what was given is read from /proc."""

from __future__ import annotations

import dataclasses
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from zeta.allocate import CpuWeightActuator, ModelDemand, Plan, Snapshot, tick
from zeta.allocate.actuators._cpu_forms import Affinity, ControlGroups, Nice, cpus_of_shares, places
from zeta.allocate.actuators._processes import descendants

WINDOW_CPU_S = 0.4
TRIES = 25

# An engine and its workers, which are busy until it ends.
BUSY = """
import os, sys
engine = os.getpid()
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        while os.getppid() == engine:
            for _ in range(100_000):
                pass
        os._exit(0)
print("ready", flush=True)
sys.stdin.read()
"""


def plan(need: float, at_ns: int = 0) -> Plan:
    return tick(Snapshot((ModelDemand("a", due_pressure=need), ModelDemand("b"))), None, at_ns)


def plan_of(share: float, at_ns: int) -> Plan:
    """With this share for `a`, the rest for `b`."""
    found = plan(share, at_ns)
    models = tuple(
        dataclasses.replace(each, share=part) for each, part in zip(found.models, (share, 1 - share), strict=True)
    )
    return dataclasses.replace(found, models=models)


def start(workers: int) -> subprocess.Popen[bytes]:
    started = subprocess.Popen(
        [sys.executable, "-c", BUSY, str(workers)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert started.stdout is not None
    assert started.stdout.readline() == b"ready\n"
    return started


@pytest.fixture
def engines(request: pytest.FixtureRequest) -> Iterator[dict[str, list[int]]]:
    """Two engines of as many busy workers as the test asks for; with one each, both are on one CPU."""
    workers: int = request.param
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cpus[:workers])
    try:
        started = [start(workers), start(workers)]
    finally:
        os.sched_setaffinity(0, cpus)
    yield {"a": [started[0].pid], "b": [started[1].pid]}
    for each in started:
        each.kill()
        each.communicate()


on_two_cpus = pytest.mark.parametrize("engines", [2], indirect=True)
on_one_cpu = pytest.mark.parametrize("engines", [1], indirect=True)
needs_two_cpus = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="this machine gives tests one CPU")


def ticks(engine: int) -> int:
    """CPU time of an engine and its workers, user and system."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in descendants([engine])]
    return sum(int(each[11]) + int(each[12]) for each in fields)


def part_of_a(engines: dict[str, list[int]]) -> float:
    """The part of the CPU time of both that `a` gets, over a window of that time."""
    window = round(WINDOW_CPU_S * os.sysconf("SC_CLK_TCK"))
    before = [ticks(engines[model][0]) for model in "ab"]
    while True:
        spent = [ticks(engines[model][0]) - was for model, was in zip("ab", before, strict=True)]
        if sum(spent) >= window:
            return spent[0] / sum(spent)
        time.sleep(0.01)


def reaches(engines: dict[str, list[int]], low: float, high: float) -> bool:
    """Other work on the machine may spoil a window, so there are several."""
    return any(low <= part_of_a(engines) <= high for _ in range(TRIES))


@needs_two_cpus
@on_two_cpus
def test_by_affinity_the_boosted_of_two_busy_engines_on_two_cpus_gets_more_and_returns(
    engines: dict[str, list[int]],
) -> None:
    # Alone on two CPUs, a gets two thirds when boosted, a half, and a third when b is. Other work moves to
    # where there is room and draws these together, so that it may take more turns to tell them apart.
    boosted, even, other = [], [], []
    with CpuWeightActuator(engines, form="affinity", dry_run=False) as actuator:
        for turn in range(TRIES):
            for share, found in ((0.75, boosted), (0.5, even), (0.25, other)):
                assert actuator.apply(plan_of(share, turn)).is_in_force
                found.append(part_of_a(engines))
            means = statistics.mean(boosted), statistics.mean(even), statistics.mean(other)
            if turn >= 3 and means[0] - means[2] > 0.06 and means[0] > means[1] > means[2]:
                break
        else:
            pytest.fail(f"boosted, even, the other boosted: {means}")
        assert actuator.delay_s is not None


@pytest.mark.parametrize("engines", [1, pytest.param(2, marks=needs_two_cpus)], indirect=True)
def test_by_weights_of_control_groups_the_boosted_of_two_busy_engines_gets_its_share_and_returns(
    engines: dict[str, list[int]],
) -> None:
    parent = Path("/sys/fs/cgroup/cpu")
    if not os.access(parent / "cpu.shares", os.W_OK):
        pytest.skip("no cpu controller of control groups (v1) is writable here")
    home = Path(f"/proc/{max(descendants(engines['a']))}/cgroup").read_text()
    with CpuWeightActuator(engines, cgroup=parent, dry_run=False) as actuator:
        assert actuator.form == ControlGroups.name
        assert actuator.apply(plan(0.8)).failure is None
        assert reaches(engines, 0.74, 0.86)
        assert actuator.apply(plan(0.1, 1)).is_in_force
        assert reaches(engines, 0.45, 0.55)
    assert Path(f"/proc/{max(descendants(engines['a']))}/cgroup").read_text() == home
    assert list(parent.glob(f"zeta-{os.getpid()}-*")) == []


@on_one_cpu
def test_nice_parts_one_cpu_where_it_may_be_undone(engines: dict[str, list[int]]) -> None:
    if not Nice.can_return(os.getpriority(os.PRIO_PROCESS, 0)):
        pytest.skip("this user may not undo what nice does")
    found = os.getpriority(os.PRIO_PROCESS, max(descendants(engines["b"])))
    with CpuWeightActuator(engines, form="nice", dry_run=False) as actuator:
        assert actuator.apply(plan(0.8)).failure is None
        assert reaches(engines, 0.7, 0.9)
        assert actuator.apply(plan(0.1, 1)).is_in_force
        assert reaches(engines, 0.4, 0.6)
        actuator.apply(plan(0.8, 2))
        assert os.getpriority(os.PRIO_PROCESS, max(descendants(engines["b"]))) > found
    assert os.getpriority(os.PRIO_PROCESS, max(descendants(engines["b"]))) == found


@needs_two_cpus
@on_two_cpus
def test_closing_leaves_every_process_as_it_was_found(engines: dict[str, list[int]]) -> None:
    def affinities() -> dict[int, set[int]]:
        return {pid: os.sched_getaffinity(pid) for pids in engines.values() for pid in descendants(pids)}

    before = affinities()
    with CpuWeightActuator(engines, form="affinity", dry_run=False) as actuator:
        actuator.apply(plan(0.9))
        assert affinities() != before
    assert affinities() == before


@on_one_cpu
def test_a_dry_run_touches_no_process(engines: dict[str, list[int]]) -> None:
    with CpuWeightActuator(engines) as actuator:
        shown = actuator.apply(plan(0.8))
        assert (len(shown.changes), shown.is_in_force) == (2, False)
        assert {
            os.sched_getaffinity(pids[0]) == os.sched_getaffinity(engines["a"][0]) for pids in engines.values()
        } == {True}
        assert actuator.delay_s is None


@on_one_cpu
def test_an_engine_that_is_gone_is_a_failure_and_the_others_keep_what_they_have(engines: dict[str, list[int]]) -> None:
    pids = dict(engines)
    with CpuWeightActuator({"a": lambda: pids["a"], "b": lambda: pids["b"]}, form="nice", dry_run=False) as actuator:
        first = actuator.apply(plan(0.8))
        if first.failure is not None:
            pytest.skip("this user may not undo what nice does")
        given = os.getpriority(os.PRIO_PROCESS, max(descendants(engines["b"])))
        pids["a"] = [2**22 - 1]
        failed = actuator.apply(plan(0.1, 1))
        assert failed.failure is not None
        assert "is gone; give a function that finds its engine anew" in failed.failure
        assert os.getpriority(os.PRIO_PROCESS, max(descendants(engines["b"]))) == given
        pids["a"] = engines["a"]
        assert actuator.apply(plan(0.1, 2)).is_in_force
        assert os.getpriority(os.PRIO_PROCESS, max(descendants(engines["b"]))) < given


def test_a_plan_for_other_models_is_refused() -> None:
    failure = CpuWeightActuator({"c": [os.getpid()]}, dry_run=False).apply(plan(0.5)).failure
    assert failure == "the plan is for a, b, the processes are of c; name the same"


ORDINARY = """
import os, signal
from zeta.allocate import CpuWeightActuator, ModelDemand, Snapshot, tick
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
pids = []
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        signal.pause()
    pids.append(pid)
plan = tick(Snapshot((ModelDemand("a", due_pressure=0.75), ModelDemand("b"))), None, 0)
even = tick(Snapshot((ModelDemand("a"), ModelDemand("b"))), None, 1)
cpus = sorted(os.sched_getaffinity(0))
def seen():
    return [sorted(os.sched_getaffinity(pid)) for pid in pids]
try:
    own = CpuWeightActuator({"a": pids[:1], "b": pids[1:]}, form="affinity", dry_run=False)
    print(own.apply(plan).failure, own.apply(even).failure, set(seen()[0]).isdisjoint(seen()[1]))
    own.close()
    print(seen() == [cpus, cpus])
    print(CpuWeightActuator({"a": pids[:1], "b": pids[1:]}, form="nice", dry_run=False).apply(plan).failure)
    foreign = CpuWeightActuator({"a": [1], "b": pids[1:]}, form="affinity", dry_run=False)
    print(foreign.apply(plan).failure)
    print(seen() == [cpus, cpus])
finally:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
"""


@needs_two_cpus
def test_an_ordinary_user_may_boost_and_return_and_is_told_what_it_may_not() -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_NICE, (0, 0))\n" + ORDINARY
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stderr == ""
    own, restored, nice, foreign, untouched = run.stdout.splitlines()
    assert own == "None None True"
    assert restored == "True"
    assert nice == "a nicer process cannot be brought back by this user; raise RLIMIT_NICE or use affinity"
    assert "this user may not set affinity there" in foreign
    assert "run as the engines' user, or delegate a cgroup" in foreign
    assert untouched == "True"


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"a": 0.5, "b": 0.5}, {"a": {(4,): 1.0}, "b": {(7,): 1.0}}),
        ({"a": 0.75, "b": 0.25}, {"a": {(4,): 1.0, (7,): 0.5}, "b": {(7,): 0.5}}),
        ({"a": 0.53, "b": 0.47}, {"a": {(4,): 1.0}, "b": {(7,): 1.0}}),
    ],
)
def test_cpus_follow_shares(shares: dict[str, float], expected: dict[str, dict[tuple[int, ...], float]]) -> None:
    found = cpus_of_shares(shares, (4, 7))
    assert {model: {tuple(sorted(each)): part for each, part in parts.items()} for model, parts in found.items()} == {
        model: pytest.approx(parts) for model, parts in expected.items()
    }


def test_threads_follow_the_parts_and_the_busiest_take_turns() -> None:
    alone, shared = frozenset({0, 1}), frozenset({2})
    assert places({alone: 2.0, shared: 0.5}, 5).count(shared) == 1
    assert places({alone: 1.0, shared: 0.5}, 3) == [alone, shared, alone]
    assert places({shared: 0.2}, 3) == [shared] * 3


def test_every_model_has_a_cpu_however_many_models_there_are() -> None:
    found = cpus_of_shares({str(index): 1 / 32 for index in range(32)}, (0, 1, 2))
    assert all(found.values())
    assert frozenset().union(*(each for parts in found.values() for each in parts)) == {0, 1, 2}


def test_a_form_that_is_unknown_or_lacks_its_group_is_refused() -> None:
    with pytest.raises(ValueError, match="expected auto, affinity, groups or nice"):
        CpuWeightActuator({"a": [1]}, form="stop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs cgroup"):
        CpuWeightActuator({"a": [1]}, form="groups")
    assert CpuWeightActuator({"a": [1]}).form in (Affinity.name, Nice.name)
