"""The allocation loop does not oscillate, and starves nobody."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from zeta import _core
from zeta.allocate import PolicyConfig
from zeta.config import default_fleet
from zeta.sim.fleet import SimulatedFleet, build_fleet
from zeta.sim.replay import play
from zeta.sim.workload import Rules, build_workload
from zeta.traces import TraceChunk

Parse = Callable[[str], TraceChunk]
FloatArray = NDArray[np.float64]

TICK_NS = 50_000_000
COUNTED = 0.02  # a move of a share that counts as a change
BUDGET_PER_MIN = 25.0  # changes that the noise of a backlog may cause


def shares_under(needs: FloatArray) -> FloatArray:
    """Shares by tick and model, where the needs are as given whatever the shares."""
    plan, config = _core.SharePlan(), PolicyConfig()._native
    demand = np.zeros((needs.shape[1], 6))
    shares = np.empty_like(needs)
    for tick, row in enumerate(needs):
        demand[:, 1] = row
        plan = _core.share_tick(config, demand, plan, tick * TICK_NS)
        shares[tick] = plan.shares()
    return shares


def changes(shares: FloatArray) -> int:
    counted, count = shares[0], 0
    for row in shares[1:]:
        if np.abs(row - counted).max() > COUNTED:
            counted, count = row, count + 1
    return count


# Steps


@pytest.mark.parametrize("models", [2, 3, 4, 8])
def test_a_step_from_even_settles_within_three_ticks_without_overshoot(models: int) -> None:
    rng = np.random.default_rng(models)
    even = 1.0 / models
    steps = 0
    for _ in range(60):
        needs = np.full((160, models), rng.uniform(0.0, even))
        needs[60:, 0] = even * 1.3 + rng.uniform(0.1, 1.0)  # a smaller one counts as jitter at first
        share = shares_under(needs)[:, 0]
        size = share[-1] - share[59]
        steps += size > 0.05
        np.testing.assert_allclose(share[62:], share[-1], atol=0.1 * size)
        assert share.max() <= share[-1] + 0.1 * size
    assert steps > 40


@pytest.mark.parametrize("models", [2, 3, 4, 8])
def test_a_step_between_any_two_needs_settles_within_four_ticks_without_overshoot(models: int) -> None:
    rng = np.random.default_rng(models)
    for _ in range(60):
        before, after = rng.uniform(0.0, 1.0, 2)
        if abs(after - before) < 0.35 * max(before, 1.0 / models):
            continue
        needs = np.full((320, models), rng.uniform(0.0, 1.0 / models))
        needs[:160, 0], needs[160:, 0] = before, after
        share = shares_under(needs)[:, 0]
        size = abs(share[-1] - share[159])
        assert (np.abs(share[163:] - share[-1]) <= 0.1 * size + 0.01).all()
        overshoot = (share[160:] - share[-1]) * np.sign(share[-1] - share[159])
        assert overshoot.max() <= 0.1 * size + 0.01


# Square waves


@pytest.mark.parametrize("half_period", [1, 2, 3, 5, 10, 20, 50, 100, 400, 2000])
@pytest.mark.parametrize("models", [2, 3, 8])
def test_a_square_wave_of_need_of_any_period_changes_shares_at_most_twice_per_edge(
    half_period: int, models: int
) -> None:
    ticks = 4000
    is_high = (np.arange(ticks) // half_period) % 2 == 1
    for low, high in ((0.1, 0.9), (0.3, 0.6), (0.05, 3.0)):
        needs = np.full((ticks, models), 0.1)
        needs[:, 0] = np.where(is_high, high, low)
        assert changes(shares_under(needs)) <= 2 * (ticks // half_period) + 1


@pytest.fixture(scope="module")
def small_fleet() -> tuple[object, SimulatedFleet]:
    config = default_fleet()
    settings = dataclasses.replace(config.scheduler, max_queued=5_000)
    config = dataclasses.replace(config, scheduler=settings)
    return config, build_fleet(config)


def even_arrivals(parse: Parse, rates: FloatArray, dt_s: float) -> TraceChunk:
    """Requests of 800 + 200 tokens for the three models; `rates` (steps, 3) in requests per second, without noise."""
    number = np.floor(np.cumsum(rates * dt_s, axis=0) + 1e-9)
    came = np.diff(number, axis=0, prepend=0.0).astype(int)
    lines = [
        f"{step * dt_s + 0.001 * model:.4f},{name},800,200"
        for step, row in enumerate(came)
        for model, name in enumerate(("small", "mid", "large"))
        for _ in range(row[model])
    ]
    return parse("arrival_s,model,prompt_tokens,output_tokens\n" + "\n".join(lines) + "\n")


@pytest.mark.parametrize("period_s", [4.0, 20.0, 60.0, 120.0, 240.0])
def test_a_square_wave_of_load_is_not_amplified_at_any_delay(
    trace_of: Parse, small_fleet: tuple[object, SimulatedFleet], period_s: float
) -> None:
    config, fleet = small_fleet
    seconds, dt_s = 480.0, 0.02
    at = np.arange(int(seconds / dt_s)) * dt_s
    rates = np.full((len(at), 3), 2.0)
    rates[:, 2] = np.where((at // (period_s / 2)) % 2 == 0, 1.0, 9.0)
    work = build_workload(even_arrivals(trace_of, rates, dt_s), config, Rules(), 0)  # type: ignore[arg-type]
    for delay_s in (0.0, 10.0, 60.0):
        for forecast in ("off", "auto", "perfect"):
            played = play(work, config, fleet, actuation_delay_s=delay_s, forecast=forecast)  # type: ignore[arg-type]
            edges = seconds / (period_s / 2)
            assert played.share_changes <= 2 * edges + BUDGET_PER_MIN * seconds / 60, (delay_s, forecast)
            assert played.times.ended("completed").all()


# Starvation


def starvation_case(parse: Parse, seed: int, load: float) -> tuple[TraceChunk, float, str]:
    """A minute of random load that the device can do, on all models or mostly on one, and a random way to foresee."""
    rng = np.random.default_rng(seed)
    rates = rng.dirichlet(np.ones(3) * rng.choice([0.3, 1.0, 5.0])) * rng.uniform(3.0, 8.0) * load
    half_s = rng.choice([2.0, 5.0, 15.0, 30.0, 60.0])
    at = rng.uniform(0.0, 60.0, size=(3, 2000))
    lines = []
    for model, name in enumerate(("small", "mid", "large")):
        count = rng.poisson(rates[model] * 60.0)
        times = at[model, :count]
        times = np.where((times // half_s) % 2 == 0, times, times - 0.5 * (times % half_s))
        prompts, outputs = rng.integers(16, 3000, count), rng.integers(1, 400, count)
        lines += [(t, name, p, o) for t, p, o in zip(np.maximum(times, 0), prompts, outputs, strict=True)]
    lines.sort()
    text = "\n".join(f"{t:.4f},{name},{p},{o}" for t, name, p, o in lines)
    delay_s = float(rng.choice([0.0, 1.0, 10.0, 60.0]))
    forecast = str(rng.choice(["auto", "off", "perfect", "x10", "x0.1", "random", "stale"]))
    return parse("arrival_s,model,prompt_tokens,output_tokens\n" + text + "\n"), delay_s, forecast


def longest_wait_s(parse: Parse, fleet: tuple[object, SimulatedFleet], seed: int, load: float = 1.0) -> float:
    """Of any request until it was placed; infinite where one never was. NaN where more arrives than can be done."""
    rows, delay_s, forecast = starvation_case(parse, seed, load)
    config, simulated = fleet
    work = build_workload(rows, config, Rules(), seed)  # type: ignore[arg-type]
    if load == 1.0 and simulated.predicted_work_s(work).sum() > 0.95 * 60.0:
        return float("nan")
    played = play(work, config, simulated, actuation_delay_s=delay_s, forecast=forecast)  # type: ignore[arg-type]
    if not played.times.ended("completed").all():
        return float("inf")
    return float((played.times.placed_ns - work.arrival_ns).max()) * 1e-9


def starved(parse: Parse, fleet: tuple[object, SimulatedFleet], seeds: range, load: float = 1.0) -> list[int]:
    promise_s = default_fleet().scheduler.promise_ms * 1e-3
    return [seed for seed in seeds if longest_wait_s(parse, fleet, seed, load) > 2 * promise_s]


@pytest.mark.parametrize("part", range(5))
def test_nobody_starves_whatever_the_load_the_delay_and_the_forecast(
    trace_of: Parse, small_fleet: tuple[object, SimulatedFleet], part: int
) -> None:
    assert starved(trace_of, small_fleet, range(100 * part, 100 * (part + 1))) == []


@pytest.mark.nightly
@pytest.mark.parametrize("part", range(20))
def test_nobody_starves_in_a_hundred_thousand_loads(
    trace_of: Parse, small_fleet: tuple[object, SimulatedFleet], part: int
) -> None:
    assert starved(trace_of, small_fleet, range(1000 + 5000 * part, 1000 + 5000 * (part + 1))) == []


def test_the_starvation_check_sees_an_overload(trace_of: Parse, small_fleet: tuple[object, SimulatedFleet]) -> None:
    assert starved(trace_of, small_fleet, range(5), load=4.0)
