"""The judgement over shares, on ticks made by hand: it must see every way in which the core idea can fail."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from zeta.sim.measures import Ticks
from zeta.sim.response import ShareResponse, share_response
from zeta.sim.workload import Burst

TICK_NS = 50_000_000
BURST = Burst("large", 4.0, 5.0, 10.0)
BEGINS, NEEDED, ENDS = 100, 120, 200  # tick numbers: the burst, a need above even, its end


def good_ticks() -> Ticks:
    need = np.full((300, 2), 0.2)
    share = np.full((300, 2), 0.5)
    need[NEEDED:ENDS, 1] = 0.8
    share[NEEDED:ENDS] = (0.2, 0.8)
    count = np.zeros((300, 2), dtype=np.uint32)
    return Ticks(np.arange(300, dtype=np.int64) * TICK_NS, share, need, count, count)


def judged(ticks: Ticks) -> ShareResponse:
    return share_response(ticks, BURST, 1, "large")


def test_a_share_that_follows_its_need_holds() -> None:
    found = judged(good_ticks())
    assert found.holds
    assert (found.before, found.peak, found.rise_ticks, found.raised_part) == (0.5, 0.8, 1, 1.0)
    assert (found.returns, found.returned_part) == (1, 1.0)
    assert found.backlog_s == pytest.approx((ENDS - NEEDED - 1) * 0.05)
    assert "the core idea holds" in found.lines()


def test_two_ticks_may_pass_before_the_share_rises_three_may_not() -> None:
    for late, holds in ((1, True), (2, False)):
        ticks = good_ticks()
        ticks.share[NEEDED : NEEDED + late] = 0.5
        found = judged(ticks)
        assert found.rise_ticks == late + 1
        assert found.holds == holds


def test_a_share_that_never_rises_fails() -> None:
    ticks = good_ticks()
    ticks.share[:] = 0.5
    found = judged(ticks)
    assert found.rise_ticks is None
    assert not found.holds
    assert "never rose" in found.lines()[0]


def test_a_share_that_drops_while_it_is_needed_fails() -> None:
    ticks = good_ticks()
    ticks.share[150:152] = 0.5
    found = judged(ticks)
    assert found.raised_part == pytest.approx(78 / 80)
    assert not found.holds


def test_shares_may_take_three_ticks_back_to_even_not_more() -> None:
    for late, holds in ((2, True), (3, False)):
        ticks = good_ticks()
        ticks.share[ENDS : ENDS + late] = (0.4, 0.6)
        assert judged(ticks).holds == holds


def test_even_is_within_a_point_for_every_model() -> None:
    for off, holds in ((0.009, True), (0.011, False)):
        ticks = good_ticks()
        ticks.share[ENDS:] = (0.5 + off, 0.5 - off)
        assert judged(ticks).holds == holds


def test_a_backlog_that_never_clears_does_not_hold() -> None:
    ticks = good_ticks()
    ticks.need[NEEDED:, 1] = 0.8
    ticks.share[NEEDED:] = (0.2, 0.8)
    found = judged(ticks)
    assert found.returns == 0
    assert not found.holds


def test_needs_before_the_burst_are_not_its_backlog() -> None:
    ticks = good_ticks()
    ticks.need[10:20, 1] = 0.9  # not followed, and not asked to be
    assert judged(ticks).rise_ticks == 1
    only_before = dataclasses.replace(ticks, need=np.where(np.arange(300)[:, None] < BEGINS, ticks.need, 0.2))
    found = judged(only_before)
    assert (found.backlog_s, found.holds) == (0.0, False)
