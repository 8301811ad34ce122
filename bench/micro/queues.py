"""zeta's queues from Python beside Python's own: pairs of pop and push, threads, numpy batches, cancel and update.

Every loop is a hold model: what is popped is pushed again with a later key, so that as many stay queued as were there,
and at the end every item must come out once. Keys and items are integers, entries of the heaps are (key, item): the
cheapest that each peer can be given.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import heapq
import queue
import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from bench.harness import Absent, Spread, WrongAnswer
from bench.report import Target, print_table

import zeta

__all__ = ["measure"]

START_NS = 1_000_000_000_000
QUANTUM_NS, HORIZON_NS = 1_000_000, 262_144_000_000
BATCHES = (64, 1_000)
_CLASSES_NS = (500_000_000, 5_000_000_000, 60_000_000_000)
_DEEP = 100_000
_LOCKED_HEAP = "heapq + threading.Lock"


def _slacks(count: int, seed: int) -> list[int]:
    draw = random.Random(seed)
    return [int(draw.choice(_CLASSES_NS) * draw.uniform(0.5, 1.5)) for _ in range(count)]


_SLACKS = _slacks(4_096, 1)


class Queue(Protocol):
    """One queue of integers, smallest key first."""

    name: str
    is_for_threads: bool

    def fill(self, keys: Sequence[int]) -> None:
        """Makes it and puts items 0 … n - 1 in."""

    def pairs(self, slacks: Sequence[int]) -> None:
        """Pops one and pushes it with its key and a slack, for each slack; any thread."""

    def drain(self) -> list[int]:
        """Takes all items out."""


class LockedHeap:
    """A heap and a lock in a class of two methods, as it is commonly written."""

    name = _LOCKED_HEAP
    is_for_threads = True

    def fill(self, keys: Sequence[int]) -> None:
        self._heap = [(key, item) for item, key in enumerate(keys)]
        self._lock = threading.Lock()
        heapq.heapify(self._heap)

    def push(self, key: int, item: int) -> None:
        with self._lock:
            heapq.heappush(self._heap, (key, item))

    def pop(self) -> tuple[int, int]:
        with self._lock:
            return heapq.heappop(self._heap)

    def pairs(self, slacks: Sequence[int]) -> None:
        push, pop = self.push, self.pop
        for slack in slacks:
            key, item = pop()
            push(key + slack, item)

    def drain(self) -> list[int]:
        return [item for _, item in self._heap]


class StandardPriorityQueue:
    name = "queue.PriorityQueue"
    is_for_threads = True

    def fill(self, keys: Sequence[int]) -> None:
        self._queue: Any = queue.PriorityQueue()
        for item, key in enumerate(keys):
            self._queue.put((key, item))

    def pairs(self, slacks: Sequence[int]) -> None:
        put, get = self._queue.put, self._queue.get
        for slack in slacks:
            key, item = get()
            put((key + slack, item))

    def drain(self) -> list[int]:
        return [self._queue.get_nowait()[1] for _ in range(self._queue.qsize())]


class AsyncioPriorityQueue:
    name = "asyncio.PriorityQueue (nowait)"
    is_for_threads = False

    def fill(self, keys: Sequence[int]) -> None:
        self._queue: Any = asyncio.PriorityQueue()
        for item, key in enumerate(keys):
            self._queue.put_nowait((key, item))

    def pairs(self, slacks: Sequence[int]) -> None:
        put, get = self._queue.put_nowait, self._queue.get_nowait
        for slack in slacks:
            key, item = get()
            put((key + slack, item))

    def drain(self) -> list[int]:
        return [self._queue.get_nowait()[1] for _ in range(self._queue.qsize())]


class SortedContainers:
    name = "sortedcontainers.SortedList"
    is_for_threads = False

    def fill(self, keys: Sequence[int]) -> None:
        try:
            from sortedcontainers import SortedList
        except ImportError as missing:
            raise Absent(f"pip install sortedcontainers ({missing})") from None
        self._list: Any = SortedList((key, item) for item, key in enumerate(keys))

    def pairs(self, slacks: Sequence[int]) -> None:
        add, pop = self._list.add, self._list.pop
        for slack in slacks:
            key, item = pop(0)
            add((key + slack, item))

    def drain(self) -> list[int]:
        return [item for _, item in self._list]


def _of_zeta(name: str) -> Any:
    found = getattr(zeta, name, None)
    if found is None:
        raise Absent(f"this build of zeta has no {name}")
    return found


class ZetaPriority:
    name = "zeta.PriorityQueue"
    is_for_threads = True

    def fill(self, keys: Sequence[int]) -> None:
        self._queue = _of_zeta("PriorityQueue")(len(keys) + 4_096)
        self.tickets = [self._queue.push(key, item) for item, key in enumerate(keys)]

    def pairs(self, slacks: Sequence[int]) -> None:
        push, pop = self._queue.push, self._queue.pop
        for slack in slacks:
            key, item = pop()
            push(key + slack, item)

    def batches(self, size: int, slacks: Sequence[np.ndarray[Any, Any]]) -> float:
        push_many, pop_many, now = self._queue.push_many, self._queue.pop_many, time.perf_counter_ns
        spent = 0
        for slack in slacks:
            began = now()
            keys, items = pop_many(size)
            popped = now()
            keys = keys + slack
            added = now()
            push_many(keys, items)
            spent += now() - added + popped - began
        return spent / (len(slacks) * size)

    def cancel_all(self, tickets: Sequence[int]) -> None:
        cancel = self._queue.cancel
        for ticket in tickets:
            cancel(ticket)

    def update_all(self, tickets: Sequence[int], keys: Sequence[int]) -> None:
        update = self._queue.update
        for ticket, key in zip(tickets, keys, strict=True):
            update(ticket, key)

    def push(self, key: int, item: int) -> int:
        ticket: int = self._queue.push(key, item)
        return ticket

    def __len__(self) -> int:
        return len(self._queue)

    def drain(self) -> list[int]:
        items = []
        while (entry := self._queue.pop()) is not None:
            items.append(entry[1])
        return items


class ZetaDeadline:
    name = "zeta.DeadlineQueue"
    is_for_threads = True

    def fill(self, keys: Sequence[int]) -> None:
        self._queue = _of_zeta("DeadlineQueue")(len(keys) + 4_096, quantum_ns=QUANTUM_NS, horizon_ns=HORIZON_NS)
        self._now = START_NS
        self.tickets = [self._queue.push(key, item, now_ns=START_NS) for item, key in enumerate(keys)]

    def pairs(self, slacks: Sequence[int]) -> None:
        push, pop, now = self._queue.push, self._queue.pop, self._now
        for slack in slacks:
            now, item = pop(now_ns=now)
            push(now + slack, item, now_ns=now)
        self._now = max(self._now, now)

    def batches(self, size: int, slacks: Sequence[np.ndarray[Any, Any]]) -> float:
        push_many, pop_many, now = self._queue.push_many, self._queue.pop_many, time.perf_counter_ns
        present, spent = self._now, 0
        for slack in slacks:
            began = now()
            keys, items = pop_many(size, now_ns=present)
            popped = now()
            present = int(keys.max())
            keys = keys + slack
            added = now()
            push_many(keys, items, now_ns=present)
            spent += now() - added + popped - began
        self._now = present
        return spent / (len(slacks) * size)

    def cancel_all(self, tickets: Sequence[int]) -> None:
        cancel = self._queue.cancel
        for ticket in tickets:
            cancel(ticket)

    def update_all(self, tickets: Sequence[int], keys: Sequence[int]) -> None:
        update, now = self._queue.update, self._now
        for ticket, key in zip(tickets, keys, strict=True):
            update(ticket, key, now_ns=now)

    def push(self, key: int, item: int) -> int:
        ticket: int = self._queue.push(key, item, now_ns=self._now)
        return ticket

    def __len__(self) -> int:
        return len(self._queue)

    def drain(self) -> list[int]:
        items = []
        while (entry := self._queue.pop(now_ns=self._now)) is not None:
            items.append(entry[1])
        return items


_ZETA: tuple[Any, ...] = (ZetaDeadline, ZetaPriority)
_PEERS: tuple[Any, ...] = (LockedHeap, StandardPriorityQueue, AsyncioPriorityQueue, SortedContainers)


class RemoveAndHeapify:
    """A list kept as a heap; to take one out, list.remove and heapify, as vLLM's PriorityRequestQueue does."""

    name = "list.remove + heapify (as vLLM)"
    per_turn = 3

    def fill(self, keys: Sequence[int]) -> None:
        self._heap = [(key, item) for item, key in enumerate(keys)]
        heapq.heapify(self._heap)
        self.tickets: list[Any] = list(self._heap)

    def cancel_all(self, tickets: Sequence[tuple[int, int]]) -> None:
        heap = self._heap
        for ticket in tickets:
            heap.remove(ticket)
            heapq.heapify(heap)

    def update_all(self, tickets: Sequence[tuple[int, int]], keys: Sequence[int]) -> list[tuple[int, int]]:
        heap, fresh = self._heap, []
        for ticket, key in zip(tickets, keys, strict=True):
            heap.remove(ticket)
            heapq.heapify(heap)
            entry = (key, ticket[1])
            heapq.heappush(heap, entry)
            fresh.append(entry)
        return fresh

    def push(self, key: int, item: int) -> tuple[int, int]:
        heapq.heappush(self._heap, (key, item))
        return (key, item)

    def __len__(self) -> int:
        return len(self._heap)


class MarkedHeap:
    """The recipe in the documentation of heapq: an entry is marked as removed, and dropped when it comes up."""

    name = "heapq, entries marked removed (the documentation's recipe)"

    def fill(self, keys: Sequence[int]) -> None:
        self._heap: list[list[Any]] = [[key, item] for item, key in enumerate(keys)]
        self._entries: dict[int, list[Any]] = {entry[1]: entry for entry in self._heap}
        heapq.heapify(self._heap)
        self.tickets = list(range(len(keys)))

    def cancel_all(self, tickets: Sequence[int]) -> None:
        take = self._entries.pop
        for ticket in tickets:
            take(ticket)[1] = -1

    def update_all(self, tickets: Sequence[int], keys: Sequence[int]) -> None:
        heap, entries = self._heap, self._entries
        for ticket, key in zip(tickets, keys, strict=True):
            entries.pop(ticket)[1] = -1
            entry = [key, ticket]
            entries[ticket] = entry
            heapq.heappush(heap, entry)

    def push(self, key: int, item: int) -> int:
        entry = [key, item]
        self._entries[item] = entry
        heapq.heappush(self._heap, entry)
        return item

    def __len__(self) -> int:
        return len(self._entries)


@dataclasses.dataclass(slots=True)
class Result:
    """What one contender took, a value for each round."""

    name: str
    measured: str
    size: int
    threads: int
    unit: str
    rounds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)


def _keys(size: int) -> list[int]:
    """As they lie in a steady run: long slacks are met in proportion to their length, at a uniform point of it."""
    draw = random.Random(2)
    slacks = _slacks(4 * size, 3)
    met = draw.choices(slacks, weights=slacks, k=size)
    return [START_NS + int(slack * draw.random()) for slack in met]


def _timed(turn: Callable[[], float]) -> float:
    gc.collect()
    gc.disable()
    try:
        return turn()
    finally:
        gc.enable()


def _in_turn(rounds: int, turns: Sequence[tuple[Result, Callable[[], float]]]) -> list[Result]:
    """Every round begins with another contender; a first, short round is thrown away."""
    for _, turn in turns:
        turn()
    for i in range(rounds):
        for step in range(len(turns)):
            result, turn = turns[(step + i) % len(turns)]
            result.rounds.append(_timed(turn))
    return [result for result, _ in turns]


def _opened(kinds: Sequence[Any], keys: Sequence[int], absent: dict[str, str]) -> list[Any]:
    opened = []
    for kind in kinds:
        made = kind()
        try:
            made.fill(keys)
        except Absent as missing:
            absent[made.name] = str(missing)
        else:
            opened.append(made)
    return opened


def _check(opened: Sequence[Any], size: int) -> None:
    for each in opened:
        if sorted(each.drain()) != list(range(size)):
            raise WrongAnswer(f"{each.name}: an item was lost or came twice")


def _pairs(size: int, seconds: float, rounds: int, absent: dict[str, str]) -> list[Result]:
    opened = _opened((*_ZETA, *_PEERS), _keys(size), absent)

    def turn(each: Any) -> Callable[[], float]:
        def once() -> float:
            warm = time.perf_counter_ns() + seconds * 1e9 / 2  # the others have had the caches
            while time.perf_counter_ns() < warm:
                each.pairs(_SLACKS)
            began, n = time.perf_counter_ns(), 0
            while (spent := time.perf_counter_ns() - began) < seconds * 1e9:
                each.pairs(_SLACKS)
                n += len(_SLACKS)
            return spent / n

        return once

    results = _in_turn(rounds, [(Result(each.name, "pop + push", size, 1, "ns", []), turn(each)) for each in opened])
    _check(opened, size)
    return results


def _thread_loop(each: Any, threads: int, seconds: float) -> float:
    """Million operations per second of all threads together; pop and push count apart."""
    done = [0] * threads
    barrier = threading.Barrier(threads + 1)
    is_over = False

    def work(i: int) -> None:
        mine = _SLACKS[i * 256 : (i + 1) * 256]
        barrier.wait()
        while not is_over:
            each.pairs(mine)
            done[i] += len(mine)

    team = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for thread in team:
        thread.start()
    barrier.wait()
    time.sleep(seconds / 4)
    began, before = time.perf_counter_ns(), sum(done)
    time.sleep(seconds)
    spent, pairs = time.perf_counter_ns() - began, sum(done) - before
    is_over = True
    for thread in team:
        thread.join()
    return 2e3 * pairs / spent


def _threads(size: int, threads: int, seconds: float, rounds: int, absent: dict[str, str]) -> list[Result]:
    kinds = [kind for kind in (*_ZETA, *_PEERS) if kind.is_for_threads]
    opened = _opened(kinds, _keys(size), absent)

    def turn(each: Any) -> Callable[[], float]:
        return lambda: _thread_loop(each, threads, seconds)

    turns = [(Result(each.name, "pop, push", size, threads, "M operations/s", []), turn(each)) for each in opened]
    results = _in_turn(rounds, turns)
    _check(opened, size)
    return results


def _batches(size: int, rounds: int, absent: dict[str, str]) -> list[Result]:
    opened = _opened(_ZETA, _keys(size), absent)
    turns = []
    for each in opened:
        for batch in BATCHES:
            flat = np.array(_slacks(8 * batch, 4), dtype=np.uint64).reshape(8, batch)
            slacks = [flat[i % 8] for i in range(max(8, 25_600 // batch))]

            def once(each: Any = each, batch: int = batch, slacks: Any = slacks) -> float:
                took: float = each.batches(batch, slacks)
                return took

            turns.append((Result(each.name, f"pop_many + push_many of {batch:,}, per item", size, 1, "ns", []), once))
    results = _in_turn(rounds, turns)
    _check(opened, size)
    return results


def _by_ticket(size: int, rounds: int, absent: dict[str, str]) -> list[Result]:
    """cancel and update of random queued entries; what was cancelled is pushed anew before the next turn, untimed."""
    kinds = (*_ZETA, MarkedHeap, RemoveAndHeapify)
    turns = []
    for what in ("cancel", "update"):
        for each in _opened(kinds, _keys(size), absent):
            draw = random.Random(5)
            count = getattr(each, "per_turn", 2_000)

            def once(each: Any = each, draw: Any = draw, count: int = count, what: str = what) -> float:
                chosen = draw.sample(range(size), count)
                tickets = [each.tickets[i] for i in chosen]
                keys = [START_NS + slack for slack in draw.sample(_SLACKS, count)]
                began = time.perf_counter_ns()
                if what == "cancel":
                    each.cancel_all(tickets)
                    spent = time.perf_counter_ns() - began
                    if len(each) != size - count:
                        raise WrongAnswer(f"{each.name}: {count} were cancelled, {size - len(each)} are gone")
                    fresh = [each.push(key, i) for i, key in zip(chosen, keys, strict=True)]
                else:
                    fresh = each.update_all(tickets, keys) or tickets
                    spent = time.perf_counter_ns() - began
                for i, ticket in zip(chosen, fresh, strict=True):
                    each.tickets[i] = ticket
                if len(each) != size:
                    raise WrongAnswer(f"{each.name}: {size} should be queued, {len(each)} are")
                return spent / count

            turns.append((Result(each.name, what, size, 1, "ns", []), once))
    return _in_turn(rounds, turns)


def _print(title: str, results: Sequence[Result]) -> None:
    base = {(each.measured, each.size, each.threads): each for each in results if each.name == _LOCKED_HEAP}

    def times(each: Result) -> str:
        peer = base.get((each.measured, each.size, each.threads))
        if peer is None:
            return ""
        return f"{_times(each, peer):.2f}×"

    print_table(
        title,
        ["queue", "operation", "queued", "threads", "median (least–most)", "faster than heapq + Lock"],
        [
            [
                each.name,
                each.measured,
                f"{each.size:,}",
                str(each.threads),
                "{0.median:,.{1}f} ({0.least:,.{1}f}–{0.most:,.{1}f}) {2}".format(
                    Spread.of(each.rounds), 0 if each.unit == "ns" else 2, each.unit
                ),
                times(each),
            ]
            for each in results
        ],
    )


def _times(ours: Result, theirs: Result) -> float:
    """How many times faster, the median of the ratios round by round."""
    ratios = [a / b for a, b in zip(ours.rounds, theirs.rounds, strict=True)]
    return statistics.median(ratios) if ours.unit != "ns" else 1 / statistics.median(ratios)


def _targets(results: Sequence[Result]) -> list[Target]:
    found = {(each.name, each.measured, each.size, each.threads): each for each in results}
    targets = []
    for kind in _ZETA:
        name = kind.name
        pair = found.get((name, "pop + push", _DEEP, 1))
        if pair is None:
            continue
        targets.append(Target(f"{name}, pop + push, 100 k", "ns", pair.median, None, 300.0))
        heap = found[_LOCKED_HEAP, "pop + push", _DEEP, 1]
        targets.append(Target(f"{name}, pop + push, 100 k, to heapq + Lock", "×", _times(pair, heap), 6.0, None, True))
        four = found[name, "pop, push", _DEEP, 4]
        targets.append(Target(f"{name}, 4 threads, 100 k", "M/s", four.median, None, 9.0, True))
        heap = found[_LOCKED_HEAP, "pop, push", _DEEP, 4]
        targets.append(Target(f"{name}, 4 threads, 100 k, to heapq + Lock", "×", _times(four, heap), 15.0, None, True))
        for batch, most in zip(BATCHES, (120.0, 70.0), strict=True):
            each = found[name, f"pop_many + push_many of {batch:,}, per item", _DEEP, 1]
            targets.append(Target(f"{name}, batches of {batch:,}, 100 k, per item", "ns", each.median, most))
        targets += [
            Target(f"{name}, {what}, 100 k queued", "ns", found[name, what, _DEEP, 1].median, 200.0)
            for what in ("cancel", "update")
        ]
    return targets


def measure(*, is_full: bool) -> tuple[list[dict[str, Any]], list[Target], dict[str, str]]:
    """Runs and prints everything: the results, the promises, the absent contenders."""
    rounds, seconds = (15, 0.15) if is_full else (5, 0.05)
    absent: dict[str, str] = {}
    pairs = [row for size in (1_000, _DEEP) for row in _pairs(size, seconds, rounds, absent)]
    _print(f"One Python thread; ns per pair of calls, the loop around them included, {rounds} rounds", pairs)
    sizes = (1_000, _DEEP) if is_full else (_DEEP,)
    threads = [row for size in sizes for n in (1, 2, 4) for row in _threads(size, n, 3 * seconds, rounds, absent)]
    _print(f"Python threads; million operations per second, {rounds} rounds", threads)
    batches = [row for size in (1_000, _DEEP) for row in _batches(size, rounds, absent)]
    tickets = _by_ticket(_DEEP, rounds, absent)
    _print(f"numpy batches, and calls by ticket, {rounds} rounds", [*batches, *tickets])
    results = [*pairs, *threads, *batches, *tickets]
    return [dataclasses.asdict(each) for each in results], _targets(results), absent
