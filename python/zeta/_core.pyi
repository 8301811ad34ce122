"""
zeta's C++ core. Private: import from zeta.
"""

from __future__ import annotations

import collections.abc
import typing

import numpy
import numpy.typing
import typing_extensions

__all__: list[str] = [
    "DeadlineQueue",
    "DemandHistogram",
    "DeviceShares",
    "EngineSpec",
    "FORECASTS",
    "LOGGED_EVENT_BYTES",
    "Lease",
    "LiveDevice",
    "LoadForecasterCore",
    "OUTCOME_NAMES",
    "OnnxNet",
    "PriorityQueue",
    "ReadingBoard",
    "ReadingColumns",
    "Replay",
    "Router",
    "SchedulerConfig",
    "ServiceModel",
    "SharePlan",
    "SharePolicyConfig",
    "StepTable",
    "SuitabilityWeights",
    "build_info",
    "choose_replica",
    "forecast_backtest",
    "forecast_dataset",
    "forecast_layout",
    "forecast_points",
    "latest_start_ns",
    "octave_knot",
    "onnx_library_version",
    "reading_fields",
    "reading_identity",
    "replay_log",
    "run_open_loop",
    "share_policies",
    "share_reasons",
    "share_tick",
    "simd_levels",
    "suitability",
]

class PriorityQueue:
    """
    A bounded priority queue of integers, exact on any key, for any number of threads.

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
    """
    def __init__(self, capacity: typing.SupportsIndex = 1048576) -> None: ...
    def __len__(self) -> int:
        """
        Items that wait; exact when no other thread is in a call.
        """
    def __repr__(self) -> str: ...
    def cancel(self, ticket: typing.SupportsIndex) -> bool:
        """
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
        """
    def cancel_many(self, tickets: numpy.typing.NDArray[numpy.uint64]) -> numpy.typing.NDArray[numpy.bool_]:
        """
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
        """
    def peek_key(self) -> int | None:
        """
        The least key; None when the queue is empty. Another thread may take it before this one does.
        """
    def pop(self) -> tuple[int, int] | None:
        """
        Takes the item with the least key.

        Returns
        -------
        (int, int) or None
            Key and item; None when the queue is empty.
        """
    def pop_many(
        self, n: typing.SupportsIndex
    ) -> tuple[numpy.typing.NDArray[numpy.uint64], numpy.typing.NDArray[numpy.uint64]]:
        """
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
        """
    def push(self, key: typing.SupportsIndex, item: typing.SupportsIndex) -> int | None:
        """
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
        """
    def push_many(
        self, keys: numpy.typing.NDArray[numpy.uint64], items: numpy.typing.NDArray[numpy.uint64]
    ) -> numpy.typing.NDArray[numpy.uint64]:
        """
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
        """
    def update(self, ticket: typing.SupportsIndex, key: typing.SupportsIndex) -> bool:
        """
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
        """
    @property
    def capacity(self) -> int:
        """
        Items that fit.
        """

class DeadlineQueue:
    """
    A bounded queue of integers by time, ordered to one quantum; lock-free in every operation.

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
    """
    def __init__(
        self,
        capacity: typing.SupportsIndex,
        quantum_ns: typing.SupportsIndex = 1000000,
        horizon_ns: typing.SupportsIndex = 262144000000,
    ) -> None: ...
    def __len__(self) -> int:
        """
        Items that wait; exact when no other thread is in a call.
        """
    def __repr__(self) -> str: ...
    def cancel(self, ticket: typing.SupportsIndex) -> bool:
        """
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
        """
    def cancel_many(self, tickets: numpy.typing.NDArray[numpy.uint64]) -> numpy.typing.NDArray[numpy.bool_]:
        """
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
        """
    def peek_key(self, now_ns: typing.SupportsIndex = 0, feasible_first: bool = False) -> int | None:
        """
        The key of an item that a `pop` with the same arguments might take; None when the queue is empty.

        Raises
        ------
        TypeError, OverflowError
            If `now_ns` is no integer, or out of range.
        """
    def pop(self, now_ns: typing.SupportsIndex = 0, feasible_first: bool = False) -> tuple[int, int] | None:
        """
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
        """
    def pop_many(
        self, n: typing.SupportsIndex, now_ns: typing.SupportsIndex = 0, feasible_first: bool = False
    ) -> tuple[numpy.typing.NDArray[numpy.uint64], numpy.typing.NDArray[numpy.uint64]]:
        """
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
        """
    def push(
        self, key: typing.SupportsIndex, item: typing.SupportsIndex, now_ns: typing.SupportsIndex = 0
    ) -> int | None:
        """
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
        """
    def push_many(
        self,
        keys: numpy.typing.NDArray[numpy.uint64],
        items: numpy.typing.NDArray[numpy.uint64],
        now_ns: typing.SupportsIndex = 0,
    ) -> numpy.typing.NDArray[numpy.uint64]:
        """
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
        """
    def update(self, ticket: typing.SupportsIndex, key: typing.SupportsIndex, now_ns: typing.SupportsIndex = 0) -> bool:
        """
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
        """
    @property
    def capacity(self) -> int:
        """
        Items that fit.
        """
    @property
    def horizon_ns(self) -> int:
        """
        How far ahead of now keys are put in their place at once, nanoseconds: the horizon asked for, in whole chunks of 32,768 quanta and within the 62 that there may be.
        """
    @property
    def quantum_ns(self) -> int:
        """
        Width of a bucket, nanoseconds.
        """

class SharePolicyConfig:
    """
    An allocation policy and its numbers, checked.
    """
    def __init__(
        self,
        *,
        policy: str = "water-fill",
        floor: typing.SupportsFloat | typing.SupportsIndex = 0.05,
        max_step: typing.SupportsFloat | typing.SupportsIndex = 0.25,
        hysteresis: typing.SupportsFloat | typing.SupportsIndex = 0.005,
        boost_share: typing.SupportsFloat | typing.SupportsIndex = 0.2,
        boost_starts_work_s: typing.SupportsFloat | typing.SupportsIndex = 1.0,
        boost_clears_work_s: typing.SupportsFloat | typing.SupportsIndex = 0.1,
        need_memory_s: typing.SupportsFloat | typing.SupportsIndex = 3.0,
        jitter: typing.SupportsFloat | typing.SupportsIndex = 0.06,
        jump: typing.SupportsFloat | typing.SupportsIndex = 0.24,
    ) -> None: ...
    @property
    def boost_clears_work_s(self) -> float: ...
    @property
    def boost_share(self) -> float: ...
    @property
    def boost_starts_work_s(self) -> float: ...
    @property
    def floor(self) -> float: ...
    @property
    def hysteresis(self) -> float: ...
    @property
    def jitter(self) -> float: ...
    @property
    def jump(self) -> float: ...
    @property
    def max_step(self) -> float: ...
    @property
    def need_memory_s(self) -> float: ...
    @property
    def policy(self) -> str: ...

class SharePlan:
    """
    One tick's decision and what the next tick must know of it.
    """
    def __init__(self) -> None: ...
    def needs(self) -> list[float]: ...
    def reasons(self) -> list[str]: ...
    def shares(self) -> list[float]: ...
    @property
    def at_ns(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def is_held(self) -> bool: ...
    @property
    def is_step_limited(self) -> bool: ...
    @property
    def policy(self) -> str: ...

class DemandHistogram:
    """
    Waiting work of one model by latest start, and its need.
    """
    def __init__(self) -> None: ...
    def add(self, *, latest_start_ns: int, promise_ns: int, work_ns: int, now_ns: int) -> int:
        """
        Files work by its latest start; returns the bin number to hand back to remove.
        """
    def need(self, now_ns: int) -> float:
        """
        Fraction of the device that keeps every waiting request on time.
        """
    def remove(self, bin: int, *, promise_ns: int, work_ns: int, now_ns: int) -> None:
        """
        Undoes one add.
        """
    @property
    def backlog_ns(self) -> int: ...
    @property
    def overdue_ns(self) -> int: ...

class DeviceShares:
    """
    Whose turn it is to take on one device, by start-time fair queueing.
    """
    def __init__(
        self,
        members: typing.SupportsInt | typing.SupportsIndex,
        *,
        credit_ns: typing.SupportsInt | typing.SupportsIndex = 100000000,
    ) -> None:
        """
        members: a bit mask, bit i = model i.
        """
    def adjust(
        self, model: typing.SupportsInt | typing.SupportsIndex, work_ns: typing.SupportsInt | typing.SupportsIndex
    ) -> None:
        """
        Accounts for work outside of turns; negative puts it back.
        """
    def charge(
        self, model: typing.SupportsInt | typing.SupportsIndex, work_ns: typing.SupportsInt | typing.SupportsIndex
    ) -> None:
        """
        The picked model took a request of this predicted work.
        """
    def deficit_ns(self, model: typing.SupportsInt | typing.SupportsIndex) -> int:
        """
        Device time by which a model is behind its share; negative: ahead.
        """
    def pick(self, with_eligible_work: typing.SupportsInt | typing.SupportsIndex) -> int | None:
        """
        The model that takes next, or None when none of the mask's is here.
        """
    def set_shares(self, shares: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]) -> None: ...

class OnnxNet:
    """
    A net in a native session of ONNX Runtime. One caller at a time.
    """
    def __init__(
        self,
        library: str,
        model: bytes,
        *,
        features: typing.SupportsInt | typing.SupportsIndex,
        outputs: typing.SupportsInt | typing.SupportsIndex,
        max_rows: typing.SupportsInt | typing.SupportsIndex,
        input_name: str = "features",
        output_name: str = "quantiles",
        deadline_us: typing.SupportsFloat | typing.SupportsIndex = 0.0,
        hang_limit_us: typing.SupportsFloat | typing.SupportsIndex = 0.0,
    ) -> None: ...
    def run(self, features: typing.Any) -> typing.Any:
        """
        Outputs for a float32 array of shape (rows, features), or None where there is no answer in time.
        """
    def stats(self) -> dict:
        """
        What the session did since it was made.
        """
    @property
    def is_handed_over(self) -> bool: ...
    @property
    def is_of_this_process(self) -> bool: ...

class ServiceModel:
    """
    Predicted engine times of one model; see core/service_model.hpp.
    """
    def __init__(
        self,
        *,
        prefill_base_s: typing.SupportsFloat | typing.SupportsIndex,
        prefill_per_token_s: typing.SupportsFloat | typing.SupportsIndex,
        prefill_per_token2_s: typing.SupportsFloat | typing.SupportsIndex,
        decode_base_s: typing.SupportsFloat | typing.SupportsIndex,
        decode_per_sequence_s: typing.SupportsFloat | typing.SupportsIndex,
        decode_per_context_token_s: typing.SupportsFloat | typing.SupportsIndex,
        reference_batch: typing.SupportsFloat | typing.SupportsIndex = 32.0,
    ) -> None: ...
    def prefill_s(self, prompt_tokens: typing.SupportsFloat | typing.SupportsIndex) -> float: ...
    def step_s(
        self,
        batch: typing.SupportsFloat | typing.SupportsIndex,
        context_tokens: typing.SupportsFloat | typing.SupportsIndex,
    ) -> float: ...
    def work_s(
        self,
        prompt_tokens: typing.SupportsFloat | typing.SupportsIndex,
        output_tokens: typing.SupportsFloat | typing.SupportsIndex,
    ) -> float: ...
    @property
    def reference_batch(self) -> float: ...

class SuitabilityWeights:
    """
    Weights of the parts of a score; see score/suitability.hpp.
    """
    def __init__(
        self,
        *,
        quality: typing.SupportsFloat | typing.SupportsIndex = 1.0,
        cost: typing.SupportsFloat | typing.SupportsIndex = 0.5,
        deadline: typing.SupportsFloat | typing.SupportsIndex = 1.0,
        affinity: typing.SupportsFloat | typing.SupportsIndex = 0.25,
    ) -> None: ...
    @property
    def affinity(self) -> float: ...
    @property
    def cost(self) -> float: ...
    @property
    def deadline(self) -> float: ...
    @property
    def quality(self) -> float: ...

class SchedulerConfig:
    """
    What a core router is built from; see sched/config.hpp.
    """
    def __init__(
        self,
        *,
        order: str = "edf",
        admission: str = "queue",
        share: SharePolicyConfig | None = None,
        max_queued: typing.SupportsInt | typing.SupportsIndex = 100000,
        max_running: typing.SupportsInt | typing.SupportsIndex = 16384,
        max_tenants: typing.SupportsInt | typing.SupportsIndex = 256,
        max_replicas: typing.SupportsInt | typing.SupportsIndex = 256,
        bands: typing.SupportsInt | typing.SupportsIndex = 4,
        promise_ms: typing.SupportsFloat | typing.SupportsIndex = 20000.0,
        promise_take_cap: typing.SupportsFloat | typing.SupportsIndex = 0.25,
        lower_band_share: typing.SupportsFloat | typing.SupportsIndex = 0.05,
        max_hold_ms: typing.SupportsFloat | typing.SupportsIndex = 2000.0,
        hold_quality_gap: typing.SupportsFloat | typing.SupportsIndex = 0.1,
        tenant_quantum_ms: typing.SupportsFloat | typing.SupportsIndex = 250.0,
        eta_quantile_factor: typing.SupportsFloat | typing.SupportsIndex = 1.5,
        learns_service: bool = True,
        tenant_weights: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex] = [],
        weights: SuitabilityWeights | None = None,
        collation: str = "gain",
        collation_max_wait_ms: typing.SupportsFloat | typing.SupportsIndex = 300000.0,
    ) -> None: ...
    def add_device(
        self,
        *,
        is_shared: bool = True,
        prefill_budget: typing.SupportsFloat | typing.SupportsIndex = 1.3,
        is_swapped: bool = False,
        swap_s: typing.SupportsFloat | typing.SupportsIndex = 10.0,
        awaits_load: bool = False,
    ) -> int: ...
    def add_model(
        self,
        *,
        quality: typing.SupportsFloat | typing.SupportsIndex,
        service: ServiceModel,
        device: typing.SupportsInt | typing.SupportsIndex,
        max_context_tokens: typing.SupportsInt | typing.SupportsIndex = 131072,
        tpot_slo_ms: typing.SupportsFloat | typing.SupportsIndex = 100.0,
        mean_output_tokens: typing.SupportsFloat | typing.SupportsIndex = 256.0,
    ) -> int: ...
    def add_replica(
        self,
        *,
        model: typing.SupportsInt | typing.SupportsIndex,
        max_in_flight: typing.SupportsInt | typing.SupportsIndex = 64,
        max_batch: typing.SupportsInt | typing.SupportsIndex = 256,
        kv_tokens: typing.SupportsInt | typing.SupportsIndex = 1048576,
    ) -> int: ...
    @property
    def admission(self) -> str: ...
    @property
    def bands(self) -> int: ...
    @property
    def collation(self) -> str: ...
    @property
    def collation_max_wait_ms(self) -> float: ...
    @property
    def devices(self) -> list: ...
    @property
    def eta_quantile_factor(self) -> float: ...
    @property
    def hold_quality_gap(self) -> float: ...
    @property
    def learns_service(self) -> bool: ...
    @property
    def lower_band_share(self) -> float: ...
    @property
    def max_hold_ms(self) -> float: ...
    @property
    def max_queued(self) -> int: ...
    @property
    def max_replicas(self) -> int: ...
    @property
    def max_running(self) -> int: ...
    @property
    def max_tenants(self) -> int: ...
    @property
    def models(self) -> list: ...
    @property
    def order(self) -> str: ...
    @property
    def promise_ms(self) -> float: ...
    @property
    def promise_take_cap(self) -> float: ...
    @property
    def replicas(self) -> list: ...
    @property
    def share(self) -> SharePolicyConfig: ...
    @property
    def tenant_quantum_ms(self) -> float: ...
    @property
    def tenant_weights(self) -> list[float]: ...
    @property
    def weights(self) -> SuitabilityWeights: ...

class Lease:
    """
    A request whose turn has come: where to send it. Made by poll.
    """
    @property
    def ticket(self) -> int:
        """The ticket that submit returned."""
    @property
    def queued_ms(self) -> float:
        """From submission to placement, milliseconds."""
    @property
    def model(self) -> str:
        """Name of the model."""
    @property
    def replica(self) -> str:
        """Name of the replica."""
    @property
    def url(self) -> str | None:
        """The replica's URL."""
    def __repr__(self):
        """
        Return repr(self).
        """

class Router:
    """
    The native router. Private: use zeta.Router.
    """
    def __init__(
        self,
        *,
        config: SchedulerConfig,
        clock: typing.Any,
        tick_interval_ns: typing.SupportsInt | typing.SupportsIndex,
        has_thread: bool,
        forecast: str = "auto",
        ask_net: typing.Any = None,
    ) -> None: ...
    def _add_replica(
        self,
        model: typing.SupportsInt | typing.SupportsIndex,
        name: str,
        url: str | None,
        max_in_flight: typing.SupportsInt | typing.SupportsIndex,
        max_batch: typing.SupportsInt | typing.SupportsIndex,
        kv_tokens: typing.SupportsInt | typing.SupportsIndex,
    ) -> int | None: ...
    def _clear_wake(self, channel: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    def _collects_itself(self, channel: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        The one collector of a channel polls after each of its own calls; only the router's thread wakes it.
        """
    def _demands(self) -> tuple: ...
    def _drain_replica(self, replica: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    def _eta_ms(self, ticket: typing.SupportsInt | typing.SupportsIndex) -> tuple[float, float] | None: ...
    def _event_hash(self) -> int: ...
    def _flush_log(self) -> None: ...
    def _idle_capacity_ticket(self) -> int | None:
        """
        For tests: a waiting request that a replica could take now; None if the router is work-conserving.
        """
    def _lease_fileno(self) -> int: ...
    def _loaded(
        self, device: typing.SupportsInt | typing.SupportsIndex, model: typing.SupportsInt | typing.SupportsIndex | None
    ) -> None:
        """
        A swap device now holds a model, as asked for or not; None: nothing.
        """
    def _log_to(self, path: str, header: str) -> None: ...
    def _loop_stats(self) -> dict: ...
    def _name_model(self, index: typing.SupportsInt | typing.SupportsIndex, name: str) -> None: ...
    def _name_replica(self, index: typing.SupportsInt | typing.SupportsIndex, name: str, url: str | None) -> None: ...
    def _next_ended(self) -> list: ...
    def _next_swaps(self) -> list[tuple[int, int | None, int | None]]: ...
    def _outcome(self, ticket: typing.SupportsInt | typing.SupportsIndex) -> str | None: ...
    def _reason(self, ticket: typing.SupportsInt | typing.SupportsIndex) -> typing.Any: ...
    def _remove_replica(self, replica: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    def _replica_loads(self) -> numpy.typing.NDArray[numpy.int64]: ...
    def _reset_after_fork(self) -> None: ...
    def _resume_replica(self, replica: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    def _set_external_loads(
        self,
        loads: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex,
                typing.SupportsInt | typing.SupportsIndex | None,
                typing.SupportsInt | typing.SupportsIndex,
            ]
        ],
    ) -> None: ...
    def _set_net(self, net: OnnxNet | None, name: typing.Any) -> None:
        """
        The net that the loop uses from its next round on; takes it over.
        """
    def _set_planned_elsewhere(self, is_so: bool) -> None: ...
    def _set_shares(
        self,
        shares: collections.abc.Sequence[
            tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsFloat | typing.SupportsIndex]
        ],
    ) -> None: ...
    def _stop(self) -> None:
        """
        For the end of the process: ends the thread, writes the log out.
        """
    def _tenant_id(self, name: typing.Any) -> int: ...
    def advance(self) -> None:
        """
        Lets due expiries and ends of holds happen. The router's thread does this; for virtual time.
        """
    def cancel(self, ticket: Lease | int) -> bool:
        """
        Withdraws a request wherever it is. False where it has ended.
        """
    def close(self) -> None:
        """
        Stops the thread and wakes every waiter; further calls raise ClosedError.
        """
    def complete(self, lease: Lease | int, output_tokens: int | None = None) -> bool:
        """
        The answer is complete; None: nobody counted it. False where the request no longer runs.
        """
    def complete_many(self, tickets: typing.Any, output_tokens: typing.Any) -> int:
        """
        Completes a column of tickets; how many were running.
        """
    def explain(self, ticket: typing.SupportsInt | typing.SupportsIndex) -> typing.Any:
        """
        Why a request was placed where it was, or what it waits for; None when no longer kept.
        """
    def fail(self, lease: typing.Any, requeue: bool = False, *, timed_out: bool = False) -> bool:
        """
        The replica failed it. With requeue it waits again, at the front, at most three times.
        """
    def feedback(
        self, ticket: typing.SupportsInt | typing.SupportsIndex, quality: typing.SupportsFloat | typing.SupportsIndex
    ) -> bool:
        """
        How well the answer was, 0 to 1: moves the model's quality. False for a ticket no longer kept.
        """
    def fileno(self) -> int:
        """
        A descriptor that is readable while poll has something; drain it with poll.
        """
    def first_token(self, lease: Lease | int) -> bool:
        """
        The first token has come. False where the request no longer runs there.
        """
    def next_timer_ns(self) -> int | None:
        """
        When advance next has something to do, on the router's clock; None: never.
        """
    def poll(self, max: int | None = None, timeout: float | None = 0.0, *, _channel: int = 0) -> list[Lease]:
        """
        Requests whose turn has come, at most max. With a timeout (seconds; None: no end) waits for the first.
        """
    def poll_many(self, n: typing.SupportsInt | typing.SupportsIndex) -> tuple:
        """
        Up to n placements: (tickets, model ids, replica ids).
        """
    def set_actuation_delay(self, seconds: typing.SupportsFloat | typing.SupportsIndex) -> None:
        """
        How long a plan of shares takes to act, in seconds, from the loop's next round on; 0 (the default): at
        once. From 5 s on plans look ahead, as far as forecasts have lately been good.
        """
    def stats(self) -> dict:
        """
        Counts and shares now: submitted, waiting, running, outcomes, models, replicas; and the allocation loop:
        its rounds, their times, the forecast and its net.
        """
    def submit(
        self,
        *,
        prompt_tokens: int | None = None,
        prompt: str | None = None,
        max_tokens: int | None = None,
        deadline_ms: float | None = None,
        end_deadline_ms: float | None = None,
        max_wait_ms: float | None = None,
        tenant: str | None = None,
        priority: int = 1,
        complexity: float | None = None,
        min_quality: float = 0.0,
        models: str | collections.abc.Iterable[str] | None = None,
        affinity_key: collections.abc.Hashable = None,
        _channel: int = 0,
    ) -> int:
        """
        Puts a request in the queue and returns its ticket, always: `outcome` tells what became of it.
        """
    def submit_many(
        self,
        *,
        prompt_tokens: typing.Any,
        max_tokens: typing.Any = None,
        deadline_ms: typing.Any = None,
        complexity: typing.Any = None,
        end_deadline_ms: typing.Any = None,
        max_wait_ms: typing.Any = None,
        priority: typing.Any = None,
        tenant: typing.Any = None,
    ) -> numpy.typing.NDArray[numpy.uint64]:
        """
        Columns (uint32 tokens, float64 milliseconds with NaN for none, float64 complexity, uint8 priority) to
        uint64 tickets, in one turn.
        """
    def tick(self) -> None:
        """
        One round of the allocation loop. The router's thread does this; for virtual time.
        """
    @property
    def is_closed(self) -> bool: ...
    @property
    def ticks(self) -> int: ...

class LoadForecasterCore:
    """
    Forecasts of n models. One caller at a time.
    """
    def __init__(
        self,
        models: typing.SupportsInt | typing.SupportsIndex,
        *,
        bin_s: typing.SupportsFloat | typing.SupportsIndex = 1.0,
        horizon_bins: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] | None = None,
        start_ns: typing.SupportsInt | typing.SupportsIndex = 0,
        week_phase_s: typing.SupportsFloat | typing.SupportsIndex | None = None,
        rule: str = "blend",
    ) -> None: ...
    def advance(self, now_ns: typing.SupportsInt | typing.SupportsIndex) -> int:
        """
        Closes the bins that have ended; how many.
        """
    def is_valid(self) -> numpy.typing.NDArray[numpy.bool]:
        """
        bool of shape (models, targets).
        """
    def mark_missing(self, model: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Nobody counted this model in the open bin.
        """
    def observe(
        self,
        model: typing.SupportsInt | typing.SupportsIndex,
        arrivals: typing.SupportsFloat | typing.SupportsIndex,
        work_s: typing.SupportsFloat | typing.SupportsIndex,
    ) -> None:
        """
        Requests of a model and their predicted GPU-seconds since the last call.
        """
    def predict(self, net: typing.Any = None) -> bool:
        """
        Renews the forecast if a bin was closed. True if the net's answer was used.
        """
    def rates(self) -> numpy.typing.NDArray[numpy.float64]:
        """
        float64 of shape (models, targets, horizons, quantiles); 0 if not valid.
        """

class StepTable:
    """
    Step times of one model on one kind of device.
    """
    def __init__(
        self,
        *,
        dense_ns: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex],
        per_sequence_ns: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex],
        decode_attention_ns: typing.Annotated[numpy.typing.ArrayLike, numpy.float64],
        mixed_decode_attention_ns: typing.Annotated[numpy.typing.ArrayLike, numpy.float64],
        prefill_attention_ns: typing.Annotated[numpy.typing.ArrayLike, numpy.float64],
        kernel_factor: typing.SupportsFloat | typing.SupportsIndex = 1.0,
        prefill_surcharge: typing.SupportsFloat | typing.SupportsIndex = 0.0,
        step_overhead_ns: typing.SupportsFloat | typing.SupportsIndex = 0.0,
        sequence_overhead_ns: typing.SupportsFloat | typing.SupportsIndex = 0.0,
    ) -> None: ...
    def step_time_ns(
        self,
        prefill_tokens: typing.SupportsInt | typing.SupportsIndex,
        prefill_kv_tokens: typing.SupportsInt | typing.SupportsIndex,
        decode_batch: typing.SupportsInt | typing.SupportsIndex,
        decode_context_tokens: typing.SupportsInt | typing.SupportsIndex,
    ) -> int:
        """
        Nanoseconds of a step with one prefill piece behind prefill_kv_tokens, and decode_batch decodes whose contexts add up to decode_context_tokens.
        """

class EngineSpec:
    """
    One simulated engine: its step table and its limits.
    """
    def __init__(
        self,
        table: StepTable,
        *,
        kv_tokens: typing.SupportsInt | typing.SupportsIndex,
        max_batched_tokens: typing.SupportsInt | typing.SupportsIndex = 2048,
        max_sequences: typing.SupportsInt | typing.SupportsIndex = 128,
        max_waiting: typing.SupportsInt | typing.SupportsIndex = 4096,
        plans_ahead: bool = True,
        keeps_freed_blocks: bool = True,
        available_from_ns: typing.SupportsInt | typing.SupportsIndex = 0,
        load_delay_ns: typing.SupportsInt | typing.SupportsIndex = 0,
        unload_delay_ns: typing.SupportsInt | typing.SupportsIndex = 0,
    ) -> None: ...

class LiveDevice:
    """
    A simulated device on a clock of the caller's. Call advance(now_ns) before anything else at that instant, and again no later than next_event_ns. Not thread-safe.
    """
    def __init__(self, engines: collections.abc.Sequence[EngineSpec], colocation: str = "exclusive") -> None: ...
    def abort(
        self,
        now_ns: typing.SupportsInt | typing.SupportsIndex,
        handle: typing.SupportsInt | typing.SupportsIndex,
        *,
        engine: typing.SupportsInt | typing.SupportsIndex = 0,
    ) -> bool:
        """
        Withdraws a request and frees what it held. False when it has ended before.
        """
    def advance(self, now_ns: typing.SupportsInt | typing.SupportsIndex) -> tuple:
        """
        Runs to this instant. Returns (first_tokens, outputs, ends): (tag, scheduled_ns, at_ns) of each request that gave its first token, (tag, tokens) so far of each that runs and has some, (tag, at_ns) of each that ended.
        """
    def enqueue(
        self,
        now_ns: typing.SupportsInt | typing.SupportsIndex,
        *,
        engine: typing.SupportsInt | typing.SupportsIndex = 0,
        tag: typing.SupportsInt | typing.SupportsIndex,
        prompt_tokens: typing.SupportsInt | typing.SupportsIndex,
        output_tokens: typing.SupportsInt | typing.SupportsIndex,
        priority: typing.SupportsInt | typing.SupportsIndex = 0,
        cached_tokens: typing.SupportsInt | typing.SupportsIndex = 0,
    ) -> int | None:
        """
        A handle for abort; None when the engine's queue is full or the request can never fit.
        """
    def kv_tokens_capacity(self, engine: typing.SupportsInt | typing.SupportsIndex = 0) -> int: ...
    def kv_tokens_used(self, engine: typing.SupportsInt | typing.SupportsIndex = 0) -> int: ...
    def preemptions(self, engine: typing.SupportsInt | typing.SupportsIndex = 0) -> int: ...
    def running(self, engine: typing.SupportsInt | typing.SupportsIndex = 0) -> int:
        """
        Requests in the engine's batch.
        """
    def stall(
        self,
        now_ns: typing.SupportsInt | typing.SupportsIndex,
        *,
        until_ns: typing.SupportsInt | typing.SupportsIndex,
        engine: typing.SupportsInt | typing.SupportsIndex = 0,
    ) -> None:
        """
        No step of this engine ends or begins before until_ns.
        """
    def steps(self, engine: typing.SupportsInt | typing.SupportsIndex = 0) -> int: ...
    def waiting(self, engine: typing.SupportsInt | typing.SupportsIndex = 0) -> int:
        """
        Requests in the engine's own queue.
        """
    @property
    def next_event_ns(self) -> int | None:
        """
        None while nothing will happen by itself.
        """

class Replay:
    """
    Arrivals through the real scheduler into simulated devices.
    """
    def __init__(
        self,
        *,
        scheduler: SchedulerConfig,
        devices: collections.abc.Sequence[tuple[str, collections.abc.Sequence[EngineSpec]]],
        places: collections.abc.Sequence[
            tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex]
        ],
        tick_interval_ns: typing.SupportsInt | typing.SupportsIndex,
        actuation_delay_ns: typing.SupportsInt | typing.SupportsIndex = 0,
        keeps_ticks: bool = False,
        checks_every: typing.SupportsInt | typing.SupportsIndex = 0,
        forecast: str = "off",
        future: typing.Any = None,
    ) -> None:
        """
        devices: (colocation, engines) each; places: (device, engine) of each replica of the scheduler. forecast: one of FORECASTS; perfect reads future, the work that arrives by second and model (float64, flat).
        """
    def add_replica(self, like: typing.SupportsInt | typing.SupportsIndex) -> int | None:
        """
        One like the configured replica of that number joins now, in the lowest free number, which it returns; None where all are in use.
        """
    def corrections(self) -> list:
        """
        By model: factor on its predicted prefill as learned and as in force, and the same of its decode steps.
        """
    def drain(self, limit_ns: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Runs until every request has ended, for at most this long.
        """
    def drain_replica(self, number: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        It takes no new requests.
        """
    def feed(
        self,
        *,
        arrival_ns: typing.Any,
        prompt_tokens: typing.Any,
        output_tokens: typing.Any,
        allowed_mask: typing.Any,
        downgrade_mask: typing.Any,
        deadline_ns: typing.Any,
        end_deadline_ns: typing.Any = None,
        tenant: typing.Any = None,
        affinity_key: typing.Any = None,
    ) -> None:
        """
        Runs until the last of these arrivals has been submitted.
        """
    def in_flight(self, number: typing.SupportsInt | typing.SupportsIndex) -> int:
        """
        Requests that a replica has.
        """
    def load(self) -> dict:
        """
        Arrays by model: arrivals and work_s let in so far, backlog_work_s waiting now (predicted GPU-seconds).
        """
    def remove_replica(self, number: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Its number becomes free; ValueError while it has requests.
        """
    def run_to(self, until_ns: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Runs to this instant without arrivals.
        """
    def ticks(self) -> dict:
        """
        Arrays by tick: at_ns, and share, need, waiting, running by model.
        """
    def times(self) -> dict:
        """
        Arrays by request: placed_ns, first_token_ns, last_token_ns, model (-1), outcome.
        """
    @property
    def event_hash(self) -> int: ...
    @property
    def foreseen_ticks(self) -> int:
        """
        Ticks whose plans looked ahead.
        """
    @property
    def now_ns(self) -> int: ...
    @property
    def share_changes(self) -> int: ...
    @property
    def swaps(self) -> int: ...
    @property
    def violations(self) -> int: ...

class ReadingColumns:
    """
    The columns of a device, host or replica, with each one's bounds.
    """
    def __init__(
        self,
        kind: str,
        low: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex],
        high: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex],
    ) -> None: ...

class ReadingBoard:
    """
    The newest reading of each row: written by one thread per row, read by any, whole or not at all.
    """

    fields: typing.ClassVar[int] = 18
    def __init__(self, rows: int) -> None: ...
    def copy_into(
        self, values: typing.Any, ages_s: typing.Any = None, is_known: typing.Any = None, *, now_ns: int
    ) -> None:
        """
        Copies every row into the caller's arrays of shape (rows, fields), each may be None: values (float64, NaN where unknown or stale), ages_s (float64, seconds since last known, infinite for never), is_known (bool).
        """
    def forget(self, row: int) -> None:
        """
        Makes all columns of the row unknown; their ages go on.
        """
    def free(self, row: int) -> None:
        """
        Gives the row up: no identity, no values, no ages.
        """
    def publish(self, row: int, identity: int, values: typing.Any, taken_ns: int, stale_after_ns: int) -> None:
        """
        Puts a reading on the board. values: float64, one per column, NaN for what is unknown; missing columns are unknown. An unknown column keeps the instant at which it was last known, unless identity is new to the row.
        """
    def publish_mapping(
        self, row: int, identity: int, columns: ReadingColumns, values: dict, taken_ns: int, stale_after_ns: int
    ) -> int:
        """
        As publish, from a dict of numbers by field; what is missing, None, no number or out of its column's bounds is unknown. Returns how many of the dict's keys are columns.
        """
    def read(self, row: int, *, now_ns: int) -> typing.Any:
        """
        (identity, values, ages_s) of one row, None in place of what is unknown; None for a row that is free.
        """
    @property
    def rows(self) -> int:
        """
        How many rows it has.
        """

def build_info() -> dict[str, typing.Any]:
    """
    What this extension was built from (version, compiler, flags), and what the running CPU offers (cpu_features).
    """

def choose_replica(
    load_s: numpy.typing.NDArray[numpy.float64],
    room: numpy.typing.NDArray[numpy.float64],
    prefix_held: numpy.typing.NDArray[numpy.float64] | None = None,
    prefill_s: float = 0.0,
    *,
    _level: str | None = None,
) -> int:
    """
    The replica with room where a prompt's first token is predicted soonest.

    The one with the least ``load_s + prefill_s * (1 - prefix_held)``: the work ahead and what is left of its own prefill.

    Parameters
    ----------
    load_s : ndarray of float64, shape (n,)
        Predicted work ahead of the prompt on each replica, seconds. NaN: unknown, the replica is not chosen.
    room : ndarray of float64, shape (n,)
        Free places in each replica's window, requests. Below 1 or NaN: full.
    prefix_held : ndarray of float64, shape (n,), optional
        Part of the prompt that each replica has cached, 0 to 1.
    prefill_s : float
        Predicted prefill of the whole prompt, seconds.

    Returns
    -------
    int
        The lowest number among equals; -1 where no replica has room.

    Raises
    ------
    TypeError
        If an argument is missing, unknown or not an array.
    ValueError
        If a dtype, shape or memory layout is wrong, or `prefill_s` is negative or not finite.

    Notes
    -----
    Keeps nothing and changes nothing: the caller adds what it places to `load_s` and takes it from `room`.
    """

def forecast_backtest(
    rates: typing.Any,
    is_gap: typing.Any = None,
    *,
    bin_s: typing.SupportsFloat | typing.SupportsIndex,
    target: str = "arrivals",
    arrival_rates: typing.Any = None,
    start_s: typing.SupportsFloat | typing.SupportsIndex | None = None,
    horizon_bins: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] | None = None,
    first_origin: typing.SupportsInt | typing.SupportsIndex = 0,
    net: typing.Any = None,
    rule: str = "blend",
) -> list:
    """
    Walks a series with the forecaster that runs live, and scores it.

    Arguments as for `forecast_dataset`; scored are origins at the end of bins `first_origin` and later whose target is
    complete. `net` (float32, one row of outputs per bin) takes part where it is given. Returns (horizon in bins, scores by
    candidate) for each horizon; None for a candidate without an origin.
    """

def forecast_dataset(
    rates: typing.Any,
    is_gap: typing.Any = None,
    *,
    bin_s: typing.SupportsFloat | typing.SupportsIndex,
    target: str = "arrivals",
    arrival_rates: typing.Any = None,
    start_s: typing.SupportsFloat | typing.SupportsIndex | None = None,
    horizon_bins: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] | None = None,
) -> tuple:
    """
    Features, targets and scale after each bin of a series.

    Parameters
    ----------
    rates : ndarray of float64, shape (n,)
        Mean rate in each bin: requests per second, or GPU-seconds per second.
    is_gap : ndarray of uint8, shape (n,), optional
        Not 0 where a bin is missing.
    bin_s : float
        Length of a bin in seconds.
    target : {"arrivals", "work"}
        What `rates` is.
    arrival_rates : ndarray of float64, shape (n,), optional
        Requests per second of the same model, where `rates` is work.
    start_s : float, optional
        When the first bin begins, in seconds from a Monday's midnight; None where the wall clock is not known.
    horizon_bins : sequence of int, optional
        By default those of `forecast_layout`.

    Returns
    -------
    features : ndarray of float32, shape (n, features)
        What a net reads at the end of each bin.
    targets : ndarray of float64, shape (n, horizons)
        Mean rate over the bins that follow; NaN where they are not complete or one of them is missing.
    scale : ndarray of float64, shape (n,)
        A net's outputs are multiples of it.
    """

def forecast_layout() -> dict:
    """
    The windows, horizons and quantiles of a forecast, and the number of a net's inputs and outputs.
    """

def forecast_points(
    rates: typing.Any,
    is_gap: typing.Any,
    points: typing.Any,
    *,
    horizon: typing.SupportsInt | typing.SupportsIndex,
    first_origin: typing.SupportsInt | typing.SupportsIndex,
) -> typing.Any:
    """
    Scores somebody else's point forecasts (one per bin, NaN for none) with quantiles from their residuals.
    """

def latest_start_ns(
    deadline_ns: numpy.typing.NDArray[numpy.int64],
    service_s: numpy.typing.NDArray[numpy.float64],
    *,
    out: numpy.typing.NDArray[numpy.uint64] | None = None,
) -> numpy.typing.NDArray[numpy.uint64]:
    """
    Keys for a queue: by when each request must start. Its deadline less its service on the fastest model.

    Parameters
    ----------
    deadline_ns : ndarray of int64, shape (n,)
        On the caller's clock, nanoseconds. The largest int64 means none, and stays the last of all keys.
    service_s : ndarray of float64, shape (m,) or (m, n)
        Predicted service of each of m models, seconds. NaN: unknown, left out; all NaN: the key is the deadline.
    out : ndarray of uint64, shape (n,), optional
        Where the keys go.

    Returns
    -------
    ndarray of uint64, shape (n,)
        Smallest first: least laxity (Mok, 1983). 0 where that instant lies before the clock's zero.

    Raises
    ------
    TypeError
        If an argument is missing, unknown or not an array.
    ValueError
        If a dtype, shape or memory layout is wrong.
    """

def octave_knot(index: typing.SupportsInt | typing.SupportsIndex) -> int:
    """
    The position of knot `index` on either axis of an attention table.
    """

def onnx_library_version(path: str) -> str:
    """
    Loads ONNX Runtime's shared library for the life of the process, and says which version it is.
    """

def reading_fields(kind: str) -> list[str]:
    """
    Names of the columns of a device, host or replica, in their order.
    """

def reading_identity(kind: str, key: str) -> int:
    """
    The 64 bits by which the core knows a row's subject; never 0.
    """

def replay_log(config: SchedulerConfig, events: typing_extensions.Buffer) -> dict: ...
def run_open_loop(
    engines: collections.abc.Sequence[EngineSpec],
    *,
    colocation: str = "exclusive",
    arrival_ns: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
    prompt_tokens: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
    output_tokens: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
    cached_tokens: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | None = None,
    engine: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | None = None,
) -> dict:
    """
    Replays arrivals straight into simulated engines on one device and returns when each request was scheduled and gave its first and last token (ns, -1: never).
    """

def share_policies() -> list[str]:
    """
    Names of the allocation policies.
    """

def share_reasons() -> list[str]:
    """
    Names of the reasons for a share.
    """

def share_tick(
    config: SharePolicyConfig,
    demand: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
    previous: SharePlan,
    now_ns: int,
) -> SharePlan:
    """
    The next shares of one device's models. demand: float64 of shape (models, 6), columns decode_pace, due_pressure, backlog_work_s, waiting, running, service_rate_rps; NaN in the first two: unknown. previous: SharePlan() where there is none.
    """

def simd_levels() -> list[str]:
    """
    Widths that the kernels can use on this processor, the one in use last.
    """

def suitability(
    complexity: numpy.typing.NDArray[numpy.float64],
    time_left_s: numpy.typing.NDArray[numpy.float64],
    quality: numpy.typing.NDArray[numpy.float64],
    relative_cost: numpy.typing.NDArray[numpy.float64],
    first_token_s: numpy.typing.NDArray[numpy.float64],
    prefix_held: numpy.typing.NDArray[numpy.float64] | None = None,
    *,
    weights: typing.Any = None,
    out: numpy.typing.NDArray[numpy.float64] | None = None,
    best_out: numpy.typing.NDArray[numpy.int64] | None = None,
    _level: str | None = None,
) -> tuple[numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.int64]]:
    """
    How well each of m models suits each of n requests now, and each request's best model.

        quality * P(good) - cost * relative_cost - deadline * min(1, first_token_s / time_left_s) + affinity * prefix_held
        P(good) = 1 / (1 + (1 - quality) / quality * exp(4 * (complexity - 1/2)))

    The scheduler's own formula and bits (docs/scoring.md), on numpy columns: C-contiguous, no copies.

    Parameters
    ----------
    complexity : ndarray of float64, shape (n,)
        How hard each request is, 0 to 1; 0.5 is average. NaN or negative: unknown, then P(good) is 0 on every model.
    time_left_s : ndarray of float64, shape (n,)
        Until the first-token deadline, seconds; infinite: none; below 1 ns: late, and the deadline part is 1.
    quality : ndarray of float64, shape (m,)
        Prior probability of a good answer on an average request; held to [1e-6, 1 - 1e-6]. m is 1 to 32.
    relative_cost : ndarray of float64, shape (m,) or (m, n)
        Predicted work relative to the dearest eligible model, 0 to 1. NaN: the model is not eligible.
    first_token_s : ndarray of float64, shape (m,) or (m, n)
        Predicted time to first token from now, seconds; at most 1e9 counts. NaN: unknown, the model is not chosen.
    prefix_held : ndarray of float64, shape (m,) or (m, n), optional
        Part of the prompt that the model's replicas have cached, 0 to 1.
    weights : zeta.Weights, optional
        Anything with the numbers quality, cost, deadline and affinity, 0 or more.
    out : ndarray of float64, shape (m, n), optional
        Where the scores go; it shares no memory with the other arrays.
    best_out : ndarray of int64, shape (n,), optional
        Where the best models go.

    Returns
    -------
    scores : ndarray of float64, shape (m, n)
        Larger is better; minus infinity where an input is NaN. One row per model.
    best : ndarray of int64, shape (n,)
        The model with the highest score, the lowest number among equals; -1 where every score is minus infinity.

    Raises
    ------
    TypeError
        If an argument is missing, unknown or not an array.
    ValueError
        If a dtype, shape, weight or memory layout is wrong.

    Notes
    -----
    Thread-safe; releases the GIL above 32,768 scores. The result is the same on every processor, bit for bit.
    """

FORECASTS: tuple = ("auto", "off", "ewma", "perfect", "stale", "x10", "x0.1", "random", "nan")
LOGGED_EVENT_BYTES: int = 136
OUTCOME_NAMES: tuple = (
    "queued",
    "placed",
    "completed",
    "rejected_capacity",
    "rejected_infeasible",
    "rejected_no_replica",
    "expired_in_queue",
    "cancelled",
    "cancelled_running",
    "failed_replica",
    "failed_timeout",
)
