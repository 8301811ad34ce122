"""Every driver call times every way in which it can fail, through the real pynvml in the real child.

In each case: `read` keeps its deadline, the affected fields become unknown, everything else stays known, nothing false
is ever said, and 2 s after the fault all is back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from tests.nvml.conftest import (
    PARTITIONED,
    MakeFake,
    Watched,
    assert_nothing_false,
    is_all_known,
    make_probe,
    read_until,
    truth,
)
from tests.nvml.fake_library import CALLS, ERRORS, Call, FakeLibrary, Fault

from zeta.errors import ProbeUnavailable
from zeta.monitor._nvml_wire import CALL_FIELDS
from zeta.monitor.probe import Reading

TARGET = 1  # the GPU that the fault concerns, where the call concerns one
SLACK_S = 2.0  # what a busy machine may add to a deadline
GARBAGE = (0xFF, 0xA5, 0x7F)

BY_SYMBOL = {call.symbol: call for call in CALLS}
OLDER = {
    "nvmlDeviceGetTemperatureV": "nvmlDeviceGetTemperature",
    "nvmlDeviceGetCurrentClocksEventReasons": "nvmlDeviceGetCurrentClocksThrottleReasons",
    "nvmlDeviceGetComputeRunningProcesses_v3": "nvmlDeviceGetComputeRunningProcesses_v2",
}
TRIES_OLDER_AFTER = (13, 25, 26)
ONCE = ("driver", "name", "pci")  # asked until known: a child that knows them is replaced first
ASKED = [call.symbol for call in CALLS if call.symbol not in OLDER.values() and call.call != "init"]
POLLED = [symbol for symbol in ASKED if BY_SYMBOL[symbol].call not in ONCE]
FACTS = [symbol for symbol in ASKED if BY_SYMBOL[symbol].call in ONCE]


@dataclass(frozen=True)
class Case:
    """What a fault of one call makes unknown of the target; of nothing else."""

    call: Call

    @property
    def target(self) -> int:
        """The GPU that the fault concerns; -1 for all."""
        if not self.call.device:
            return -1
        return PARTITIONED if self.call.call.startswith("mig") else TARGET

    @property
    def uuid(self) -> str:
        """The target's."""
        return FakeLibrary.uuid(TARGET)

    @property
    def affected(self) -> set[str]:
        """Fields of the target that the call reads."""
        if self.call.call == "uuid":
            return set(truth(self.uuid))
        fields = set(CALL_FIELDS.get(self.call.call, ()))
        return fields | {"memory_clock_mhz"} if self.call.call == "sm_clock" else fields

    def is_degraded(self, reading: Reading, uuids: list[str], affected: set[str] | None = None) -> bool:
        """The affected fields are unknown, and everything else is known."""
        affected = self.affected if affected is None else affected
        for uuid in uuids:
            row = truth(uuid)
            if uuid == self.uuid:
                row.update(dict.fromkeys(affected))
            if reading.rows.get(uuid) != row:
                return False
        return True


def cases(symbols: list[str]) -> list[object]:
    return [pytest.param(Case(BY_SYMBOL[symbol]), id=symbol.removeprefix("nvml")) for symbol in symbols]


@contextmanager
def fault(watched: Watched, case: Case, kind: Fault, value: int = 0) -> Iterator[None]:
    """The fault, and the proof that the child met it."""
    symbol = case.call.symbol
    spoilt = "nvmlDeviceGetPowerUsage" if case.call.call == "by_uuid" else None
    if case.call.call in ONCE:
        restart(watched)
    before = watched.fake.made(symbol)
    watched.fake.set_fault(symbol, kind, value, case.target)
    period_s = watched.probe._discovery_period_s
    if spoilt:  # a device is opened by UUID when something of it failed and no index has led to it since
        watched.fake.set_fault(spoilt, Fault.CODE, 999, TARGET)
        watched.probe._discovery_period_s = 1e9
    yield
    watched.probe._discovery_period_s = period_s
    assert watched.fake.made(symbol) > before, "the call was not made: this case shows nothing"


def restart(watched: Watched) -> None:
    """A new child, which has asked nothing yet."""
    watched.probe.close()
    watched.probe = make_probe(
        watched.fake, deadline_s=watched.probe._deadline_s, start_deadline_s=watched.probe._start_deadline_s
    )


def timed_read(watched: Watched) -> Reading:
    began = time.monotonic()
    reading = watched.probe.read()
    assert time.monotonic() - began < watched.probe._deadline_s + SLACK_S
    assert_nothing_false(reading)
    return reading


def degraded_fields(case: Case) -> set[str]:
    return case.affected | ({"power_w"} if case.call.call == "by_uuid" else set())


# --- error codes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("case", cases(POLLED))
def test_an_error_code_makes_one_field_unknown(patient: Watched, case: Case, code: int) -> None:
    falls_back = case.call.symbol in OLDER and code in TRIES_OLDER_AFTER
    patient.recover()
    with fault(patient, case, Fault.CODE, code):
        timed_read(patient)
        second = timed_read(patient)
    there = patient.uuids
    if case.call.call == "mig_device" and code == 6:  # "no such device": the parts are gone
        there = [uuid for uuid in there if not uuid.startswith("MIG")]
        assert set(second.rows) == set(there)
    assert case.is_degraded(second, there, set() if falls_back else degraded_fields(case))
    name = case.call.call
    if name in CALL_FIELDS and not falls_back:
        assert f"NVML error {code}" in second.details[case.uuid]["missing"][CALL_FIELDS[name][0]]
    patient.recover()
    if falls_back:
        restart(patient)  # this child knows the older name only


def fact(watched: Watched, case: Case, reading: Reading) -> str | None:
    """What the call finds out: not a value, but a name."""
    if case.call.call == "driver":
        return watched.probe.health().driver
    found = reading.details[case.uuid]["pci_bus_id" if case.call.call == "pci" else "name"]
    assert found is None or isinstance(found, str)
    return found


@pytest.mark.parametrize("case", cases(FACTS))
def test_no_error_code_and_no_garbage_names_a_device(patient: Watched, case: Case) -> None:
    patient.recover()
    faults = [(Fault.CODE, code) for code in ERRORS] + [(Fault.GARBAGE, pattern) for pattern in GARBAGE]
    with fault(patient, case, Fault.CODE, 999):
        for kind, value in faults:
            before = patient.fake.made(case.call.symbol)
            patient.fake.set_fault(case.call.symbol, kind, value, case.target)
            made = patient.fake.made
            reading = read_until(patient.probe, lambda _: made(case.call.symbol) > before, fake=patient.fake)  # noqa: B023
            assert is_all_known(reading, patient.uuids)
            assert fact(patient, case, reading) is None, (kind, value)
    truths = {"driver": "570.86.15", "name": f"NVIDIA Fake {TARGET}", "pci": "00000000:11:00.0"}
    assert fact(patient, case, patient.recover()) == truths[case.call.call]


@pytest.fixture(scope="module")
def older(library: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A driver from before the newest names."""
    fake = FakeLibrary(library, tmp_path_factory.mktemp("older"), lacking=tuple(OLDER))  # type: ignore[arg-type]
    watched = Watched(fake, 10.0)
    yield watched
    watched.probe.close()


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("case", cases(list(OLDER.values())))
def test_an_error_code_of_an_older_driver_makes_one_field_unknown(older: Watched, case: Case, code: int) -> None:
    older.recover()
    with fault(older, case, Fault.CODE, code):
        timed_read(older)
        assert case.is_degraded(timed_read(older), older.uuids)
    older.recover()


@pytest.mark.parametrize("code", ERRORS)
def test_a_library_that_does_not_start_is_unavailable_and_then_back(patient: Watched, code: int) -> None:
    patient.recover()
    before = patient.fake.made("nvmlInitWithFlags")
    patient.fake.set_fault("nvmlInitWithFlags", Fault.CODE, code)
    assert patient.probe._child is not None
    patient.probe._child.kill()  # whatever ends it
    timed_read(patient)
    second = read_until(patient.probe, lambda _: patient.fake.made("nvmlInitWithFlags") > before)
    assert {value for row in second.rows.values() for value in row.values()} == {None}
    assert set(second.rows) == set(patient.uuids), "a device that was known stays listed"
    read_until(patient.probe, lambda _: f"NVML error {code}" in str(patient.probe.health().why))
    patient.recover()


# --- garbage, slowness -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", GARBAGE)
@pytest.mark.parametrize("case", cases([symbol for symbol in POLLED if BY_SYMBOL[symbol].outputs]))
def test_garbage_is_not_believed(patient: Watched, case: Case, pattern: int) -> None:
    patient.recover()
    with fault(patient, case, Fault.GARBAGE, pattern):
        timed_read(patient)
        second = timed_read(patient)
    assert case.is_degraded(second, patient.uuids, degraded_fields(case))
    patient.recover()


@pytest.mark.parametrize("pattern", GARBAGE)
@pytest.mark.parametrize("case", cases(list(OLDER.values())))
def test_garbage_of_an_older_driver_is_not_believed(older: Watched, case: Case, pattern: int) -> None:
    older.recover()
    with fault(older, case, Fault.GARBAGE, pattern):
        timed_read(older)
        assert case.is_degraded(timed_read(older), older.uuids)
    older.recover()


@pytest.mark.parametrize("case", cases(POLLED))
def test_a_call_that_takes_its_time_is_waited_for(patient: Watched, case: Case) -> None:
    patient.recover()
    with fault(patient, case, Fault.SLOW, 15):
        timed_read(patient)
        second = timed_read(patient)
    assert case.is_degraded(second, patient.uuids, degraded_fields(case) - case.affected)
    patient.recover()


# --- hang, crash -----------------------------------------------------------------------------------------------------


def lose_the_child(watched: Watched, case: Case, kind: Fault, value: int = 0) -> None:
    watched.recover()
    affected = degraded_fields(case)
    with fault(watched, case, kind, value):
        starts = max(1, watched.probe.health().child_starts)
        timed_read(watched)
        timed_read(watched)
        # Without the hanging call the rest is read again; how soon depends on how fast a process starts here.
        read_until(watched.probe, lambda reading: case.is_degraded(reading, watched.uuids, affected), fake=watched.fake)
        assert watched.probe.health().child_starts > starts
    watched.recover()


@pytest.mark.parametrize("case", cases(ASKED))
def test_a_call_that_crashes_costs_its_own_field(strict: Watched, case: Case) -> None:
    lose_the_child(strict, case, Fault.CRASH)


@pytest.mark.parametrize("case", cases(ASKED))
def test_a_call_that_hangs_costs_its_own_field(strict: Watched, case: Case) -> None:
    lose_the_child(strict, case, Fault.HANG)


@pytest.mark.nightly
@pytest.mark.parametrize("case", cases(ASKED))
def test_a_call_that_takes_ten_seconds_costs_its_own_field(strict: Watched, case: Case) -> None:
    lose_the_child(strict, case, Fault.SLOW, 10_000)


@pytest.mark.parametrize("kind", [Fault.HANG, Fault.CRASH])
def test_a_library_that_does_not_come_back_from_its_start_is_given_up_and_tried_again(
    strict: Watched, kind: Fault
) -> None:
    strict.recover()
    strict.fake.set_fault("nvmlInitWithFlags", kind)
    assert strict.probe._child is not None
    strict.probe._child.kill()
    read_until(strict.probe, lambda _: "init" in str(strict.probe.health().why), reads=60)
    strict.recover()


# --- missing symbols -------------------------------------------------------------------------------------------------

NEEDED_AT_FIRST = ("init", "count", "by_index", "uuid")


@pytest.mark.parametrize("case", cases([call.symbol for call in CALLS]))
def test_a_call_that_the_driver_lacks_costs_its_own_field(make_fake: MakeFake, case: Case) -> None:
    fake = make_fake(lacking=(case.call.symbol,))
    probe = make_probe(fake)
    uuids = [fake.uuid(gpu) for gpu in range(3)]
    try:
        if case.call.call in NEEDED_AT_FIRST:
            with pytest.raises(ProbeUnavailable, match="13"):
                read_until(probe, lambda _: False)
            return
        missing = set() if case.call.symbol in OLDER or case.call.symbol in OLDER.values() else case.affected
        reading = read_until(probe, lambda reading: len(reading.rows) == 3)
        for uuid in uuids:
            assert reading.rows[uuid] == truth(uuid) | dict.fromkeys(missing)
    finally:
        probe.close()


def test_a_driver_without_both_names_of_a_call_lacks_the_field(make_fake: MakeFake) -> None:
    fake = make_fake(lacking=(*OLDER, *OLDER.values()))
    probe = make_probe(fake)
    reading = read_until(probe, lambda reading: len(reading.rows) == 3)
    lost = dict.fromkeys(("temperature_c", "throttle_reasons", "process_count"))
    for gpu in range(3):
        assert reading.rows[fake.uuid(gpu)] == truth(fake.uuid(gpu)) | lost
    probe.close()


def test_there_are_eight_hundred_cases_and_more() -> None:
    codes = (len(ASKED) + len(OLDER) + 1) * len(ERRORS)
    garbage = (len(ASKED) + len(OLDER)) * len(GARBAGE)
    silent = 2 * len(ASKED) + 2 + len(POLLED) + len(CALLS)
    assert codes + garbage + silent >= 800
