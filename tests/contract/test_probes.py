"""What every probe owes the sampler, asked of all of them, real and fake; of GPUs, those that this machine has."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from zeta.errors import ProbeUnavailable
from zeta.monitor import (
    Board,
    FakeProbe,
    HostProbe,
    Kind,
    NvmlProbe,
    Probe,
    ProbeState,
    Reading,
    RecordingProbe,
    fields_of,
)
from zeta.runtime import examine

READING = Reading({"GPU-a": {"utilisation": 0.5, "power_w": None}}, details={"GPU-a": {"index": 0}})
MAKERS: dict[str, Callable[[], Probe]] = {
    "fake": lambda: FakeProbe([READING]),
    "recording": lambda: RecordingProbe(FakeProbe([READING])),
    "absent": lambda: FakeProbe([ProbeUnavailable("nothing here")]),
    "host": HostProbe,
    "nvml": NvmlProbe,
}

every_probe = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def read(probe: Probe) -> Reading | None:
    """None where there is nothing to read from."""
    try:
        return probe.read()
    except ProbeUnavailable:
        return None


@every_probe
def test_it_is_a_probe_of_a_kind_with_fields_of_that_kind(make: Callable[[], Probe]) -> None:
    probe = make()
    assert isinstance(probe, Probe)
    assert probe.name
    assert set(probe.fields) <= set(fields_of(Kind(probe.kind)))
    assert probe.fields
    probe.close()


@every_probe
def test_making_one_opens_nothing_and_starts_nothing(make: Callable[[], Probe]) -> None:
    make().close()  # whatever is imported late is imported now
    files, threads = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()
    probe = make()
    assert len(list(Path("/proc/self/fd").iterdir())) == files
    assert threading.active_count() == threads
    assert Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text() == children
    probe.close()


@every_probe
def test_a_reading_fits_the_board_and_each_value_its_bounds(make: Callable[[], Probe]) -> None:
    probe = make()
    try:
        reading = read(probe)
        if reading is None:
            return
        bounds = {field.name: field for field in probe.fields}
        for row in reading.rows.values():
            assert row.keys() <= bounds.keys()
            for name, value in row.items():
                assert value is None or bounds[name].low <= value <= bounds[name].high, (name, value)
        assert reading.details.keys() <= reading.rows.keys() | {""}
        assert Board().publish(probe.name, probe.kind, reading, 0, 1) == ""
    finally:
        probe.close()


@every_probe
def test_closing_is_idempotent_before_and_after_a_read(make: Callable[[], Probe]) -> None:
    unread = make()
    unread.close()
    unread.close()
    probe = make()
    read(probe)
    probe.close()
    probe.close()


@every_probe
def test_reading_and_closing_leave_no_file_and_no_thread(make: Callable[[], Probe]) -> None:
    def once() -> None:
        probe = make()
        read(probe)
        probe.close()

    once()
    files, threads = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    for _ in range(3):
        once()
    assert len(list(Path("/proc/self/fd").iterdir())) <= files
    assert threading.active_count() <= threads


@every_probe
def test_the_sampler_can_read_it(make: Callable[[], Probe]) -> None:
    report, _ = examine(make(), deadline_s=10.0)
    assert report.state in (ProbeState.READING, ProbeState.UNAVAILABLE), report
    assert bool(report.message) == (report.state is ProbeState.UNAVAILABLE)
    assert report.left_behind == 0
