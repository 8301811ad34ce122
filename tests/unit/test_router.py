"""The router as an application sees it."""

from __future__ import annotations

import select
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import zeta
from zeta.clock import VirtualClock
from zeta.config import Config, Scheduler, default_fleet
from zeta.errors import ClosedError, ConfigError, UnknownTicket

MS = 1_000_000


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(1_000 * MS)


def build(clock: VirtualClock, *models: zeta.Model, **settings: object) -> zeta.Router:
    models = models or (zeta.Model("m", 0.5, replicas=(zeta.Replica("r0", max_in_flight=1),)),)
    return zeta.Router(models, scheduler=Scheduler(**settings), clock=clock)  # type: ignore[arg-type]


@pytest.fixture
def router(clock: VirtualClock) -> Iterator[zeta.Router]:
    with build(clock) as built:
        yield built


def outcomes(router: zeta.Router) -> dict[str, int]:
    return {name: count for name, count in router.stats()["outcomes"].items() if count}


def test_a_request_goes_from_submit_to_completed(router: zeta.Router, clock: VirtualClock) -> None:
    ticket = router.submit(prompt_tokens=812, max_tokens=256, deadline_ms=2000, tenant="acme", complexity=0.7)
    assert router.outcome(ticket) is zeta.Outcome.PLACED
    clock.advance(5 * MS)
    (lease,) = router.poll()
    assert (lease.ticket, lease.model, lease.replica, lease.url, lease.queued_ms) == (ticket, "m", "r0", None, 0.0)
    assert router.first_token(lease)
    assert router.complete(lease, output_tokens=143)
    assert router.outcome(ticket) is zeta.Outcome.COMPLETED
    assert outcomes(router) == {"completed": 1}
    assert not router.complete(lease, output_tokens=143)


def test_what_has_no_room_waits_and_is_placed_when_room_comes(router: zeta.Router, clock: VirtualClock) -> None:
    first, second = (router.submit(prompt_tokens=100) for _ in range(2))
    assert router.outcome(second) is zeta.Outcome.QUEUED
    (lease,) = router.poll()
    clock.advance(7 * MS)
    router.complete(lease, 10)
    (lease,) = router.poll()
    assert lease.ticket == second
    assert lease.queued_ms == pytest.approx(7.0)
    assert router.outcome(first) is zeta.Outcome.COMPLETED


def test_poll_takes_no_more_than_asked(clock: VirtualClock) -> None:
    with build(clock, zeta.Model("m", 0.5, replicas=(zeta.Replica("r", max_in_flight=8),))) as router:
        for _ in range(5):
            router.submit(prompt_tokens=1)
        assert len(router.poll(max=2)) == 2
        assert len(router.poll(2)) == 2
        assert len(router.poll()) == 1
        assert router.poll() == []


def test_a_full_queue_rejects_with_an_outcome_and_keeps_what_it_has(clock: VirtualClock) -> None:
    with build(clock, max_queued=2, max_running=8) as router:
        tickets = [router.submit(prompt_tokens=10) for _ in range(5)]
        assert [str(router.outcome(t)) for t in tickets] == ["placed", "queued", "queued"] + ["rejected_capacity"] * 2


def test_a_request_that_fits_no_model_is_infeasible(clock: VirtualClock) -> None:
    small = zeta.Model("m", 0.5, replicas=(zeta.Replica("r", kv_tokens=1000),))
    with build(clock, small) as router:
        assert router.outcome(router.submit(prompt_tokens=2000)) is zeta.Outcome.REJECTED_INFEASIBLE


def test_a_model_without_replicas_rejects_until_one_joins(clock: VirtualClock) -> None:
    with build(clock, zeta.Model("m", 0.5)) as router:
        assert router.outcome(router.submit(prompt_tokens=1)) is zeta.Outcome.REJECTED_NO_REPLICA
        router.add_replica("m", "r0", url="http://127.0.0.1:8001/v1")
        ticket = router.submit(prompt_tokens=1)
        (lease,) = router.poll()
        assert (lease.ticket, lease.replica, lease.url) == (ticket, "r0", "http://127.0.0.1:8001/v1")


def test_an_unknown_ticket_is_an_error_that_says_how_long_outcomes_are_kept(router: zeta.Router) -> None:
    with pytest.raises(UnknownTicket, match=r"ticket 5 is unknown; .*last 65,536") as error:
        router.outcome(5)
    assert isinstance(error.value, KeyError)


def test_outcomes_are_forgotten_after_65536_others(clock: VirtualClock) -> None:
    with build(clock, max_queued=70_000) as router:
        first = router.submit(prompt_tokens=1)
        router.cancel(first)
        assert router.outcome(first) is zeta.Outcome.CANCELLED
        columns = np.ones(65_536, np.uint32)
        kept = router.submit_many(prompt_tokens=columns)
        for ticket in kept[1:]:
            router.cancel(int(ticket))
        assert router.outcome(first) is zeta.Outcome.CANCELLED
        router.cancel(int(kept[0]))
        with pytest.raises(UnknownTicket):
            router.outcome(first)
        assert router.outcome(int(kept[0])) is zeta.Outcome.CANCELLED


def test_cancel_tells_waiting_from_running(router: zeta.Router) -> None:
    running, waiting = (router.submit(prompt_tokens=1) for _ in range(2))
    router.poll()
    assert router.cancel(waiting)
    assert router.outcome(waiting) is zeta.Outcome.CANCELLED
    assert router.cancel(running)
    assert router.outcome(running) is zeta.Outcome.CANCELLED_RUNNING
    assert not router.cancel(running)


def test_a_failed_request_is_requeued_three_times_at_most(router: zeta.Router) -> None:
    ticket = router.submit(prompt_tokens=1)
    for _ in range(3):
        (lease,) = router.poll()
        assert router.fail(lease, requeue=True)
        assert router.outcome(ticket) is zeta.Outcome.PLACED
    (lease,) = router.poll()
    assert router.fail(lease, requeue=True)
    assert router.outcome(ticket) is zeta.Outcome.FAILED_REPLICA


def test_a_failure_can_be_a_timeout(router: zeta.Router) -> None:
    ticket = router.submit(prompt_tokens=1)
    router.fail(router.poll()[0], timed_out=True)
    assert router.outcome(ticket) is zeta.Outcome.FAILED_TIMEOUT


def test_max_wait_expires_a_waiting_request_when_time_comes(router: zeta.Router, clock: VirtualClock) -> None:
    router.submit(prompt_tokens=1)
    waiting = router.submit(prompt_tokens=1, max_wait_ms=50)
    assert router.next_timer_ns() == clock.now_ns() + 50 * MS
    clock.advance(49 * MS)
    router.advance()
    assert router.outcome(waiting) is zeta.Outcome.QUEUED
    clock.advance(MS)
    router.advance()
    assert router.outcome(waiting) is zeta.Outcome.EXPIRED_IN_QUEUE
    assert router.next_timer_ns() is None


def test_a_missed_deadline_alone_expires_nothing(router: zeta.Router, clock: VirtualClock) -> None:
    router.submit(prompt_tokens=1)
    late = router.submit(prompt_tokens=1, deadline_ms=10)
    clock.advance(60_000 * MS)
    router.advance()
    assert router.outcome(late) is zeta.Outcome.QUEUED


def test_columns_do_what_single_calls_do(clock: VirtualClock) -> None:
    models = (zeta.Model("m", 0.5, replicas=(zeta.Replica("r", max_in_flight=64),)),)
    with build(clock, *models) as router:
        tickets = router.submit_many(
            prompt_tokens=np.array([10, 20, 30], np.uint32),
            max_tokens=np.array([5, 5, 5], np.uint32),
            deadline_ms=np.array([300.0, 100.0, np.nan]),
            complexity=np.array([0.5, np.nan, 0.1]),
            tenant="acme",
        )
        taken, model_ids, replica_ids = router.poll_many(10)
        assert (tickets.dtype, taken.dtype) == (np.uint64, np.uint64)
        assert taken.tolist() == [tickets[1], tickets[0], tickets[2]]
        assert [router.model_names[i] for i in model_ids] == ["m"] * 3
        assert [router.replica_names[i] for i in replica_ids] == ["r"] * 3
        assert router.complete_many(taken, np.array([1, 2, 3], np.uint32)) == 3
        assert outcomes(router) == {"completed": 3}


def test_explain_tells_why_it_waits_and_why_it_was_placed(router: zeta.Router, clock: VirtualClock) -> None:
    placed = router.submit(prompt_tokens=100, deadline_ms=5000)
    waiting = router.submit(prompt_tokens=100, deadline_ms=5000)
    clock.advance(3 * MS)
    told = router.explain(placed)
    assert told is not None
    assert (told["state"], told["reason"], told["model"], told["replica"]) == ("placed", "earliest_deadline", "m", "r0")
    told = router.explain(waiting)
    assert told is not None
    assert (told["state"], told["waited_ms"], told["waits_for"]) == ("waiting", pytest.approx(3.0), ["m"])
    assert router.explain(12345) is None


def test_feedback_moves_a_models_quality_only_for_completed_requests(router: zeta.Router) -> None:
    ticket = router.submit(prompt_tokens=1)
    assert not router.feedback(ticket, 1.0)
    router.complete(router.poll()[0], 1)
    assert router.feedback(ticket, 1.0)
    with pytest.raises(ValueError, match=r"quality: got 2\.0+, expected 0 \(bad\) to 1 \(good\)"):
        router.feedback(ticket, 2.0)


def test_replicas_join_drain_and_leave(router: zeta.Router) -> None:
    first = router.submit(prompt_tokens=1)
    second = router.submit(prompt_tokens=1)
    router.add_replica("m", "r1", max_in_flight=1)
    assert {lease.replica for lease in router.poll()} == {"r0", "r1"}
    assert router.replica_names == ("r0", "r1")
    router.drain_replica("r1")
    router.complete(second, 1)
    third = router.submit(prompt_tokens=1)
    assert router.outcome(third) is zeta.Outcome.QUEUED
    router.remove_replica("r0")  # what ran there waits again: no replica is left that takes work
    assert router.outcome(first) is zeta.Outcome.QUEUED
    assert router.replica_names == (None, "r1")
    router.add_replica("m", "r0", max_in_flight=1)
    assert [lease.ticket for lease in router.poll()] == [first]
    assert router.stats()["replicas"]["r1"]["is_draining"]


def test_a_drained_replica_that_resumes_takes_what_waits(router: zeta.Router) -> None:
    router.drain_replica("r0")
    assert router.outcome(router.submit(prompt_tokens=1)) is zeta.Outcome.REJECTED_NO_REPLICA
    router.add_replica("m", "r1", max_in_flight=1)
    first, second = (router.submit(prompt_tokens=1) for _ in range(2))
    assert [lease.ticket for lease in router.poll()] == [first]
    router.resume_replica("r0")
    assert [(lease.ticket, lease.replica) for lease in router.poll()] == [(second, "r0")]


def test_mistaken_replica_calls_name_the_mistake(router: zeta.Router) -> None:
    with pytest.raises(ConfigError, match=r"replica 'r0' is there already"):
        router.add_replica("m", "r0")
    with pytest.raises(ConfigError, match=r"no model is called 'x' \(known: 'm'\)"):
        router.add_replica("x", "r1")
    with pytest.raises(ConfigError, match=r"no replica is called 'r00'; did you mean 'r0'\?"):
        router.drain_replica("r00")
    with pytest.raises(ConfigError, match=r"max_in_flight = 0"):
        router.add_replica("m", "r1", max_in_flight=0)


def test_replicas_beyond_max_replicas_are_refused(clock: VirtualClock) -> None:
    with build(clock, max_replicas=1) as router, pytest.raises(ConfigError, match=r"raise scheduler\.max_replicas"):
        router.add_replica("m", "r1")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, TypeError, r"needs prompt_tokens= .* or prompt="),
        ({"prompt_tokens": -1}, ValueError, r"prompt_tokens: got -1, expected 0 to"),
        ({"prompt_tokens": "8"}, TypeError, r"int"),
        ({"prompt_tokens": 1, "deadline_ms": -5}, ValueError, r"deadline_ms: got -5, expected milliseconds from now"),
        ({"prompt_tokens": 1, "deadline_ms": float("nan")}, ValueError, r"deadline_ms: got nan"),
        ({"prompt_tokens": 1, "complexity": 1.5}, ValueError, r"complexity: got 1\.5, expected 0 to 1"),
        ({"prompt_tokens": 1, "priority": 9}, ValueError, r"priority: got 9, expected 0 \(first\) to 3 \(last\)"),
        ({"prompt_tokens": 1, "models": ["x"]}, ValueError, r"no model is called 'x'; known: m"),
        ({"prompt_tokens": 1, "models": []}, ValueError, r"the list is empty"),
        ({"prompt_tokens": 1, "tenant": 5}, TypeError, r"tenant: expected a str or None, got int"),
        ({"prompt_tokens": 1, "deadlin_ms": 5}, TypeError, r"no argument 'deadlin_ms'; it takes prompt_tokens"),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_accepted_is_lost(
    router: zeta.Router, arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    router.submit(prompt_tokens=1)
    with pytest.raises(error, match=message):
        router.submit(**arguments)  # type: ignore[arg-type]
    stats = router.stats()
    assert (stats["submitted"], stats["running"]) == (1, 1)


def test_columns_of_the_wrong_kind_are_named(router: zeta.Router) -> None:
    with pytest.raises(ValueError, match=r"prompt_tokens must be a contiguous 1-d array of uint32; got int64"):
        router.submit_many(prompt_tokens=np.array([1, 2]))
    with pytest.raises(TypeError, match=r"prompt_tokens: expected a numpy array of uint32, got <class 'list'>"):
        router.submit_many(prompt_tokens=[1, 2])
    with pytest.raises(ValueError, match=r"max_tokens has 1 entries, expected 2"):
        router.submit_many(prompt_tokens=np.ones(2, np.uint32), max_tokens=np.ones(1, np.uint32))


def test_a_closed_router_refuses_every_call(clock: VirtualClock) -> None:
    router = build(clock)
    ticket = router.submit(prompt_tokens=1)
    router.close()
    router.close()
    for call in (
        lambda: router.submit(prompt_tokens=1),
        router.poll,
        router.stats,
        lambda: router.outcome(ticket),
        lambda: router.complete(ticket, 1),
        lambda: router.add_replica("m", "r9"),
        router.fileno,
    ):
        with pytest.raises(ClosedError, match="the router is closed; build a new one"):
            call()
    assert "closed" in repr(router)


def test_a_router_is_built_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "zeta.toml"
    file.write_text('[[models]]\nname = "a"\nquality = 0.5\n[[models.replicas]]\nname = "a-0"\n')
    with zeta.Router.from_config(file) as router:
        assert router.model_names == ("a",)
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.toml"):
        zeta.Router.from_config(tmp_path / "absent.toml")


def test_a_router_needs_a_model() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        zeta.Router()


def test_a_decision_log_needs_no_other_file_and_replays_exactly(tmp_path: Path, clock: VirtualClock) -> None:
    log = tmp_path / "run.log"
    with zeta.Router.from_config(default_fleet(), clock=clock, decision_log=log) as router:
        rng = np.random.default_rng(3)
        running: list[int] = []
        for step in range(600):
            clock.advance(int(rng.integers(0, 40 * MS)))
            router.submit(
                prompt_tokens=int(rng.integers(1, 9000)),
                max_tokens=int(rng.integers(1, 900)),
                deadline_ms=float(rng.integers(1, 9000)),
                complexity=float(rng.random()),
                tenant=["a", "b", None][step % 3],
                priority=int(rng.integers(0, 4)),
                max_wait_ms=500.0 if step % 7 == 0 else None,
            )
            running += [lease.ticket for lease in router.poll()]
            if len(running) > 5:
                router.first_token(running[-1])
                router.complete(running.pop(int(rng.integers(0, len(running)))), int(rng.integers(1, 900)))
            if step % 50 == 0:
                router.tick()
            if step == 300:
                router.add_replica("small", "small-1")
                router.fail(running.pop(), requeue=True)
            if step == 400:
                router.remove_replica("small-0")
            router.advance()
        expected = router._event_hash()
    replayed = zeta.replay_log(log)
    assert replayed.is_exact
    assert (replayed.hash, replayed.cut_bytes) == (expected, 0)
    assert replayed.events > 1200


def test_a_changed_decision_log_is_seen_to_differ(tmp_path: Path, clock: VirtualClock) -> None:
    log = tmp_path / "run.log"
    with zeta.Router.from_config(default_fleet(), clock=clock, decision_log=log) as router:
        for _ in range(20):
            router.submit(prompt_tokens=100)
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b'"max_in_flight": 64', b'"max_in_flight": 11'))
    assert zeta.replay_log(log).first_difference == 11
    log.write_bytes(whole[:-7])
    assert zeta.replay_log(log).cut_bytes > 0
    log.write_bytes(b"something else")
    with pytest.raises(ConfigError, match="is no decision log"):
        zeta.replay_log(log)


def test_a_log_that_cannot_be_written_is_an_error_at_once(tmp_path: Path, clock: VirtualClock) -> None:
    with pytest.raises(OSError, match="No such file"):
        zeta.Router.from_config(default_fleet(), clock=clock, decision_log=tmp_path / "absent" / "run.log")


def test_two_routers_of_one_configuration_are_independent(clock: VirtualClock) -> None:
    config = Config(models=(zeta.Model("m", 0.5, replicas=(zeta.Replica("r"),)),))
    with zeta.Router.from_config(config, clock=clock) as a, zeta.Router.from_config(config, clock=clock) as b:
        a.submit(prompt_tokens=1)
        assert (a.stats()["submitted"], b.stats()["submitted"]) == (1, 0)
        assert b.poll() == []


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def test_the_descriptor_is_readable_exactly_while_poll_has_something(clock: VirtualClock) -> None:
    with build(clock, zeta.Model("m", 0.5, replicas=(zeta.Replica("r", max_in_flight=8),))) as router:
        fd = router.fileno()
        assert not readable(fd)
        router.submit(prompt_tokens=1)
        router.submit(prompt_tokens=1)
        assert readable(fd)
        assert len(router.poll(max=1)) == 1
        assert readable(fd)
        assert len(router.poll()) == 1
        assert not readable(fd)
        router.submit(prompt_tokens=1)
        assert readable(fd)
        assert len(router.poll_many(9)[0]) == 1
        assert not readable(fd)


def test_a_placement_that_is_withdrawn_leaves_the_descriptor_quiet_after_a_poll(router: zeta.Router) -> None:
    fd = router.fileno()
    router.cancel(router.submit(prompt_tokens=1))
    assert router.poll() == []
    assert not readable(fd)


def test_an_answer_of_unknown_length_teaches_nothing(router: zeta.Router) -> None:
    router.submit(prompt_tokens=1)
    assert router.complete(router.poll()[0])
    assert router.stats()["models"]["m"]["mean_output_tokens"] == 256.0
