"""How many replicas: a pure rule."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeta.allocate import ModelLoad, Scaling, ScalingConfig, scale
from zeta.errors import ConfigError

CONFIG = ScalingConfig(start_up_s=120.0, headroom=0.5, scale_in_after_s=300.0)


@dataclasses.dataclass
class Says:
    """A forecast by horizon and quantile; None: silent."""

    median: float | None
    high: float | None = None
    later: float | None = None  # the median over the longer horizon

    def work_pace(self, model: str, horizon_s: float, quantile: float) -> float | None:
        assert model == "m"
        if quantile > 0.5:
            return self.high if self.high is not None else self.median
        return self.later if self.later is not None and horizon_s > CONFIG.start_up_s else self.median


def load(now_s: float, replicas: int, recent: float = 0.0, backlog: float = 0.0) -> ModelLoad:
    return ModelLoad("m", now_s, replicas, recent, backlog)


def test_the_quantile_of_the_work_at_the_lead_time_sets_the_target() -> None:
    decided = scale(CONFIG, load(0.0, 2), Says(median=1.0, high=2.0), None)
    assert (decided.target, decided.wanted, decided.reason) == (4, 4, "forecast")


def test_a_rising_load_is_met_where_it_will_stand() -> None:
    # 1.0 over 120 s and 1.5 over 180 s: 2.5 over the last minute, 1 above the mean of all.
    assert scale(CONFIG, load(0.0, 1), Says(median=1.0, high=2.0, later=1.5), None).wanted == 6


def test_waiting_work_is_to_be_gone_in_time() -> None:
    assert scale(CONFIG, load(0.0, 1, recent=1.0, backlog=30.0), None, None).wanted == 4


def test_what_replicas_in_service_and_starting_do_until_the_lead_time_is_not_ordered_again() -> None:
    says = Says(median=1.0)
    waiting = [dataclasses.replace(load(0.0, n, backlog=240.0), starting_in_s=(60.0,) * k) for n, k in ((3, 0), (2, 1))]
    assert scale(CONFIG, waiting[0], says, None).wanted == 2  # 240 + 120 of work, three replicas for 120 s
    assert scale(CONFIG, waiting[1], says, None).wanted == math.ceil((1.0 + 180.0 / 30.0) / 0.5)
    assert scale(CONFIG, dataclasses.replace(waiting[0], recent_work=1.0), None, None).wanted == 18


@pytest.mark.parametrize("forecast", [None, Says(median=None), Says(median=math.nan), Says(median=math.inf)])
def test_without_a_forecast_the_recent_load_stands_in(forecast: Says | None) -> None:
    decided = scale(CONFIG, load(0.0, 1, recent=1.4), forecast, None)
    assert (decided.target, decided.reason) == (3, "recent")


def test_targets_keep_to_their_bounds() -> None:
    config = dataclasses.replace(CONFIG, min_replicas=2, max_replicas=5)
    high = scale(config, load(0.0, 3, recent=100.0), None, None)
    assert (high.target, high.wanted, high.reason) == (5, 200, "bounds")
    previous = None
    for now_s in range(0, 3600, 10):
        previous = scale(config, load(float(now_s), previous.target if previous else 5), None, previous)
    assert previous is not None
    assert (previous.target, previous.reason) == (2, "bounds")


def test_replicas_go_one_at_a_time_and_only_after_fewer_have_long_been_enough() -> None:
    previous, targets = None, []
    for now_s in range(0, 1200, 10):
        recent = 4.0 if now_s < 100 else 1.0
        previous = scale(CONFIG, load(float(now_s), previous.target if previous else 8, recent), None, previous)
        targets.append(previous.target)
    went = [10.0 * at for at in range(1, len(targets)) if targets[at] < targets[at - 1]]
    assert targets[0] == 8
    assert went[0] > 90 + CONFIG.scale_in_after_s - 1
    assert all(b - a >= CONFIG.cool_down_s for a, b in itertools.pairwise(went))
    assert all(a - b <= 1 for a, b in itertools.pairwise(targets))
    assert targets[-1] == 2


def test_a_spike_within_the_window_keeps_replicas() -> None:
    previous = None
    for now_s in range(0, 2000, 10):
        recent = 4.0 if now_s % 200 == 0 else 0.1
        previous = scale(CONFIG, load(float(now_s), previous.target if previous else 8, recent), None, previous)
        assert previous.target == 8
    assert previous is not None
    assert previous.reason == "held"


@given(
    st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e4), st.none() | st.floats(-10, 1e4)), min_size=1, max_size=60)
)
def test_any_load_keeps_the_bounds_and_never_drops_more_than_one(
    steps: list[tuple[float, float, float | None]],
) -> None:
    config = dataclasses.replace(CONFIG, min_replicas=1, max_replicas=20, scale_in_after_s=20.0, cool_down_s=0.0)
    previous: Scaling | None = None
    replicas = 3
    for step, (recent, backlog, said) in enumerate(steps):
        previous = scale(config, load(10.0 * step, replicas, recent, backlog), Says(median=said), previous)
        assert 1 <= previous.target <= 20
        assert previous.target >= replicas - 1
        assert previous.target >= min(previous.wanted, replicas)
        replicas = previous.target


@pytest.mark.parametrize(
    ("key", "value"), [("start_up_s", -1.0), ("headroom", 0.0), ("quantile", 1.0), ("max_replicas", 0)]
)
def test_numbers_out_of_range_are_named(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=key):
        dataclasses.replace(CONFIG, **{key: value})
