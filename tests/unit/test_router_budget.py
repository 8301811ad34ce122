"""A shared device's budget of unfinished prefill, for callers that report first tokens and for those that do not."""

from __future__ import annotations

import zeta
from zeta.clock import VirtualClock

MODELS = [zeta.Model("7b", quality=0.5, device="gpu0", replicas=(zeta.Replica("7b-0"),))]
DEVICES = [zeta.Device("gpu0")]


def router_with(count: int) -> tuple[zeta.Router, VirtualClock]:
    clock = VirtualClock()
    router = zeta.Router(MODELS, devices=DEVICES, clock=clock)
    for _ in range(count):
        router.submit(prompt_tokens=800, deadline_ms=60_000)
    return router, clock


def test_a_first_token_makes_room_for_the_next_prefill_at_once() -> None:
    router, _ = router_with(20)
    first = router.poll()
    assert 0 < len(first) < 20
    for lease in first:
        router.first_token(lease)
    assert len(router.poll()) > 0


def test_a_caller_that_reports_no_first_token_is_not_kept_waiting_for_ever() -> None:
    router, clock = router_with(20)
    placed = len(router.poll())
    router.advance()
    assert router.poll() == []
    for _ in range(20):
        clock.advance(2_000_000_000)
        router.advance()
        placed += len(router.poll())
    assert placed == 20


def test_a_first_token_that_comes_after_it_was_presumed_frees_nothing_twice() -> None:
    router, clock = router_with(20)
    first = router.poll()
    clock.advance(2_000_000_000)
    router.advance()
    second = router.poll()
    for lease in [*first, *second]:
        assert router.first_token(lease)
        assert router.complete(lease, output_tokens=10)
    while leases := router.poll():
        for lease in leases:
            router.complete(lease, output_tokens=10)
    stats = router.stats()
    assert (stats["running"], stats["waiting"], stats["outcomes"]["completed"]) == (0, 0, 20)
    # The budget is back at zero: as many go at once as at first.
    for _ in range(20):
        router.submit(prompt_tokens=800, deadline_ms=60_000)
    assert len(router.poll()) >= len(first)
