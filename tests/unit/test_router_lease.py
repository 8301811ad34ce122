"""Leases for asyncio."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

import zeta
from zeta.config import Scheduler
from zeta.errors import ClosedError


def build(places: int = 1, **settings: object) -> zeta.Router:
    model = zeta.Model("m", 0.5, replicas=(zeta.Replica("r", max_in_flight=places, kv_tokens=100_000),))
    return zeta.Router([model], scheduler=Scheduler(**settings))  # type: ignore[arg-type]


@pytest.fixture
def router() -> Iterator[zeta.Router]:
    with build() as built:
        yield built


def outcomes(router: zeta.Router) -> dict[str, int]:
    return {name: count for name, count in router.stats()["outcomes"].items() if count}


async def waiting(router: zeta.Router, count: int) -> None:
    """Until that many requests wait."""
    while router.stats()["waiting"] < count:
        await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_a_free_replica_is_leased_at_once_and_given_back_complete(router: zeta.Router) -> None:
    async with router.lease(prompt="How many?", deadline_ms=2000) as lease:
        assert (lease.model, lease.replica, lease.url) == ("m", "r", None)
        lease.first_token()
        lease.set_output_tokens(7)
        assert router.stats()["running"] == 1
    assert router.outcome(lease.ticket) is zeta.Outcome.COMPLETED


@pytest.mark.asyncio
async def test_a_lease_waits_for_its_turn_in_deadline_order(router: zeta.Router) -> None:
    order: list[str] = []

    async def work(name: str, deadline_ms: float) -> None:
        async with router.lease(prompt_tokens=10, deadline_ms=deadline_ms):
            order.append(name)
            await asyncio.sleep(0)

    async with router.lease(prompt_tokens=10):
        tasks = [asyncio.create_task(work(n, d)) for n, d in (("late", 9000), ("soon", 3000), ("mid", 6000))]
        await waiting(router, 3)
    await asyncio.gather(*tasks)
    assert order == ["soon", "mid", "late"]
    assert outcomes(router) == {"completed": 4}


@pytest.mark.asyncio
async def test_an_answers_length_is_learnt_only_where_it_is_told(router: zeta.Router) -> None:
    def mean() -> float:
        return float(router.stats()["models"]["m"]["mean_output_tokens"])

    async with router.lease(prompt_tokens=10):
        pass
    assert mean() == 256.0
    async with router.lease(prompt_tokens=10) as lease:
        lease.done(output_tokens=6)
        assert router.stats()["running"] == 0
    assert mean() == pytest.approx(256 - 0.02 * 250)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("error", "outcome"),
    [(OSError, "failed_replica"), (TimeoutError, "failed_timeout"), (ZeroDivisionError, "failed_replica")],
)
async def test_an_exception_inside_fails_the_request_and_goes_on(
    router: zeta.Router, error: type[Exception], outcome: str
) -> None:
    with pytest.raises(error):
        async with router.lease(prompt_tokens=10):
            raise error
    assert outcomes(router) == {outcome: 1}
    assert router.stats()["running"] == 0


@pytest.mark.asyncio
async def test_a_task_cancelled_while_it_waits_leaves_the_queue(router: zeta.Router) -> None:
    async with router.lease(prompt_tokens=10):
        task = asyncio.create_task(_hold(router))
        await waiting(router, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert outcomes(router) == {"cancelled": 1}
    assert outcomes(router) == {"cancelled": 1, "completed": 1}


@pytest.mark.asyncio
async def test_a_task_cancelled_while_it_holds_gives_the_place_back(router: zeta.Router) -> None:
    task = asyncio.create_task(_hold(router))
    while router.stats()["running"] == 0:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert outcomes(router) == {"cancelled_running": 1}
    async with router.lease(prompt_tokens=10):
        pass


@pytest.mark.asyncio
async def test_a_task_cancelled_in_the_moment_of_its_turn_gives_the_place_back(router: zeta.Router) -> None:
    async with router.lease(prompt_tokens=10) as lease:
        task = asyncio.create_task(_hold(router))
        await waiting(router, 1)
        lease.done()
        assert router._desk is not None
        router._desk.collect()  # the future is resolved, the task has not run yet
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert outcomes(router) == {"completed": 1, "cancelled_running": 1}
    assert router.stats()["running"] == 0


@pytest.mark.asyncio
async def test_a_rejected_lease_says_outcome_eta_and_when_to_retry() -> None:
    with build(max_queued=1, max_running=8) as router:
        async with router.lease(prompt_tokens=10):
            task = asyncio.create_task(_hold(router))
            await waiting(router, 1)
            with pytest.raises(zeta.Rejected) as error:
                async with router.lease(prompt_tokens=10):
                    pass
            assert (error.value.outcome, error.value.eta_ms, error.value.retry_after_s) == (
                "rejected_capacity",
                None,
                1.0,
            )
            task.cancel()
        with pytest.raises(zeta.Rejected) as error:
            async with router.lease(prompt_tokens=200_000):
                pass
        assert (error.value.outcome, error.value.retry_after_s) == ("rejected_infeasible", None)


@pytest.mark.asyncio
async def test_a_doomed_promise_is_rejected_with_its_eta() -> None:
    with build(admission="reject") as router:
        async with router.lease(prompt_tokens=10):
            tasks = [asyncio.create_task(_hold(router, prompt_tokens=9000, deadline_ms=2000)) for _ in range(5)]
            await waiting(router, 5)
            with pytest.raises(zeta.Rejected) as error:
                async with router.lease(prompt_tokens=9000, deadline_ms=2000):
                    pass
            assert error.value.outcome == "rejected_infeasible"
            assert error.value.eta_ms is not None
            assert error.value.retry_after_s is not None
            assert error.value.eta_ms > 1500.0
            for task in tasks:
                task.cancel()


@pytest.mark.asyncio
async def test_a_request_that_expires_in_the_queue_is_rejected_in_time(router: zeta.Router) -> None:
    async with router.lease(prompt_tokens=10):
        start = time.monotonic()
        with pytest.raises(zeta.Rejected) as error:
            async with router.lease(prompt_tokens=10, max_wait_ms=60):
                pass
        assert error.value.outcome == "expired_in_queue"
        assert 0.06 <= time.monotonic() - start < 1.0


@pytest.mark.asyncio
async def test_a_lease_that_others_cancel_is_rejected(router: zeta.Router) -> None:
    async with router.lease(prompt_tokens=10) as lease:
        task = asyncio.create_task(_hold(router))
        await waiting(router, 1)
        assert router.cancel(lease.ticket + (1 << 24) + 1)  # the next sequence in the next slot
        with pytest.raises(zeta.Rejected, match="cancelled"):
            await task


@pytest.mark.asyncio
async def test_a_failed_replica_can_be_left_for_another_under_the_same_ticket() -> None:
    with build() as router:
        async with router.lease(prompt_tokens=10) as lease:
            ticket = lease.ticket
            router.add_replica("m", "r2")
            router.drain_replica("r")
            await lease.requeue()
            assert (lease.ticket, lease.replica) == (ticket, "r2")
        assert outcomes(router) == {"completed": 1}


@pytest.mark.asyncio
async def test_a_fourth_requeue_ends_the_request(router: zeta.Router) -> None:
    with pytest.raises(zeta.Rejected, match="failed_replica"):  # noqa: PT012
        async with router.lease(prompt_tokens=10) as lease:
            for _ in range(4):
                await lease.requeue()
    assert outcomes(router) == {"failed_replica": 1}


@pytest.mark.asyncio
async def test_a_holder_whose_replica_was_removed_completes_all_the_same() -> None:
    with build() as router:
        async with router.lease(prompt_tokens=10):
            router.add_replica("m", "r2")
            router.remove_replica("r")
            async with router.lease(prompt_tokens=10):  # collects the first one's new place, which nobody waits for
                pass
        assert outcomes(router) == {"completed": 2}
        assert router.stats()["running"] == 0


@pytest.mark.asyncio
async def test_a_holder_whose_request_waits_again_leaves_no_trace() -> None:
    with build() as router:
        async with router.lease(prompt_tokens=10):
            router.remove_replica("r")
            assert router.stats()["waiting"] == 1
        assert outcomes(router) == {"cancelled": 1}
        assert router.stats()["waiting"] == 0


@pytest.mark.asyncio
async def test_close_wakes_those_who_wait(router: zeta.Router) -> None:
    with pytest.raises(ClosedError):  # noqa: PT012
        async with router.lease(prompt_tokens=10):
            task = asyncio.create_task(_hold(router))
            await waiting(router, 1)
            router.close()
            with pytest.raises(ClosedError, match="while the request waited"):
                await task
            raise ClosedError  # the holder leaves a closed router in peace


@pytest.mark.asyncio
async def test_while_leases_wait_the_loop_is_idle(router: zeta.Router) -> None:
    async with router.lease(prompt_tokens=10):
        task = asyncio.create_task(_hold(router))
        await waiting(router, 1)
        assert router._desk is not None
        before = time.process_time()
        await asyncio.sleep(0.3)
        assert time.process_time() - before < 0.1
        task.cancel()


@pytest.mark.asyncio
async def test_polled_and_leased_requests_do_not_mix(router: zeta.Router) -> None:
    async with router.lease(prompt_tokens=10):
        assert router.poll() == []
    ticket = router.submit(prompt_tokens=10)
    task = asyncio.create_task(_hold(router))
    await waiting(router, 1)
    (lease,) = router.poll()
    assert lease.ticket == ticket
    router.complete(lease, 1)
    while router.stats()["running"] == 0:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()


@pytest.mark.asyncio
async def test_a_wrong_argument_is_told_on_entering(router: zeta.Router) -> None:
    with pytest.raises(ValueError, match="complexity: got 7"):
        async with router.lease(prompt_tokens=10, complexity=7):
            pass
    async with router.lease(prompt_tokens=10):
        pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_loops_in_several_threads_share_one_router() -> None:
    done: list[int] = []

    async def worker(requests: int) -> None:
        for _ in range(requests):
            async with router.lease(prompt_tokens=10):
                await asyncio.sleep(0)
            done.append(1)

    async def crowd() -> None:
        await asyncio.gather(*(worker(25) for _ in range(8)))

    with build(places=3) as router:
        threads = [threading.Thread(target=lambda: asyncio.run(crowd())) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(done) == 3 * 8 * 25
        assert outcomes(router) == {"completed": 600}
        assert router._desk is not None
        assert router._desk._requests == {}
        assert router._desk._watching == {}


def test_one_router_serves_one_loop_after_another(router: zeta.Router) -> None:
    async def once() -> str:
        async with router.lease(prompt_tokens=10) as held:
            task = asyncio.create_task(_hold(router, seconds=0.0))
            await waiting(router, 1)
            model = held.model
        await task
        return model

    assert [asyncio.run(once()) for _ in range(3)] == ["m"] * 3


async def _hold(
    router: zeta.Router, prompt_tokens: int = 10, seconds: float = 60.0, deadline_ms: float | None = None
) -> None:
    async with router.lease(prompt_tokens=prompt_tokens, deadline_ms=deadline_ms):
        await asyncio.sleep(seconds)
