"""Claims about the host probe, on trees of files as kernels write them, and once on this machine's own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from zeta.errors import ProbeUnavailable
from zeta.monitor import HostProbe, Probe, fields_of

MB = 1 << 20
CPU = min(os.sched_getaffinity(0))

MACHINE = {
    "proc/stat": "cpu  0 0 0 0 0 0 0 0 0 0\ncpu{cpu} 100 0 50 800 50 0 0 0 0 0\nctxt 5\n",
    "proc/meminfo": (
        "MemTotal:        1048576 kB\nMemFree:  10 kB\nMemAvailable:     786432 kB\n"
        "SwapTotal: 2048 kB\nSwapFree: 1024 kB\n"
    ),
    "proc/loadavg": "0.52 0.58 0.59 1/467 12345\n",
    "proc/pressure/cpu": "some avg10=12.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=99.00 avg60=0.00 total=0\n",
    "proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
    "proc/self/statm": "5000 1000 300 1 0 400 0\n",
}
CONTAINER_V2 = {
    "proc/self/cgroup": "0::/\n",
    "proc/self/mountinfo": "31 23 0:28 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n",
    "sys/fs/cgroup/cpu.max": "50000 100000\n",
    "sys/fs/cgroup/cpu.stat": "usage_usec 1000000\nuser_usec 1\nnr_periods 100\nnr_throttled 10\n",
    "sys/fs/cgroup/memory.max": f"{256 * MB}\n",
    "sys/fs/cgroup/memory.current": f"{200 * MB}\n",
    "sys/fs/cgroup/memory.stat": f"anon 5\nfile 7\ninactive_file {80 * MB}\n",
    "sys/fs/cgroup/cpu.pressure": "some avg10=40.00 avg60=0.00 avg300=0.00 total=1\n",
}
SERVICE_V2 = {
    "proc/self/cgroup": "0::/app.slice/zeta.service\n",
    "proc/self/mountinfo": "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    "sys/fs/cgroup/app.slice/cpu.max": "25000 100000\n",
    "sys/fs/cgroup/app.slice/cpu.stat": "usage_usec 1000000\nnr_periods 100\nnr_throttled 10\n",
    "sys/fs/cgroup/app.slice/memory.max": f"{512 * MB}\n",
    "sys/fs/cgroup/app.slice/memory.current": f"{300 * MB}\n",
    "sys/fs/cgroup/app.slice/zeta.service/cpu.max": "max 100000\n",
    "sys/fs/cgroup/app.slice/zeta.service/cpu.stat": "usage_usec 7\n",
    "sys/fs/cgroup/app.slice/zeta.service/memory.max": "max\n",
    "sys/fs/cgroup/app.slice/zeta.service/memory.current": f"{1 * MB}\n",
}
CONTAINER_V1 = {
    "proc/self/cgroup": "4:memory:/docker/ab12\n3:cpu,cpuacct:/docker/ab12\n1:name=systemd:/\n0::/\n",
    "proc/self/mountinfo": (
        "32 31 0:29 /docker/ab12 /sys/fs/cgroup/cpu,cpuacct ro,relatime - cgroup cgroup rw,cpu,cpuacct\n"
        "35 31 0:32 /docker/ab12 /sys/fs/cgroup/memory ro,relatime - cgroup cgroup rw,memory\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
    ),
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.stat": "nr_periods 100\nnr_throttled 10\nthrottled_time 5\n",
    "sys/fs/cgroup/cpu,cpuacct/cpuacct.usage": "1000000000\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{256 * MB}\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{200 * MB}\n",
    "sys/fs/cgroup/memory/memory.stat": f"cache 9\ninactive_file 1\ntotal_inactive_file {80 * MB}\n",
}
UNLIMITED_V1 = {
    **CONTAINER_V1,
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
}


class Tree:
    """Files under a directory, and a clock that the probe believes."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.now_s = 1000.0
        self.process_s = 5.0
        monkeypatch.setattr("zeta.monitor.host.time.monotonic", lambda: self.now_s)
        monkeypatch.setattr("zeta.monitor.host.time.process_time", lambda: self.process_s)
        monkeypatch.setattr("zeta.monitor.host.os.sched_getaffinity", lambda _: {CPU})

    def write(self, files: dict[str, str]) -> None:
        for path, text in files.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(text.replace("{cpu}", str(CPU)))

    def probe(self, *layers: dict[str, str]) -> HostProbe:
        for files in layers:
            self.write(files)
        return HostProbe(root=str(self.root))


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    return Tree(tmp_path, monkeypatch)


def values(probe: HostProbe) -> dict[str, float | None]:
    return dict(probe.read().rows["host"])


def test_the_host_probe_is_a_probe_and_reads_fields_of_its_kind(tree: Tree) -> None:
    probe = tree.probe(MACHINE)
    assert isinstance(probe, Probe)
    assert values(probe).keys() <= {field.name for field in fields_of(probe.kind)}


def test_without_a_group_the_limits_are_the_machine_s(tree: Tree) -> None:
    found = values(tree.probe(MACHINE))
    assert (found["cpu_limit"], found["load_1m"], found["load_5m"]) == (1.0, 0.52, 0.58)
    assert (found["memory_limit_bytes"], found["memory_available_bytes"]) == (1024 * MB, 768 * MB)
    assert (found["memory_used_bytes"], found["swap_used_bytes"]) == (256 * MB, 1 * MB)
    assert (found["cpu_pressure"], found["memory_pressure"]) == (0.125, 0.0)
    assert found["process_memory_bytes"] == 1000 * os.sysconf("SC_PAGESIZE")


def test_rates_are_unknown_until_the_second_read_and_then_cover_the_time_between(tree: Tree) -> None:
    probe = tree.probe(MACHINE)
    first = values(probe)
    assert not {"cpu_utilisation", "cpu_throttled", "process_cpus"} & first.keys()
    tree.write({"proc/stat": "cpu  0 0 0 0 0\ncpu{cpu} 120 0 60 860 60 0 0 0 0 0\n"})
    tree.now_s += 2.0
    tree.process_s += 0.5
    second = values(probe)
    assert (second["cpu_utilisation"], second["process_cpus"], second["cpu_throttled"]) == (0.3, 0.25, None)


@pytest.mark.parametrize("container", [CONTAINER_V2, CONTAINER_V1], ids=["v2", "v1"])
def test_in_a_container_the_limits_are_its_own(tree: Tree, container: dict[str, str]) -> None:
    found = values(tree.probe(MACHINE, container))
    assert (found["cpu_limit"], found["memory_limit_bytes"]) == (0.5, 256 * MB)
    assert (found["memory_used_bytes"], found["memory_available_bytes"]) == (120 * MB, 136 * MB)


@pytest.mark.parametrize(
    ("container", "later"),
    [
        (
            CONTAINER_V2,
            {"sys/fs/cgroup/cpu.stat": "usage_usec 1400000\nnr_periods 110\nnr_throttled 14\n"},
        ),
        (
            CONTAINER_V1,
            {
                "sys/fs/cgroup/cpu,cpuacct/cpu.stat": "nr_periods 110\nnr_throttled 14\n",
                "sys/fs/cgroup/cpu,cpuacct/cpuacct.usage": "1400000000\n",
            },
        ),
    ],
    ids=["v2", "v1"],
)
def test_a_group_short_of_quota_is_busy_on_an_idle_machine(
    tree: Tree, container: dict[str, str], later: dict[str, str]
) -> None:
    probe = tree.probe(MACHINE, container)
    values(probe)
    tree.write({"proc/stat": "cpu{cpu} 100 0 50 1000 50 0 0 0\n", **later})
    tree.now_s += 1.0
    found = values(probe)
    assert found["cpu_utilisation"] == pytest.approx(0.8)
    assert found["cpu_throttled"] == pytest.approx(0.4)


def test_the_tightest_limit_on_the_way_up_counts_with_the_use_of_the_group_that_sets_it(tree: Tree) -> None:
    probe = tree.probe(MACHINE, SERVICE_V2)
    found = values(probe)
    assert (found["cpu_limit"], found["memory_limit_bytes"]) == (0.25, 512 * MB)
    assert (found["memory_used_bytes"], found["memory_available_bytes"]) == (300 * MB, 212 * MB)
    tree.write({"sys/fs/cgroup/app.slice/cpu.stat": "usage_usec 1250000\nnr_periods 110\nnr_throttled 15\n"})
    tree.now_s += 1.0
    assert values(probe)["cpu_throttled"] == 0.5


def test_an_unlimited_group_leaves_the_machine_s_limits(tree: Tree) -> None:
    found = values(tree.probe(MACHINE, UNLIMITED_V1))
    assert (found["cpu_limit"], found["memory_limit_bytes"], found["memory_used_bytes"]) == (1.0, 1024 * MB, 256 * MB)


def test_another_group_s_use_is_not_taken_for_this_process_s_cpus(tree: Tree) -> None:
    probe = tree.probe(MACHINE, UNLIMITED_V1)
    values(probe)
    tree.write(
        {"proc/stat": "cpu{cpu} 100 0 50 1000 50 0 0 0\n", "sys/fs/cgroup/cpu,cpuacct/cpuacct.usage": "91000000000\n"}
    )
    tree.now_s += 1.0
    assert values(probe)["cpu_utilisation"] == 0.0


def test_the_group_s_own_pressure_goes_before_the_machine_s(tree: Tree) -> None:
    assert values(tree.probe(MACHINE, CONTAINER_V2))["cpu_pressure"] == 0.4


FIELDS_OF_FILE = {
    "proc/stat": {"cpu_utilisation"},
    "proc/meminfo": {"memory_limit_bytes", "memory_used_bytes", "memory_available_bytes", "swap_used_bytes"},
    "proc/loadavg": {"load_1m", "load_5m"},
    "proc/pressure/cpu": {"cpu_pressure"},
    "proc/pressure/memory": {"memory_pressure"},
    "proc/self/statm": {"process_memory_bytes"},
}


@pytest.mark.parametrize("file", FIELDS_OF_FILE)
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text(""),
        lambda path: path.write_text("what\nis: this 3 kB x\n"),
        lambda path: path.write_bytes(b"\xff\xfe\x00cpu"),
    ],
    ids=["missing", "empty", "odd", "binary"],
)
def test_a_file_that_cannot_be_read_takes_its_own_fields_and_no_others(
    tree: Tree, file: str, damage: Callable[[Path], object]
) -> None:
    probe = tree.probe(MACHINE)
    values(probe)
    tree.write({"proc/stat": "cpu{cpu} 120 0 60 860 60 0 0 0\n"})
    damage(tree.root / file)
    tree.now_s += 1.0
    found = values(probe)
    assert {name for name in FIELDS_OF_FILE[file] if found.get(name) is not None} == set()
    rest = set().union(*FIELDS_OF_FILE.values()) - FIELDS_OF_FILE[file]
    assert {name for name in rest if found.get(name) is None} == set()


@pytest.mark.parametrize("file", [name for name in CONTAINER_V2 if name.startswith("sys")])
def test_a_group_s_missing_file_never_shows_as_zero(tree: Tree, file: str) -> None:
    probe = tree.probe(MACHINE, CONTAINER_V2)
    (tree.root / file).unlink()
    found = values(probe)
    honest = {0.5, 1.0, 256 * MB, 1024 * MB, 120 * MB, 200 * MB, 136 * MB, 56 * MB, 768 * MB, None}
    names = ("cpu_limit", "memory_limit_bytes", "memory_used_bytes", "memory_available_bytes")
    assert {found[name] for name in names} <= honest


def test_limits_that_an_operator_changes_are_seen_within_a_second(tree: Tree) -> None:
    probe = tree.probe(MACHINE, CONTAINER_V2)
    values(probe)
    tree.write({"sys/fs/cgroup/cpu.max": "25000 100000\n", "sys/fs/cgroup/memory.max": f"{230 * MB}\n"})
    tree.now_s += 1.0
    found = values(probe)
    assert (found["cpu_limit"], found["memory_limit_bytes"]) == (0.25, 230 * MB)


def test_counters_that_go_back_are_unknown(tree: Tree) -> None:
    probe = tree.probe(MACHINE)
    values(probe)
    tree.write({"proc/stat": "cpu{cpu} 1 0 1 1 1 0 0 0\n"})
    tree.now_s += 1.0
    assert values(probe)["cpu_utilisation"] is None


def test_where_there_is_no_proc_the_probe_says_so(tmp_path: Path) -> None:
    with pytest.raises(ProbeUnavailable, match="is /proc mounted here"):
        HostProbe(root=str(tmp_path)).read()


def test_this_machine_is_read_with_values_that_can_be() -> None:
    probe = HostProbe()
    probe.read()
    sum(range(300_000))
    reading = probe.read()
    bounds = {field.name: field for field in fields_of(probe.kind)}
    for name, value in reading.rows["host"].items():
        assert value is None or bounds[name].low <= value <= bounds[name].high, (name, value)
    assert {"cpu_limit", "load_1m", "memory_limit_bytes", "memory_available_bytes", "process_cpus"} <= {
        name for name, value in reading.rows["host"].items() if value is not None
    }


def test_reading_leaves_no_file_open() -> None:
    probe = HostProbe()
    probe.read()
    open_files = Path("/proc/self/fd")
    before = len(list(open_files.iterdir()))
    for _ in range(100):
        probe.read()
    assert len(list(open_files.iterdir())) == before
