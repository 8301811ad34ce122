"""What the monitor costs: a record read by the core, a copy into numpy, its threads, engines, and a decision beside it.

``python -m bench.micro.monitor`` runs all five; ``--json OUT`` keeps the figures. Sources are fakes that build a fresh
reading each time, of as many values as a real one has: what the probes themselves cost beyond that (a driver, HTTP) is
not in the figures. The host probe is the real one, and section ``engines`` reads 32 servers that answer over HTTP with
a page as vLLM's, from a process of their own.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench import machine, native
from bench.baselines.zeta_router import filled
from bench.engine_stubs import PAGES, stubs
from bench.harness import WrongAnswer
from bench.report import Target, print_targets
from bench.workload import Scale, requests

from zeta.monitor import (
    DEVICE_FIELDS,
    HANG,
    REPLICA_FIELDS,
    Board,
    EngineProbe,
    EnginesProbe,
    FakeProbe,
    HostProbe,
    Kind,
    ProbeState,
    Reading,
)
from zeta.runtime import Monitor

__all__ = ["copy", "cost", "decisions", "devices", "engines", "record", "replicas"]

DEVICES, REPLICAS = 8, 32
PERIOD_S = 0.1
SECTIONS = ("record", "copy", "cost", "engines", "decisions")


def _readings(keys: Sequence[str], names: Sequence[str], turn: int) -> Reading:
    """A fresh reading: values differ from turn to turn, as real ones do."""
    value = (turn % 97) / 97.0
    return Reading({key: dict.fromkeys(names, value) for key in keys})


def _source(keys: Sequence[str], names: Sequence[str]) -> Callable[[], Reading]:
    turns = itertools.count()
    return lambda: _readings(keys, names, next(turns))


def devices(name: str = "devices") -> FakeProbe:
    """Eight GPUs with every field that NVML has."""
    keys = [f"GPU-{i:08x}-0000-0000-0000-000000000000" for i in range(DEVICES)]
    return FakeProbe([_source(keys, [field.name for field in DEVICE_FIELDS])], name=name)


def replicas(*, is_one_probe: bool) -> list[FakeProbe]:
    """32 replicas with twelve fields each, as vLLM has them: read by one probe, or by one each."""
    names = [field.name for field in REPLICA_FIELDS[:12]]
    keys = [f"qwen2.5-14b-{i}" for i in range(REPLICAS)]
    groups = [keys] if is_one_probe else [[key] for key in keys]
    return [FakeProbe([_source(group, names)], name=f"engine-{group[0]}", kind=Kind.REPLICA) for group in groups]


def record(rounds: int = 20_000) -> dict[str, Any]:
    """One record read by the core.

    Raises
    ------
    native.Unavailable
        Without a C++ compiler.
    """
    program = native.build("monitor.cpp", "monitor")
    rows = DEVICES + 1 + REPLICAS
    done = subprocess.run([str(program), str(rows), str(rounds)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise WrongAnswer(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def instructions_of_a_read(reads: int = 10_000) -> float:
    """Of one record by the core; raises Unavailable without valgrind."""
    program = native.build("monitor.cpp", "monitor")
    return native.counted("*counted_read*", [str(program), "count", str(DEVICES + 1 + REPLICAS), str(reads)]) / reads


def copy(rounds: int = 20_000) -> dict[str, Any]:
    """All rows into arrays of the caller: values, ages and validity."""
    board = Board(DEVICES, REPLICAS)
    now_ns = time.monotonic_ns()
    for probe in (devices(), *replicas(is_one_probe=True)):
        board.publish(probe.name, probe.kind, probe.read(), now_ns, 10**12)
    core = board.core
    values, ages_s = np.empty((2, core.rows, core.fields))
    is_known = np.empty((core.rows, core.fields), dtype=bool)
    times = np.empty(rounds)
    for i in range(rounds):
        from_ns = time.perf_counter_ns()
        core.copy_into(values, ages_s, is_known, now_ns=now_ns)
        times[i] = time.perf_counter_ns() - from_ns
    known = DEVICES * len(DEVICE_FIELDS) + REPLICAS * 12
    if int(is_known.sum()) != known or int(np.isfinite(values).sum()) != known:
        raise WrongAnswer(f"{known} values were published, {int(is_known.sum())} were copied")
    return {
        "rows": core.rows,
        "fields": core.fields,
        "us_p50": float(np.percentile(times, 50)) / 1e3,
        "us_p99": float(np.percentile(times, 99)) / 1e3,
    }


def cost(rounds: int = 3, seconds: float = 1.2) -> dict[str, Any]:
    """CPU time of the whole process while it does nothing but monitor at 10 Hz, as a part of one core.

    The three set-ups take turns; a figure is the median of the rounds.
    """

    def used(probes: list[Any]) -> float:
        with Monitor(probes, period_s=PERIOD_S, devices=DEVICES, replicas=REPLICAS) as monitor:
            time.sleep(0.25)
            from_s, cpu_s = time.monotonic(), time.process_time()
            reads = sum(report.reads for report in monitor.probes())
            time.sleep(seconds)
            part = (time.process_time() - cpu_s) / (time.monotonic() - from_s)
            reads = sum(report.reads for report in monitor.probes()) - reads
            expected = len(probes) * seconds / PERIOD_S
            if not 0.7 * expected <= reads <= 1.2 * expected:
                raise WrongAnswer(f"{reads} reads in {seconds} s, expected about {expected:.0f}")
        return part

    parts: dict[str, list[float]] = {"three_probes": [], "a_probe_per_replica": [], "host_probe_alone": []}
    for _ in range(rounds):
        parts["three_probes"].append(used([devices(), HostProbe(), *replicas(is_one_probe=True)]))
        parts["a_probe_per_replica"].append(used([devices(), HostProbe(), *replicas(is_one_probe=False)]))
        parts["host_probe_alone"].append(used([HostProbe()]))
    return {"period_s": PERIOD_S, "rounds": parts} | {
        f"part_of_a_core_{name}": float(np.median(each)) for name, each in parts.items()
    }


def engines(rounds: int = 3, seconds: float = 2.2) -> dict[str, Any]:
    """CPU time of the whole process while it monitors eight GPUs and the host at 10 Hz, and 32 engines over HTTP.

    As `cost`, with real exchanges: by one probe at its own period, as `Monitor` does by itself, by one at 10 Hz, and by
    a probe for each replica at its own period.
    """

    def used(urls: list[str], *, is_one_probe: bool, period_s: float | None) -> float:
        each = [EngineProbe(f"qwen2.5-14b-{i}", url, engine="vllm", deadline_s=0.25) for i, url in enumerate(urls)]
        asked: list[Any] = [EnginesProbe(each)] if is_one_probe else each
        with Monitor([devices(), HostProbe()], period_s=PERIOD_S, devices=DEVICES, replicas=REPLICAS) as monitor:
            for probe in asked:
                monitor.add(probe, period_s=period_s)
            time.sleep(0.4)
            from_s, cpu_s = time.monotonic(), time.process_time()
            reads = sum(report.reads for report in monitor.probes()[2:])
            time.sleep(seconds)
            part = (time.process_time() - cpu_s) / (time.monotonic() - from_s)
            reads = sum(report.reads for report in monitor.probes()[2:]) - reads
            expected = len(asked) * seconds / (period_s or each[0].period_s)
            known = sum(found.running is not None for found in monitor.snapshot().replicas.values())
            if known != REPLICAS or not 0.7 * expected <= reads <= 1.3 * expected:
                raise WrongAnswer(f"{known} of {REPLICAS} replicas known, {reads} reads, expected about {expected:.0f}")
        return part

    forms: dict[str, dict[str, Any]] = {
        "own_period": {"is_one_probe": True, "period_s": None},
        "10_hz": {"is_one_probe": True, "period_s": PERIOD_S},
        "a_probe_per_replica_own_period": {"is_one_probe": False, "period_s": None},
    }
    parts: dict[str, list[float]] = {name: [] for name in forms}
    with stubs(REPLICAS) as urls:
        for _ in range(rounds):
            for name, form in forms.items():
                parts[name].append(used(urls, **form))
    return {"page_bytes": (PAGES / "vllm_0.33.txt").stat().st_size, "rounds": parts} | {
        f"part_of_a_core_{name}": float(np.median(each)) for name, each in parts.items()
    }


def decisions(pairs: int = 15, block_s: float = 0.4) -> dict[str, Any]:
    """complete + submit + poll in this thread, in turns with all probes well and with one that hangs.

    A block with a hang begins when the read does not return, so what the monitor does about it is within.
    """
    rows = requests(1 << 14).rows()
    router, running = filled(Scale(10, 1_000))
    probes = [devices(), *replicas(is_one_probe=True), FakeProbe([Reading({"host": {}})], name="host", kind=Kind.HOST)]
    well = {probe.name: probe.read() for probe in probes}
    for probe in probes:
        probe.then(well[probe.name])
    now = time.perf_counter_ns
    turn = itertools.count()

    def block(seconds: float) -> list[int]:
        times: list[int] = []
        append = times.append
        until = now() + round(seconds * 1e9)
        while now() < until:
            prompt, most, deadline, complexity = rows[next(turn) & ((1 << 14) - 1)]
            done = running.popleft()
            started = now()
            router.complete(done, 200)
            router.submit(prompt_tokens=prompt, max_tokens=most, deadline_ms=deadline, complexity=complexity)
            leases = router.poll()
            append(now() - started)
            running.extend(leases)
            if not running:
                raise WrongAnswer("nothing runs")
        return times

    def p99_of(probe: FakeProbe, *, hangs: bool) -> float:
        if hangs:
            probe.then(HANG)
            if not probe.wait_for_hanging():
                raise WrongAnswer("the probe does not hang")
        gc.collect()
        gc.disable()
        block(0.02)
        times = block(block_s)
        gc.enable()
        if hangs:
            if monitor.probes()[probes.index(probe)].state is not ProbeState.HANGING:
                raise WrongAnswer("the monitor did not notice the hang")
            probe.then(well[probe.name])
            probe.release()
        pooled["hangs" if hangs else "well"] += times
        return float(np.percentile(times, 99))

    pooled: dict[str, list[int]] = {"well": [], "hangs": []}
    ratios: list[float] = []
    with Monitor(probes, period_s=PERIOD_S) as monitor:
        block(3 * PERIOD_S)  # warm
        for i in range(pairs):
            order = (False, True) if i % 2 else (True, False)
            p99 = {hangs: p99_of(probes[i % len(probes)], hangs=hangs) for hangs in order}
            ratios.append(p99[True] / p99[False])
    router.close()
    figures: dict[str, Any] = {
        "pairs": pairs,
        "block_s": block_s,
        "p99_ratio_median_of_pairs": float(np.median(ratios)),
    }
    figures["p99_ratios"] = [round(ratio, 3) for ratio in sorted(ratios)]
    for state, times in pooled.items():
        figures[f"us_p50_{state}"] = float(np.percentile(times, 50)) / 1e3
        figures[f"us_p99_{state}"] = float(np.percentile(times, 99)) / 1e3
        figures[f"decisions_{state}"] = len(times)
    return figures


def main(words: Sequence[str] | None = None) -> int:
    """Measures, prints, and keeps the figures where asked to; 1 where a gate is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.micro.monitor", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--json", type=Path, help="write the figures here, beside those of other sections there")
    parser.add_argument("--pairs", type=int, default=15, help="of blocks without and with a hang; about 0.9 s each")
    asked = parser.parse_args(words)
    kept = json.loads(asked.json.read_text()) if asked.json and asked.json.exists() else {}
    kept["machine"] = machine.describe()
    targets: list[Target] = []
    if "record" in asked.only:
        try:
            found = kept["record"] = record()
            targets.append(Target("one record read by the core, p50", "ns", found["ns_p50"], 50.0))
        except native.Unavailable as missing:
            print(f"record: {missing}")
    if "copy" in asked.only:
        found = kept["copy"] = copy()
        targets.append(Target("copy of 41 rows with ages and validity, p50", "µs", found["us_p50"], 2.0))
    if "cost" in asked.only:
        found = kept["cost"] = cost()
        three, many = found["part_of_a_core_three_probes"], found["part_of_a_core_a_probe_per_replica"]
        targets.append(Target("8 GPUs, 32 replicas, host at 10 Hz: three probes", "% of a core", 100 * three, 1.0))
        targets.append(Target("the same, a probe for each replica", "% of a core", 100 * many, None))
    if "engines" in asked.only:
        found = kept["engines"] = engines()
        targets.append(
            Target(
                "the same with 32 engines over HTTP at their own period",
                "% of a core",
                100 * found["part_of_a_core_own_period"],
                1.0,
            )
        )
        targets.append(Target("the same at 10 Hz", "% of a core", 100 * found["part_of_a_core_10_hz"], None))
        targets.append(
            Target(
                "a probe for each engine, own period",
                "% of a core",
                100 * found["part_of_a_core_a_probe_per_replica_own_period"],
                None,
            )
        )
    if "decisions" in asked.only:
        found = kept["decisions"] = decisions(asked.pairs)
        ratio = found["p99_ratio_median_of_pairs"]
        targets.append(Target("decision p99 while a probe hangs, to all well", "×", ratio, 1.05))
    print_targets(targets)
    if asked.json:
        kept["machine"]["load_average_1min_after"] = machine.describe()["load_average_1min"]
        asked.json.write_text(json.dumps(kept, indent=1) + "\n")
    return 0 if all(target.holds for target in targets) else 1


if __name__ == "__main__":
    sys.exit(main())
