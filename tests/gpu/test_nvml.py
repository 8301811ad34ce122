"""The monitor on a real GPU: ``pytest -m gpu tests/gpu``. Elsewhere the fake driver of tests/nvml stands in."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zeta.errors import ProbeUnavailable
from zeta.monitor import NvmlProbe
from zeta.monitor.probe import Reading

pytestmark = pytest.mark.gpu

PATIENCE_S = 15.0
PERIOD_S = 0.1
SPINNING = Path(__file__).with_name("spin.py")


@pytest.fixture(scope="module")
def probe() -> Iterator[NvmlProbe]:
    """A probe that reads at least one GPU."""
    probe = NvmlProbe(deadline_s=2.0)
    try:
        until = time.monotonic() + PATIENCE_S
        while not probe.read().rows and time.monotonic() < until:
            time.sleep(PERIOD_S)
    except ProbeUnavailable as error:
        pytest.skip(str(error))
    if not probe.read().rows:
        pytest.fail(f"a driver is here, and no GPU could be read within {PATIENCE_S} s: {probe.health()}")
    yield probe
    probe.close()


def whole_gpus(reading: Reading) -> list[str]:
    return [uuid for uuid in reading.rows if reading.details[uuid]["parent"] is None]


def wait_for(probe: NvmlProbe, holds: Callable[[Reading], bool], within_s: float) -> Reading | None:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        reading = probe.read()
        if holds(reading):
            return reading
        time.sleep(PERIOD_S)
    return None


def test_every_device_has_a_uuid_a_name_and_plausible_memory(probe: NvmlProbe) -> None:
    reading = probe.read()
    assert probe.health().driver is not None
    for uuid, row in reading.rows.items():
        assert re.fullmatch(r"(GPU|MIG)-[0-9A-Za-z/-]+", uuid)
        assert reading.details[uuid]["name"]
        total, used = row["memory_total_bytes"], row["memory_used_bytes"]
        if total is None:  # unified memory (GB10, Jetson): the driver has no figure of its own
            assert reading.details[uuid]["missing"]["memory_total_bytes"]
            continue
        assert 1 << 28 <= total <= 1 << 42
        assert used is not None
        assert 0 <= used <= total


def test_every_value_is_in_its_range_or_says_why_it_is_missing(probe: NvmlProbe) -> None:
    ranges = {
        "utilisation": (0, 1),
        "memory_utilisation": (0, 1),
        "power_w": (0.1, 3000),
        "power_limit_w": (1, 5000),
        "energy_j": (0, 1e13),
        "sm_clock_mhz": (1, 6000),
        "sm_clock_max_mhz": (100, 6000),
        "memory_clock_mhz": (1, 30000),
        "temperature_c": (1, 120),
        "throttle_reasons": (0, 65535),
        "process_count": (0, 4096),
    }
    reading = probe.read()
    for uuid, row in reading.rows.items():
        for name, (least, most) in ranges.items():
            value = row[name]
            if value is None:
                assert reading.details[uuid]["missing"][name], f"{uuid}: {name} is unknown without a reason"
            else:
                assert least <= value <= most, f"{uuid}: {name} = {value}"


def test_it_agrees_with_nvidia_smi(probe: NvmlProbe) -> None:
    if shutil.which("nvidia-smi") is None:
        pytest.skip("no nvidia-smi here to compare with")
    asked = ["uuid", "name", "pci.bus_id", "memory.total"]
    said = subprocess.run(
        ["nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if said.returncode != 0:
        pytest.skip(f"nvidia-smi fails here: {said.stdout or said.stderr}")
    reading = probe.read()
    rows = {row[0]: row for row in csv.reader(said.stdout.splitlines(), skipinitialspace=True)}
    assert set(rows) == set(whole_gpus(reading))
    for uuid, (_, name, bus_id, total_mib) in rows.items():
        assert reading.details[uuid]["name"] == name
        assert reading.details[uuid]["pci_bus_id"].lower() == bus_id.lower()
        total = reading.rows[uuid]["memory_total_bytes"]
        if total is not None and total_mib.isdigit():
            assert abs(total / 2**20 - int(total_mib)) <= 1024, "more than 1 GiB apart"


def test_a_mig_device_has_no_utilisation(probe: NvmlProbe) -> None:
    reading = probe.read()
    parts = [uuid for uuid in reading.rows if reading.details[uuid]["parent"] is not None]
    if not parts:
        pytest.skip("no GPU here is in MIG mode with devices on it")
    for uuid in (*parts, *{reading.details[part]["parent"] for part in parts}):
        assert reading.rows[uuid]["utilisation"] is None


def test_utilisation_and_memory_rise_under_load(probe: NvmlProbe) -> None:
    idle = probe.read()
    if all(idle.rows[uuid]["utilisation"] is None for uuid in idle.rows):
        pytest.skip("no GPU here tells its utilisation (MIG)")
    with subprocess.Popen(
        [sys.executable, str(SPINNING), "20"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as load:
        try:
            assert load.stdout is not None
            if load.stdout.readline().strip() != "spinning":
                assert load.stderr is not None
                pytest.skip(f"no load can be made here: {load.stderr.read().strip()[-300:]}")
            before = {uuid: row["memory_used_bytes"] or 0 for uuid, row in idle.rows.items()}
            busy = wait_for(
                probe,
                lambda reading: any(
                    (row["utilisation"] or 0) >= 0.5 and (row["memory_used_bytes"] or 0) > before.get(uuid, 0)
                    for uuid, row in reading.rows.items()
                ),
                15.0,
            )
            assert busy is not None, f"no GPU became busy: {probe.read().rows}"
        finally:
            load.kill()


def test_a_poll_costs_little_and_keeps_its_deadline(
    probe: NvmlProbe, record_property: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    polls = 100
    gpus = len(whole_gpus(probe.read()))
    child = probe.health().child_pid
    starts = probe.health().child_starts
    host_s, child_s = time.thread_time(), _cpu_s(child)
    began = time.monotonic()
    walls = []
    for _ in range(polls):
        at = time.monotonic()
        probe.read()
        walls.append(time.monotonic() - at)
        time.sleep(max(0.0, PERIOD_S - walls[-1]))
    lasted = time.monotonic() - began
    host_s, child_s = time.thread_time() - host_s, _cpu_s(child) - child_s
    walls.sort()
    record_property("gpus", gpus)
    record_property("host_us_per_poll", round(host_s / polls * 1e6))
    record_property("child_us_per_poll", round(child_s / polls * 1e6))
    record_property("poll_ms_p50", round(walls[polls // 2] * 1e3, 2))
    record_property("poll_ms_max", round(walls[-1] * 1e3, 2))
    with capsys.disabled():
        sys.stdout.write(
            f"\n{gpus} GPUs at 10 Hz: {host_s / polls * 1e6:.0f} µs of the host's CPU and "
            f"{child_s / polls * 1e6:.0f} µs of the child's per poll; "
            f"a poll takes {walls[polls // 2] * 1e3:.1f} ms, at most {walls[-1] * 1e3:.1f} ms\n"
        )
    assert probe.health().child_starts == starts, "a poll missed its deadline on a driver that is well"
    assert host_s / lasted < 0.01, "the host's thread takes more than 1 % of a core"
    assert (host_s + child_s) / lasted < 0.01 * max(1.0, gpus / 8), "host and child take more than 1 % of a core"


def test_a_killed_child_is_replaced_on_a_real_driver(probe: NvmlProbe) -> None:
    child = probe.health().child_pid
    assert child is not None
    uuids = set(probe.read().rows)
    os.kill(child, 9)
    again = wait_for(
        probe, lambda reading: any(value is not None for row in reading.rows.values() for value in row.values()), 10.0
    )
    assert again is not None
    assert set(again.rows) == uuids
    assert probe.health().child_pid != child


def test_doctor_lists_the_gpus(probe: NvmlProbe) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "zeta", "doctor"], capture_output=True, text=True, timeout=60, check=True
    )
    for uuid in probe.read().rows:
        assert uuid in said.stdout


def _cpu_s(pid: int | None) -> float:
    """CPU time of all threads of a process, in seconds."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
