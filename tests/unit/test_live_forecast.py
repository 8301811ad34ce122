"""Forecasters in Python, and those elsewhere, as an input of a live loop."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from zeta import Device, Model, Replica, Router
from zeta.allocate import LoadForecast, Plan, Snapshot, tick
from zeta.clock import VirtualClock
from zeta.errors import ClosedError, ForecastError
from zeta.forecast import FakeForecaster, FakeTransport, LastValue, RemoteForecaster
from zeta.runtime import AllocationLoop, LiveForecast, RemoteExchange

S = 1_000_000_000


def make(**options: Any) -> Router:
    models = [Model(name, 0.5, device="gpu", replicas=[Replica(f"{name}-0")]) for name in "ab"]
    return Router(models=models, devices=[Device("gpu")], **({"clock": VirtualClock(S)} | options))


def wait_for(holds: Callable[[], object]) -> None:
    until_s = time.monotonic() + 20.0
    pause = threading.Event()
    while not holds():
        assert time.monotonic() < until_s
        pause.wait(0.01)


def test_a_forecaster_sees_what_the_router_lets_in_from_the_first_look_on() -> None:
    with make() as router:
        router.submit(prompt_tokens=100, max_tokens=10, models="a")  # before anybody looked
        live = LiveForecast(router, LastValue(2))
        assert isinstance(live, LoadForecast)
        live.update(500 * S)
        assert live.age_s is None
        assert live.work_pace("a", 10.0, 0.5) is None
        for _ in range(6):
            router.submit(prompt_tokens=100, max_tokens=10, models="b")
        work_s = float(router._demands()[0][1, 7])
        forecast = live.update(503 * S)
        assert forecast is not None
        assert forecast.rates[1, :, 0, 0] == pytest.approx([2.0, work_s / 3])
        assert live.work_pace("a", 10.0, 0.9) == 0.0
        assert live.work_pace("b", 10.0, 0.9) == pytest.approx(work_s / 3)
        assert live.age_s == 0.0
        live.update(503 * S + S // 2)
        assert live.age_s == 0.5


def test_between_horizons_work_is_spread_evenly_and_beyond_them_nothing_is_said() -> None:
    rates = np.zeros((2, 2, 5, 3))
    rates[0, 1] = np.array([4.0, 4.0, 2.0, 1.0, 1.0])[:, None] * (1.0, 2.0, 3.0)
    with make() as router:
        live = LiveForecast(router, FakeForecaster({0: None, S: rates}, models=2))
        live.update(10 * S)
        assert live.work_pace("a", 10.0, 0.5) is None
        live.update(11 * S)
        assert live.work_pace("a", 0.5, 0.5) == 4.0
        assert live.work_pace("a", 10.0, 0.9) == 8.0
        # 40 in the first ten seconds, 120 in the first minute: 80 in half a minute.
        assert live.work_pace("a", 35.0, 0.5) == pytest.approx(80 / 35)
        assert live.work_pace("a", 10.0, 0.7) == pytest.approx(6.0)
        for horizon_s, quantile in ((0.0, 0.5), (601.0, 0.5), (10.0, 0.4), (10.0, 0.999), (float("nan"), 0.5)):
            assert live.work_pace("a", horizon_s, quantile) is None
        assert live.work_pace("nobody", 10.0, 0.5) is None


def test_a_forecaster_of_other_models_is_refused_and_a_router_that_is_gone_answers_nothing() -> None:
    router = make()
    with pytest.raises(ForecastError, match="is for 3 models, the router has 2"):
        LiveForecast(router, LastValue(3))
    live = LiveForecast(router, LastValue(2))
    router.close()
    with pytest.raises(ClosedError):
        live.update(S)
    del router
    assert live.update(S) is None


def test_a_remote_forecast_reaches_the_policy_and_one_that_hangs_delays_no_round() -> None:
    hangs, seen = threading.Event(), []

    def elsewhere(asked: dict[str, Any]) -> bytes:
        if seen:
            hangs.wait(20.0)
        rates = np.full((2, 2, len(asked["horizons_s"]), len(asked["quantiles"])), 3.0)
        return json.dumps({"id": asked["id"], "rates": rates.tolist()}).encode()

    def policy(snapshot: Snapshot, forecast: LoadForecast | None, now_ns: int) -> Plan:
        assert forecast is not None
        pace = forecast.work_pace("a", 10.0, 0.9)
        if pace is not None:
            seen.append(pace)
        return tick(snapshot, forecast, now_ns)

    remote = RemoteForecaster(2, bin_s=0.05, max_age_s=0.5)
    with make(clock=None, background=False) as router, RemoteExchange(remote, FakeTransport(elsewhere)):
        live = LiveForecast(router, remote)
        with AllocationLoop(router, policy, live, period_s=0.01) as loop:
            wait_for(lambda: seen)
            assert seen[0] == 3.0
            ticks = loop.report().ticks
            assert loop.report().forecast_age_s is not None
            wait_for(lambda: loop.report().forecast_age_s is None)  # too old to be believed
            assert loop.report().ticks > ticks + 10
            assert loop.report().failures == 0
            hangs.set()
            wait_for(lambda: loop.report().forecast_age_s is not None)
