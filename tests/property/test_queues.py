"""The queues against a dictionary, whatever happens in whatever order.

The oracle of a PriorityQueue is exact. That of a DeadlineQueue allows what its order leaves free: any item of the first
quantum, and, first of all, items that were overdue by a chunk or more when they got their key.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import zeta

MOST = 2**64 - 1
QUANTUM_NS = 10
CHUNK_NS = 32_768 * QUANTUM_NS
CHUNKS = 8
PATIENCE_NS = (CHUNKS - 2) // 2 * CHUNK_NS

_ROWS = st.integers(0, 20)
_PICK = st.integers(0, 2**32)
_FLAGS = st.booleans()


class Waiting:
    """One item of the oracle."""

    def __init__(self, key: int, item: int, may_be_late: bool) -> None:
        self.key = key
        self.item = item
        self.may_be_late = may_be_late
        self.was_updated = False


class QueueMachine(RuleBasedStateMachine):
    """What both queues can do. Every item is pushed once, so that it names its push."""

    queue: Any

    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[int, Waiting] = {}
        self.gone: list[int] = []
        self.pushed = 0

    # What a queue of one kind adds.

    def when(self) -> dict[str, int]:
        return {}

    def may_be_late(self, _key: int) -> bool:
        return False

    def check_taken(self, key: int, item: int, *, feasible_first: bool) -> None:
        """Whether the queue may hand out this one: each kind has an order of its own."""
        raise NotImplementedError

    # The oracle.

    def enter(self, ticket: int, key: int, item: int) -> None:
        assert ticket not in self.waiting
        assert ticket not in self.gone
        self.waiting[ticket] = Waiting(key, item, self.may_be_late(key))

    def leave(self, ticket: int) -> None:
        del self.waiting[ticket]
        self.gone.append(ticket)

    def take(self, key: int, item: int, feasible_first: bool) -> None:
        self.check_taken(key, item, feasible_first=feasible_first)
        (ticket,) = (ticket for ticket, one in self.waiting.items() if one.item == item)
        assert self.waiting[ticket].key == key
        self.leave(ticket)

    def ticket_of(self, pick: int, of_waiting: bool) -> int:
        tickets = list(self.waiting) if of_waiting else self.gone
        return tickets[pick % len(tickets)] if tickets else pick

    # What may happen.

    def push(self, key: int) -> None:
        ticket = self.queue.push(key, self.pushed, **self.when())
        assert (ticket is None) == (len(self.waiting) == self.queue.capacity)
        if ticket is not None:
            self.enter(ticket, key, self.pushed)
        self.pushed += 1

    def push_many(self, keys: list[int]) -> None:
        items = np.arange(self.pushed, self.pushed + len(keys), dtype=np.uint64)
        tickets = self.queue.push_many(np.array(keys, np.uint64), items, **self.when())
        room = self.queue.capacity - len(self.waiting)
        assert (tickets > 0).tolist() == [row < room for row in range(len(keys))]
        for ticket, key, item in zip(tickets.tolist(), keys, items.tolist(), strict=True):
            if ticket:
                self.enter(ticket, key, item)
        self.pushed += len(keys)

    def update(self, ticket: int, key: int) -> None:
        assert self.queue.update(ticket, key, **self.when()) == (ticket in self.waiting)
        if ticket in self.waiting:
            one = self.waiting[ticket]
            one.key, one.may_be_late, one.was_updated = key, self.may_be_late(key), True

    def pop_many(self, n: int, **how: Any) -> None:
        keys, items = self.queue.pop_many(n, **self.when(), **how)
        assert len(keys) == len(items) == min(n, len(self.waiting))
        for key, item in zip(keys.tolist(), items.tolist(), strict=True):
            self.take(key, item, how.get("feasible_first", False))

    def pop(self, **how: Any) -> None:
        taken = self.queue.pop(**self.when(), **how)
        assert (taken is None) == (not self.waiting)
        if taken is not None:
            self.take(*taken, how.get("feasible_first", False))

    @rule(pick=_PICK, of_waiting=_FLAGS)
    def cancel(self, pick: int, of_waiting: bool) -> None:
        ticket = self.ticket_of(pick, of_waiting)
        assert self.queue.cancel(ticket) == (ticket in self.waiting)
        if ticket in self.waiting:
            self.leave(ticket)

    @rule(picks=st.lists(st.tuples(_PICK, _FLAGS), max_size=20))
    def cancel_many(self, picks: list[tuple[int, bool]]) -> None:
        tickets = [self.ticket_of(pick, of_waiting) for pick, of_waiting in picks]
        done = self.queue.cancel_many(np.array(tickets, np.uint64))
        for ticket, was_waiting in zip(tickets, done.tolist(), strict=True):
            assert was_waiting == (ticket in self.waiting)
            if was_waiting:
                self.leave(ticket)

    @invariant()
    def has_as_many(self) -> None:
        assert len(self.queue) == len(self.waiting)

    def teardown(self) -> None:
        while self.waiting:
            self.pop()
        assert self.queue.pop() is None
        assert self.queue.peek_key() is None


class PriorityMachine(QueueMachine):
    keys = st.one_of(st.integers(0, 5), st.integers(0, MOST))

    @initialize(capacity=st.sampled_from([1, 3, 64]))
    def build(self, capacity: int) -> None:
        self.queue = zeta.PriorityQueue(capacity)

    def check_taken(self, key: int, item: int, *, feasible_first: bool) -> None:
        assert not feasible_first
        assert key == min(one.key for one in self.waiting.values())
        equals = [one for one in self.waiting.values() if one.key == key]
        if not any(one.was_updated for one in equals):
            assert item == min(one.item for one in equals)

    @rule(key=keys)
    def push_one(self, key: int) -> None:
        self.push(key)

    @rule(rows=st.lists(keys, max_size=20))
    def push_rows(self, rows: list[int]) -> None:
        self.push_many(rows)

    @rule(pick=_PICK, of_waiting=_FLAGS, key=keys)
    def update_one(self, pick: int, of_waiting: bool, key: int) -> None:
        self.update(self.ticket_of(pick, of_waiting), key)

    @rule()
    def pop_one(self) -> None:
        self.pop()

    @rule(n=_ROWS)
    def pop_rows(self, n: int) -> None:
        self.pop_many(n)

    @rule()
    def peek(self) -> None:
        assert self.queue.peek_key() == min((one.key for one in self.waiting.values()), default=None)


class DeadlineMachine(QueueMachine):
    slacks = st.one_of(
        st.integers(-30, 30),
        st.integers(-5, 5).map(lambda chunks: chunks * CHUNK_NS),
        st.integers(-20 * CHUNK_NS, 20 * CHUNK_NS),
        st.sampled_from([-MOST, 10**15, MOST]),
    )

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.latest = 0

    @initialize(capacity=st.sampled_from([1, 3, 64]), now=st.sampled_from([0, 10**9, 10**18]))
    def build(self, capacity: int, now: int) -> None:
        self.queue = zeta.DeadlineQueue(capacity, quantum_ns=QUANTUM_NS, horizon_ns=CHUNK_NS)
        assert self.queue.horizon_ns == (CHUNKS - 2) * CHUNK_NS
        self.now = now

    def when(self) -> dict[str, int]:
        self.latest = max(self.latest, self.now)
        return {"now_ns": self.now}

    def key_after(self, slack: int) -> int:
        return min(max(self.now + slack, 0), MOST)

    def may_be_late(self, key: int) -> bool:
        return key // CHUNK_NS < self.latest // CHUNK_NS - 1

    def is_in_order(self, quantum: int, may_be_late: bool, from_due: int = 0) -> bool:
        earlier = [one for one in self.waiting.values() if from_due <= one.key // QUANTUM_NS < quantum]
        return not earlier or (may_be_late and all(one.may_be_late for one in earlier))

    def check_taken(self, key: int, item: int, *, feasible_first: bool) -> None:
        quantum, due = key // QUANTUM_NS, self.now // QUANTUM_NS
        quanta = [one.key // QUANTUM_NS for one in self.waiting.values()]
        feasible = [other for other in quanta if other >= due]
        if feasible_first and self.is_feasible_reachable(quanta, feasible):
            assert quantum == min(feasible)
            return
        (taken,) = (one for one in self.waiting.values() if one.item == item)
        from_due = due if feasible_first and quantum >= due else 0
        assert self.is_in_order(quantum, taken.may_be_late, from_due) or (
            feasible_first and self.is_in_order(quantum, True, from_due)
        )

    def is_feasible_reachable(self, quanta: list[int], feasible: list[int]) -> bool:
        """Whether a feasible item has a bucket, and none is overdue so far that it goes first all the same."""
        patience = PATIENCE_NS // QUANTUM_NS
        due = self.now // QUANTUM_NS
        return (
            self.now == self.latest
            and bool(feasible)
            and min(feasible) // 32_768 <= due // 32_768 + (CHUNKS - 2) // 2 - 1
            and min(quanta) >= due - patience
        )

    @rule(step=st.one_of(st.integers(0, 30), st.integers(0, 20 * CHUNK_NS), st.sampled_from([CHUNK_NS, 10**15])))
    def time_passes(self, step: int) -> None:
        self.now = min(max(self.now, self.latest) + step, MOST)

    @rule()
    def the_time_is_unknown(self) -> None:
        self.now = 0

    @precondition(lambda self: self.latest > 0)
    @rule(back=st.integers(0, 2 * CHUNK_NS))
    def somebody_reads_an_older_clock(self, back: int) -> None:
        self.now = max(self.latest - back, 0)

    @rule(slack=slacks)
    def push_one(self, slack: int) -> None:
        self.push(self.key_after(slack))

    @rule(some=st.lists(slacks, max_size=20))
    def push_rows(self, some: list[int]) -> None:
        self.push_many([self.key_after(slack) for slack in some])

    @rule(pick=_PICK, of_waiting=_FLAGS, slack=slacks)
    def update_one(self, pick: int, of_waiting: bool, slack: int) -> None:
        self.update(self.ticket_of(pick, of_waiting), self.key_after(slack))

    @rule(feasible_first=_FLAGS)
    def pop_one(self, feasible_first: bool) -> None:
        self.pop(feasible_first=feasible_first)

    @rule(n=_ROWS, feasible_first=_FLAGS)
    def pop_rows(self, n: int, feasible_first: bool) -> None:
        self.pop_many(n, feasible_first=feasible_first)

    @rule()
    def peek(self) -> None:
        key = self.queue.peek_key(**self.when())
        assert (key is None) == (not self.waiting)
        if key is not None:
            candidates = [one for one in self.waiting.values() if one.key == key]
            assert any(self.is_in_order(key // QUANTUM_NS, one.may_be_late) for one in candidates)


TestPriorityQueue = PriorityMachine.TestCase
TestPriorityQueue.settings = settings(max_examples=50, stateful_step_count=50, deadline=None)
TestDeadlineQueue = DeadlineMachine.TestCase
TestDeadlineQueue.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
