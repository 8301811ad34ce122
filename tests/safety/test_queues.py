"""The queues under many Python threads, at the interpreter's end, and across forks."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from tests.safety.conftest import Ask
from tests.safety.test_threads import run_all

import zeta

impatient = pytest.mark.usefixtures("impatient_threads")
both = pytest.mark.parametrize("kind", [zeta.PriorityQueue, zeta.DeadlineQueue])


@pytest.fixture
def impatient_threads() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


class Churn:
    """Threads that push, pop and cancel; in the end every item has left once, by one of the two."""

    def __init__(self, queue: Any, batch: int, rounds: int, threads: int = 4) -> None:
        self.queue, self.batch, self.rounds = queue, batch, rounds
        self.refused = [0] * threads
        self.popped: list[list[int]] = [[] for _ in range(threads)]
        self.cancelled: list[list[int]] = [[] for _ in range(threads)]
        run_all(*(self.thread(n) for n in range(threads)))

    def thread(self, n: int) -> Callable[[], None]:
        keys = np.random.default_rng(n).integers(0, 10**10, self.rounds * self.batch, dtype=np.uint64)

        def one_by_one() -> None:
            for row, key in enumerate(keys.tolist()):
                item = n * len(keys) + row
                ticket = self.queue.push(key, item)
                if ticket is None:
                    self.refused[n] += 1
                elif row % 3 == 0 and self.queue.cancel(ticket):
                    self.cancelled[n].append(item)
                elif row % 3 == 1:
                    self.queue.update(ticket, key // 2)
                if row % 2 and (taken := self.queue.pop()) is not None:
                    self.popped[n].append(taken[1])

        def in_batches() -> None:
            for first in range(0, len(keys), self.batch):
                rows = slice(first, first + self.batch)
                items = np.arange(rows.start, rows.stop, dtype=np.uint64) + np.uint64(n * len(keys))
                tickets = self.queue.push_many(keys[rows], items)
                self.refused[n] += int((tickets == 0).sum())
                drop = self.queue.cancel_many(np.ascontiguousarray(tickets[::3]))
                self.cancelled[n].extend(items[::3][drop].tolist())
                self.popped[n].extend(self.queue.pop_many(self.batch // 2)[1].tolist())

        return one_by_one if self.batch == 1 else in_batches

    def check(self) -> None:
        left = self.queue.pop_many(2**40)[1].tolist()
        gone = [*left, *itertools.chain(*self.popped), *itertools.chain(*self.cancelled)]
        assert len(gone) == len(set(gone))
        assert len(gone) + sum(self.refused) == 4 * self.rounds * self.batch
        assert min(len(self.popped[0]), len(self.cancelled[0])) > 0
        assert len(self.queue) == 0


@impatient
@both
def test_single_calls_of_four_threads_neither_lose_nor_double_an_item(kind: Any) -> None:
    Churn(kind(100_000), batch=1, rounds=5_000).check()


@impatient
@both
@pytest.mark.parametrize("batch", [64, 5_000])
def test_batches_of_four_threads_neither_lose_nor_double_an_item(kind: Any, batch: int) -> None:
    Churn(kind(200_000), batch=batch, rounds=60_000 // batch).check()


@impatient
@both
def test_a_queue_that_is_mostly_full_conserves_its_items_too(kind: Any) -> None:
    churn = Churn(kind(3_000), batch=5_000, rounds=10)
    churn.check()
    assert sum(churn.refused) > 0


@impatient
@both
def test_a_long_batch_lets_other_threads_run(kind: Any) -> None:
    rows = 1_000_000
    queue = kind(rows)
    keys = np.random.default_rng(1).integers(0, 10**10, rows, dtype=np.uint64)
    is_over = False
    beside = 0

    def batch() -> None:
        nonlocal is_over
        queue.push_many(keys, keys)
        queue.pop_many(rows)
        is_over = True

    def count() -> None:
        nonlocal beside
        while not is_over:
            beside += queue.push(1, 1) is not None

    run_all(batch, count)
    assert beside > 100


QUEUES = """
queues = [zeta.PriorityQueue(100_000), zeta.DeadlineQueue(100_000)]
rows = np.arange(20_000, dtype=np.uint64)
def churn(queue):
    while True:
        queue.push_many(rows, rows)
        queue.pop_many(20_000)
        queue.push(1, 2)
        queue.pop()
def start():
    for queue in queues * 2: threading.Thread(target=churn, args=(queue,), daemon=True).start()
"""
FORKS = """
import warnings; warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads
start()
for n in range({forks}):
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(10)
            for queue in queues:
                keys, items = queue.pop_many(1 << 40)
                assert len(queue) == 0 and queue.pop() is None
                assert (queue.push_many(np.arange(100_000, dtype=np.uint64), np.zeros(100_000, np.uint64)) > 0).all()
                assert queue.push(1, 1) is None and len(queue.pop_many(1 << 40)[0]) == 100_000
                ticket = queue.push(5, 6)
                assert queue.update(ticket, 7) and queue.peek_key() == 7 and queue.cancel(ticket)
        except BaseException:
            import traceback; traceback.print_exc(); os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, n
"""


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "del queues"])
def test_the_interpreter_ends_with_items_queued_and_batches_under_way(ask: Ask, end: str) -> None:
    for _ in range(5):
        ended = ask(QUEUES + "start(); time.sleep(0.02)\n" + end, timeout_s=30)
        assert (ended.returncode, ended.stderr) == (3 if "exit" in end else 0, "")


def test_a_child_of_a_busy_parent_has_whole_queues_of_its_own(ask: Ask) -> None:
    ended = ask(QUEUES + FORKS.format(forks=20), 120)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_child_has_what_waited_and_takes_nothing_from_its_parent(ask: Ask) -> None:
    script = """
for queue in queues:
    queue.push_many(rows, rows)
    pid = os.fork()
    if pid == 0:
        keys, _ = queue.pop_many(30_000)
        os._exit(int(sorted(keys.tolist()) != rows.tolist()))
    assert os.waitpid(pid, 0)[1] == 0
    assert len(queue) == 20_000 and len(queue.pop_many(30_000)[0]) == 20_000
"""
    ended = ask(QUEUES + script)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_queues_come_and_go_without_a_trace(ask: Ask) -> None:
    script = """
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
def once():
    for kind in (zeta.PriorityQueue, zeta.DeadlineQueue):
        queue = kind(50_000)
        for _ in range(3):
            tickets = queue.push_many(rows, rows)
            queue.cancel_many(tickets[:100].copy())
            queue.pop_many(100), queue.pop_many(10_000)
        for bad in ([1], rows[::2], rows - rows.astype(np.int64) - 1):
            try: queue.push_many(bad, rows)
            except (TypeError, ValueError, OverflowError): pass
            else: raise AssertionError(bad)
for _ in range(20): once()
before = rss()
for _ in range(100): once()
assert rss() - before < 8 << 20, (before, rss())
"""
    ended = ask(QUEUES + script)
    assert (ended.returncode, ended.stderr) == (0, "")
