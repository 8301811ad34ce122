"""Claims about when a probe is read and what becomes of it, on virtual time."""

from __future__ import annotations

import logging
import threading
import tracemalloc
from collections.abc import Iterator

import pytest

from zeta.clock import VirtualClock
from zeta.errors import MonitorError, ProbeUnavailable
from zeta.monitor import (
    HANG,
    Board,
    EnginesProbe,
    FakeProbe,
    HostProbe,
    Kind,
    NvmlProbe,
    ProbeState,
    Reading,
    RecordingProbe,
    Sampler,
)
from zeta.monitor.sampler import MAX_LEFT_BEHIND
from zeta.runtime import Monitor

MS = 1_000_000
S = 1000 * MS
START = 5 * S
GPU = "GPU-5a1c"
BUSY = Reading({GPU: {"utilisation": 0.5}})


class Stage:
    """A sampler on virtual time, and threads for the reads that hang."""

    def __init__(self, probe: FakeProbe, **options: float) -> None:
        self.clock = VirtualClock(START)
        self.board = Board(devices=2, replicas=1)
        self.probe = probe
        self.sampler = Sampler(probe, self.board, self.clock, **options)
        self.turn: int | None = None
        self.waits: list[int] = []
        self.threads: list[threading.Thread] = []

    def read(self, times: int = 1) -> None:
        """Reads in this thread; between reads the clock goes on to when the sampler wants to go on."""
        left = times

        def wait_until(at_ns: int) -> bool:
            nonlocal left
            self.waits.append(at_ns - self.clock.now_ns())
            left -= 1
            if left:
                self.clock.advance_to(at_ns)
            return left == 0

        self.turn = self.turn or self.sampler.take_turn()
        assert self.turn is not None
        self.sampler.run(self.turn, wait_until)

    def hang(self, after_reads: int = 0) -> threading.Thread:
        """Starts a thread whose read hangs; it ends after the one that comes back."""
        hangs = self.probe.hanging + 1
        left = after_reads

        def wait_until(at_ns: int) -> bool:
            nonlocal left
            left -= 1
            if left >= 0:
                self.clock.advance_to(at_ns)
            return left < 0

        turn = self.sampler.take_turn()
        assert turn is not None
        thread = threading.Thread(target=self.sampler.run, args=(turn, wait_until), daemon=True)
        thread.start()
        self.threads.append(thread)
        assert self.probe.wait_for_hanging(hangs)
        return thread

    def utilisation(self) -> float | None:
        found = self.board.device(GPU, self.clock.now_ns())
        return None if found is None else found.utilisation

    def age_s(self) -> float | None:
        found = self.board.device(GPU, self.clock.now_ns())
        assert found is not None
        return found.age_s["utilisation"]

    @property
    def state(self) -> ProbeState:
        return self.sampler.report().state


@pytest.fixture
def stages() -> Iterator[list[Stage]]:
    """Every stage of a test: its hanging reads are let go at the end, and its threads must end."""
    made: list[Stage] = []
    yield made
    for stage in made:
        stage.sampler.stop()
        stage.probe.close()
        stage.probe.then(BUSY)
        for thread in stage.threads:
            thread.join(10.0)
            assert not thread.is_alive()


@pytest.fixture
def stage(stages: list[Stage], request: pytest.FixtureRequest) -> Stage:
    probe, options = request.param() if hasattr(request, "param") else (FakeProbe([BUSY]), {})
    stages.append(Stage(probe, **options))
    return stages[0]


def with_script(*script: object, **options: float) -> pytest.MarkDecorator:
    """Each test gets a fresh probe with this script."""
    return pytest.mark.parametrize("stage", [lambda: (FakeProbe(script), options)], indirect=True, ids=["script"])


def test_a_probe_is_read_by_its_period(stage: Stage) -> None:
    stage.read(5)
    assert stage.waits == [100 * MS] * 5
    assert (stage.probe.reads, stage.state, stage.utilisation()) == (5, ProbeState.READING, 0.5)


def test_a_reading_is_believed_for_three_periods_and_then_only_its_age(stage: Stage) -> None:
    stage.read()
    stage.clock.advance(300 * MS)
    assert (stage.utilisation(), stage.age_s()) == (0.5, pytest.approx(0.3))
    stage.clock.advance(1 * MS)
    assert (stage.utilisation(), stage.age_s()) == (None, pytest.approx(0.301))


def test_ten_thousand_reads_and_failures_keep_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "zeta.monitor")  # pytest would keep each line
    stage = Stage(FakeProbe([BUSY, lambda: Reading({GPU: {"utilisation": 0.25}}), OSError("gone"), None], repeats=True))
    stage.read(1_000)
    del stage.waits[:]
    tracemalloc.start()
    try:
        stage.read(100)
        del stage.waits[:]
        before = tracemalloc.get_traced_memory()[0]
        stage.read(10_000)
        del stage.waits[:]
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()


def test_a_slow_read_is_followed_by_the_next_at_once(stages: list[Stage]) -> None:
    probe = FakeProbe([lambda: (stages[0].clock.advance(250 * MS), BUSY)[1]])
    stages.append(Stage(probe, deadline_s=0.3))
    stages[0].read(2)
    assert stages[0].waits == [0, 0]


def test_a_value_is_as_old_as_the_read_that_began_for_it(stages: list[Stage]) -> None:
    probe = FakeProbe([lambda: (stages[0].clock.advance(80 * MS), BUSY)[1]])
    stages.append(Stage(probe))
    stages[0].read()
    assert stages[0].age_s() == pytest.approx(0.08)


@with_script(Reading({GPU: {"utilisation": 0.5}}, taken_ns=START - 50 * MS))
def test_a_probe_may_say_how_old_its_values_are(stage: Stage) -> None:
    stage.read()
    assert (stage.utilisation(), stage.age_s()) == (0.5, pytest.approx(0.05))


@with_script(Reading({GPU: {"utilisation": 0.5}}, taken_ns=START + 50 * S))
def test_values_from_the_future_are_from_now(stage: Stage) -> None:
    stage.read()
    stage.clock.advance(301 * MS)
    assert (stage.utilisation(), stage.age_s()) == (None, pytest.approx(0.301))


FAULTS = [OSError("gone"), ProbeUnavailable("no driver"), MonitorError("odd"), SystemExit(3), None, "text", Reading({})]


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_whatever_a_read_does_its_values_are_unknown_at_once_and_back_within_two_seconds(
    fault: object, stages: list[Stage]
) -> None:
    stages.append(stage := Stage(FakeProbe([BUSY, (lambda: fault) if isinstance(fault, str) else fault])))
    stage.read(2)
    assert (stage.utilisation(), stage.age_s()) == (None, pytest.approx(0.1))
    if isinstance(fault, ProbeUnavailable):
        return
    # However long the fault has lasted.
    stages.append(later := Stage(FakeProbe([BUSY, *[fault if not isinstance(fault, str) else (lambda: fault)] * 50])))
    later.read(40)
    assert max(later.waits) <= 1 * S
    later.probe.then(BUSY)


@with_script(BUSY, OSError("gone"))
def test_a_failing_probe_is_asked_again_within_a_second_and_its_failure_is_told(stage: Stage) -> None:
    stage.read(20)
    assert stage.waits[1:8] == [x * MS for x in (100, 200, 400, 800, 1000, 1000, 1000)]
    report = stage.sampler.report()
    assert (report.state, report.message) == (ProbeState.FAILING, "OSError: gone")
    assert (report.reads, report.failures, report.hangs) == (20, 19, 0)


@with_script(ProbeUnavailable("there is no NVIDIA driver"))
def test_what_is_absent_is_looked_for_every_30_s_and_told_in_one_line(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "zeta.monitor"):
        stage.read(50)
    assert stage.waits[:4] == [1 * S, 2 * S, 4 * S, 8 * S]
    assert stage.waits[-1] == max(stage.waits) == 30 * S
    assert [record.getMessage() for record in caplog.records] == [
        "probe fake is unavailable: there is no NVIDIA driver"
    ]


def test_a_probe_that_comes_and_goes_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    flapping = Stage(FakeProbe([BUSY, OSError("gone")], repeats=True))
    with caplog.at_level(logging.INFO, "zeta.monitor"):
        flapping.read(200)
    virtual_s = (flapping.clock.now_ns() - START) / S
    assert 1 < len(caplog.records) <= virtual_s / 10 + 1


@with_script(BUSY, HANG, BUSY)
def test_a_hanging_read_is_unknown_within_two_periods(stage: Stage) -> None:
    stage.hang(after_reads=1)
    assert stage.clock.now_ns() == START + 100 * MS
    stage.clock.advance(100 * MS)
    assert not stage.sampler.check()
    assert stage.utilisation() == 0.5
    stage.clock.advance(1 * MS)
    stage.sampler.check()
    assert (stage.utilisation(), stage.age_s(), stage.state) == (None, pytest.approx(0.201), ProbeState.HANGING)
    assert stage.sampler.report().message == "a read has taken 0.1 s, its deadline is 0.1 s"


@with_script(BUSY, HANG, BUSY)
def test_a_hang_that_nobody_watches_is_unknown_two_periods_after_the_read_began(stage: Stage) -> None:
    stage.hang(after_reads=1)
    stage.clock.advance(200 * MS)
    assert stage.utilisation() == 0.5
    stage.clock.advance(1)
    assert stage.utilisation() is None


@with_script(HANG)
def test_hanging_threads_are_replaced_with_a_growing_pause_and_counted(stage: Stage) -> None:
    pauses = []
    for _ in range(MAX_LEFT_BEHIND):
        stage.hang()
        stage.clock.advance(101 * MS)
        left_ns = stage.clock.now_ns()
        if stage.sampler.check():
            raise AssertionError("a thread was wanted at once")
        if stage.state is ProbeState.GIVEN_UP:
            break
        while not stage.sampler.check():
            stage.clock.advance(10 * MS)
        pauses.append((stage.clock.now_ns() - left_ns) / S)
    assert pauses[:4] == [0.25, 0.5, 1.0, 2.0]
    assert max(pauses) == 30.0
    report = stage.sampler.report()
    assert (report.state, report.left_behind, report.hangs) == (ProbeState.GIVEN_UP, MAX_LEFT_BEHIND, MAX_LEFT_BEHIND)
    stage.clock.advance(3600 * S)
    assert not stage.sampler.check()


@with_script(HANG, BUSY)
def test_when_a_hanging_read_returns_its_own_thread_reads_on_at_once(stage: Stage) -> None:
    thread = stage.hang()
    stage.clock.advance(200 * MS)
    stage.sampler.check()
    assert stage.state is ProbeState.HANGING
    stage.probe.release()
    thread.join(10.0)
    report = stage.sampler.report()
    assert (report.state, report.left_behind, stage.utilisation()) == (ProbeState.READING, 0, 0.5)
    assert stage.sampler.take_turn() is None, "two threads would read"


@with_script(HANG, BUSY)
def test_a_read_that_returns_after_its_values_went_stale_leaves_them_unknown(stage: Stage) -> None:
    thread = stage.hang()
    stage.clock.advance(10 * S)
    stage.sampler.check()
    stage.probe.release()
    thread.join(10.0)
    assert (stage.utilisation(), stage.age_s(), stage.state) == (None, 10.0, ProbeState.READING)


@with_script(HANG, BUSY)
def test_a_thread_that_was_replaced_says_nothing_more(stage: Stage) -> None:
    thread = stage.hang()
    stage.clock.advance(101 * MS)
    stage.sampler.check()
    stage.clock.advance(1 * S)
    turn = stage.sampler.take_turn()
    assert turn is not None
    stage.probe.then(Reading({GPU: {"utilisation": 0.75}}), Reading({GPU: {"utilisation": 0.25}}))
    stage.sampler.run(turn, lambda _: (stage.probe.release(), thread.join(10.0), True)[2])
    assert not thread.is_alive()
    report = stage.sampler.report()
    assert (stage.utilisation(), report.reads, report.left_behind) == (0.75, 1, 0)


def test_a_machine_that_was_asleep_makes_one_hang_of_it_and_reads_on(stage: Stage) -> None:
    stage.probe.then(HANG, BUSY)
    thread = stage.hang()
    stage.clock.advance(3600 * S)
    stage.sampler.check()
    stage.probe.release()
    thread.join(10.0)
    assert stage.state is ProbeState.READING


@with_script(HANG, BUSY)
def test_a_stopped_sampler_ends_its_threads_and_forgets(stage: Stage) -> None:
    thread = stage.hang()
    stage.board.publish("fake", Kind.DEVICE, BUSY, stage.clock.now_ns(), S)
    stage.sampler.stop()
    stage.probe.release()
    thread.join(10.0)
    assert not thread.is_alive()
    assert (stage.utilisation(), stage.state, stage.sampler.take_turn()) == (None, ProbeState.STOPPED, None)
    assert not stage.sampler.check()


def test_a_thread_that_cannot_be_started_is_tried_again(stage: Stage) -> None:
    turn = stage.sampler.take_turn()
    assert turn is not None
    stage.sampler.cannot_start(turn, RuntimeError("can't start new thread"))
    assert "no thread can be started for it: can't start" in stage.sampler.report().message
    assert not stage.sampler.check()
    stage.clock.advance(1 * S)
    assert stage.sampler.check()
    stage.read()
    assert stage.state is ProbeState.READING


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"period_s": 0.0}, "period_s is 0.0; expected 0.001 to 3600 seconds"),
        ({"period_s": float("nan")}, "period_s is nan"),
        ({"deadline_s": 0.0}, "deadline_s is 0.0; expected 0.001 to"),
        ({"period_s": 1.0, "deadline_s": 3.5}, r"expected 0.001 to 3.0 seconds, 3 periods: later readings would be"),
    ],
)
def test_durations_that_make_no_sense_are_refused(options: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Stage(FakeProbe([BUSY]), **options)


class _Slow(FakeProbe):
    """It bounds its own reads, and is dear."""

    deadline_s, period_s = 0.25, 2.0


@pytest.mark.parametrize(("period_s", "expected_s"), [(0.1, 0.3), (0.05, 0.15), (1.0, 1.0)])
def test_a_probe_that_bounds_its_reads_is_given_a_fifth_more_within_three_periods(
    period_s: float, expected_s: float
) -> None:
    sampler = Sampler(_Slow([BUSY]), Board(), VirtualClock(START), period_s=period_s)
    assert sampler.report().deadline_s == pytest.approx(expected_s)
    own = Sampler(_Slow([BUSY]), Board(), VirtualClock(START), period_s=period_s, deadline_s=0.01)
    assert own.report().deadline_s == 0.01


def test_defaults_fit_the_probes_that_are_built_in() -> None:
    monitor = Monitor([NvmlProbe(), EnginesProbe(), HostProbe(), _Slow([BUSY])])
    monitor.add(EnginesProbe(name="often"), period_s=0.1)
    monitor.add(RecordingProbe(EnginesProbe(name="recorded")))
    paces = {report.name: (report.period_s, report.deadline_s) for report in monitor.probes()}
    monitor.close()
    assert paces == {
        "nvml": (0.1, 0.3),
        "engines": (1.0, 1.0),
        "host": (0.1, 0.1),
        "fake": (2.0, 2.0),
        "often": (0.1, 0.3),
        "recorded": (1.0, 1.0),
    }
