"""What ``zeta doctor`` says of the GPUs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.nvml.conftest import MakeFake
from tests.nvml.fake_library import PARTS, FakeLibrary, Fault


def doctor(fake: FakeLibrary, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zeta", "doctor", *options]
    return subprocess.run(command, env=fake.environment, capture_output=True, text=True, timeout=60, check=True)


def nvml(fake: FakeLibrary) -> dict[str, Any]:
    found = json.loads(doctor(fake, "--json").stdout)["nvml"]
    assert isinstance(found, dict)
    return found


def test_doctor_lists_gpus_and_their_parts(make_fake: MakeFake) -> None:
    fake = make_fake(2)
    fake.set_gpu(1, is_partitioned=True)
    said = doctor(fake)
    assert said.stderr == ""
    assert "driver 570.86.15" in said.stdout
    assert f"GPU 0             NVIDIA Fake 0, 80.0 GiB, {fake.uuid(0)}" in said.stdout
    assert f"GPU 1             NVIDIA Fake 1, 80.0 GiB, {fake.uuid(1)}" in said.stdout
    assert said.stdout.count("  part ") == PARTS
    found = nvml(fake)
    assert found["missing"] is None
    assert found["gpus"][0] == {
        "uuid": fake.uuid(0),
        "index": 0,
        "name": "NVIDIA Fake 0",
        "pci_bus_id": "00000000:10:00.0",
        "parent": None,
        "memory_total_bytes": 80 << 30,
    }


def test_doctor_says_once_that_there_is_no_gpu(make_fake: MakeFake) -> None:
    said = doctor(make_fake(0))
    assert said.stderr == ""
    assert said.stdout.count("names no GPU here") == 1
    assert "zeta works without" in said.stdout


def test_doctor_says_what_to_do_about_a_mismatch_of_driver_and_library(make_fake: MakeFake) -> None:
    fake = make_fake(1)
    fake.set_fault("nvmlInitWithFlags", Fault.CODE, 18)
    assert "restart the machine or the container after a driver update" in nvml(fake)["missing"]


def test_doctor_survives_a_driver_that_crashes(make_fake: MakeFake) -> None:
    fake = make_fake(1)
    fake.set_fault("nvmlInitWithFlags", Fault.CRASH)
    found = nvml(fake)
    assert "crashed while it started in the call 'init'; the child died of signal 11" in found["missing"]
    assert found["gpus"] == []
