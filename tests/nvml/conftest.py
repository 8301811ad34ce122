"""One fake driver for all cases of a session, watched by one probe: only what kills the child starts another."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.nvml.fake_library import PARTS, FakeLibrary, build

from zeta.monitor import _nvml_probe
from zeta.monitor.nvml import NvmlProbe
from zeta.monitor.probe import Reading

PACE_S = 0.1
RECOVERY_READS = 20  # at that pace: 2 s. Counted in reads, so that a machine that pauses fails no test.
PLAIN = (0, 1, 2)
PARTITIONED = 3


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake library, built once."""
    if shutil.which("gcc") is None:
        pytest.skip("the fake driver needs gcc: apt-get install gcc")
    return build(tmp_path_factory.mktemp("nvml"))


MakeFake = Callable[..., FakeLibrary]


@pytest.fixture
def make_fake(library: Path, tmp_path: Path) -> MakeFake:
    """Fake drivers for one test."""
    made: list[FakeLibrary] = []

    def make(gpus: int = 3, lacking: tuple[str, ...] = ()) -> FakeLibrary:
        made.append(FakeLibrary(library, tmp_path / str(len(made)), gpus, lacking))
        return made[-1]

    return make


def make_probe(fake: FakeLibrary, **options: float) -> NvmlProbe:
    """A probe that makes every call in every poll."""
    settings = {"slow_period_s": 0.0, "discovery_period_s": 0.0, "deadline_s": 5.0, "start_deadline_s": 10.0}
    return NvmlProbe(environment=fake.environment, **(settings | options))  # type: ignore[arg-type]


def read_until(
    probe: NvmlProbe, holds: Callable[[Reading], bool], reads: int = RECOVERY_READS, fake: FakeLibrary | None = None
) -> Reading:
    """Reads until the reading is as it should be; every one on the way is checked for values of another device."""
    for at in range(reads):
        if at:
            time.sleep(PACE_S)
        reading = probe.read()
        if fake is not None:
            assert_nothing_false(reading)
        if holds(reading):
            return reading
    raise AssertionError(f"not within {reads} reads; last: {reading}, {probe.health()}")


def truth(uuid: str) -> dict[str, float | None]:
    """What may be said of the device."""
    for gpu in (*PLAIN, PARTITIONED, *range(PARTITIONED + 1, 8)):
        row: dict[str, float | None] = dict(FakeLibrary.true_row(gpu))
        if uuid == FakeLibrary.uuid(gpu):
            if gpu == PARTITIONED:
                row.update(utilisation=None, memory_utilisation=None)
            return row
        if uuid in [FakeLibrary.part(gpu, number) for number in range(PARTS)]:
            row.update(utilisation=None, memory_utilisation=None)
            row.update(memory_used_bytes=(gpu + 1) << 29, memory_total_bytes=80 << 29)
            return row
    raise AssertionError(f"there is no device {uuid}")


def false_values(reading: Reading) -> list[tuple[str, str, float]]:
    """Values that are known and are not those of the device."""
    return [
        (uuid, name, value)
        for uuid, row in reading.rows.items()
        for name, value in row.items()
        if value is not None and value != truth(uuid)[name]
    ]


def assert_nothing_false(reading: Reading) -> None:
    """Nothing that is said to be known is another device's, or nobody's."""
    assert false_values(reading) == []


def is_all_known(reading: Reading, uuids: list[str]) -> bool:
    """Whether these devices are there, with everything that can be known of them."""
    return all(reading.rows.get(uuid) == truth(uuid) for uuid in uuids)


class Watched:
    """A driver with three GPUs and one in MIG mode, and the probe that watches it."""

    def __init__(self, fake: FakeLibrary, deadline_s: float, start_deadline_s: float = 10.0) -> None:
        self.fake = fake
        fake.set_gpu(PARTITIONED, is_partitioned=True)
        self.uuids = [fake.uuid(gpu) for gpu in (*PLAIN, PARTITIONED)]
        self.uuids += [fake.part(PARTITIONED, number) for number in range(PARTS)]
        self.probe = make_probe(fake, deadline_s=deadline_s, start_deadline_s=start_deadline_s)

    def recover(self) -> Reading:
        """Nothing fails any more; everything is known again within 2 s."""
        self.fake.clear()

        def is_well(reading: Reading) -> bool:
            return is_all_known(reading, self.uuids) and not self.probe.health().left_out

        return read_until(self.probe, is_well, fake=self.fake)


def _watched(library: Path, folder: Path, *deadlines_s: float) -> Iterator[Watched]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_nvml_probe, "_LEAST_DELAY_S", 0.05)  # a thousand cases; the real delay has its own test
        watched = Watched(FakeLibrary(library, folder), *deadlines_s)
        yield watched
        watched.probe.close()


@pytest.fixture(scope="module")
def patient(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """For faults that answer: a child is never given up for being slow, however busy the machine."""
    yield from _watched(library, tmp_path_factory.mktemp("patient"), 10.0)


@pytest.fixture(scope="module")
def strict(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """For faults that do not."""
    yield from _watched(library, tmp_path_factory.mktemp("strict"), 0.4, 1.0)
