"""What the monitor costs, in counts and in ratios within one run."""

from __future__ import annotations

import math
import shutil
import time

import numpy as np
import pytest
from bench.micro import monitor as bench_monitor

from zeta.monitor import FakeProbe, Kind, Reading
from zeta.runtime import Monitor

# Of one record of 39 words by g++ 12 at -O3 on x86-64, some 5 a word; compilers differ.
_MOST_INSTRUCTIONS = 300  # 220 when this was set

_needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("c++") is None, reason="no C++ compiler; apt-get install g++"
)
_needs_valgrind = pytest.mark.skipif(shutil.which("valgrind") is None, reason="no valgrind; apt-get install valgrind")


@_needs_compiler
@_needs_valgrind
def test_a_record_is_read_in_few_instructions() -> None:
    assert bench_monitor.instructions_of_a_read() <= _MOST_INSTRUCTIONS


@_needs_compiler
def test_records_stay_whole_beside_a_writer_that_never_rests() -> None:
    assert bench_monitor.record(rounds=2_000)["ns_p50"] > 0  # the program fails where one is torn


def test_a_whole_copy_costs_less_than_a_tenth_of_reading_the_rows_one_by_one() -> None:
    board = bench_monitor.Board(bench_monitor.DEVICES, bench_monitor.REPLICAS)
    for probe in (bench_monitor.devices(), *bench_monitor.replicas(is_one_probe=True)):
        board.publish(probe.name, probe.kind, probe.read(), 0, 10**12)
    core = board.core
    values, ages_s = np.empty((2, core.rows, core.fields))
    is_known = np.empty((core.rows, core.fields), dtype=bool)

    def best_ns(of: object) -> int:
        times = []
        for _ in range(300):
            from_ns = time.perf_counter_ns()
            of()  # type: ignore[operator]
            times.append(time.perf_counter_ns() - from_ns)
        return min(times)

    whole = best_ns(lambda: core.copy_into(values, ages_s, is_known, now_ns=0))
    single = best_ns(lambda: [core.read(row, now_ns=0) for row in range(core.rows)])
    assert whole * 10 < single, f"whole {whole} ns, rows one by one {single} ns"


def test_a_hanging_probe_costs_ever_fewer_reads_and_threads() -> None:
    hanging = FakeProbe([bench_monitor.HANG])
    steady = FakeProbe([Reading({"host": {"load_1m": 1.0}})], name="steady", kind=Kind.HOST)
    began_s = time.monotonic()
    with Monitor([hanging, steady], period_s=0.005) as monitor:
        assert hanging.wait_for_hanging()
        assert steady.wait_for_reads(150)
        reads, left_behind = hanging.reads, monitor.probes()[0].left_behind
        passed_s = time.monotonic() - began_s
    # After 0.25 s, 0.5 s, 1 s …; without a growing pause there would be one per period.
    assert left_behind <= reads <= 2 + math.log2(1 + passed_s / 0.25)


@pytest.mark.nightly
def test_a_decision_s_p99_rises_by_no_more_than_five_percent_while_a_probe_hangs() -> None:
    found = bench_monitor.decisions(pairs=40)
    assert found["p99_ratio_median_of_pairs"] <= 1.05


@pytest.mark.nightly
def test_monitoring_costs_less_than_one_percent_of_a_core() -> None:
    assert bench_monitor.cost()["part_of_a_core_three_probes"] < 0.01
