"""The monitor inside a host: probes that hang hold nobody up, not at exit either, and a forked child starts empty."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from tests.safety.conftest import Ask

from zeta.errors import ClosedError, ProbeUnavailable
from zeta.monitor import HANG, FakeProbe, Kind, ProbeReport, ProbeState, Reading
from zeta.runtime import Monitor, examine

BUSY = Reading({"GPU-a": {"utilisation": 0.5}})
PATIENCE_S = 20.0  # of a test on a machine that pauses for seconds


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether it came to hold within PATIENCE_S."""
    pause = threading.Event()
    until = time.monotonic() + PATIENCE_S
    while not holds() and time.monotonic() < until:
        pause.wait(0.002)
    return holds()


def threads_of_monitors() -> int:
    return sum(thread.name.startswith(("zeta-monitor", "zeta-probe")) for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert eventually(lambda: threads_of_monitors() == 0)


def only(monitor: Monitor) -> ProbeReport:
    (report,) = monitor.probes()
    return report


def test_a_monitor_reads_its_probes_side_by_side_and_one_that_hangs_is_unknown_and_comes_back() -> None:
    steady = FakeProbe([Reading({"GPU-b": {"power_w": 1.0}})], name="steady")
    faulty = FakeProbe([BUSY, HANG, BUSY], name="faulty")
    with Monitor([steady, faulty], period_s=0.02) as monitor:
        assert faulty.wait_for_hanging(timeout_s=PATIENCE_S)
        assert eventually(lambda: monitor.probes()[1].state is ProbeState.HANGING or monitor.probes()[1].hangs > 0)
        reads = steady.reads
        assert steady.wait_for_reads(reads + 3, PATIENCE_S), "one probe's hang stopped another"
        faulty.release()
        assert eventually(lambda: monitor.snapshot().devices["GPU-a"].utilisation == 0.5)
        assert eventually(lambda: monitor.probes()[1].left_behind == 0)


def test_a_hang_that_never_ends_is_replaced_and_the_new_thread_reads() -> None:
    probe = FakeProbe([HANG, BUSY])
    with Monitor([probe], period_s=0.02) as monitor:
        assert eventually(lambda: monitor.snapshot().devices.get("GPU-a") is not None)
        assert eventually(lambda: only(monitor).state is ProbeState.READING)
        assert (probe.hanging, only(monitor).left_behind, only(monitor).hangs) == (1, 1, 1)


def test_probes_come_and_go_while_the_monitor_runs() -> None:
    with Monitor(period_s=0.01) as monitor:
        probe = FakeProbe([BUSY])
        monitor.add(probe)
        assert eventually(lambda: "GPU-a" in monitor.snapshot().devices)
        with pytest.raises(ValueError, match="there is a probe called 'fake' already"):
            monitor.add(FakeProbe([BUSY]))
        monitor.remove("fake")
        assert (monitor.snapshot().devices, monitor.probes(), probe.is_closed) == ({}, (), True)
        with pytest.raises(KeyError):
            monitor.remove("fake")


def test_a_closed_monitor_has_closed_its_probes_knows_nothing_and_stays_closed() -> None:
    probe = FakeProbe([BUSY])
    monitor = Monitor([probe], period_s=0.01)
    monitor.start()
    monitor.start()
    assert eventually(lambda: "GPU-a" in monitor.snapshot().devices)
    monitor.close()
    monitor.close()
    reads = probe.reads
    assert (probe.is_closed, monitor.is_running, only(monitor).state) == (True, False, ProbeState.STOPPED)
    assert monitor.snapshot().devices["GPU-a"].utilisation is None
    for again in (monitor.start, lambda: monitor.add(FakeProbe([BUSY], name="other"))):
        with pytest.raises(ClosedError, match="make another one"):
            again()
    assert probe.reads == reads


def test_closing_waits_for_neither_a_hanging_read_nor_a_hanging_close() -> None:
    let_go = threading.Event()

    class Stuck(FakeProbe):
        def close(self) -> None:
            let_go.wait(PATIENCE_S)
            super().close()

    probe = Stuck([HANG])
    monitor = Monitor([probe])
    monitor.start()
    assert probe.wait_for_hanging(timeout_s=PATIENCE_S)
    began = time.monotonic()
    monitor.close()
    took_s = time.monotonic() - began
    let_go.set()
    assert took_s < PATIENCE_S / 2


def test_a_monitor_that_was_dropped_ends_its_threads() -> None:
    monitor = Monitor([FakeProbe([BUSY])], period_s=0.01)
    monitor.start()
    assert threads_of_monitors() == 2
    del monitor  # the fixture waits for the threads


def test_a_monitor_of_wrong_settings_is_refused_and_leaves_nothing() -> None:
    with pytest.raises(ValueError, match="period_s is -1"):
        Monitor([FakeProbe([BUSY])], period_s=-1.0)
    with pytest.raises(ValueError, match="0 or more devices"):
        Monitor(devices=-1)


def test_examining_says_what_one_read_finds() -> None:
    probe = FakeProbe([Reading({"host": {"load_1m": 0.25}})], kind=Kind.HOST)
    report, snapshot = examine(probe)
    assert (report.state, report.reads, snapshot.host.load_1m, probe.is_closed) == (ProbeState.READING, 1, 0.25, True)


def test_examining_twice_knows_differences() -> None:
    probe = FakeProbe([BUSY, Reading({"GPU-a": {"utilisation": 0.75}})])
    report, snapshot = examine(probe, reads=2)
    assert (report.reads, snapshot.devices["GPU-a"].utilisation) == (2, 0.75)


def test_examining_what_is_not_there_says_so_at_once() -> None:
    report, _ = examine(FakeProbe([ProbeUnavailable("no driver")]), reads=2)
    assert (report.state, report.message, report.reads) == (ProbeState.UNAVAILABLE, "no driver", 1)


def test_examining_gives_up_on_a_read_that_hangs() -> None:
    report, _ = examine(FakeProbe([HANG, BUSY]), deadline_s=0.05)
    assert (report.state, report.hangs) == (ProbeState.HANGING, 1)


MONITOR = """
from zeta.monitor import HANG, FakeProbe, Reading
from zeta.runtime import Monitor
BUSY = Reading({"GPU-a": {"utilisation": 0.5}})
def stuck(): time.sleep(3600)
"""


@pytest.mark.parametrize(
    "script",
    [
        "monitor = Monitor([FakeProbe([HANG])]); monitor.start(); time.sleep(0.3)",
        "monitor = Monitor([FakeProbe([stuck])]); monitor.start(); time.sleep(0.3)",
        "monitor = Monitor([FakeProbe([BUSY], name=str(i)) for i in range(20)], period_s=0.001); monitor.start()",
        "monitor = Monitor([FakeProbe([BUSY])], period_s=0.001); monitor.start(); time.sleep(0.05); sys.exit(0)",
    ],
    ids=["hanging", "stuck in C", "twenty probes at 1 kHz", "sys.exit"],
)
def test_the_interpreter_ends_beside_probes_in_whatever_state(ask: Ask, script: str) -> None:
    began = time.monotonic()
    ended = ask(MONITOR + script)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert "Fatal" not in ended.stderr
    assert "Traceback" not in ended.stderr
    assert time.monotonic() - began < PATIENCE_S


def test_the_door_imports_no_monitor_and_the_monitor_s_import_starts_nothing(ask: Ask) -> None:
    ended = ask(
        "assert not any(name.startswith(('zeta.monitor', 'zeta.runtime')) for name in sys.modules)\n"
        "tasks = len(os.listdir('/proc/self/task'))\n"
        "import zeta.monitor, zeta.runtime\n"
        "assert threading.active_count() == 1 and len(os.listdir('/proc/self/task')) == tasks\n"
        "assert {'pynvml', 'multiprocessing', 'onnxruntime'}.isdisjoint(n.partition('.')[0] for n in sys.modules)\n"
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_fifty_forked_children_find_the_monitor_empty_and_can_use_it(ask: Ask) -> None:
    ended = ask(
        MONITOR
        + """
import warnings; warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads
probes = [FakeProbe([Reading({f"GPU-{i}": {"power_w": 1.0}})], name=str(i)) for i in range(8)]
monitor = Monitor([*probes, FakeProbe([HANG], name="hangs")], period_s=0.001)
monitor.start()
for probe in probes: assert probe.wait_for_reads(2)

def child():
    signal.alarm(120)
    assert monitor.probes() == () and monitor.snapshot().devices == {} and not monitor.is_running
    assert all(monitor.board.core.read(row, now_ns=0) is None for row in range(monitor.board.core.rows))
    assert threading.active_count() == 1
    mine = FakeProbe([BUSY], name="mine")
    monitor.add(mine, period_s=60.0)
    monitor.start()
    while not monitor.snapshot().devices: time.sleep(0.001)
    assert monitor.snapshot().devices["GPU-a"].utilisation == 0.5
    monitor.close()

for n in range(50):
    pid = os.fork()
    if pid == 0:
        try: child()
        except BaseException:
            import traceback; traceback.print_exc(); os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"child {n}: status {status}"
reads = probes[0].reads
assert probes[0].wait_for_reads(reads + 2)
""",
        120.0,
    )
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    assert "Traceback" not in ended.stderr
