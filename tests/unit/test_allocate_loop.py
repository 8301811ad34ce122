"""One tick of the allocation loop, in Python's form."""

from __future__ import annotations

import dataclasses
import typing

import numpy as np
import pytest

from zeta import _core
from zeta.allocate import POLICIES, REASONS, LoadForecast, ModelDemand, Plan, PolicyConfig, Snapshot, tick
from zeta.config import Policy, Scheduler
from zeta.errors import ConfigError

TICK_NS = 50_000_000


def demands(**needs: float | None) -> tuple[ModelDemand, ...]:
    return tuple(ModelDemand(model, due_pressure=need) for model, need in needs.items())


def run(
    models: tuple[ModelDemand, ...], ticks: int = 5, config: PolicyConfig | None = None, after: Plan | None = None
) -> Plan:
    plan = after
    start_ns = 0 if after is None else after.at_ns
    for i in range(1, ticks + 1):
        plan = tick(Snapshot(models, config or PolicyConfig(), plan, device="gpu0"), None, start_ns + i * TICK_NS)
    assert plan is not None
    return plan


class Doom:
    """A forecast of a flood."""

    def work_pace(self, model: str, horizon_s: float, quantile: float) -> float | None:
        return 100.0 + horizon_s * quantile + len(model)


def test_the_backed_up_model_gets_its_need_and_the_plan_says_why() -> None:
    plan = run(demands(small=0.1, medium=0.1, large=0.6))
    assert plan.shares == pytest.approx({"small": 0.2, "medium": 0.2, "large": 0.6})
    assert [each.reason for each in plan.models] == ["level", "level", "need"]
    assert plan.models[2].need == pytest.approx(0.6)
    assert (plan.device, plan.policy, plan.at_ns) == ("gpu0", "water-fill", 5 * TICK_NS)


def test_shares_are_exactly_even_when_nobody_needs_more_than_an_even_part() -> None:
    plan = run(demands(a=1 / 3, b=0.0, c=0.2), ticks=1)
    assert set(plan.shares.values()) == {1 / 3}
    assert {each.reason for each in plan.models} == {"even"}


def test_any_forecast_gives_the_plan_that_none_gives() -> None:
    assert isinstance(Doom(), LoadForecast)
    snapshot = Snapshot(demands(a=0.5, b=0.1), previous=run(demands(a=0.2, b=0.7)))
    assert tick(snapshot, Doom(), 7 * TICK_NS) == tick(snapshot, None, 7 * TICK_NS)


def test_the_same_arguments_give_the_same_plan() -> None:
    snapshot = Snapshot(demands(a=0.61, b=0.1, c=0.2), previous=run(demands(a=0.2, b=0.7, c=0.3)))
    assert tick(snapshot, None, 10**12) == tick(snapshot, None, 10**12)


def test_a_missing_reading_is_not_zero() -> None:
    before = run(demands(a=0.7, b=0.1), ticks=20)
    after = run(
        (ModelDemand("a", decode_pace=None, due_pressure=None), ModelDemand("b", due_pressure=0.1)), 20, after=before
    )
    assert after.shares["a"] == pytest.approx(0.7)


def test_a_plan_for_other_models_is_not_carried_over() -> None:
    before = run(demands(a=0.9, b=0.0))
    swapped = tick(Snapshot(demands(b=0.1, a=0.1), previous=before), None, before.at_ns + TICK_NS)
    assert swapped.shares == {"b": 0.5, "a": 0.5}


def test_a_move_larger_than_the_step_takes_several_ticks_and_says_so() -> None:
    first = run(demands(a=0.9, b=0.0, c=0.0), ticks=1)
    assert first.is_step_limited
    assert first.shares["a"] == pytest.approx(1 / 3 + 0.25)
    assert not run(demands(a=0.9, b=0.0, c=0.0), 3, after=first).is_step_limited


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("water-fill", [0.7, 0.3]),
        ("even", [0.5, 0.5]),
        ("proportional", [0.2, 0.8]),
        ("queue-length", [0.75, 0.25]),
        ("boost", [0.3, 0.7]),
        ("max-weight", [0.95, 0.05]),
    ],
)
def test_every_policy_reads_its_own_signal(policy: str, expected: list[float]) -> None:
    models = (
        ModelDemand("a", due_pressure=0.7, backlog_work_s=2.0, waiting=30, service_rate_rps=2.0),
        ModelDemand("b", due_pressure=0.2, backlog_work_s=8.0, waiting=10, service_rate_rps=1.0),
    )
    plan = run(models, config=PolicyConfig(policy=policy))
    assert list(plan.shares.values()) == pytest.approx(expected)
    assert {each.reason for each in plan.models} <= set(REASONS)


def test_the_core_and_the_settings_know_the_same_policies_and_defaults() -> None:
    assert typing.get_args(Policy) == POLICIES
    assert PolicyConfig.from_settings(Scheduler()) == PolicyConfig()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"policy": "fair"}, "expected one of water-fill, even"),
        ({"max_step": 0.1}, "max_step must be in"),
        ({"hysteresis": 0.02}, "hysteresis must be in"),
        ({"floor": float("nan")}, "floor must be in"),
        ({"boost_clears_work_s": 2.0}, "boost_clears_work_s must be in"),
    ],
)
def test_a_policy_outside_its_bounds_is_refused_with_the_bounds(changes: dict[str, typing.Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        PolicyConfig(**changes)


def test_a_snapshot_without_models_or_with_one_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 1 to 32"):
        Snapshot(())
    with pytest.raises(ValueError, match="names a model twice"):
        Snapshot((ModelDemand("a"), ModelDemand("a")))


def test_plans_are_values() -> None:
    plan = run(demands(a=0.1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.at_ns = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "demand",
    [
        np.zeros((3, 5)),
        np.zeros((3, 6), dtype=np.float32),
        np.zeros((6, 3)).T[:, ::1],
        np.zeros(6),
        np.zeros((33, 6)),
    ],
    ids=["columns", "dtype", "order", "dimensions", "models"],
)
def test_the_core_says_what_array_it_wants(demand: np.ndarray[typing.Any, typing.Any]) -> None:
    with pytest.raises(ValueError, match="contiguous float64 array with one row per model"):
        _core.share_tick(_core.SharePolicyConfig(), demand, _core.SharePlan(), 0)
