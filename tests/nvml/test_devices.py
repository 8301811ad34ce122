"""Which device a value belongs to: indices that move, devices that come and go, MIG, and a long watch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.nvml.conftest import (
    PARTITIONED,
    MakeFake,
    Watched,
    assert_nothing_false,
    false_values,
    is_all_known,
    make_probe,
    read_until,
)
from tests.nvml.fake_library import CALLS, PARTS, FakeLibrary, Fault

from zeta.errors import ClosedError, ProbeUnavailable
from zeta.monitor import NvmlProbe
from zeta.monitor._nvml_child import find_bindings
from zeta.monitor.probe import Reading

# Calls that are made while a GPU is read, in the order in which they are made.
WHILE_READING = [
    call.symbol
    for call in CALLS
    if call.device == "device" and not call.call.startswith("mig") and call.call not in ("name", "pci")
    if call.symbol not in ("nvmlDeviceGetTemperature", "nvmlDeviceGetCurrentClocksThrottleReasons")
    if not call.symbol.endswith("Processes_v2")
]


@pytest.fixture(scope="module")
def four(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """Three GPUs and one in MIG mode, watched without haste."""
    return Watched(FakeLibrary(library, tmp_path_factory.mktemp("four")), 10.0)


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("symbol", WHILE_READING)
def test_a_gpu_lost_during_any_call_leads_to_no_value_of_another(four: Watched, symbol: str, lost: int) -> None:
    four.fake.set_gpu(lost)
    four.recover()
    there = [uuid for uuid in four.uuids if uuid != four.fake.uuid(lost)]
    # While GPU 1 is read, a GPU before it or itself falls off the bus; all handles after it now lead one further.
    with four.fake.fault(symbol, Fault.LOSE_GPU, lost, gpu=1):
        reading = four.probe.read()
    assert_nothing_false(reading)
    gone = read_until(four.probe, lambda reading: is_all_known(reading, there), reads=2, fake=four.fake)
    assert set(gone.rows[four.fake.uuid(lost)].values()) == {None}
    assert gone.details[four.fake.uuid(lost)]["index"] is None
    four.fake.set_gpu(lost)
    four.recover()


def test_a_reader_that_keeps_its_handles_takes_one_gpu_for_another(make_fake: MakeFake) -> None:
    """The fake driver does what the tests above are there for: this is the reader that they would catch."""
    naive = """
import sys, pynvml
pynvml.nvmlInit()
handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(3)]
uuids = [pynvml.nvmlDeviceGetUUID(h) for h in handles]
print("ready", flush=True); sys.stdin.readline()
for uuid, handle in zip(uuids, handles):
    try: print(uuid, pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3, flush=True)
    except pynvml.NVMLError: print(uuid, None)
"""
    fake = make_fake()
    environment = {**fake.environment, "PYTHONPATH": find_bindings()}
    with subprocess.Popen(
        [sys.executable, "-c", naive], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        fake.set_gpu(0, is_present=False)
        reader.stdin.write("\n")
        reader.stdin.flush()
        rows = {}
        for line in reader.stdout:
            uuid, power = line.split()
            rows[uuid] = {"power_w": None if power == "None" else float(power)}
    assert len(false_values(Reading(rows))) == 2


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sets(st.integers(0, 3), max_size=3), min_size=1, max_size=8))
def test_any_sequence_of_losses_and_returns_leads_to_no_false_value(four: Watched, steps: list[set[int]]) -> None:
    for lost in steps:
        for gpu in (0, 1, 2, PARTITIONED):
            four.fake.set_gpu(gpu, gpu not in lost, is_partitioned=gpu == PARTITIONED)
        for _ in range(2):
            reading = four.probe.read()
            assert_nothing_false(reading)
        for gpu in (0, 1, 2):
            is_unknown = set(reading.rows[four.fake.uuid(gpu)].values()) == {None}
            assert is_unknown == (gpu in lost)
    for gpu in (0, 1, 2, PARTITIONED):
        four.fake.set_gpu(gpu, is_partitioned=gpu == PARTITIONED)
    four.recover()


def test_a_mig_gpu_and_its_parts_have_no_utilisation_and_are_not_idle(four: Watched) -> None:
    reading = four.recover()
    parts = [four.fake.part(PARTITIONED, number) for number in range(PARTS)]
    for uuid in (four.fake.uuid(PARTITIONED), *parts):
        assert reading.rows[uuid]["utilisation"] is None
        assert reading.details[uuid]["missing"]["utilisation"] == "not defined under MIG"
        assert reading.rows[uuid]["memory_used_bytes"] is not None
    assert [reading.details[part]["parent"] for part in parts] == [four.fake.uuid(PARTITIONED)] * PARTS


def test_a_driver_that_says_nought_for_a_mig_gpu_is_not_believed(make_fake: MakeFake) -> None:
    fake = make_fake(1)
    fake.set_gpu(0, is_partitioned=True)
    fake.set_fault("nvmlDeviceGetUtilizationRates", Fault.GARBAGE, 0)  # success, and 0 %
    probe = make_probe(fake)
    reading = read_until(probe, lambda reading: len(reading.rows) == 1 + PARTS)
    assert {row["utilisation"] for row in reading.rows.values()} == {None}
    assert fake.made("nvmlDeviceGetUtilizationRates") == 0
    probe.close()


def test_mig_devices_come_and_go(four: Watched) -> None:
    four.recover()
    parts = {four.fake.part(PARTITIONED, number) for number in range(PARTS)}
    four.fake.set_gpu(PARTITIONED, is_partitioned=False)
    reading = read_until(four.probe, lambda reading: not parts & set(reading.rows))
    assert four.fake.uuid(PARTITIONED) in reading.rows
    four.fake.set_gpu(PARTITIONED, is_partitioned=True)
    four.recover()


def test_a_gpu_that_is_plugged_in_is_found(make_fake: MakeFake) -> None:
    fake = make_fake(1)
    probe = make_probe(fake)
    read_until(probe, lambda reading: set(reading.rows) == {fake.uuid(0)})
    fake.set_gpu(1)
    read_until(probe, lambda reading: is_all_known(reading, [fake.uuid(0), fake.uuid(1)]))
    probe.close()


def test_details_say_name_place_and_memory_by_process(make_fake: MakeFake) -> None:
    fake = make_fake(2)
    probe = make_probe(fake)
    reading = read_until(probe, lambda reading: len(reading.rows) == 2)
    assert reading.details[fake.uuid(1)] == {
        "name": "NVIDIA Fake 1",
        "pci_bus_id": "00000000:11:00.0",
        "index": 1,
        "parent": None,
        "processes": {1001: 2 << 28, 2001: None},
        "missing": {},
    }
    probe.close()


def test_two_gpus_of_one_name_are_none(make_fake: MakeFake) -> None:
    """Every GPU says that it is the same one: whose a value is cannot be known, so nothing is said."""
    fake = make_fake(2)
    fake.set_fault("nvmlDeviceGetUUID", Fault.GARBAGE, ord("G"))
    probe = make_probe(fake)
    with pytest.raises(ProbeUnavailable):
        read_until(probe, lambda _: False)
    probe.close()


def test_no_gpu_is_said_once(make_fake: MakeFake, caplog: pytest.LogCaptureFixture) -> None:
    probe = make_probe(make_fake(0))
    for _ in range(5):
        with pytest.raises(ProbeUnavailable, match="names no GPU"):
            read_until(probe, lambda _: False)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "names no GPU" in caplog.text
    assert probe.health().state == "unavailable"
    assert probe.health().child_starts == 1, "what is not there is asked for every 30 s"
    probe.close()


def test_no_library_is_said_once_with_what_to_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"no library at all")
    probe = NvmlProbe(deadline_s=10.0, environment={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)})
    for _ in range(3):
        with pytest.raises(ProbeUnavailable, match=r"no libnvidia-ml.so.1 here; install NVIDIA's driver"):
            probe.read()
    assert len(caplog.records) == 1
    probe.close()
    with pytest.raises(ClosedError):
        probe.read()


def watch(fake: FakeLibrary, polls: int) -> None:
    """Polls with nothing amiss: no descriptor, no memory, one start of the library, two processes for ever."""
    probe = make_probe(fake, slow_period_s=0.001, discovery_period_s=0.01)
    read_until(probe, lambda reading: len(reading.rows) == 3)
    child = probe.health().child_pid
    for _ in range(500):
        probe.read()
    before = [(_descriptors(pid), _resident_bytes(pid)) for pid in (os.getpid(), child)]
    for _ in range(polls):
        probe.read()
    after = [(_descriptors(pid), _resident_bytes(pid)) for pid in (os.getpid(), child)]
    assert probe.health().child_pid == child
    assert [fds for fds, _ in after] == [fds for fds, _ in before]
    grown = [now - then for (_, now), (_, then) in zip(after, before, strict=True)]
    assert max(grown) <= 1 << 20, f"grew by {grown} bytes"
    assert fake.made("nvmlInitWithFlags") == 1
    probe.close()


def test_fifteen_hundred_polls_leave_nothing_behind(make_fake: MakeFake) -> None:
    watch(make_fake(), 1500)


@pytest.mark.nightly
def test_a_million_polls_leave_nothing_behind(make_fake: MakeFake) -> None:
    watch(make_fake(), 1_000_000)


def _descriptors(pid: int | None) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208


def _resident_bytes(pid: int | None) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
