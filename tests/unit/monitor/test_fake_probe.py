"""Claims about probes: what their schema says, and that the fake does as it is told."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from zeta.monitor import (
    HANG,
    FakeProbe,
    Kind,
    Probe,
    Reading,
    RecordingProbe,
    fields_of,
    select,
)

GPU = "GPU-5a1c"


def busy(utilisation: float | None) -> Reading:
    return Reading({GPU: {"utilisation": utilisation}})


@pytest.mark.parametrize("kind", list(Kind))
def test_the_fields_of_a_kind_have_distinct_names_and_a_unit_each(kind: Kind) -> None:
    fields = fields_of(kind)
    assert len({field.name for field in fields}) == len(fields)
    assert all(field.unit and field.about for field in fields)


@pytest.mark.parametrize("kind", list(Kind))
def test_units_end_the_names_of_fields(kind: Kind) -> None:
    ends = {"bytes": "_bytes", "W": "_w", "MHz": "_mhz", "°C": "_c", "s": "_s", "J": "_j"}
    wrong = [field.name for field in fields_of(kind) if not field.name.endswith(ends.get(field.unit, ""))]
    assert wrong == []


def test_selecting_an_unknown_field_names_those_that_exist() -> None:
    with pytest.raises(ValueError, match="device has no field 'utilization'; expected some of utilisation, memory"):
        select(Kind.DEVICE, ["utilization"])


def test_a_selection_keeps_the_order_given() -> None:
    assert [field.name for field in select(Kind.HOST, ["load_1m", "cpu_limit"])] == ["load_1m", "cpu_limit"]


def test_the_fakes_are_probes() -> None:
    fake = FakeProbe([busy(0.5)])
    assert isinstance(fake, Probe)
    assert isinstance(RecordingProbe(fake), Probe)


def test_a_script_is_read_in_order_and_its_last_step_stays() -> None:
    fake = FakeProbe([busy(0.1), OSError("gone"), busy(None)])
    assert fake.read() == busy(0.1)
    with pytest.raises(OSError, match="gone"):
        fake.read()
    assert [fake.read(), fake.read()] == [busy(None), busy(None)]
    assert fake.reads == 4


def test_a_script_that_repeats_begins_again() -> None:
    fake = FakeProbe([busy(0.1), busy(0.2)], repeats=True)
    assert [fake.read() for _ in range(5)] == [busy(x) for x in (0.1, 0.2, 0.1, 0.2, 0.1)]


def test_a_step_may_be_a_call_or_a_dishonest_none() -> None:
    fake = FakeProbe([lambda: busy(0.7), None])
    assert fake.read() == busy(0.7)
    assert fake.read() is None


def test_an_empty_script_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        FakeProbe([])


@pytest.mark.parametrize("end", ["release", "close"])
def test_a_hanging_read_goes_on_with_the_step_after_it_once_released(end: str) -> None:
    fake = FakeProbe([HANG, busy(0.3)])
    found: list[Reading] = []
    thread = threading.Thread(target=lambda: found.append(fake.read()), daemon=True)
    thread.start()
    assert fake.wait_for_hanging()
    assert found == []
    getattr(fake, end)()
    thread.join(10.0)
    assert (found, fake.hanging, fake.is_closed) == ([busy(0.3)], 0, end == "close")


def test_then_replaces_the_rest_of_a_script() -> None:
    fake = FakeProbe([busy(0.1)])
    fake.read()
    fake.then(busy(0.2), busy(0.9))
    assert [fake.read() for _ in range(3)] == [busy(0.2), busy(0.9), busy(0.9)]


def test_what_was_recorded_is_replayed_failures_included(tmp_path: Path) -> None:
    details = {GPU: {"name": "H200", "index": 3}}
    script = [busy(0.4), OSError("lost"), Reading({GPU: {"power_w": None}}, taken_ns=7, details=details)]
    recorder = RecordingProbe(FakeProbe(script))
    recorder.read()
    with pytest.raises(OSError, match="lost"):
        recorder.read()
    recorder.read()
    recorder.save(tmp_path / "readings.jsonl")

    replayed = FakeProbe.replay(tmp_path / "readings.jsonl")
    assert replayed.read() == busy(0.4)
    with pytest.raises(RuntimeError, match="OSError: lost"):
        replayed.read()
    assert replayed.read() == Reading({GPU: {"power_w": None}}, details=details)


def test_a_recorder_keeps_no_more_than_it_was_told() -> None:
    recorder = RecordingProbe(FakeProbe([busy(0.4)]), keep=3)
    for _ in range(5):
        recorder.read()
    assert len(recorder.lines) == 3
    assert json.loads(recorder.lines[0]) == {"rows": {GPU: {"utilisation": 0.4}}}


@pytest.mark.parametrize("line", ["{}", "[1]", "no json", '{"rows": 3}'])
def test_a_line_that_is_no_reading_is_refused_with_its_number(line: str) -> None:
    with pytest.raises(ValueError, match="line 2 is no recorded reading"):
        FakeProbe.replay(['{"rows": {}}', line])
