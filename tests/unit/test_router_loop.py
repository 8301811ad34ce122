"""The router's allocation loop: what it says, its net, its delay, and its Python form."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import zeta
from zeta import Device, Model, Replica, Router
from zeta.allocate import LoadForecast, Plan, PolicyConfig, Snapshot, tick
from zeta.clock import VirtualClock
from zeta.config import Scheduler
from zeta.errors import ClosedError, ConfigError, ModelLoadError
from zeta.runtime import AllocationLoop
from zeta.scheduler import SHIPPED_NET, replay_log

S = 1_000_000_000
needs_net = pytest.mark.skipif(not SHIPPED_NET.is_dir(), reason="no net is shipped with this build")


def fleet(count: int = 2, **settings: object) -> dict[str, object]:
    models = [Model(f"m{i}", 0.5, device="d", replicas=[Replica(f"m{i}-0")]) for i in range(count)]
    return {"models": models, "devices": [Device("d")], "scheduler": Scheduler(**settings)}  # type: ignore[arg-type]


def wait_for(holds: Callable[[], object], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.001)


def run_seconds(router: Router, clock: VirtualClock, seconds: int, *, per_second: int = 0) -> None:
    for _ in range(seconds * 20):
        clock.advance(S // 20)
        for _ in range(per_second // 20):
            router.submit(prompt_tokens=4_000, max_tokens=8, models="m0", deadline_ms=2_000)
        router.advance()
        router.tick()


@pytest.mark.parametrize("mode", ["auto", "ewma", "off"])
def test_stats_tell_of_the_rounds_and_of_what_is_expected(mode: str) -> None:
    clock = VirtualClock(1_000 * S)
    with Router(**fleet(forecast=mode), clock=clock) as router:
        run_seconds(router, clock, 90, per_second=20)
        loop = router.stats()["loop"]
        assert (loop["form"], loop["forecast"], loop["ticks"]) == ("caller", mode, 1800)
        assert loop["duration_us_p50"] > 0
        assert set(loop["models"]) == {"m0", "m1"}
        assert sum(model["share"] for model in loop["models"].values()) == pytest.approx(1.0)
        expected = loop["models"]["m0"]["work_60s_p50"]
        if mode == "off":
            assert expected is None
            assert loop["forecasts"] == 0
        else:
            assert expected > loop["models"]["m1"]["work_60s_p50"]
            assert loop["forecasts"] == 90


def test_without_a_delay_the_forecast_changes_no_decision() -> None:
    hashes = set()
    for mode in ("auto", "ewma", "off"):
        clock = VirtualClock(1_000 * S)
        with Router(**fleet(forecast=mode), clock=clock) as router:
            run_seconds(router, clock, 60, per_second=40)
            hashes.add(router._event_hash())
    assert len(hashes) == 1


def test_a_log_with_plans_that_act_later_replays_exactly(tmp_path: Path) -> None:
    clock = VirtualClock(1_000 * S)
    with Router(**fleet(), clock=clock, decision_log=tmp_path / "log") as router:
        router.set_actuation_delay(10)
        run_seconds(router, clock, 60, per_second=60)
        assert router.stats()["loop"]["actuation_delay_s"] == 10
        assert router.stats()["models"]["m0"]["share"] > 0.6
    assert replay_log(tmp_path / "log").is_exact


@pytest.mark.parametrize("given", [-1, 4000, float("nan")])
def test_a_delay_that_cannot_be_is_refused(given: float) -> None:
    with Router(**fleet(), background=False) as router, pytest.raises(ValueError, match="0 to 3600 s"):
        router.set_actuation_delay(given)


@needs_net
def test_the_net_that_is_shipped_comes_by_itself_and_can_be_swapped_while_it_runs() -> None:
    with Router(**fleet(tick_interval_ms=5)) as router:
        router.submit(prompt_tokens=100, max_tokens=1)
        wait_for(lambda: router.stats()["loop"]["net_runs"]["runs"])
        assert router.stats()["loop"]["net"] == str(SHIPPED_NET)
        assert router.stats()["loop"]["net_version"] == 1
        router.set_forecast_model(SHIPPED_NET)
        wait_for(lambda: router.stats()["loop"]["net_version"] == 2)
        router.set_forecast_model(None)
        wait_for(lambda: router.stats()["loop"]["net_version"] == 0)
        assert router.stats()["loop"]["net"] is None


@needs_net
def test_a_net_that_is_refused_leaves_the_one_in_use(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED_NET, tmp_path / "net")
    net = tmp_path / "net" / "net.onnx"
    net.write_bytes(net.read_bytes()[:-1] + b"x")
    with Router(**fleet(), background=False) as router:
        router.set_forecast_model(SHIPPED_NET)
        with pytest.raises(ModelLoadError):
            router.set_forecast_model(net.parent)
        assert router.stats()["loop"]["net"] == str(SHIPPED_NET)


def test_a_net_that_is_missing_costs_one_line_and_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "zeta.forecast")
    with Router(**fleet(forecast_model=str(tmp_path / "none"))) as router:
        router.submit(prompt_tokens=100, max_tokens=1)
        wait_for(lambda: router.stats() and caplog.records)
        wait_for(lambda: router.stats()["loop"]["forecasts"])
        assert router.stats()["loop"]["net"] is None
    assert len(caplog.records) == 1
    assert str(tmp_path / "none") in caplog.text


def test_a_router_whose_forecasts_ask_no_net_takes_none() -> None:
    with Router(**fleet(forecast="ewma"), background=False) as router, pytest.raises(ConfigError, match="auto"):
        router.set_forecast_model(SHIPPED_NET)


def test_a_policy_in_python_plans_in_place_of_the_native_loop() -> None:
    def all_but_a_tenth_for_m1(snapshot: Snapshot, forecast: LoadForecast | None, now_ns: int) -> Plan:
        plan = tick(dataclasses.replace(snapshot, config=PolicyConfig("even")), forecast, now_ns)
        models = tuple(
            dataclasses.replace(model, share=share) for model, share in zip(plan.models, (0.1, 0.9), strict=True)
        )
        return dataclasses.replace(plan, models=models)

    with Router(**fleet(tick_interval_ms=2)) as router:
        with zeta.AllocationLoop(router, all_but_a_tenth_for_m1) as loop:
            wait_for(lambda: loop.report().is_in_charge)
            ticks = router.ticks
            wait_for(lambda: router.ticks > ticks + 5)
            assert router.stats()["models"]["m1"]["share"] == pytest.approx(0.9)
        wait_for(lambda: router.stats()["models"]["m1"]["share"] == pytest.approx(0.5))
        with pytest.raises(ClosedError):
            loop.start()


def test_a_policy_that_raises_leaves_the_native_loop_in_charge(caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    def fails_twice(snapshot: Snapshot, forecast: LoadForecast | None, now_ns: int) -> Plan:
        nonlocal calls
        calls += 1
        if 2 <= calls <= 3:
            raise RuntimeError("no idea")
        return tick(snapshot, forecast, now_ns)

    with Router(**fleet(), background=False) as router:
        loop = AllocationLoop(router, fails_twice)
        charge = []
        for _ in range(5):
            loop.tick()
            charge.append(loop.report().is_in_charge)
        assert charge == [True, False, False, True, True]
        assert loop.report().failures == 2
        assert loop.report().last_error == "RuntimeError: no idea"
        assert len(caplog.records) == 1
        loop.close()


def test_the_python_loop_ends_with_its_router() -> None:
    router = Router(**fleet(tick_interval_ms=1))
    loop = AllocationLoop(router)
    loop.start()
    wait_for(lambda: loop.report().ticks > 3)
    router.close()
    assert loop._thread is not None
    loop._thread.join(10)
    assert not loop._thread.is_alive()


def test_shares_that_are_none_are_refused() -> None:
    with Router(**fleet(), background=False) as router:
        for shares in ([], [(0, 0.5)], [(0, 0.5), (7, 0.5)], [(0, float("nan")), (1, 0.5)]):
            with pytest.raises(ValueError, match="shares"):
                router._set_shares(shares)
