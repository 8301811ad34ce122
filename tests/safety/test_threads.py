"""Many Python threads, one router."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable

import numpy as np

import zeta
from zeta.errors import ClosedError


def run_all(*targets: Callable[[], None]) -> None:
    failures: list[BaseException] = []

    def guarded(target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert failures == []


def build(places: int) -> zeta.Router:
    return zeta.Router([zeta.Model("m", 0.5, replicas=(zeta.Replica("r", max_in_flight=places),))])


def test_every_request_of_eight_threads_is_served_once() -> None:
    each = 1000
    router = build(16)
    tickets: list[list[int]] = [[] for _ in range(4)]
    served: list[list[int]] = [[] for _ in range(4)]

    def ask(mine: list[int]) -> Callable[[], None]:
        return lambda: mine.extend(router.submit(prompt_tokens=10, tenant=f"t{i % 5}") for i in range(each))

    def serve(mine: list[int]) -> Callable[[], None]:
        def loop() -> None:
            while sum(map(len, served)) < 4 * each:
                for lease in router.poll(max=8, timeout=0.05):
                    router.first_token(lease)
                    mine.append(lease.ticket)
                    router.complete(lease, 5)

        return loop

    with router:
        run_all(*(ask(mine) for mine in tickets), *(serve(mine) for mine in served))
        assert sorted(itertools.chain(*served)) == sorted(itertools.chain(*tickets))
        assert router.stats()["outcomes"]["completed"] == 4 * each


def close_under_every_kind_of_call() -> None:
    router = build(64)
    tokens = np.full(3000, 10, np.uint32)
    is_under_way = threading.Barrier(6)

    def until_closed(call: Callable[[], object]) -> Callable[[], None]:
        def loop() -> None:
            call()
            is_under_way.wait(10)
            with contextlib.suppress(ClosedError):
                while True:
                    call()

        return loop

    def batch() -> None:
        router.submit_many(prompt_tokens=tokens)
        taken, _, _ = router.poll_many(3000)
        router.complete_many(taken, tokens[: len(taken)])

    def close() -> None:
        is_under_way.wait(10)
        router.close()

    run_all(
        until_closed(batch),
        until_closed(batch),
        until_closed(lambda: router.poll(timeout=0.001)),
        until_closed(lambda: router.submit(prompt_tokens=1, max_wait_ms=1)),
        until_closed(router.stats),
        close,
    )


def test_a_router_may_be_closed_under_every_kind_of_call() -> None:
    for _ in range(20):
        close_under_every_kind_of_call()
