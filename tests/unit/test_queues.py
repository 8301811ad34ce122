"""What zeta's queues promise a single thread, and what they say to arguments that they cannot use."""

from __future__ import annotations

import array
import copy
import doctest
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import zeta

MOST = 2**64 - 1
S = 1_000_000_000
Build = Callable[..., Any]


def priority(capacity: int = 100) -> zeta.PriorityQueue:
    return zeta.PriorityQueue(capacity)


def deadline(capacity: int = 100) -> zeta.DeadlineQueue:
    return zeta.DeadlineQueue(capacity)


both = pytest.mark.parametrize("build", [priority, deadline])


def column(*rows: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.array(rows, np.uint64)


def drained(queue: Any) -> list[tuple[int, int]]:
    return list(iter(queue.pop, None))


# --- what both promise


@both
def test_the_least_key_leaves_first(build: Build) -> None:
    queue = build()
    for item, key in enumerate([5 * S, 1 * S, 4 * S, 2 * S, 3 * S]):
        assert queue.push(key, item) > 0
    assert queue.peek_key() == 1 * S
    assert len(queue) == 5
    assert drained(queue) == [(1 * S, 1), (2 * S, 3), (3 * S, 4), (4 * S, 2), (5 * S, 0)]


@both
def test_an_empty_queue_gives_none_and_empty_arrays(build: Build) -> None:
    queue = build()
    assert queue.pop() is None
    assert queue.peek_key() is None
    assert not queue
    keys, items = queue.pop_many(10)
    assert (keys.shape, items.shape, keys.dtype, items.dtype) == ((0,), (0,), np.uint64, np.uint64)


@both
def test_a_full_queue_refuses_with_none_and_zero_and_keeps_what_it_has(build: Build) -> None:
    queue = build(4)
    assert queue.capacity == 4
    tickets = queue.push_many(column(5, 6, 7), column(50, 60, 70))
    assert tickets.dtype == np.uint64
    assert (tickets > 0).all()
    assert (queue.push_many(column(1, 2), column(10, 20)) > 0).tolist() == [True, False]
    assert queue.push(3, 30) is None
    assert sorted(drained(queue)) == [(1, 10), (5, 50), (6, 60), (7, 70)]
    assert queue.push(3, 30)


@both
def test_a_ticket_cancels_its_item_once(build: Build) -> None:
    queue = build()
    kept, dropped = queue.push(1, 10), queue.push(2, 20)
    assert queue.cancel(dropped) is True
    assert queue.cancel(ticket=dropped) is False
    assert len(queue) == 1
    assert drained(queue) == [(1, 10)]
    assert queue.cancel(kept) is False
    assert queue.update(kept, 1) is False


@both
def test_an_update_moves_the_item_and_keeps_its_ticket(build: Build) -> None:
    queue = build()
    first, second = queue.push(1 * S, 1), queue.push(2 * S, 2)
    assert queue.update(first, 3 * S) is True
    assert queue.peek_key() == 2 * S
    assert queue.update(ticket=second, key=4 * S) is True
    assert queue.pop() == (3 * S, 1)
    assert queue.cancel(second) is True
    assert queue.pop() is None


@both
def test_a_ticket_is_not_mistaken_for_the_next_item_of_its_slot(build: Build) -> None:
    queue = build(1)
    stale = []
    for n in range(1_000):
        stale.append(queue.push(n, n))
        assert queue.pop() == (n, n)
    assert queue.push(7, 7)
    assert not any(queue.cancel(ticket) or queue.update(ticket, 1) for ticket in stale)
    assert queue.pop() == (7, 7)


@both
@pytest.mark.parametrize("ticket", [0, 1, 2**32, MOST])
def test_tickets_that_were_never_handed_out_are_unknown(build: Build, ticket: int) -> None:
    queue = build()
    assert queue.cancel(ticket) is False
    assert queue.update(ticket, 5) is False


@both
def test_many_tickets_are_cancelled_at_once(build: Build) -> None:
    queue = build(3)
    tickets = queue.push_many(column(1, 2, 3, 4), column(1, 2, 3, 4))
    queue.cancel(int(tickets[1]))
    done = queue.cancel_many(tickets)
    assert done.dtype == np.bool_
    assert done.tolist() == [True, False, True, False]
    assert len(queue) == 0


@both
@pytest.mark.parametrize("number", [0, 1, 2**30 - 1, 2**30, 2**60, 2**63, MOST])
def test_keys_and_items_use_all_64_bits(build: Build, number: int) -> None:
    queue = build()
    assert queue.push(number, MOST - number)
    assert queue.peek_key() == number
    assert queue.pop() == (number, MOST - number)
    assert queue.push_many(column(number), column(MOST - number)) > 0
    keys, items = queue.pop_many(1)
    assert (int(keys[0]), int(items[0])) == (number, MOST - number)


@both
@pytest.mark.parametrize("rows", [1, 255, 256, 257, 2_047, 2_048, 10_000])
def test_batches_of_every_length_keep_the_order(build: Build, rows: int) -> None:
    queue = build(20_000)
    keys = np.random.default_rng(1).permutation(rows).astype(np.uint64) * np.uint64(S // 100)
    items = np.arange(rows, dtype=np.uint64)
    assert (queue.push_many(keys, items) > 0).all()
    half, half_items = queue.pop_many(rows // 2)
    rest, rest_items = queue.pop_many(2**40)
    assert len(half) == rows // 2
    assert len(queue) == 0
    assert (np.concatenate([half, rest]) == np.sort(keys)).all()
    assert (keys[np.concatenate([half_items, rest_items]).astype(int)] == np.sort(keys)).all()


@both
def test_popped_arrays_are_the_callers_own(build: Build) -> None:
    queue = build()
    queue.push_many(column(1, 2), column(1, 2))
    keys, _ = queue.pop_many(2)
    keys[:] = 9
    queue.push_many(column(3, 4), column(3, 4))
    assert sorted(queue.pop_many(2)[0].tolist()) == [3, 4]
    assert keys.tolist() == [9, 9]


@both
@pytest.mark.parametrize("given", [np.uint64(7), np.int32(7), np.uint8(7), True + 6, np.array(7)])
def test_any_integer_serves_as_key_and_item(build: Build, given: Any) -> None:
    queue = build()
    assert queue.push(given, given)
    assert queue.pop() == (7, 7)


@both
def test_arrays_of_int64_readonly_ones_and_other_buffers_serve(build: Build) -> None:
    queue = build()
    fixed = column(3)
    fixed.flags.writeable = False
    assert queue.push_many(np.array([1]), array.array("Q", [10]))[0] > 0
    assert queue.push_many(np.array([2], np.longlong), memoryview(column(20)))[0] > 0
    assert queue.push_many(fixed, column(9, 30)[::2][:1])[0] > 0
    assert queue.push_many(np.zeros(0, np.uint64), np.zeros(0, np.uint64)).shape == (0,)
    assert [key for key, _ in sorted(drained(queue))] == [1, 2, 3]


@both
def test_arguments_go_by_name_too_even_by_a_name_that_is_not_interned(build: Build) -> None:
    queue = build()
    assert queue.push(item=1, key=2)
    assert queue.push(3, item=4)
    assert queue.push(**{"".join(["k", "ey"]): 5, "item": 6})
    assert queue.push_many(items=column(8), keys=column(7))[0] > 0
    keys, items = queue.pop_many(n=9)
    assert sorted(keys.tolist()) == [2, 3, 5, 7]
    assert sorted(items.tolist()) == [1, 4, 6, 8]


# --- what only one promises


def test_equal_keys_leave_a_priority_queue_first_in_first_out() -> None:
    queue = priority()
    for item in range(5):
        queue.push(5, item)
    assert [item for _, item in drained(queue)] == [0, 1, 2, 3, 4]


def test_a_priority_queue_holds_a_million_by_default() -> None:
    assert zeta.PriorityQueue().capacity == 1 << 20


def test_a_deadline_queue_says_its_quantum_and_how_far_it_places_at_once() -> None:
    queue = zeta.DeadlineQueue(10)
    assert queue.quantum_ns == 1_000_000
    assert 262_144_000_000 <= queue.horizon_ns <= 2 * 262_144_000_000
    assert zeta.DeadlineQueue(10, quantum_ns=1, horizon_ns=2**62).horizon_ns == 62 * 32_768


def test_quanta_leave_in_order_and_their_items_in_any() -> None:
    queue = zeta.DeadlineQueue(1000, quantum_ns=100)
    for key in range(999, -1, -1):
        queue.push(key, key)
    popped = [key for key, _ in drained(queue)]
    assert sorted(popped) == list(range(1000))
    assert [key // 100 for key in popped] == sorted(key // 100 for key in popped)


def test_keys_beyond_the_horizon_leave_in_order_whether_or_not_the_time_is_known() -> None:
    for now in (0, 400 * S):
        queue = zeta.DeadlineQueue(10, horizon_ns=S)
        for seconds in (9_000, 500, 100_000, 1, 40_000):
            queue.push(seconds * S, seconds, now_ns=now)
        assert queue.peek_key(now_ns=now) == S
        assert [queue.pop(now_ns=now) for _ in range(5)] == [(n * S, n) for n in (1, 500, 9_000, 40_000, 100_000)]


def test_feasible_items_go_before_overdue_ones_only_when_asked() -> None:
    queue = deadline()
    for seconds in (99, 101, 98, 102):
        queue.push(seconds * S, seconds, now_ns=90 * S)
    assert queue.peek_key(100 * S) == 98 * S
    assert queue.peek_key(100 * S, feasible_first=True) == 101 * S
    assert queue.pop(now_ns=100 * S, feasible_first=True) == (101 * S, 101)
    assert queue.pop(100 * S, True) == (102 * S, 102)
    assert queue.pop_many(9, now_ns=100 * S, feasible_first=True)[1].tolist() == [98, 99]


def test_items_overdue_by_far_at_their_push_go_first_and_first_in_first_out() -> None:
    queue = deadline()
    now = 100_000 * S
    queue.push(now + S, 1, now_ns=now)
    queue.pop(now_ns=now)
    queue.push(now + S, 2, now_ns=now)
    for item in (5, 3, 4):
        queue.push(item * S, item, now_ns=now)
    assert [item for _, item in iter(lambda: queue.pop(now_ns=now), None)] == [5, 3, 4, 2]


def test_now_is_positional_too() -> None:
    queue = deadline()
    ticket = queue.push(5 * S, 1, 1 * S)
    assert ticket
    assert queue.update(ticket, 6 * S, 2 * S)
    assert queue.push_many(column(7 * S), column(2), 2 * S)[0] > 0
    assert queue.peek_key(2 * S) == 6 * S
    assert queue.pop_many(2, 2 * S)[0].tolist() == [6 * S, 7 * S]


# --- what they say to what they cannot use

NUMBER = "expected an int from 0 to"


@both
@pytest.mark.parametrize(
    ("given", "error"),
    [
        *((value, TypeError) for value in (1.0, "1", None, np.float64(1), np.array([1, 2]))),
        *((value, OverflowError) for value in (-1, 2**64, np.int64(-1))),
    ],
)
def test_a_key_or_item_that_is_no_64_bit_number_is_named_and_nothing_is_pushed(
    build: Build, given: Any, error: type[Exception]
) -> None:
    queue = build()
    ticket = queue.push(1, 1)
    with pytest.raises(error, match="key"):
        queue.push(given, 1)
    with pytest.raises(error, match="item"):
        queue.push(1, given)
    with pytest.raises(error, match="key"):
        queue.update(ticket, given)
    with pytest.raises(error, match="ticket"):
        queue.update(given, 1)
    with pytest.raises(error, match="ticket"):
        queue.cancel(given)
    assert drained(queue) == [(1, 1)]


@both
def test_errors_say_what_was_given_expected_and_to_be_done(build: Build) -> None:
    queue = build()
    with pytest.raises(TypeError, match=r"key: got 1\.5 \(float\), expected an int from 0 to 2\*\*64 - 1"):
        queue.push(1.5, 1)
    with pytest.raises(OverflowError, match=r"item: got -3 \(int\), expected an int from 0 to 2\*\*64 - 1"):
        queue.push(1, -3)
    with pytest.raises(TypeError, match=r"ticket: got None .*push returns None when the queue is full"):
        queue.cancel(None)
    with pytest.raises(TypeError, match=r"keys: got list, .*use numpy\.asarray\(x, dtype=numpy\.uint64\)"):
        queue.push_many([1], column(1))
    with pytest.raises(ValueError, match=r"items: got dtype float64 and shape \(1,\), .*ascontiguousarray"):
        queue.push_many(column(1), np.ones(1))
    with pytest.raises(ValueError, match="items has 1 rows, expected 2 as in keys"):
        queue.push_many(column(1, 2), column(1))
    with pytest.raises(OverflowError, match="keys has negative numbers"):
        queue.push_many(np.array([3, -1]), column(1, 2))
    with pytest.raises(ValueError, match=r"n: got -1 \(int\), expected a number of rows, 0 or more"):
        queue.pop_many(-1)
    assert len(queue) == 0


@both
@pytest.mark.parametrize(
    "rows",
    [
        np.ones(4, np.uint32),
        np.ones(4, bool),
        np.ones(4, ">u8"),
        np.ones((2, 2), np.uint64),
        np.ones(8, np.uint64)[::2],
        np.array(1, np.uint64),
        np.zeros(4, "datetime64[ns]"),
        np.zeros(4, [("a", np.uint64)]),
        np.ones(4, complex),
        np.frombuffer(bytes(33), np.uint8)[1:].view(np.uint64),
    ],
    ids=["uint32", "bool", "big-endian", "2-d", "strided", "0-d", "time", "struct", "complex", "unaligned"],
)
def test_arrays_of_another_kind_are_refused(build: Build, rows: Any) -> None:
    queue = build()
    good = np.ones(4, np.uint64)
    for keys, items in ((rows, good), (good, rows)):
        with pytest.raises((TypeError, ValueError), match="numpy"):
            queue.push_many(keys, items)
    with pytest.raises((TypeError, ValueError), match="tickets: "):
        queue.cancel_many(rows)
    assert len(queue) == 0


@both
def test_wrong_calls_are_shown_the_right_one(build: Build) -> None:
    queue = build()
    wrong: list[tuple[Callable[[], object], str]] = [
        (lambda: queue.push(1), r"item is missing; call push\(key, item"),
        (lambda: queue.push(), r"key is missing"),
        (lambda: queue.push(1, 2, 3, 4), r"got 4 arguments, expected at most [23]; call push"),
        (lambda: queue.push(1, 2, key=3), r"'key' is given twice; call push"),
        (lambda: queue.push(1, 2, when=3), r"there is no argument 'when'; call push"),
        (lambda: queue.cancel(), r"ticket is missing; call cancel\(ticket\)"),
        (lambda: queue.push_many(column(1)), r"items is missing; call push_many"),
        (lambda: queue.pop_many("all"), r"n: got 'all' \(str\)"),
    ]
    for call, message in wrong:
        with pytest.raises(TypeError, match=message):
            call()


def test_a_priority_queue_knows_no_time() -> None:
    queue: Any = priority()
    with pytest.raises(TypeError, match=r"there is no argument 'now_ns'; call push\(key, item\)"):
        queue.push(1, 2, now_ns=3)
    with pytest.raises(TypeError):
        queue.pop(now_ns=3)


@pytest.mark.parametrize("call", ["push", "pop", "push_many", "pop_many", "update", "peek_key"])
def test_a_time_that_is_none_is_named(call: str) -> None:
    queue = deadline()
    arguments: dict[str, tuple[Any, ...]] = {
        "push": (1, 1),
        "push_many": (column(1), column(1)),
        "pop_many": (1,),
        "update": (1, 1),
    }
    for now, error in ((0.5, TypeError), (-1, OverflowError), (2**64, OverflowError)):
        with pytest.raises(error, match="now_ns: got"):
            getattr(queue, call)(*arguments.get(call, ()), now_ns=now)
    assert len(queue) == 0


@pytest.mark.parametrize("capacity", [0, -1, 2**30, 2**64, 1.5, "many", None])
@both
def test_impossible_capacities_are_refused(build: Build, capacity: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"capacity: got .*, expected 1 to "):
        build(capacity)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quantum_ns": 0}, "quantum_ns: got 0, expected 1 to"),
        ({"horizon_ns": 0}, "horizon_ns: got 0, expected 1 to"),
        ({"quantum_ns": -1}, "quantum_ns: got -1"),
        ({"quantum_ns": 0.5}, r"quantum_ns: got 0\.5 \(float\)"),
        ({"quantum_ns": 10, "horizon_ns": 9}, "quantum_ns: got 10, expected at most horizon_ns, which is 9"),
    ],
)
def test_impossible_quanta_and_horizons_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        zeta.DeadlineQueue(10, **arguments)


@both
def test_an_index_that_raises_is_heard(build: Build) -> None:
    class Broken:
        def __index__(self) -> int:
            raise RuntimeError("the host's own")

    with pytest.raises(RuntimeError, match="the host's own"):
        build().push(Broken(), 1)


# --- as objects


@both
def test_a_queue_tells_how_full_it_is(build: Build) -> None:
    queue = build(5)
    queue.push(1, 1)
    assert "1 of 5" in repr(queue)


@both
def test_queues_cannot_be_copied_or_pickled(build: Build) -> None:
    for make in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            make(build())


@pytest.mark.parametrize("kind", [zeta.PriorityQueue, zeta.DeadlineQueue])
def test_a_subclass_that_forgets_its_base_is_told(kind: type[Any]) -> None:
    class Forgetful(kind):  # type: ignore[misc]
        def __init__(self) -> None:
            pass

    with pytest.raises(TypeError, match="__init__"):
        Forgetful()

    empty = kind.__new__(kind)
    for call in (lambda: empty.push(1, 1), empty.pop, lambda: len(empty), lambda: empty.cancel(1)):
        with pytest.raises(TypeError, match="not initialised"):
            call()


@pytest.mark.parametrize("kind", [zeta.PriorityQueue, zeta.DeadlineQueue])
def test_the_examples_of_the_documentation_run(kind: type[Any]) -> None:
    found = doctest.DocTestFinder(recurse=False).find(kind, "queue", globs=vars(zeta).copy())
    assert found[0].examples
    assert doctest.DocTestRunner().run(found[0]).failed == 0
