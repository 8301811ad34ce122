"""``python -m bench --short`` (under five minutes) or ``--full``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import machine, memory, native, queues, score
from bench.baselines.dynamo import DynamoSelection
from bench.baselines.heapq_scheduler import HeapqContender
from bench.baselines.litellm_router import LiteLLMPick, LiteLLMScheduler
from bench.baselines.ray_serve import RayServePowerOfTwo
from bench.baselines.zeta_router import ZetaBatches, ZetaRouter, ZetaTick
from bench.harness import Contender, Row, interleave
from bench.macro import azure_hour
from bench.micro import queues as micro_queues
from bench.report import Target, print_rows, print_table, print_targets
from bench.workload import MODELS, Scale

RESULTS = Path(__file__).resolve().parent / "results"
SECTIONS = ("lifecycle", "queue", "batch", "tick", "memory", "score", "native", "azure")
REPLICAS = (1, 10, 85)
DEPTHS = (1_000, 100_000)


@dataclasses.dataclass(frozen=True, slots=True)
class Effort:
    rounds: int
    seconds: float  # per contender and round


SHORT = Effort(rounds=5, seconds=0.12)
FULL = Effort(rounds=15, seconds=0.4)


def _lifecycle(replicas: int) -> list[Contender]:
    deep = Scale(replicas, DEPTHS[-1])
    contenders: list[Contender] = [ZetaRouter(deep), ZetaRouter(Scale(replicas, DEPTHS[0]))]
    if replicas == 1:
        contenders.append(ZetaRouter(deep, is_shared=True))
    return [
        *contenders,
        HeapqContender(deep),
        DynamoSelection(deep, is_whole=False),
        DynamoSelection(deep, is_whole=True),
        LiteLLMPick(deep, "simple-shuffle"),
        LiteLLMPick(deep, "least-busy"),
        LiteLLMPick(deep, "latency-based-routing"),
        RayServePowerOfTwo(deep),
    ]


def _queue(is_full: bool) -> list[Contender]:
    depths = (100, 1_000, 5_000) if is_full else (1_000, 5_000)
    return [
        contender
        for depth in depths
        for contender in (ZetaRouter(Scale(1, depth)), HeapqContender(Scale(1, depth)), LiteLLMScheduler(depth))
    ]


def _row(rows: list[Row], name: str) -> Row | None:
    return next((row for row in rows if row.name == name), None)


class Run:
    """One run of the chosen sections, and what came of it."""

    def __init__(self, effort: Effort, *, is_full: bool) -> None:
        self.effort = effort
        self.is_full = is_full
        self.results: dict[str, Any] = {}
        self.absent: dict[str, str] = {}
        self.targets: list[Target] = []

    def _interleave(self, key: str, title: str, contenders: Sequence[Contender]) -> list[Row]:
        print(f"\n== {title}", flush=True)
        rows, absent = interleave(
            contenders,
            rounds=self.effort.rounds,
            seconds=self.effort.seconds,
            say=lambda line: print(f"  {line}", flush=True) if line.startswith("absent") else None,
        )
        self.results[key] = [dataclasses.asdict(row) for row in rows]
        self.absent |= absent
        print_rows(title, rows)
        return rows

    def lifecycle(self) -> None:
        for replicas in REPLICAS:
            title = f"One request's life from Python, {len(MODELS)} models × {replicas} replicas"
            rows = self._interleave(f"lifecycle_{replicas}", title, _lifecycle(replicas))
            deep, shallow = (_row(rows, ZetaRouter(Scale(replicas, depth)).name) for depth in reversed(DEPTHS))
            assert deep is not None
            assert shallow is not None
            where = f"{len(MODELS)} × {replicas}, 100 k queued"
            self.targets += [
                Target(f"lifecycle p50, {where}", "µs", deep.us_p50.median, 3.0, 2.0),
                Target(f"lifecycle p99, {where}", "µs", deep.us_p99.median, 15.0, 10.0),
                Target(
                    f"depth 1 k → 100 k, {len(MODELS)} × {replicas}",
                    "×",
                    deep.us_p50.median / shallow.us_p50.median,
                    1.5,
                ),
            ]

    def queue(self) -> None:
        print("\n== The queues, C++", flush=True)
        try:
            document, targets, absent = queues.measure(is_full=self.is_full)
        except native.Unavailable as missing:
            self.absent["C++ queues"] = str(missing)
            print(f"  absent: C++ queues: {missing}")
        else:
            self.results["queues"] = document
            self.targets += targets
            self.absent |= absent
            try:
                document["instructions"], targets = queues.counts(document, is_full=self.is_full)
                self.targets += targets
            except native.Unavailable as missing:
                self.absent["instructions of the queues"] = str(missing)
        print("\n== The queues, Python", flush=True)
        self.results["queues_python"], targets, absent = micro_queues.measure(is_full=self.is_full)
        self.targets += targets
        self.absent |= absent
        self._interleave(
            "queue", "Queue of waiting requests, against LiteLLM's priority scheduler", _queue(self.is_full)
        )

    def batch(self) -> None:
        deep = DEPTHS[-1]
        contenders = [ZetaBatches(Scale(10, deep), 64), ZetaBatches(Scale(10, deep), 1_000)]
        rows = self._interleave("batch", "Batches from Python, per request", contenders)
        for row in rows:
            self.targets.append(
                Target(f"{row.name.split(', ')[-1]}, at the median batch", "M/s", 1 / row.us_p50.median, 0.5, 1.0, True)
            )

    def tick(self) -> None:
        rows = self._interleave("tick", "The allocation loop", [ZetaTick(0), ZetaTick(DEPTHS[-1])])
        for row in rows:
            self.targets.append(Target(f"{row.name}, p99", "µs", row.us_p99.median, 100.0))

    def score(self) -> None:
        scored = self._interleave("score", "Suitability of requests × models; an operation is a call", score.scores())
        chosen = self._interleave("choice", "Choosing one replica", score.choices())
        self.targets += score.targets(scored, chosen)

    def memory(self) -> None:
        each = memory.bytes_per_queued_request()
        self.results["memory"] = {"bytes_per_queued_request": each}
        self.targets.append(Target("memory per queued request", "bytes", each, 256.0))

    def native(self) -> None:
        print("\n== The core alone, C++", flush=True)
        try:
            rows = [
                native.lifecycle(depth=depth, replicas=r, rounds=self.effort.rounds)
                for r in REPLICAS
                for depth in DEPTHS
            ]
        except native.Unavailable as missing:
            self.absent["C++ lifecycle"] = str(missing)
            print(f"  absent: C++ lifecycle: {missing}")
            return
        self.results["native"] = rows
        print_table(
            "complete + submit + poll in C++, one thread, virtual time",
            ["scale", "ns p50", "ns p99", "ns mean", "allocations", "instructions"],
            [
                [
                    str(Scale(row["replicas"], row["depth"])),
                    f"{row['ns_p50']:,.0f}",
                    f"{row['ns_p99']:,.0f}",
                    f"{row['ns_mean']:,.0f}",
                    str(row["allocations"]),
                    "valgrind absent" if row["instructions"] is None else f"{row['instructions']:,.0f}",
                ]
                for row in rows
            ],
        )

    def azure(self) -> None:
        print("\n== The Azure hour", flush=True)
        try:
            result = azure_hour.measure(rounds=3 if self.is_full else 1)
        except azure_hour.Unavailable as missing:
            self.absent["Azure hour"] = str(missing)
            print(f"  absent: the Azure hour: {missing}")
            return
        self.results["azure"] = result
        self.targets.append(Target("Azure hour, faster than it ran", "×", result["times_real_time"], 300.0, None, True))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--short", action="store_true", help="five short rounds; the default")
    how.add_argument("--full", action="store_true", help="fifteen longer rounds")
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS)
    )
    parser.add_argument(
        "--out", type=Path, help="result file; by default bench/results/<sha>.<cpu>.<threads>.<date>.json"
    )
    parser.add_argument("--no-save", action="store_true", help="only print")
    options = parser.parse_args()

    started = time.monotonic()
    where = machine.describe()
    print(
        f"zeta {where['versions']['zeta']} at {where['sha']} on {where['cpu']} ({where['threads']} threads), "
        f"load {where['load_average_1min']:.1f}, Python {where['python']}, {where['compiler']}"
    )
    if where["is_build_stale"] or where["has_uncommitted_changes"]:
        print("note: the build or the checkout is not what that commit describes; the result file says so")
    run = Run(FULL if options.full else SHORT, is_full=options.full)
    for section in options.only:
        getattr(run, section)()
    print()
    print_targets(run.targets)
    for name, missing in run.absent.items():
        print(f"absent: {name}: {missing}")
    where |= {"load_average_1min_after": os.getloadavg()[0], "wall_s": round(time.monotonic() - started, 1)}
    print(f"{where['wall_s']:.0f} s; load {where['load_average_1min_after']:.1f} at the end")
    if not options.no_save:
        out = options.out or RESULTS / machine.file_name(where)
        out.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "form": "full" if options.full else "short",
            "machine": where,
            "promises": [dataclasses.asdict(target) | {"holds": target.holds} for target in run.targets],
            "absent": run.absent,
            "results": run.results,
        }
        out.write_text(json.dumps(document, indent=1) + "\n")
        print(f"written: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
