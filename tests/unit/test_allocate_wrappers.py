"""What goes around actuators: the limit of changes per interval, the audit log, the measured delay."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from zeta.allocate import (
    Audited,
    AuditedResidency,
    AuditLog,
    Change,
    DelayMeter,
    DryRunActuator,
    FakeActuator,
    FakeResidency,
    ModelDemand,
    Plan,
    RateLimited,
    Snapshot,
    tick,
)
from zeta.clock import VirtualClock

S = 1_000_000_000


def plan(need: float, at_s: float, device: str = "gpu0") -> Plan:
    models = (ModelDemand("a", due_pressure=need), ModelDemand("b"))
    return tick(Snapshot(models, device=device), None, round(at_s * S))


def test_a_change_too_early_is_kept_back_and_says_until_when() -> None:
    inner = FakeActuator()
    limited = RateLimited(inner, 10.0)
    limited.apply(plan(0.7, 0))
    held = limited.apply(plan(0.6, 3))
    assert (held.is_in_force, held.changes, held.held_until_ns) == (False, (), 10 * S)
    assert len(inner.plans) == 1


def test_the_newest_plan_that_was_kept_back_wins_when_it_is_due() -> None:
    inner = FakeActuator()
    limited = RateLimited(inner, 10.0)
    limited.apply(plan(0.7, 0))
    limited.apply(plan(0.6, 3))
    limited.apply(plan(0.65, 4))
    assert limited.apply_due(10 * S - 1) == ()
    (done,) = limited.apply_due(10 * S)
    assert (done.is_in_force, done.changes[0], done.at_ns) == (True, Change("a", 0.7, 0.65), 4 * S)
    assert limited.apply_due(30 * S) == ()
    assert limited.apply(plan(0.9, 12)).held_until_ns == 20 * S


def test_a_plan_that_returns_to_what_is_in_force_ends_the_waiting() -> None:
    inner = FakeActuator()
    limited = RateLimited(inner, 10.0)
    limited.apply(plan(0.7, 0))
    limited.apply(plan(0.6, 3))
    same = limited.apply(plan(0.7, 4))
    assert (same.changes, same.is_in_force, same.held_until_ns) == ((), True, None)
    assert limited.apply_due(99 * S) == ()


def test_each_device_has_its_own_interval() -> None:
    limited = RateLimited(FakeActuator(), 10.0)
    limited.apply(plan(0.7, 0))
    assert limited.apply(plan(0.7, 1, device="gpu1")).is_in_force
    assert limited.apply(plan(0.6, 2)).held_until_ns == 10 * S


def test_a_failing_attempt_counts_as_a_change() -> None:
    inner = FakeActuator()
    inner.fail_next("down")
    limited = RateLimited(inner, 10.0)
    assert limited.apply(plan(0.7, 0)).failure == "down"
    assert limited.apply(plan(0.7, 1)).held_until_ns == 10 * S
    assert limited.apply(plan(0.7, 10)).is_in_force


def test_in_any_stretch_of_ticks_changes_keep_their_distance() -> None:
    inner = FakeActuator()
    limited = RateLimited(inner, 1.0)
    for index in range(400):
        limited.apply(plan(0.55 + 0.1 * (index % 3), index * 0.05))
    gaps = [later.at_ns - earlier.at_ns for earlier, later in zip(inner.plans, inner.plans[1:], strict=False)]
    assert len(inner.plans) == 20
    assert min(gaps) >= S


@pytest.mark.parametrize("interval_s", [0.0, -1.0, float("nan")])
def test_an_interval_that_limits_nothing_is_refused(interval_s: float) -> None:
    with pytest.raises(ValueError, match="expected seconds above 0"):
        RateLimited(FakeActuator(), interval_s)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


NOON = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)


def test_the_audit_log_says_who_changed_what_when_and_why(tmp_path: Path) -> None:
    inner = FakeActuator()
    with AuditLog(tmp_path / "audit.jsonl", utc_now=lambda: NOON) as log:
        actuator = Audited(inner, log)
        actuator.apply(plan(0.7, 1))
        actuator.apply(plan(0.7, 2))  # changes nothing, says nothing
        inner.fail_next("the engine does not answer; is it up?")
        actuator.apply(plan(0.6, 3))
        Audited(DryRunActuator(), log).apply(plan(0.7, 4))
        limited = Audited(RateLimited(FakeActuator(), 10.0), log)
        limited.apply(plan(0.7, 5))
        limited.apply(plan(0.6, 6))
    said = lines(tmp_path / "audit.jsonl")
    assert [each["state"] for each in said] == ["in force", "failure", "dry run", "in force", "held back"]
    first = said[0]
    assert (first["at_ns"], first["utc"], first["actuator"], first["device"], first["policy"]) == (
        S,
        "2026-01-02T12:00:00.000+00:00",
        "fake",
        "gpu0",
        "water-fill",
    )
    assert first["changes"][0]["model"] == "a"
    assert (first["changes"][0]["before"], first["changes"][0]["after"]) == (None, 0.7)
    assert first["changes"][0]["reason"] == plan(0.7, 1).models[0].reason
    assert said[1]["failure"] == "the engine does not answer; is it up?"
    assert said[4]["held_until_ns"] == 15 * S


def test_the_audit_log_of_loads_uses_the_actuators_clock(tmp_path: Path) -> None:
    with AuditLog(tmp_path / "audit.jsonl") as log:
        actuator = AuditedResidency(FakeResidency(clock=VirtualClock(7)), log)
        actuator.load("a")
        actuator.load("a")
        actuator.unload("a")
    said = lines(tmp_path / "audit.jsonl")
    assert [(each["at_ns"], each["changes"][0]["before"], each["changes"][0]["after"]) for each in said] == [
        (7, 0.0, 1.0),
        (7, 1.0, 0.0),
    ]


def test_the_audit_log_stays_within_its_bounds(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with AuditLog(path, max_bytes=2000, backups=2) as log:
        actuator = Audited(FakeActuator(), log)
        for index in range(100):
            actuator.apply(plan(0.6 + 0.1 * (index % 2), index))
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    assert all(0 < file.stat().st_size <= 2000 for file in files)
    assert lines(path)[-1]["at_ns"] == 99 * S


def test_an_audit_log_that_cannot_be_written_holds_up_nothing(tmp_path: Path) -> None:
    with AuditLog(tmp_path / "no" / "such" / "folder.jsonl") as log:
        assert Audited(FakeActuator(), log).apply(plan(0.7, 0)).is_in_force
        assert log.lost == 1


def test_an_unbounded_audit_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        AuditLog(tmp_path / "audit.jsonl", max_bytes=0)


def test_wrappers_claim_the_name_and_delay_of_what_is_inside(tmp_path: Path) -> None:
    inner = FakeActuator("inner", delay_s=12.0)
    with AuditLog(tmp_path / "audit.jsonl") as log:
        for wrapped in (RateLimited(inner, 1.0), Audited(inner, log)):
            assert (wrapped.name, wrapped.delay_s) == ("inner", 12.0)


def test_the_delay_is_a_high_quantile_of_the_recent_ones() -> None:
    meter = DelayMeter(quantile=0.9, recent=10)
    assert meter.delay_s is None
    for delay_s in (100.0, *range(1, 11)):
        meter.note(float(delay_s))
    assert meter.delay_s == 9.0  # the 100 is forgotten
