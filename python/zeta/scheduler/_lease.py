"""Leases for asyncio: wait for a turn, hold it, give it back. Imported with the first lease, since asyncio is heavy."""

from __future__ import annotations

import asyncio
import functools
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zeta.errors import ClosedError

if TYPE_CHECKING:
    from types import TracebackType

    from zeta._core import Lease as Placement
    from zeta.scheduler._router import Router

__all__ = ["AsyncLease", "LeaseDesk"]

_CHANNEL = 1  # the core keeps what leases wait for apart from what poll hands out


class LeaseDesk:
    """Where the tasks of any number of event loops wait for their turn with one router.

    A loop watches the router's descriptor only while one of its tasks waits. Whoever collects hands out for all loops.
    """

    def __init__(self, router: Router) -> None:
        self._router = weakref.proxy(router)  # no cycle: a router that is dropped goes at once, with its memory
        self._fd = router._lease_fileno()
        self._lock = threading.Lock()
        # Every request of a lease: with the future of who waits for its turn, or None while it is held.
        self._requests: dict[int, asyncio.Future[Placement | None] | None] = {}
        self._watching: dict[asyncio.AbstractEventLoop, int] = {}

    async def turn(self, ask: Callable[[], int]) -> Placement:
        """Calls `ask`, which puts a request in the queue and returns its ticket, and waits for its turn.

        Raises
        ------
        Rejected
            If the request ends while it waits.
        ClosedError
            If the router is closed meanwhile.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Placement | None] = loop.create_future()
        with self._lock:  # whoever collects finds the future
            ticket = ask()
            self._requests[ticket] = future
        self.collect()
        if not future.done():
            self._watch(loop)
            try:
                await future
            except asyncio.CancelledError:
                self.forget(ticket)
                if not self._router.is_closed:
                    self._router.cancel(ticket)
                raise
            finally:
                self._unwatch(loop)
        placement = future.result()
        if placement is None:
            self.forget(ticket)
            raise self._router.rejection(ticket)
        return placement

    def forget(self, ticket: int) -> None:
        """The lease is over. Should its request still come to a turn (its replica was removed), that is withdrawn."""
        self._requests.pop(ticket, None)

    def collect(self) -> None:
        """Hands out what is ready and what has ended."""
        with self._lock:
            found: list[tuple[int, Placement | None]] = [(ticket, None) for ticket in self._router._next_ended()]
            found += [(lease.ticket, lease) for lease in self._router.poll(_channel=_CHANNEL)]
            answers = []
            for ticket, result in found:
                if ticket in self._requests:
                    answers.append((self._requests[ticket], result))
                    self._requests[ticket] = None
                elif result is not None:
                    self._router.cancel(ticket)
        for future, result in answers:
            if future is not None:  # None: its replica was removed, and its holder does not know yet
                _tell(future, functools.partial(_resolve, future, result))

    def close(self) -> None:
        """Wakes everybody with ClosedError."""
        with self._lock:
            requests, self._requests = self._requests, {}
        for future in requests.values():
            if future is not None:
                _tell(future, functools.partial(_refuse, future))

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        count = self._watching.get(loop, 0)
        if count == 0:
            loop.add_reader(self._fd, self.collect)
        self._watching[loop] = count + 1

    def _unwatch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watching[loop] -= 1
        if self._watching[loop] == 0:
            del self._watching[loop]
            loop.remove_reader(self._fd)


def _resolve(future: asyncio.Future[Placement | None], result: Placement | None) -> None:
    if not future.done():
        future.set_result(result)


def _refuse(future: asyncio.Future[Placement | None]) -> None:
    if not future.done():
        future.set_exception(ClosedError("the router was closed while the request waited for its turn"))


def _tell(future: asyncio.Future[Any], call: Callable[[], object]) -> None:
    """Runs `call` in the future's own loop: at once if that is the running one."""
    loop = future.get_loop()
    if asyncio._get_running_loop() is loop:
        call()
    elif not loop.is_closed():  # a closed loop has cancelled its tasks, and they their requests
        loop.call_soon_threadsafe(call)


class AsyncLease:
    """A request that waits for its turn and then holds it: what ``async with router.lease(...)`` gives.

    Leaving the block completes the request. An exception that leaves it fails the request (as a timeout if it is a
    TimeoutError); being cancelled, or leaving the process, withdraws it.
    """

    __slots__ = ("_ask", "_desk", "_is_over", "_output_tokens", "_placement", "_router")

    def __init__(self, router: Router, desk: LeaseDesk, ask: Callable[[], int]) -> None:
        self._router = router
        self._desk = desk
        self._ask = ask
        self._placement: Placement | None = None
        self._output_tokens: int | None = None
        self._is_over = False

    async def __aenter__(self) -> AsyncLease:
        if self._placement is not None:
            raise RuntimeError("this lease was entered before; call router.lease(...) for each request")
        self._placement = await self._desk.turn(self._ask)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._is_over or self._router.is_closed:
            return
        if error is None:
            self.done(self._output_tokens)
            return
        self._end()
        if isinstance(error, Exception):
            self._router.fail(self.ticket, timed_out=isinstance(error, TimeoutError))
        else:
            self._router.cancel(self.ticket)

    @property
    def ticket(self) -> int:
        """The request's ticket, for `Router.outcome`, `explain` and `feedback`."""
        return self._held().ticket

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._held().model

    @property
    def replica(self) -> str:
        """Name of the replica."""
        return self._held().replica

    @property
    def url(self) -> str | None:
        """The replica's URL, or None."""
        return self._held().url

    @property
    def queued_ms(self) -> float:
        """From submission to placement, in milliseconds."""
        return self._held().queued_ms

    def first_token(self) -> None:
        """Tells the router that the first token has come: its windows and predictions live on it."""
        self._router.first_token(self._held())

    def done(self, output_tokens: int | None = None) -> None:
        """Completes the request now, before the block is left; what follows no longer holds capacity.

        Parameters
        ----------
        output_tokens : int, optional
            How long the answer was. Left out, predictions of lengths learn nothing from it.
        """
        self._output_tokens = output_tokens
        if self._is_over:
            return
        self._end()
        if not self._router.complete(self.ticket, output_tokens):
            self._router.cancel(self.ticket)  # its replica was removed and it waits again

    def set_output_tokens(self, output_tokens: int) -> None:
        """Says how long the answer was, for when the block is left."""
        self._output_tokens = output_tokens

    async def requeue(self) -> None:
        """The replica failed: waits for another turn under the same ticket, at most three times.

        Raises
        ------
        Rejected
            If it has been requeued too often, or ends while it waits.
        """
        placement = self._held()

        def ask() -> int:
            if not self._router.fail(placement, requeue=True) and self._router.outcome(placement.ticket).is_final:
                raise self._router.rejection(placement.ticket)
            return placement.ticket

        try:
            self._placement = await self._desk.turn(ask)
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        self._is_over = True
        self._desk.forget(self.ticket)

    def _held(self) -> Placement:
        if self._placement is None:
            raise RuntimeError("the lease is not held yet; use it inside `async with router.lease(...) as lease:`")
        return self._placement

    def __repr__(self) -> str:
        return f"<AsyncLease {'not held yet' if self._placement is None else self._placement!r}>"
