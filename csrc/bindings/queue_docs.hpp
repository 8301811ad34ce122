#pragma once
// What Python's help() says of the queues. The first line of a method is its signature for the stub.

namespace zeta::bindings::docs {

inline constexpr const char* kPriority =
    R"(A bounded priority queue of integers, exact on any key, for any number of threads.

When to use: the order must be exact, or the keys are no times. When not: keys are instants, a millisecond more or
less does not matter, and threads of C++ take at once; `DeadlineQueue` lets them.

Order: `pop` returns the least key of all that were pushed before it began. Equal keys that one thread pushed leave
first in, first out, unless one was updated: its place among its equals is free.

Parameters
----------
capacity : int
    Items that fit, 1 to 536,870,912. The memory for them (about 72 bytes each) is taken at once.

Raises
------
TypeError, ValueError
    If `capacity` is no int, or out of range.
MemoryError
    If there is not enough memory.

Notes
-----
Keys and items are ints from 0 to 2**64 - 1 and the queue never looks at an item: store an index or an id. Every
method may be called from any thread. Single calls and short batches keep the GIL; batches of 2,048 rows and more let
it go. After a fork the child goes on with a copy of its own. Queues cannot be pickled.

Examples
--------
>>> queue = PriorityQueue(capacity=1000)
>>> late, soon = queue.push(30, 7), queue.push(20, 8)
>>> queue.update(late, 10)
True
>>> queue.pop(), queue.cancel(soon), queue.pop()
((10, 7), True, None)
)";

inline constexpr const char* kDeadline =
    R"(A bounded queue of integers by time, ordered to one quantum; lock-free in every operation.

When to use: keys are instants (deadlines, latest start times), many threads push and take, and a difference below the
quantum does not matter. When not: keys that are no times, or an exact order (`PriorityQueue`).

Order: `pop` takes from the first quantum that holds an item. **Inside a quantum the order is free** (mostly last in,
first out). Items that are already overdue by far when they are pushed go before all others, first in first out, so
that none of them starves.

Parameters
----------
capacity : int
    Items that fit, 1 to 89,478,400.
quantum_ns : int
    Width of a bucket, nanoseconds; 1 ms by default.
horizon_ns : int
    How far ahead of now keys are put in their place at once, nanoseconds; at least `quantum_ns`, 262 s by default.
    Later keys are welcome: they stand aside and cost more. Rounded up to whole chunks of 32,768 quanta; not more than
    62 of them.

Raises
------
TypeError, ValueError
    If an argument is no int, or out of range.
MemoryError
    If there is not enough memory.

Notes
-----
`now_ns` is the caller's clock, the one that the keys are read from; the queue has none of its own. It moves the window
in which keys have buckets, never the order. 0 means unknown: the window stays where it is. A program that never gives
it keeps its order and pays for it once keys lie beyond the horizon: each pop that finds nothing nearer looks through
all that stands aside.

Keys and items are ints from 0 to 2**64 - 1 and the queue never looks at an item: store an index or an id. Every
method may be called from any thread. Single calls and short batches keep the GIL; batches of 2,048 rows and more let
it go. After a fork the child goes on with a copy of its own. Queues cannot be pickled.

Examples
--------
>>> queue = DeadlineQueue(1000)
>>> now = 5_000_000_000
>>> ticket = queue.push(now + 2_000_000_000, 7, now_ns=now)
>>> queue.push(now + 1_000_000_000, 8, now_ns=now) is None
False
>>> queue.pop(now_ns=now)
(6000000000, 8)
)";

inline constexpr const char* kHorizon =
    "How far ahead of now keys are put in their place at once, nanoseconds: the horizon asked for, in whole chunks of "
    "32,768 quanta and within the 62 that there may be.";

inline constexpr const char* kPriorityPush =
    R"(push(self, key: typing.SupportsIndex, item: typing.SupportsIndex) -> int | None

Puts an item in.

Parameters
----------
key : int
    Smaller leaves first; 0 to 2**64 - 1.
item : int
    What `pop` gives back; 0 to 2**64 - 1.

Returns
-------
int or None
    The ticket for `cancel` and `update`, never 0; None when the queue is full.

Raises
------
TypeError, OverflowError
    If an argument is no integer, or out of range.
)";

inline constexpr const char* kDeadlinePush =
    R"(push(self, key: typing.SupportsIndex, item: typing.SupportsIndex, now_ns: typing.SupportsIndex = 0) -> int | None

Puts an item in.

Parameters
----------
key : int
    When it is due, nanoseconds on the caller's clock; 0 to 2**64 - 1. Earlier leaves first.
item : int
    What `pop` gives back; 0 to 2**64 - 1.
now_ns : int
    The present on the same clock; 0 for unknown.

Returns
-------
int or None
    The ticket for `cancel` and `update`, never 0; None when the queue is full.

Raises
------
TypeError, OverflowError
    If an argument is no integer, or out of range.
)";

inline constexpr const char* kPriorityPop =
    R"(pop(self) -> tuple[int, int] | None

Takes the item with the least key.

Returns
-------
(int, int) or None
    Key and item; None when the queue is empty.
)";

inline constexpr const char* kDeadlinePop =
    R"(pop(self, now_ns: typing.SupportsIndex = 0, feasible_first: bool = False) -> tuple[int, int] | None

Takes an item of the first quantum that holds one.

Parameters
----------
now_ns : int
    The present on the clock of the keys, nanoseconds; 0 for unknown.
feasible_first : bool
    Whether items due at `now_ns` or later go before overdue ones, save those overdue by more than half the horizon.

Returns
-------
(int, int) or None
    Key and item; None when the queue is empty.

Raises
------
TypeError, OverflowError
    If `now_ns` is no integer, or out of range.
)";

inline constexpr const char* kPriorityPushMany =
    R"(push_many(self, keys: numpy.typing.NDArray[numpy.uint64], items: numpy.typing.NDArray[numpy.uint64]) -> numpy.typing.NDArray[numpy.uint64]

Puts rows in, in their order, until the queue is full. They become visible all at once.

Parameters
----------
keys, items : ndarray of uint64, shape (n,)
    Contiguous. int64 serves too while no row is negative.

Returns
-------
ndarray of uint64, shape (n,)
    The tickets; 0 for a row that was refused because the queue was full.

Raises
------
TypeError, ValueError, OverflowError
    If an argument is no array, its dtype or shape does not fit, or a row is negative. Nothing is pushed then.
)";

inline constexpr const char* kDeadlinePushMany =
    R"(push_many(self, keys: numpy.typing.NDArray[numpy.uint64], items: numpy.typing.NDArray[numpy.uint64], now_ns: typing.SupportsIndex = 0) -> numpy.typing.NDArray[numpy.uint64]

Puts rows in, in their order, as far as there is room.

Parameters
----------
keys, items : ndarray of uint64, shape (n,)
    Contiguous. int64 serves too while no row is negative.
now_ns : int
    The present on the clock of the keys, nanoseconds; 0 for unknown.

Returns
-------
ndarray of uint64, shape (n,)
    The tickets; 0 for a row that was refused because the queue was full.

Raises
------
TypeError, ValueError, OverflowError
    If an argument is no array, its dtype or shape does not fit, or a number is out of range. Nothing is pushed then.
)";

inline constexpr const char* kPriorityPopMany =
    R"(pop_many(self, n: typing.SupportsIndex) -> tuple[numpy.typing.NDArray[numpy.uint64], numpy.typing.NDArray[numpy.uint64]]

Takes the `n` items with the least keys, or all if there are fewer.

Parameters
----------
n : int
    Most rows to take, 0 or more.

Returns
-------
keys, items : ndarray of uint64, shape (m,), m <= n
    Fresh arrays, least key first; empty ones when the queue is empty.

Raises
------
TypeError, ValueError
    If `n` is no integer, or negative.

Notes
-----
In batches of more than 4,096 rows other takers get their turn in between.
)";

inline constexpr const char* kDeadlinePopMany =
    R"(pop_many(self, n: typing.SupportsIndex, now_ns: typing.SupportsIndex = 0, feasible_first: bool = False) -> tuple[numpy.typing.NDArray[numpy.uint64], numpy.typing.NDArray[numpy.uint64]]

Takes up to `n` items, as that many calls of `pop` would.

Parameters
----------
n : int
    Most rows to take, 0 or more.
now_ns : int
    The present on the clock of the keys, nanoseconds; 0 for unknown.
feasible_first : bool
    As in `pop`.

Returns
-------
keys, items : ndarray of uint64, shape (m,), m <= n
    Fresh arrays in the order of taking; empty ones when the queue is empty.

Raises
------
TypeError, ValueError, OverflowError
    If `n` is no integer or negative, or `now_ns` is out of range.
)";

inline constexpr const char* kCancel =
    R"(cancel(self, ticket: typing.SupportsIndex) -> bool

Withdraws an item.

Parameters
----------
ticket : int
    From `push` or `push_many`.

Returns
-------
bool
    False where it has been taken or withdrawn already, or the ticket is none of this queue's.

Raises
------
TypeError, OverflowError
    If `ticket` is no integer (None is what `push` returns when the queue is full), or out of range.
)";

inline constexpr const char* kCancelMany =
    R"(cancel_many(self, tickets: numpy.typing.NDArray[numpy.uint64]) -> numpy.typing.NDArray[numpy.bool_]

Withdraws items.

Parameters
----------
tickets : ndarray of uint64, shape (n,)
    From `push_many`; rows of 0 are passed over.

Returns
-------
ndarray of bool, shape (n,)
    As from `cancel`.

Raises
------
TypeError, ValueError, OverflowError
    If the array does not fit, as in `push_many`.
)";

inline constexpr const char* kPriorityUpdate =
    R"(update(self, ticket: typing.SupportsIndex, key: typing.SupportsIndex) -> bool

Gives an item another key under the same ticket.

Parameters
----------
ticket : int
    From `push` or `push_many`.
key : int
    The new key.

Returns
-------
bool
    False where it has been taken or withdrawn already, or the ticket is none of this queue's.

Raises
------
TypeError, OverflowError
    If an argument is no integer, or out of range.
)";

inline constexpr const char* kDeadlineUpdate =
    R"(update(self, ticket: typing.SupportsIndex, key: typing.SupportsIndex, now_ns: typing.SupportsIndex = 0) -> bool

Gives an item another key under the same ticket.

Parameters
----------
ticket : int
    From `push` or `push_many`.
key : int
    When it is due now, nanoseconds on the caller's clock.
now_ns : int
    The present on the same clock; 0 for unknown.

Returns
-------
bool
    False where it has been taken or withdrawn already, or the ticket is none of this queue's.

Raises
------
TypeError, OverflowError
    If an argument is no integer, or out of range.
)";

inline constexpr const char* kPriorityPeek =
    R"(peek_key(self) -> int | None

The least key; None when the queue is empty. Another thread may take it before this one does.
)";

inline constexpr const char* kDeadlinePeek =
    R"(peek_key(self, now_ns: typing.SupportsIndex = 0, feasible_first: bool = False) -> int | None

The key of an item that a `pop` with the same arguments might take; None when the queue is empty.

Raises
------
TypeError, OverflowError
    If `now_ns` is no integer, or out of range.
)";

inline constexpr const char* kLength =
    R"(__len__(self) -> int

Items that wait; exact when no other thread is in a call.
)";

}  // namespace zeta::bindings::docs
