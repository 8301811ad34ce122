"""What others hold on replicas: told by hand, and by a monitor from what engines tell."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zeta import Model, Replica, Router, replay_log
from zeta.clock import VirtualClock
from zeta.errors import ConfigError
from zeta.monitor import HANG, Board, FakeProbe, Kind, Reading
from zeta.runtime import Monitor
from zeta.runtime._external import ExternalLoads, others_on

S = 1_000_000_000


def make(**options: Any) -> Router:
    """Two replicas with a window of 8 and 1,000 tokens each."""
    replicas = [Replica(name, max_in_flight=8, kv_tokens=10_000) for name in ("a", "b")]
    options.setdefault("clock", VirtualClock(S))
    return Router(models=[Model("m", 0.5, replicas=replicas)], **options)


def placed(router: Router, count: int) -> dict[str, int]:
    """Submits so many and takes what is placed, by replica."""
    for _ in range(count):
        router.submit(prompt_tokens=10, max_tokens=1)
    found = dict.fromkeys(("a", "b"), 0)
    for lease in router.poll(1_000):
        found[lease.replica] += 1
    assert router._idle_capacity_ticket() is None
    return found


def external(router: Router) -> dict[str, Any]:
    return {name: row["external"] for name, row in router.stats()["replicas"].items()}


def wait_for(holds: Callable[[], object]) -> None:
    """Fails after 20 s."""
    until_s = time.monotonic() + 20.0
    pause = threading.Event()
    while not holds():
        assert time.monotonic() < until_s
        pause.wait(0.005)


# --- told by hand ----------------------------------------------------------------------------------------------------


def test_what_others_hold_is_left_to_them_and_taken_back_when_unknown() -> None:
    with make() as router:
        assert external(router) == {"a": None, "b": None}
        router.set_external_load("a", 6)
        assert external(router) == {"a": {"requests": 6, "kv_tokens": 0}, "b": None}
        assert placed(router, 40) == {"a": 2, "b": 8}
        router.set_external_load("b", 3, 5_000)
        router.set_external_load("a", None)
        assert external(router)["a"] is None
        assert placed(router, 0) == {"a": 6, "b": 0}


def test_old_news_attracts_no_herd() -> None:
    with make() as router:
        router.set_external_load("a", 4)
        router.set_external_load("b", 0)
        assert placed(router, 8) == {"a": 2, "b": 6}  # level at six, though nobody has read the engines again


@pytest.mark.parametrize(
    ("arguments", "error"), [(("c", 1), ConfigError), (("a", -1), ValueError), (("a", 1, -1), ValueError)]
)
def test_loads_that_cannot_be_are_refused(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    with make() as router, pytest.raises(error):
        router.set_external_load(*arguments)


def test_a_log_with_loads_of_others_replays_exactly(tmp_path: Path) -> None:
    clock = VirtualClock(S)
    with make(clock=clock, decision_log=tmp_path / "log") as router:
        running: list[Any] = []
        for turn in range(200):
            clock.advance(S // 100)
            router.set_external_load("ab"[turn % 2], (None, 0, 3, 7, 99)[turn % 5], 100 * (turn % 90))
            router.submit(prompt_tokens=100 + turn, max_tokens=20)
            running += router.poll(10)
            if turn % 3 == 0 and running:
                router.complete(running.pop(0), 20)
            assert router._idle_capacity_ticket() is None
    replayed = replay_log(tmp_path / "log")
    assert replayed.is_exact
    assert replayed.events > 400


def test_a_router_that_is_told_nothing_decides_as_it_did() -> None:
    hashes = set()
    for told in (False, True):
        with make() as router:
            if told:
                ExternalLoads(router).forget_all()
            placed(router, 30)
            hashes.add(router._event_hash())
    assert len(hashes) == 1


# --- from readings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "ours", "expected"),
    [
        ({"running": 5.0, "waiting": 2.0, "kv_used": 0.5}, (3, 1_000), (4, 4_000)),
        ({"running": 5.0, "waiting": 2.0, "kv_used": None}, (3, 1_000), (4, 0)),
        ({"running": 2.0, "waiting": 0.0, "kv_used": 0.1}, (9, 5_000), (0, 0)),  # some of ours are on their way
        ({"running": 0.0, "waiting": 0.0, "kv_used": 1.0}, (0, 0), (0, 10_000)),
        ({"running": None, "waiting": 0.0}, (0, 0), None),
        ({"running": 4.0}, (0, 0), None),  # Ollama tells neither, llama.cpp not always both
        ({}, (0, 0), None),
    ],
)
def test_others_are_what_the_engine_has_beyond_ours(
    row: dict[str, float | None], ours: tuple[int, int], expected: tuple[int, int] | None
) -> None:
    assert others_on(row, *ours, 10_000) == expected


def test_requests_of_ours_are_never_taken_for_others() -> None:
    with make() as router:
        loads = ExternalLoads(router)
        before = loads.before()
        placed(router, 10)  # while the engines are asked: five on each, of which they have seen some
        loads.after(Reading({"a": {"running": 4.0, "waiting": 0.0}, "b": {"running": 5.0, "waiting": 2.0}}), before)
        assert external(router) == {"a": {"requests": 0, "kv_tokens": 0}, "b": {"requests": 2, "kv_tokens": 0}}
        before = loads.before()
        for ticket in range(40):
            router.cancel(ticket)
        loads.after(Reading({"stranger": {"running": 9.0, "waiting": 9.0}}), before)
        assert external(router)["b"] == {"requests": 2, "kv_tokens": 0}


def test_the_same_news_twice_is_told_once() -> None:
    with make() as router:
        loads, news = ExternalLoads(router), Reading({"a": {"running": 4.0, "waiting": 0.0}})
        loads.after(news, loads.before())
        once = router._event_hash()
        loads.after(news, loads.before())
        assert router._event_hash() == once


def test_news_that_is_stale_or_gone_is_taken_back_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with make() as router:
        loads, board = ExternalLoads(router), Board()
        news = Reading({"a": {"running": 4.0, "waiting": 0.0}, "b": {"running": 1.0, "waiting": 0.0}})
        board.publish("engines", Kind.REPLICA, news, 10 * S, 3 * S)
        loads.after(news, loads.before())
        loads.forget_stale(board, 12 * S)
        assert external(router)["a"] == {"requests": 4, "kv_tokens": 0}
        loads.forget_stale(board, 14 * S)
        assert external(router) == {"a": None, "b": None}
        loads.forget_stale(board, 15 * S)
        said = sorted(record.getMessage() for record in caplog.records)
        assert len(said) == 2
        assert "on replica a is not known any more, and not counted: its reading is 4.0 s old" in said[0]
        # An engine that stops telling is not idle because of that.
        loads.after(Reading({"a": {"running": 4.0, "waiting": 0.0}}), loads.before())
        loads.after(Reading({"a": {"running": None, "waiting": None}}), loads.before())
        assert external(router)["a"] is None
        assert caplog.records[-1].levelno == logging.WARNING


def test_a_monitor_tells_its_router_and_takes_back_what_it_does_not_know_any_more() -> None:
    busy = Reading({"a": {"running": 5.0, "waiting": 1.0, "kv_used": 0.25}})
    probe = FakeProbe([busy], kind=Kind.REPLICA)
    host = FakeProbe([Reading({"host": {"load_1m": 1.0}})], name="host", kind=Kind.HOST)
    with make(clock=None, background=False) as router, Monitor([probe, host], period_s=0.02, router=router) as monitor:
        wait_for(lambda: external(router)["a"] == {"requests": 6, "kv_tokens": 2_500})
        assert external(router)["b"] is None
        assert placed(router, 16) == {"a": 2, "b": 8}
        probe.then(HANG)
        wait_for(lambda: external(router)["a"] is None)
        probe.then(busy)
        probe.release()
        # Meanwhile the router took what seemed free: of the engine's six, as far as it can know, none are others'.
        wait_for(lambda: external(router)["a"] == {"requests": 0, "kv_tokens": 2_420})
        monitor.close()
        assert external(router) == {"a": None, "b": None}


def test_a_router_that_is_closed_or_gone_stops_no_monitor() -> None:
    probe = FakeProbe([Reading({"a": {"running": 5.0, "waiting": 1.0}})], kind=Kind.REPLICA)
    router = make(clock=None, background=False)
    with Monitor([probe], period_s=0.02, router=router) as monitor:
        wait_for(lambda: external(router)["a"] is not None)
        router.close()
        reads = monitor.probes()[0].reads
        wait_for(lambda: monitor.probes()[0].reads > reads + 2)
        router = make()
        wait_for(lambda: monitor.probes()[0].reads > reads + 5)
        assert monitor.probes()[0].failures == 0
