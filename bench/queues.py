"""The section on the queues: what is run in C++, the tables, and the promises with their ratios to oneTBB."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from bench.harness import Spread
from bench.native import queues as native_queues
from bench.report import Target, print_table

__all__ = ["counts", "measure"]

DEADLINE = "zeta::queue::DeadlineQueue"
PRIORITY = "zeta::queue::PriorityQueue"
TBB = "oneTBB concurrent_priority_queue"
THREADS = (1, 2, 4)
_LATENCY_SIZE = 100_000
_SHORT = {
    DEADLINE: "zeta DeadlineQueue",
    PRIORITY: "zeta PriorityQueue",
    TBB: "oneTBB",
    "boost::heap::d_ary_heap<4> + spinlock": "Boost + spinlock",
    "libcds FCPriorityQueue": "libcds FC",
    "libcds FCPriorityQueue, spinning": "libcds FC, spinning",
    "std::priority_queue + std::mutex": "std + mutex",
    "std::priority_queue + spinlock": "std + spinlock",
    "sample: two locked heaps, taken in turn": "(a relaxed sample)",
}
_IDS = {
    DEADLINE: "zeta_deadline",
    PRIORITY: "zeta_priority",
    TBB: "tbb",
    "boost::heap::d_ary_heap<4> + spinlock": "boost_spin",
    "libcds FCPriorityQueue": "cds_fc",
    "libcds FCPriorityQueue, spinning": "cds_fc_spin",
    "std::priority_queue + std::mutex": "std_mutex",
    "std::priority_queue + spinlock": "std_spin",
}

# DeadlineQueue ÷ oneTBB of the same round, at 1, 2 and 4 threads, by workload and size: gates, aims.
_RATIOS: dict[tuple[str, int], tuple[tuple[float, ...], tuple[float, ...] | None]] = {
    ("llm", 10_000): ((1.5, 3.0, 3.0), None),
    ("llm", 100_000): ((2.0, 6.0, 6.0), (3.0, 10.0, 10.0)),
    ("llm", 1_000_000): ((2.0, 6.0, 6.0), None),
    ("llm64", 1_000): ((1.0, 1.0, 1.0), None),
    ("us", 1_000): ((1.0, 1.0, 1.0), None),
    ("us", 100_000): ((2.0, 6.0, 6.0), (3.0, 10.0, 10.0)),
}
_PRIORITY_RATIOS = (1.2, 1.8, 1.8)
_MOST_INSTRUCTIONS = {(DEADLINE, "pop"): 220, (DEADLINE, "push"): 170, (PRIORITY, "push"): 80}

_WORKLOADS = {
    "llm": "slack 0.5, 5 or 60 s, 1 ms quantum, virtual time",
    "llm64": "slack 0.5, 5 or 60 s, 64 ms quantum, virtual time",
    "us": "slack 20, 200, 200 or 2000 µs, 1.6 µs quantum (25.6 at 1 k), the counter's time",
    "uniform": "slack uniform up to 120 s, 1 ms quantum, virtual time",
}

Rows = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True, slots=True)
class _Plan:
    rounds: int
    seconds: float
    tasks: Sequence[str]


def _plan(is_full: bool) -> _Plan:
    sizes = (1_000, 10_000, 100_000, 1_000_000)
    closed = [f"closed:llm:{size}" for size in sizes]
    short = ["closed:llm64:1000", "closed:us:100000", "closed:uniform:100000"]
    full = [f"closed:{workload}:{size}" for workload in ("llm64", "us", "uniform") for size in sizes]
    ranks = ["rank:llm:100000:2:100000", "rank:llm:100000:4:100000"]
    arrivals = [f"open:llm:100000:2:{rate}" for rate in (1_000_000, 3_000_000)]
    if is_full:
        more = ["rank:us:100000:4:100000", "rank:llm:1000:4:100000", "open:llm:100000:4:1000000"]
        return _Plan(15, 0.05, [*closed, *full, *ranks, *arrivals, *more])
    return _Plan(5, 0.025, [*closed, *short, *ranks, *arrivals])


def _of(rows: Rows, task: str, **wanted: Any) -> Rows:
    return [row for row in rows if row["task"] == task and all(row[key] == value for key, value in wanted.items())]


def _one(rows: Rows, task: str, **wanted: Any) -> dict[str, Any] | None:
    return next(iter(_of(rows, task, **wanted)), None)


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios round by round: both ran within the same tenth of a second."""
    return statistics.median(a / max(b, 1e-9) for a, b in zip(ours, theirs, strict=True))


def _ns(value: float) -> str:
    return f"{value:,.0f}" if value < 10_000 else f"{value / 1e3:,.0f}k" if value < 1e7 else f"{value / 1e6:,.0f}M"


def _percentiles(of: dict[str, list[float]]) -> str:
    return " / ".join(_ns(statistics.median(of[name])) for name in ("p50", "p99", "p999"))


def _spread(values: Sequence[float]) -> str:
    spread = Spread.of(values)
    return f"{spread.median:.1f} ({spread.least:.1f}–{spread.most:.1f})"


def _names(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row["queue"] for row in rows))


def _print_closed(rows: Rows, rounds: int) -> None:
    for workload, size in dict.fromkeys((row["workload"], row["size"]) for row in _of(rows, "closed")):
        fast, timed = [], []
        for name in _names(_of(rows, "closed", workload=workload, size=size)):
            cells, times = [_SHORT[name]], [_SHORT[name]]
            for threads in THREADS:
                where = {"workload": workload, "size": size, "threads": threads}
                (row,) = _of(rows, "closed", queue=name, **where)
                peer = _one(rows, "closed", queue=TBB, **where)
                ratio = "" if peer is None else f"{_ratio(row['mops'], peer['mops']):.2f}×"
                cells += [_spread(row["mops"]), ratio]
                times += [_percentiles(row["push_ns"]), _percentiles(row["pop_ns"])]
                if threads > 1:
                    cells.append(f"{statistics.median(row['share']):.2f}")
            fast.append(cells)
            timed.append(times)
        title = f"{size:,} keys, {_WORKLOADS[workload]}"
        print_table(
            f"{title}; M operations/s, median of {rounds} rounds (least–most); × is to oneTBB, share is slowest ÷ "
            "fastest thread",
            ["queue", "1 thread", "×", "2 threads", "×", "share", "4 threads", "×", "share"],
            fast,
        )
        if size == _LATENCY_SIZE:
            print_table(
                f"{title}; ns p50 / p99 / p99.9, medians of {rounds} rounds",
                ["queue", *(f"{what}, {threads} thr." for threads in THREADS for what in ("push", "pop"))],
                timed,
            )


def _print_calm(rows: Rows) -> None:
    """Says when others used the cores. A queue whose threads sleep has little use of them by itself; most do not."""
    for threads in THREADS:
        had = statistics.median(share for row in _of(rows, "closed", threads=threads) for share in row["cpu"])
        if had < 0.95:
            print(
                f"note: with {threads} threads the median turn had {100 * had:.0f} % of its cores; others had the rest"
            )


def _print_open(rows: Rows) -> None:
    for rate, threads in dict.fromkeys((row["arrivals_per_second"], row["threads"]) for row in _of(rows, "open")):
        print_table(
            f"Open loop, {rate / 1e6:g} M arrivals/s on {threads} threads, 100,000 keys; ns p50 / p99 / p99.9 from the "
            "intended arrival, median of rounds",
            ["queue", "pushed", "popped", "served in time"],
            [
                [
                    _SHORT[row["queue"]],
                    _percentiles(row["push_ns"]),
                    _percentiles(row["pop_ns"]),
                    f"{100 * statistics.median(row['served']):.1f} %",
                ]
                for row in _of(rows, "open", arrivals_per_second=rate, threads=threads)
            ],
        )


def _print_rank(rows: Rows) -> None:
    print_table(
        "Rank error: smaller keys queued at a take (mean / p99 / most, with the method's skew), and by how many "
        "quanta a take was surely behind (mean / p99.9 / most)",
        ["queue", "workload", "threads", "rank", "quanta"],
        [
            [
                _SHORT[row["queue"]],
                f"{row['workload']}, {row['size']:,}",
                str(row["threads"]),
                f"{row['rank_mean']:.2f} / {row['rank_p99']:,} / {row['rank_most']:,}",
                f"{row['quanta_mean']:.2f} / {row['quanta_p999']:,} / {row['quanta_most']:,}",
            ]
            for row in _of(rows, "rank")
        ],
    )


def _throughput_targets(rows: Rows) -> list[Target]:
    targets = []
    wanted = [(DEADLINE, workload, size, *gates) for (workload, size), gates in _RATIOS.items()]
    wanted.append((PRIORITY, "llm", 100_000, _PRIORITY_RATIOS, None))
    for name, workload, size, gates, aims in wanted:
        for i, threads in enumerate(THREADS):
            where = {"workload": workload, "size": size, "threads": threads}
            ours, theirs = (_one(rows, "closed", queue=queue, **where) for queue in (name, TBB))
            if ours is None or theirs is None:
                continue
            targets.append(
                Target(
                    f"{name.split('::')[-1]}, {workload}, {size // 1_000:,} k keys, {threads} threads, to oneTBB",
                    "×",
                    _ratio(ours["mops"], theirs["mops"]),
                    gates[i],
                    None if aims is None else aims[i],
                    True,
                )
            )
    return targets


def _latency_targets(rows: Rows) -> list[Target]:
    targets = []
    for name, operation, gate in ((DEADLINE, "push", 0.4), (DEADLINE, "pop", 0.4), (PRIORITY, "push", 0.15)):
        for threads in (2, 4):
            where = {"workload": "llm", "size": 100_000, "threads": threads}
            ours, theirs = (_one(rows, "closed", queue=queue, **where) for queue in (name, TBB))
            if ours is None or theirs is None:
                continue
            key = f"{operation}_ns"
            what = f"{name.split('::')[-1]} {operation} p99, {threads} threads, to oneTBB"
            targets.append(Target(what, "×", _ratio(ours[key]["p99"], theirs[key]["p99"]), gate))
    return targets


def _other_targets(rows: Rows) -> list[Target]:
    targets = []
    for name in (DEADLINE, PRIORITY):
        short = name.split("::")[-1]
        mine = [row for row in _of(rows, "closed", workload="llm", size=100_000, queue=name) if row["threads"] > 1]
        if mine:
            share = min(statistics.median(row["share"]) for row in mine)
            targets.append(
                Target(f"{short}, slowest ÷ fastest thread, the worse of 2 and 4", "", share, 0.35, None, True)
            )
        for row in _of(rows, "rank", queue=name, threads=4):
            what = f"{short}, rank error, {row['workload']}, {row['size'] // 1_000} k, 4 threads"
            targets.append(Target(what, "quanta", float(row["quanta_most"]), 1.0))
    return targets


def measure(*, is_full: bool) -> tuple[dict[str, Any], list[Target], dict[str, str]]:
    """Runs the C++ comparison and prints its tables: the document, the promises, the absent peers."""
    plan = _plan(is_full)
    document = native_queues.measure(plan.tasks, rounds=plan.rounds, seconds=plan.seconds, threads=THREADS)
    rows: Rows = document["rows"]
    _print_closed(rows, plan.rounds)
    _print_calm(rows)
    _print_open(rows)
    _print_rank(rows)
    return document, [*_throughput_targets(rows), *_latency_targets(rows), *_other_targets(rows)], document["absent"]


def counts(document: dict[str, Any], *, is_full: bool) -> tuple[dict[str, Any], list[Target]]:
    """Instructions of a push and of a pop at 100,000 keys: of zeta's queues and oneTBB, in full of all."""
    counted: dict[str, Any] = {}
    for name in _names(_of(document["rows"], "closed")):
        if is_full or name in (DEADLINE, PRIORITY, TBB):
            counted[name] = {
                workload: {op: native_queues.instructions(_IDS[name], op, workload=workload) for op in ("push", "pop")}
                for workload in ("us", "llm")
            }
    print_table(
        "Instructions, 100,000 keys, one thread, virtual time (callgrind); us: 50 keys a bucket, llm: 1",
        ["queue", "us: push", "pop", "llm: push", "pop"],
        [[_SHORT[name], *(f"{n:,.0f}" for of in each.values() for n in of.values())] for name, each in counted.items()],
    )
    targets = [
        Target(
            f"{name.split('::')[-1]}, instructions of a {operation}, us, 100 k",
            "",
            counted[name]["us"][operation],
            float(most),
        )
        for (name, operation), most in _MOST_INSTRUCTIONS.items()
        if name in counted
    ]
    return counted, targets
