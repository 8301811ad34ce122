"""Claims about the board: typed rows, who owns them, what happens to garbage, and when room runs out."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeta._core import reading_identity
from zeta.monitor import Board, DeviceReadings, HostReadings, Kind, Reading, ReplicaReadings, fields_of

S = 1_000_000_000
CLASSES = {Kind.DEVICE: DeviceReadings, Kind.HOST: HostReadings, Kind.REPLICA: ReplicaReadings}


def device(key: str, **values: object) -> Reading:
    return Reading({key: values})  # type: ignore[dict-item]


@pytest.mark.parametrize("kind", list(Kind))
def test_the_typed_rows_have_the_schema_s_fields(kind: Kind) -> None:
    own = [each.name for each in dataclasses.fields(CLASSES[kind]) if each.name not in ("key", "age_s", "details")]
    assert own == [field.name for field in fields_of(kind)]


def test_before_anything_is_read_everything_is_none() -> None:
    snapshot = Board().snapshot(now_ns=S)
    assert (snapshot.devices, snapshot.replicas, snapshot.host) == ({}, {}, HostReadings(key="host"))


def test_a_snapshot_has_the_values_their_ages_and_the_details() -> None:
    board = Board()
    reading = Reading({"GPU-a": {"power_w": 301.5, "utilisation": None}}, details={"GPU-a": {"index": 3}})
    assert board.publish("nvml", Kind.DEVICE, reading, 10 * S, S) == ""
    assert board.publish("host", Kind.HOST, device("host", load_1m=0.5), 10 * S, S) == ""
    snapshot = board.snapshot(now_ns=int(10.5 * S))
    found = snapshot.devices["GPU-a"]
    assert (found.power_w, found.utilisation, found.details) == (301.5, None, {"index": 3})
    assert (found.age_s["power_w"], found.age_s["utilisation"]) == (0.5, None)
    assert snapshot.host.load_1m == 0.5


def test_a_device_that_is_not_found_again_is_unknown_and_keeps_its_row() -> None:
    board = Board()
    board.publish("nvml", Kind.DEVICE, Reading({"GPU-a": {"power_w": 1.0}, "GPU-b": {"power_w": 2.0}}), 10 * S, S)
    row = board.row_of(Kind.DEVICE, "GPU-a")
    board.publish("nvml", Kind.DEVICE, device("GPU-b", power_w=3.0), 11 * S, S)
    snapshot = board.snapshot(now_ns=11 * S)
    assert (snapshot.devices["GPU-a"].power_w, snapshot.devices["GPU-a"].age_s["power_w"]) == (None, 1.0)
    assert snapshot.devices["GPU-b"].power_w == 3.0
    assert board.row_of(Kind.DEVICE, "GPU-a") == row


def test_a_full_board_gives_the_row_of_what_is_gone_longest_and_never_one_in_use() -> None:
    board = Board(devices=2)
    board.publish("nvml", Kind.DEVICE, Reading({"a": {"power_w": 1.0}, "b": {"power_w": 2.0}}), 1 * S, S)
    assert "all 2 rows for kind device are taken" in board.publish(
        "other", Kind.DEVICE, device("c", power_w=3.0), 1 * S, S
    )
    board.publish("nvml", Kind.DEVICE, device("b", power_w=2.0), 2 * S, S)
    row = board.row_of(Kind.DEVICE, "a")
    assert board.publish("nvml", Kind.DEVICE, Reading({"b": {}, "c": {"energy_j": 3.0}}), 3 * S, S) == ""
    assert board.row_of(Kind.DEVICE, "c") == row
    assert board.device("a", 3 * S) is None
    found = board.device("c", 3 * S)
    assert found is not None
    assert (found.energy_j, found.power_w, found.age_s["power_w"]) == (3.0, None, None)


def test_whoever_kept_a_row_s_number_learns_that_it_is_another_s_now() -> None:
    board = Board(devices=1)
    board.publish("nvml", Kind.DEVICE, device("a", power_w=1.0), 1 * S, S)
    row = board.row_of(Kind.DEVICE, "a")
    assert row is not None
    board.publish("nvml", Kind.DEVICE, Reading({}), 2 * S, S)
    board.publish("nvml", Kind.DEVICE, device("b", power_w=2.0), 3 * S, S)
    assert board.core.read(row, now_ns=3 * S)[0] == reading_identity("device", "b") != reading_identity("device", "a")


def test_a_key_belongs_to_the_probe_that_read_it_first() -> None:
    board = Board()
    board.publish("nvml", Kind.DEVICE, device("a", power_w=1.0), 1 * S, S)
    assert "'a', which nvml reads already" in board.publish("other", Kind.DEVICE, device("a", power_w=9.0), 1 * S, S)
    board.publish("other", Kind.DEVICE, Reading({}), 1 * S, S)
    assert board.snapshot(1 * S).devices["a"].power_w == 1.0
    board.remove("nvml")
    assert board.publish("other", Kind.DEVICE, device("a", power_w=9.0), 1 * S, S) == ""


@pytest.mark.parametrize(
    "garbage",
    ["65 %", -0.01, 1.01, 655.35, math.nan, math.inf, 10**400, [1], object()],
    ids=["text", "below", "just above", "far above", "nan", "infinity", "huge", "list", "object"],
)
def test_garbage_makes_one_field_unknown_and_no_other(garbage: object) -> None:
    board = Board()
    board.publish("nvml", Kind.DEVICE, device("a", utilisation=garbage, power_w=300), 1 * S, S)
    found = board.snapshot(1 * S).devices["a"]
    assert (found.utilisation, found.power_w) == (None, 300.0)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ({"a": {"watts": 1.0, "power_w": 5.0}}, r"nvml read \['watts'\] of 'a'; a device has utilisation, "),
        ({"b": None}, "nvml read None of 'b'; expected a mapping"),
        ({7: {"power_w": 1.0}}, "nvml read a row of key 7; expected a name"),
        ({"": {"power_w": 1.0}}, "a row of key ''"),
    ],
)
def test_a_row_that_makes_no_sense_is_told_and_spoils_no_other(rows: dict[object, object], says: str) -> None:
    board = Board()
    given_rows = {**rows, "fine": {"power_w": 5.0}}
    told = board.publish("nvml", Kind.DEVICE, Reading(given_rows), 1 * S, S)  # type: ignore[arg-type]
    assert re.search(says, told)
    assert board.snapshot(1 * S).devices["fine"].power_w == 5.0


def test_rows_of_different_kinds_share_no_key_and_no_row() -> None:
    board = Board(devices=1, replicas=1)
    board.publish("one", Kind.DEVICE, device("x", memory_used_bytes=1.0), 1 * S, S)
    board.publish("two", Kind.REPLICA, device("x", memory_used_bytes=2.0), 1 * S, S)
    snapshot = board.snapshot(1 * S)
    assert (snapshot.devices["x"].memory_used_bytes, snapshot.replicas["x"].memory_used_bytes) == (1.0, 2.0)


def test_a_whole_copy_has_each_key_in_its_row() -> None:
    board = Board(devices=8, replicas=32)
    devices = {f"GPU-{i}": {"power_w": 100.0 + i} for i in range(8)}
    replicas = {f"r{i}": {"running": float(i)} for i in range(32)}
    board.publish("nvml", Kind.DEVICE, Reading(devices), 1 * S, S)
    board.publish("engine", Kind.REPLICA, Reading(replicas), 1 * S, S)
    values = np.empty((board.core.rows, board.core.fields))
    board.core.copy_into(values, now_ns=1 * S)
    power = [field.name for field in fields_of(Kind.DEVICE)].index("power_w")
    assert [values[board.row_of(Kind.DEVICE, key), power] for key in devices] == [100.0 + i for i in range(8)]
    assert [values[board.row_of(Kind.REPLICA, key), 0] for key in replicas] == [float(i) for i in range(32)]


def test_a_cleared_board_is_as_new() -> None:
    board = Board(devices=1)
    board.publish("nvml", Kind.DEVICE, device("a", power_w=1.0), 1 * S, S)
    board.clear()
    assert board.snapshot(1 * S).devices == {}
    assert board.publish("other", Kind.DEVICE, device("b", power_w=2.0), 1 * S, S) == ""


def test_a_board_of_a_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match="got -1 and 4"):
        Board(devices=-1, replicas=4)


values = st.one_of(st.none(), st.floats(allow_nan=True), st.integers(-10, 10**20), st.sampled_from(["", "x", "65 %"]))
names = st.sampled_from([field.name for field in fields_of(Kind.DEVICE)])
reads = st.lists(
    st.tuples(
        st.integers(0, 3 * S),
        st.dictionaries(st.sampled_from("abc"), st.dictionaries(names, values, max_size=4), max_size=3),
    ),
    max_size=6,
)


@settings(deadline=None)
@given(reads, st.integers(0, 4 * S))
def test_no_unknown_reading_ever_shows_as_a_number(
    steps: list[tuple[int, dict[str, dict[str, object]]]], wait: int
) -> None:
    """The oracle keeps, per key and field, the last honest value and its instant."""
    board = Board(devices=3)
    bounds = {field.name: field for field in fields_of(Kind.DEVICE)}
    now, present = 10 * S, {}
    known: dict[tuple[str, str], int] = {}
    for passed, rows in steps:
        now += passed
        board.publish("p", Kind.DEVICE, Reading(rows), now, S)  # type: ignore[arg-type]
        present = {}
        for key, row in rows.items():
            for name, value in row.items():
                is_honest = isinstance(value, int | float) and bounds[name].low <= value <= bounds[name].high
                if is_honest and math.isfinite(value):  # type: ignore[arg-type]
                    present[key, name] = float(value)  # type: ignore[arg-type]
                    known[key, name] = now
    taken, now = now, now + wait
    for key, found in board.snapshot(now).devices.items():
        for name in bounds:
            expected = present.get((key, name)) if now - taken <= S else None
            assert getattr(found, name) == expected
            since = known.get((key, name))
            assert found.age_s[name] == (None if since is None else pytest.approx((now - since) / S))
