"""The child as a process: who it dies with, who replaces it, and that its host never waits for it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.nvml.conftest import PACE_S, MakeFake, is_all_known, make_probe, read_until
from tests.nvml.fake_library import FakeLibrary, Fault

from zeta.errors import ClosedError, ProbeUnavailable
from zeta.monitor import NvmlProbe, _nvml_child, _nvml_probe
from zeta.monitor._nvml_child import find_python
from zeta.runtime import Monitor

PREAMBLE = """
import os, signal, sys, threading, time
from zeta.monitor import NvmlProbe
def watch():
    probe = NvmlProbe(deadline_s=20)
    while not probe.read().rows: pass
    return probe
"""


@pytest.fixture
def fake(make_fake: MakeFake) -> FakeLibrary:
    """Three GPUs."""
    return make_fake()


def uuids(fake: FakeLibrary) -> list[str]:
    return [fake.uuid(gpu) for gpu in range(3)]


def host(fake: FakeLibrary, script: str) -> subprocess.Popen[str]:
    """A host of its own; what it prints can be read."""
    command = [sys.executable, "-c", PREAMBLE + script]
    return subprocess.Popen(command, env=fake.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def is_alive(pid: int) -> bool:
    """Whether it runs: a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_dead(pid: int, within_s: float) -> None:
    until = time.monotonic() + within_s
    while is_alive(pid):
        assert time.monotonic() < until, f"process {pid} is still there"
        threading.Event().wait(0.01)


def zombies() -> int:
    """Dead children of this process that nobody has waited for."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            count += state == "Z" and int(parent) == os.getpid()
    return count


def kill_and_see(fake: FakeLibrary, times: int) -> None:
    probe = make_probe(fake, deadline_s=10.0)
    read_until(probe, lambda reading: is_all_known(reading, uuids(fake)))
    starts = probe.health().child_starts
    most = 0
    for _ in range(times):
        child = probe.health().child_pid
        assert child is not None
        os.kill(child, signal.SIGKILL)
        # Within 1 s at ten reads per second.
        reads = round(1 / PACE_S)
        read_until(probe, lambda reading: is_all_known(reading, uuids(fake)), reads=reads, fake=fake)
        most = max(most, zombies())
    assert probe.health().child_starts == starts + times
    assert most <= 1
    probe.close()
    assert zombies() == 0


def test_a_killed_child_is_replaced_within_a_second_and_leaves_at_most_one_zombie(fake: FakeLibrary) -> None:
    kill_and_see(fake, 8)


@pytest.mark.nightly
def test_a_thousand_killed_children_are_replaced(fake: FakeLibrary) -> None:
    kill_and_see(fake, 1000)


def test_a_stopped_child_is_replaced(fake: FakeLibrary) -> None:
    probe = make_probe(fake, deadline_s=0.5)
    read_until(probe, lambda reading: is_all_known(reading, uuids(fake)))
    child = probe.health().child_pid
    assert child is not None
    os.kill(child, signal.SIGSTOP)
    read_until(probe, lambda _: probe.health().child_pid != child)
    read_until(probe, lambda reading: is_all_known(reading, uuids(fake)))
    assert not is_alive(child)
    probe.close()


def test_an_old_child_is_replaced_without_a_gap(fake: FakeLibrary) -> None:
    probe = make_probe(fake)
    read_until(probe, lambda reading: is_all_known(reading, uuids(fake)))
    child = probe.health().child_pid
    assert child is not None
    probe._child_life_s = 0.0
    for _ in range(200):
        assert is_all_known(probe.read(), uuids(fake))
        if probe.health().child_pid != child:
            break
        threading.Event().wait(0.02)
    assert probe.health().child_pid != child
    wait_until_dead(child, 2.0)
    probe.close()


def test_retries_come_soon_at_first_and_never_more_than_thirty_seconds_apart() -> None:
    trouble = _nvml_probe._Trouble(0.0)
    now, delays = 0.0, []
    for _ in range(200):
        at = now
        while not trouble.is_due(now):
            now += 0.05
        delays.append(now - at)
        trouble.again(now)
    assert delays[0] <= 1.0
    assert max(delays) <= 30.0 + 0.1
    assert delays[-1] >= 29.0
    # A fault of up to 12 s is over at most 2 s later than it could be.
    lasted = 0.0
    for delay in delays:
        if lasted <= 12.0:
            assert delay <= 2.0
        lasted += delay


def test_with_the_real_delay_a_call_that_hung_is_back_two_seconds_after_the_fault(fake: FakeLibrary) -> None:
    probe = make_probe(fake, deadline_s=0.5)
    read_until(probe, lambda reading: is_all_known(reading, uuids(fake)))
    with fake.fault("nvmlDeviceGetPowerUsage", Fault.HANG, gpu=1):
        expected = {uuid: uuid != fake.uuid(1) for uuid in uuids(fake)}
        read_until(probe, lambda now: {key: row["power_w"] is not None for key, row in now.rows.items()} == expected)
    assert probe.health().left_out == ((fake.uuid(1), "power"),)
    read_until(probe, lambda reading: is_all_known(reading, uuids(fake)), fake=fake)
    assert probe.health().left_out == ()
    probe.close()


def test_while_one_call_hangs_for_good_everything_else_is_read_at_every_turn(fake: FakeLibrary) -> None:
    probe = make_probe(fake, deadline_s=1.0)
    read_until(probe, lambda reading: is_all_known(reading, uuids(fake)))
    fake.set_fault("nvmlDeviceGetPowerUsage", Fault.HANG, gpu=1)
    others = [fake.uuid(0), fake.uuid(2)]
    read_until(probe, lambda reading: not is_all_known(reading, others))
    read_until(probe, lambda reading: is_all_known(reading, others))
    starts = probe.health().child_starts
    for _ in range(30):  # 3 s, in which the call is tried again by children that hang
        assert is_all_known(probe.read(), others)
        threading.Event().wait(PACE_S)
    assert probe.health().child_starts > starts
    probe.close()


def test_a_driver_that_hangs_everywhere_is_left_alone_and_comes_back(fake: FakeLibrary) -> None:
    probe = make_probe(fake, deadline_s=0.3, start_deadline_s=1.0)
    read_until(probe, lambda reading: is_all_known(reading, uuids(fake)))
    symbols = ["nvmlDeviceGetUUID", "nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetMemoryInfo"]
    for symbol in symbols:
        fake.set_fault(symbol, Fault.HANG)
    for _ in range(15):
        began = time.monotonic()
        reading = probe.read()
        assert time.monotonic() - began < 0.3 + 2.0
        threading.Event().wait(PACE_S)
    assert {value for row in reading.rows.values() for value in row.values()} == {None}
    assert set(reading.rows) == set(uuids(fake))
    fake.clear()
    read_until(probe, lambda reading: is_all_known(reading, uuids(fake)), reads=100, fake=fake)
    probe.close()


def test_under_the_monitor_a_hang_costs_one_field_and_comes_back(fake: FakeLibrary) -> None:
    probe = NvmlProbe(environment=fake.environment, deadline_s=0.25, slow_period_s=0.0)

    def powers() -> list[float | None]:
        devices = monitor.snapshot().devices
        return [devices[uuid].power_w if uuid in devices else None for uuid in uuids(fake)]

    def wait_for(expected: list[float | None]) -> None:
        for _ in range(100):
            if powers() == expected:
                return
            threading.Event().wait(PACE_S)
        raise AssertionError(f"{powers()}, {monitor.probes()}, {probe.health()}")

    with Monitor(period_s=0.1) as monitor:
        monitor.add(probe, deadline_s=0.3)
        wait_for([50.0, 100.0, 150.0])
        with fake.fault("nvmlDeviceGetPowerUsage", Fault.HANG, gpu=1):
            wait_for([50.0, None, 150.0])
        wait_for([50.0, 100.0, 150.0])
    assert probe.health().state == "closed"


# --- the host's end --------------------------------------------------------------------------------------------------


def test_the_host_exits_at_once_while_the_driver_hangs(fake: FakeLibrary) -> None:
    script = """
probe = watch()
print(probe.health().child_pid, flush=True)
sys.stdin.readline()  # now the driver hangs
threading.Thread(target=probe.read, daemon=True).start()
time.sleep(0.3)
print(time.monotonic(), flush=True)
sys.exit(7)
"""
    with host(fake, script) as process:
        child = int(line(process))
        fake.set_fault("nvmlDeviceGetMemoryInfo", Fault.HANG)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        exiting = float(line(process))
        assert process.wait(30) == 7
        assert time.monotonic() - exiting < 2.0, "the exit waited for the driver, whose deadline is 20 s"
    wait_until_dead(child, 5.0)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
@pytest.mark.parametrize("fault", [Fault.NONE, Fault.HANG])
def test_the_child_dies_with_its_host(fake: FakeLibrary, how: int, fault: Fault) -> None:
    script = """
probe = watch()
print(probe.health().child_pid, flush=True)
while True: probe.read(); time.sleep(0.01)
"""
    with host(fake, script) as process:
        child = int(line(process))
        before = fake.made("nvmlDeviceGetMemoryInfo")
        fake.set_fault("nvmlDeviceGetMemoryInfo", fault)
        while fake.made("nvmlDeviceGetMemoryInfo") <= before:
            threading.Event().wait(0.01)
        process.send_signal(how)
        process.wait(30)
    wait_until_dead(child, 5.0)


def test_the_child_dies_with_its_host_though_a_fork_of_it_lives_on(fake: FakeLibrary) -> None:
    script = """
probe = watch()
import ctypes
pid = ctypes.PyDLL(None).fork()  # not by os.fork: nobody closes the inherited socket
if pid == 0: time.sleep(60); os._exit(0)
print(probe.health().child_pid, pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    with host(fake, script) as process:
        child, fork = (int(word) for word in line(process).split())
        process.wait(30)
        try:
            wait_until_dead(child, 10.0)
        finally:
            os.kill(fork, signal.SIGKILL)


def test_a_forked_process_starts_a_child_of_its_own_and_leaves_the_parents_alone(fake: FakeLibrary) -> None:
    script = """
import warnings; warnings.simplefilter("ignore", DeprecationWarning)
probe = watch()
child = probe.health().child_pid
# Forked while another thread holds the probe's lock.
stop = threading.Event()
def read():
    while not stop.is_set(): probe.read()
threads = [threading.Thread(target=read) for _ in range(2)]
for thread in threads: thread.start()
for _ in range(10):
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        try:
            while not probe.read().rows: pass
            assert probe.health().child_pid != child
            assert probe.health().child_starts >= 1
            probe.close()
            os._exit(0)
        except BaseException:
            import traceback; traceback.print_exc(); os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
for thread in threads: thread.join()
assert probe.health().child_pid == child, "the parent's child was touched"
pid = os.fork()
if pid == 0: sys.exit(0)  # an ordinary end, with all that atexit brings
assert os.waitpid(pid, 0)[1] == 0
assert probe.read().rows and probe.health().child_pid == child
print("well", flush=True)
"""
    with host(fake, script) as process:
        assert line(process) == "well"
        assert process.wait(30) == 0


def test_ctrl_c_is_for_the_host(fake: FakeLibrary) -> None:
    script = """
probe = watch()
child = probe.health().child_pid
signal.signal(signal.SIGINT, lambda *_: None)
os.killpg(os.getpgid(0), signal.SIGINT)  # as a terminal sends it
time.sleep(0.2)
assert probe.read().rows and probe.health().child_pid == child
print("well", flush=True)
"""
    command = [sys.executable, "-c", PREAMBLE + script]
    done = subprocess.run(
        command, env=fake.environment, capture_output=True, text=True, timeout=60, start_new_session=True, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("well\n", "", 0)


def test_close_does_not_wait_for_a_read_under_way(fake: FakeLibrary) -> None:
    probe = make_probe(fake, deadline_s=30.0)
    read_until(probe, lambda reading: is_all_known(reading, uuids(fake)))
    fake.set_fault("nvmlDeviceGetMemoryInfo", Fault.HANG)
    made = fake.made("nvmlDeviceGetMemoryInfo")
    ended: list[BaseException] = []

    def read() -> None:
        try:
            probe.read()
        except ClosedError as error:
            ended.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    while fake.made("nvmlDeviceGetMemoryInfo") == made:
        threading.Event().wait(0.01)
    began = time.monotonic()
    probe.close()
    assert time.monotonic() - began < 2.0
    reader.join(10.0)
    assert not reader.is_alive()
    assert len(ended) == 1
    probe.close()


def test_a_closed_or_forgotten_probe_leaves_no_process_and_no_descriptor(fake: FakeLibrary) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    for is_closed in (True, False):
        probe = make_probe(fake)
        read_until(probe, lambda reading: is_all_known(reading, uuids(fake)))
        child = probe.health().child_pid
        assert child is not None
        if is_closed:
            probe.close()
        del probe
        wait_until_dead(child, 5.0)
    assert descriptors() == before
    assert zombies() == 0


def test_a_probe_that_was_never_read_has_opened_nothing() -> None:
    before = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    probe = NvmlProbe()
    assert (len(list(Path("/proc/self/fd").iterdir())), threading.active_count()) == before
    assert probe.health().state == "idle"
    assert "pynvml" not in sys.modules
    probe.close()


# --- the host's kind -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("executable", ["", "/usr/sbin/uwsgi", None])
def test_a_program_that_embeds_python_gets_a_real_interpreter(
    executable: str | None, monkeypatch: pytest.MonkeyPatch, fake: FakeLibrary
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setattr(sys, "_base_executable", executable)
    assert Path(find_python()).name.startswith("python")
    probe = make_probe(fake)
    read_until(probe, lambda reading: is_all_known(reading, uuids(fake)))
    probe.close()


def test_without_an_interpreter_the_probe_is_unavailable_and_says_what_to_give(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", "")
    monkeypatch.setattr(sys, "_base_executable", "")
    for prefix in ("prefix", "exec_prefix", "base_prefix", "base_exec_prefix"):
        monkeypatch.setattr(sys, prefix, str(tmp_path))
    with pytest.raises(ProbeUnavailable, match=r"NvmlProbe\(python=...\)"):
        NvmlProbe().read()


def test_without_bindings_the_probe_is_unavailable_and_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_nvml_child.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ProbeUnavailable, match="pip install nvidia-ml-py"):
        NvmlProbe().read()


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/true"])
def test_an_interpreter_that_is_none_fails_and_blocks_nobody(fake: FakeLibrary, python: str) -> None:
    probe = NvmlProbe(python=python, environment=fake.environment)
    for _ in range(3):
        assert probe.read().rows == {}
    assert probe.health().state == "failing"
    probe.close()


def test_a_host_with_its_main_on_standard_input_is_no_obstacle(fake: FakeLibrary) -> None:
    done = subprocess.run(
        [sys.executable, "-"],
        input=PREAMBLE + "print(len(watch().read().rows))",
        env=fake.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_a_host_that_closed_its_standard_files_is_no_obstacle(fake: FakeLibrary) -> None:
    script = """
keep = os.dup(1)
for fd in (0, 1, 2): os.close(fd)
probe = watch()
ok = len(probe.read().rows) == 3
os.write(keep, b"well" if ok else b"ill")
os._exit(0)
"""
    with host(fake, script) as process:
        assert line(process) == "well"


def test_what_the_driver_prints_stays_out_of_the_hosts_output(fake: FakeLibrary) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", PREAMBLE + "print(len(watch().read().rows))"],
        env=fake.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("3\n", "")
