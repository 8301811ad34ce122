"""What holds of shares for any demand: sums, floors, steps, fairness, patience."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeta import _core

TICK_NS = 50_000_000
settings.register_profile("share", deadline=None)  # how long an example takes is not the claim
settings.load_profile("share")
POLICIES = _core.share_policies()

need = st.floats(0.0, 4.0) | st.just(0.0)
needs_of_some_models = st.lists(need, min_size=1, max_size=32)
row = st.tuples(
    need | st.just(math.nan),
    need | st.just(math.nan) | st.just(math.inf),
    st.floats(0, 1e6),
    st.integers(0, 10**6),
    st.integers(0, 4096),
    st.floats(0, 1e4),
)
runs_of_demand = st.integers(1, 8).flatmap(
    lambda n: st.lists(st.lists(row, min_size=n, max_size=n), min_size=1, max_size=40)
)


class Loop:
    """Ticks every 50 ms, keeping the plan."""

    def __init__(self, **config: object) -> None:
        self.config = _core.SharePolicyConfig(**config)  # type: ignore[arg-type]
        self.plan = _core.SharePlan()
        self.now_ns = 0

    def tick(self, rows: list[tuple[float, ...]], ticks: int = 1) -> list[float]:
        demand = np.array(rows, dtype=np.float64)
        for _ in range(ticks):
            self.now_ns += TICK_NS
            self.plan = _core.share_tick(self.config, demand, self.plan, self.now_ns)
        return self.plan.shares()

    def needs(self, needs: list[float], ticks: int = 1) -> list[float]:
        return self.tick([(0.0, each, 0.0, 0, 0, 0.0) for each in needs], ticks)


def target(needs: list[float]) -> list[float]:
    """Water-fill by bisection on the level."""
    n = len(needs)
    floor = min(0.05, 0.5 / n)
    wanted = [max(each, floor) for each in needs]
    combine = max if sum(wanted) <= 1.0 else min
    low, high = 0.0, 5.0
    for _ in range(200):
        level = (low + high) / 2
        if sum(combine(each, level) for each in wanted) < 1.0:
            low = level
        else:
            high = level
    return [combine(each, high) for each in wanted]


@given(runs_of_demand, st.sampled_from(POLICIES), st.floats(0.25, 1.0))
def test_shares_add_up_to_one_keep_the_floor_and_the_step(
    run: list[list[tuple[float, ...]]], policy: str, max_step: float
) -> None:
    n = len(run[0])
    loop = Loop(policy=policy, max_step=max_step)
    before = [1.0 / n] * n
    for rows in run:
        shares = loop.tick(rows)
        assert sum(shares) == pytest.approx(1.0, abs=1e-12)
        assert min(shares) >= min(0.05, 0.5 / n) - 1e-12
        assert max(abs(a - b) for a, b in zip(shares, before, strict=True)) <= max_step + 1e-12
        before = shares


@given(runs_of_demand, needs_of_some_models)
def test_under_constant_demand_shares_converge_to_the_water_fill(
    history: list[list[tuple[float, ...]]], needs: list[float]
) -> None:
    loop = Loop()
    for rows in history:
        loop.tick((rows * 32)[: len(needs)])
    shares = loop.needs(needs, ticks=400)
    # Half a point of hysteresis, and what is left of a jitter-sized difference after 20 s.
    assert shares == pytest.approx(target(needs), abs=0.0051)
    assert loop.needs(needs) == shares


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=32), st.lists(need, min_size=2, max_size=32))
def test_shares_are_exactly_even_whenever_every_need_is_at_most_an_even_part(
    parts: list[float], history: list[float]
) -> None:
    n = len(parts)
    loop = Loop()
    loop.needs((history * 32)[:n], ticks=5)
    assert set(loop.needs([each / n for each in parts], ticks=12)) == {1.0 / n}


@given(st.lists(st.floats(0.0, 4.0), min_size=2, max_size=16))
def test_under_overload_it_is_max_min_fair_so_nobody_gets_more_at_the_cost_of_one_with_less(needs: list[float]) -> None:
    needs = [each + 1.05 / len(needs) * (i % 2) for i, each in enumerate(needs)]
    floor = min(0.05, 0.5 / len(needs))
    wanted = [max(each, floor) for each in needs]
    if sum(wanted) <= 1.0:
        return
    shares = Loop(hysteresis=0.0).needs(needs, ticks=10)
    level = max(shares)
    for share, want in zip(shares, wanted, strict=True):
        # Whoever has less than it wants has as much as anybody.
        assert share == pytest.approx(min(want, level), abs=1e-9)


@given(
    st.integers(2, 16).flatmap(
        lambda n: st.tuples(st.lists(st.floats(0.0, 0.99), min_size=n, max_size=n), st.integers(0, n - 1))
    ),
    st.floats(1.25, 30.0),
    st.integers(1, 60),
)
@settings(max_examples=200)
def test_an_injected_backlog_lifts_its_model_in_two_ticks_and_even_is_back_in_three(
    calm: tuple[list[float], int], times_even: float, ticks_needed: int
) -> None:
    parts, victim = calm
    n = len(parts)
    even = 1.0 / n
    quiet = [each * even for each in parts]
    backed_up = list(quiet)
    backed_up[victim] = times_even * even
    goal = target(backed_up)[victim]
    loop = Loop()
    assert set(loop.needs(quiet, ticks=30)) == {even}
    assert loop.needs(backed_up, ticks=2)[victim] >= min(goal, even + 0.25) - 0.005 - 1e-9
    loop.needs(backed_up, ticks=3)
    for _ in range(ticks_needed):
        assert loop.needs(backed_up)[victim] >= goal - 0.005 - 1e-9
    assert loop.needs(quiet, ticks=3) == pytest.approx([even] * n, abs=0.01)
    assert set(loop.needs(quiet, ticks=7)) == {even}


@pytest.mark.parametrize("center", [[0.52, 0.3], [0.345, 0.2, 0.2], [0.6, 0.2, 0.1], [0.8, 0.7, 0.1]])
def test_five_percent_of_noise_moves_no_share_twice_an_hour(center: list[float]) -> None:
    ticks = 72_000
    noise = np.random.default_rng(1).uniform(0.95, 1.05, (ticks, len(center)))
    demand = np.zeros((len(center), 6))
    config, plan = _core.SharePolicyConfig(), _core.SharePlan()
    shares = np.empty((ticks, len(center)))
    for i in range(ticks):
        demand[:, 1] = noise[i] * center
        plan = _core.share_tick(config, demand, plan, (i + 1) * TICK_NS)
        shares[i] = plan.shares()
    changes, level = 0, shares[20]  # the first second is settling
    for share in shares[20:]:
        if np.abs(share - level).max() > 0.02:
            changes, level = changes + 1, share
    assert changes <= 2


work = st.integers(0, 5_000_000_000)
offset = st.integers(-80_000_000_000, 80_000_000_000)


@given(st.lists(st.tuples(st.integers(0, 30_000_000_000), offset, offset, work), max_size=60), st.randoms())
def test_a_histogram_forgets_exactly_what_it_was_given(
    requests: list[tuple[int, int, int, int]], random: object
) -> None:
    demand = _core.DemandHistogram()
    now_ns = 10**12
    waiting = []
    for passed, latest, promise, size in requests:
        now_ns += passed
        promised = now_ns + promise
        number = demand.add(latest_start_ns=now_ns + latest, promise_ns=promised, work_ns=size, now_ns=now_ns)
        waiting.append((number, promised, size))
        assert demand.backlog_ns == sum(each[2] for each in waiting)
    random.shuffle(waiting)  # type: ignore[attr-defined]
    for number, promised, size in waiting:
        assert demand.need(now_ns) >= 0.0
        demand.remove(number, promise_ns=promised, work_ns=size, now_ns=now_ns)
    assert (demand.backlog_ns, demand.overdue_ns, demand.need(now_ns)) == (0, 0, 0.0)


@given(st.lists(st.tuples(st.integers(0, 60_000_000_000), work), min_size=1, max_size=40), st.integers(0, 39))
def test_more_work_never_lowers_a_need_and_taking_some_never_raises_it(
    requests: list[tuple[int, int]], taken: int
) -> None:
    demand = _core.DemandHistogram()
    waiting = []
    last = 0.0
    for latest, size in requests:
        waiting.append((demand.add(latest_start_ns=latest, promise_ns=latest, work_ns=size, now_ns=0), latest, size))
        assert demand.need(0) >= last
        last = demand.need(0)
    number, promise, size = waiting[taken % len(waiting)]
    demand.remove(number, promise_ns=promise, work_ns=size, now_ns=0)
    assert demand.need(0) <= last


@given(
    st.lists(st.floats(0.05, 1.0), min_size=2, max_size=8),
    st.lists(st.integers(50_000_000, 400_000_000), min_size=20, max_size=60),
)
@settings(max_examples=50)
def test_takes_follow_the_shares_within_one_percent(weights: list[float], sizes: list[int]) -> None:
    shares = [each / sum(weights) for each in weights]
    device = _core.DeviceShares((1 << len(shares)) - 1)
    device.set_shares(shares)
    taken = [0] * len(shares)
    takes = 0
    # Each is off by at most (1 + share * models) requests of the largest work, whatever the run is long.
    while takes < 200 or sum(taken) < 160 * len(shares) * max(sizes):
        model = device.pick(0xFFFFFFFF)
        assert model is not None
        size = sizes[takes % len(sizes)]
        device.charge(model, size)
        taken[model] += size
        takes += 1
    for part, share in zip(taken, shares, strict=True):
        assert part / sum(taken) == pytest.approx(share, abs=0.01)


@given(st.integers(1, 255), st.lists(st.tuples(st.integers(0, 255), st.integers(0, 10**9)), max_size=60))
def test_somebody_of_the_device_is_picked_whenever_one_has_work(members: int, turns: list[tuple[int, int]]) -> None:
    device = _core.DeviceShares(members)
    for eligible, size in turns:
        model = device.pick(eligible)
        if members & eligible == 0:
            assert model is None
            continue
        assert model is not None
        assert members & eligible & (1 << model)
        device.charge(model, size)
