"""How many replica-seconds a day costs: replicas started and stopped by the load, for the same promises kept.

``python -m bench.macro.scaling --tune servegen_requests_day3.csv.gz --test servegen_requests_day8.csv.gz`` writes
``bench/results/scaling.json``. Simulated: the scheduler and ``zeta.allocate.scale`` are the real ones, the engines
models on virtual time. One model (Llama-3.1-70B on four A100s a replica), eight hours of ServeGen's three workloads
together, each request sent fifteen times within ten seconds, so that about eight replicas are needed. A replica serves
120 s after it was asked for, and is paid for from then until its last request after being told to go has ended.

``zeta`` is `zeta.allocate.scale` with the 0.9 quantile at the lead time, ``ewma`` the same rule with a 30 s mean,
``perfect`` with the future. ``reactive`` is the rule without a forecast, on the last minute and all that waits;
``dynamo-*`` likewise, on what the point predictors of NVIDIA Dynamo's planner say about the next 180 s. For each,
headrooms and times before a replica goes are tried on the first file; the time that is cheapest at the target, and
with it the largest headroom that keeps it, are then run on the second.
Replica-seconds at equal attainment are read from the second file's own curve, along a straight line between the two
headrooms around the target.
"""

# ruff: noqa: ARG002 - every source of forecasts is asked the whole question
from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench import machine
from bench.harness import Absent
from zeta._core import Replay
from zeta.allocate import ModelLoad, Scaling, ScalingConfig, scale
from zeta.config import Config, Device, Model, Replica, Scheduler
from zeta.forecast import LoadForecaster
from zeta.sim.fleet import SimulatedFleet, build_fleet, scheduler_config
from zeta.sim.measures import RequestTimes, attainment
from zeta.sim.workload import Rules, Workload, build_workload
from zeta.traces import Trace, TraceChunk

__all__ = ["main"]

RESULT = Path(__file__).resolve().parents[1] / "results" / "scaling.json"
MODEL, KIND, TP, KV_TOKENS = "llama-3.1-70b", "a100-sxm-80gb", 4, 405_578
MOST = 32
COPIES, WITHIN_S = 15, 10.0
HOURS = (16, 24)
WARM_S = 4 * 3600.0  # of the load before, which forecasters have seen
START_UP_S = 120.0
PERIOD_S = 10.0
DYNAMO_S = 180.0
LOOKS_AHEAD = ("ewma", "zeta", "perfect")
TARGET = 0.99
WORK_PER_REPLICA = 1.2  # GPU-seconds as predicted for 32 sequences; replicas under load run larger batches
HEADROOMS = (0.95, 0.8, 0.65, 0.5, 0.4)
SCALE_IN_AFTER_S = (120.0, 300.0)
FloatArray = NDArray[np.float64]
_COLUMNS: tuple[str, ...] = (
    "arrival_ns",
    "prompt_tokens",
    "output_tokens",
    "complexity",
    "required_model",
    "allowed_mask",
)
_COLUMNS += ("deadline_ns", "end_deadline_ns", "is_loose", "is_injected", "source")


def config() -> Config:
    replicas = tuple(Replica(name=f"r{i}", kv_tokens=KV_TOKENS, max_in_flight=256) for i in range(MOST))
    model = Model(name=MODEL, quality=0.7, device="each", replicas=replicas, tp=TP, ttft_slo_ms=2000.0)
    device = Device(name="each", kind=KIND, colocation="exclusive")
    return Config(models=(model,), devices=(device,), scheduler=Scheduler(max_queued=50_000))


@dataclasses.dataclass(frozen=True, slots=True)
class Day:
    """The requests, and their predicted work by second from WARM_S before the first of them."""

    work: Workload
    by_second: FloatArray


def day(path: Path, fleet: SimulatedFleet) -> Day:
    rows = Trace(path).read()
    rows = dataclasses.replace(rows, model=None, model_names=())
    first_ns = round((HOURS[0] * 3600 - WARM_S) * 1e9)
    rows = rows.take(np.flatnonzero((rows.arrival_ns >= first_ns) & (rows.arrival_ns < HOURS[1] * 3600 * 10**9)))
    rng = np.random.default_rng(1)
    at = np.tile(rows.arrival_ns, COPIES) + rng.integers(0, round(WITHIN_S * 1e9), COPIES * len(rows))
    order = np.argsort(at, kind="stable")
    many: TraceChunk = rows.take(np.tile(np.arange(len(rows)), COPIES)[order])
    many = dataclasses.replace(many, arrival_ns=at[order])
    everything = build_workload(many, config(), Rules(ties="keep"), 0)
    second = everything.arrival_ns // 10**9
    by_second = np.bincount(second, weights=fleet.predicted_work_s(everything), minlength=int(second[-1]) + 1)
    starts_ns = round(WARM_S * 1e9)
    ends_ns = starts_ns + (HOURS[1] - HOURS[0]) * 3600 * 10**9
    kept = np.flatnonzero((everything.arrival_ns >= starts_ns) & (everything.arrival_ns < ends_ns))
    work = dataclasses.replace(
        everything,
        **{name: getattr(everything, name)[kept] - (starts_ns if name.endswith("_ns") else 0) for name in _COLUMNS},
    )
    return Day(work, by_second)


class Foresight(Protocol):
    """Told of every second that has passed; answers like `zeta.allocate.LoadForecast`."""

    def observe(self, seconds: FloatArray) -> None: ...
    def work_pace(self, model: str, horizon_s: float, quantile: float) -> float | None: ...


class Recent:
    """The mean of the last minute."""

    def __init__(self) -> None:
        self._last = np.zeros(0)

    def observe(self, seconds: FloatArray) -> None:
        self._last = np.concatenate((self._last, seconds))[-60:]

    def work_pace(self, model: str, horizon_s: float, quantile: float) -> float | None:
        return float(self._last.mean())


class Ewma:
    """A mean with a half-life of 30 s."""

    def __init__(self) -> None:
        self._pace = 0.0

    def observe(self, seconds: FloatArray) -> None:
        for value in seconds:
            self._pace += (1 - 0.5 ** (1 / 30)) * (float(value) - self._pace)

    def work_pace(self, model: str, horizon_s: float, quantile: float) -> float | None:
        return self._pace


class Dynamo:
    """One of the planner's predictors, of the mean over its next interval."""

    def __init__(self, name: str) -> None:
        from bench.baselines.dynamo_predictors import PREDICTORS

        self._predictor = PREDICTORS[name](DYNAMO_S)
        self._open = np.zeros(0)
        self._pace = 0.0

    def observe(self, seconds: FloatArray) -> None:
        self._open = np.concatenate((self._open, seconds))
        while len(self._open) >= DYNAMO_S:
            self._predictor.observe(float(self._open[: int(DYNAMO_S)].mean()))
            self._open = self._open[int(DYNAMO_S) :]
            self._pace = max(self._predictor.predict(), 0.0)

    def work_pace(self, model: str, horizon_s: float, quantile: float) -> float | None:
        return self._pace


class Zeta:
    """`zeta.forecast.LoadForecaster` on bins of 10 s, without a net."""

    BIN_S = 10
    HORIZONS_S = (10, 60, 120, 180, 600)
    QUANTILES = (0.5, 0.9, 0.99)

    def __init__(self) -> None:
        bins = [s // self.BIN_S for s in self.HORIZONS_S]
        self._forecaster = LoadForecaster(1, bin_s=float(self.BIN_S), horizon_bins=bins)
        self._seconds = 0
        self._said: Any = None

    def observe(self, seconds: FloatArray) -> None:
        for value in seconds:
            self._forecaster.observe(0, 0.0, float(value))
            self._seconds += 1
            self._said = self._forecaster.forecast(self._seconds * 10**9)

    def work_pace(self, model: str, horizon_s: float, quantile: float) -> float | None:
        if self._said is None or not self._said.is_valid[0, 1]:
            return None
        at = self._said.rates[0, 1, :, self.QUANTILES.index(quantile)]
        return float(np.interp(horizon_s, self.HORIZONS_S, at))


class Perfect:
    """The mean that will come."""

    def __init__(self, by_second: FloatArray) -> None:
        self._until = np.concatenate(([0.0], np.cumsum(by_second)))
        self._seconds = 0

    def observe(self, seconds: FloatArray) -> None:
        self._seconds += len(seconds)

    def work_pace(self, model: str, horizon_s: float, quantile: float) -> float | None:
        last = len(self._until) - 1
        work_s = self._until[min(self._seconds + int(horizon_s), last)] - self._until[min(self._seconds, last)]
        return float(work_s / horizon_s)


def run(
    day: Day, fleet: SimulatedFleet, foresight: Foresight, is_forecast: bool, headroom: float, after_s: float
) -> dict[str, Any]:
    """One policy through the day."""
    rule = ScalingConfig(
        start_up_s=START_UP_S,
        work_per_replica=WORK_PER_REPLICA,
        headroom=headroom,
        max_replicas=MOST,
        scale_in_after_s=after_s,
    )
    work, warm = day.work, int(WARM_S)
    replay = Replay(
        scheduler=scheduler_config(config()), devices=fleet.devices, places=fleet.places, tick_interval_ns=10**9
    )
    foresight.observe(day.by_second[:warm])
    need = math.ceil(float(day.by_second[warm - 60 : warm].mean()) / (WORK_PER_REPLICA * headroom))
    serving = list(range(MOST))
    for number in serving[max(need, 1) :]:
        replay.remove_replica(number)
    serving = serving[: max(need, 1)]
    starting: list[float] = []
    draining: list[int] = []
    decision: Scaling | None = None
    replica_seconds, starts, most = 0.0, 0, 0
    columns = {
        "prompt_tokens": work.prompt_tokens.astype(np.uint32),
        "output_tokens": work.output_tokens.astype(np.uint32),
        "allowed_mask": work.allowed_mask,
        "downgrade_mask": np.zeros(len(work), dtype=np.uint32),
        "deadline_ns": work.deadline_ns,
        "arrival_ns": work.arrival_ns,
    }
    periods = int((HOURS[1] - HOURS[0]) * 3600 / PERIOD_S)
    edges = np.searchsorted(work.arrival_ns, (np.arange(periods + 1) * PERIOD_S * 1e9).astype(np.int64))
    for period in range(periods):
        now_s = period * PERIOD_S
        for ready in [at for at in starting if at <= now_s]:
            starting.remove(ready)
            number = replay.add_replica(0)
            assert number is not None
            serving.append(number)
        for number in [n for n in draining if replay.in_flight(n) == 0]:
            draining.remove(number)
            replay.remove_replica(number)
        waiting_s = float(replay.load()["backlog_work_s"][0])
        load = ModelLoad(
            model=MODEL,
            now_s=now_s,
            replicas=len(serving) + len(starting),
            recent_work=foresight.work_pace(MODEL, 60.0, 0.5) or 0.0,
            backlog_work_s=waiting_s,
            starting_in_s=tuple(at - now_s for at in starting),
        )
        decision = scale(rule, load, foresight if is_forecast else None, decision)
        room = MOST - len(serving) - len(starting) - len(draining)
        for _ in range(min(decision.target - load.replicas, room)):
            starting.append(now_s + START_UP_S)
            starts += 1
        for _ in range(load.replicas - decision.target):
            if starting:
                starting.pop()
            else:
                draining.append(serving.pop())
                replay.drain_replica(draining[-1])
        in_all = len(serving) + len(starting) + len(draining)
        most = max(most, in_all)
        replica_seconds += in_all * PERIOD_S
        chunk = slice(int(edges[period]), int(edges[period + 1]))
        if chunk.stop > chunk.start:
            replay.feed(**{name: values[chunk] for name, values in columns.items()})
        replay.run_to(round((now_s + PERIOD_S) * 1e9))
        passed = day.by_second[warm + int(now_s) : warm + int(now_s + PERIOD_S)]
        foresight.observe(passed)
    replay.drain(600 * 10**9)
    times = RequestTimes(work, **replay.times())
    return {
        "headroom": headroom,
        "attainment": attainment(times),
        "replica_seconds": replica_seconds,
        "starts": starts,
        "most": most,
        "event_hash": f"{replay.event_hash:016x}",
    }


def at_target(curve: list[dict[str, Any]]) -> float | None:
    """Replica-seconds at TARGET, on straight lines between runs in order of attainment; None outside them."""
    rising = sorted(curve, key=lambda each: each["attainment"])
    attained = [each["attainment"] for each in rising]
    if not attained[0] <= TARGET <= attained[-1]:
        return None
    return float(np.interp(TARGET, attained, [each["replica_seconds"] for each in rising]))


def chosen(curve: list[dict[str, Any]]) -> float | None:
    """The largest headroom that kept the target; None where none did."""
    return max((each["headroom"] for each in curve if each["attainment"] >= TARGET), default=None)


def measured(
    days: dict[str, Day], fleet: SimulatedFleet, made: Callable[[Day], Foresight], is_forecast: bool
) -> dict[str, Any]:
    """One policy: tuned on one day, run on the other."""

    def curve(which: str, after_s: float) -> list[dict[str, Any]]:
        each = days[which]
        return [run(each, fleet, made(each), is_forecast, headroom, after_s) for headroom in HEADROOMS]

    tuned = {after_s: curve("tune", after_s) for after_s in SCALE_IN_AFTER_S}
    costs = {after_s: at_target(each) or math.inf for after_s, each in tuned.items()}
    after_s = min(SCALE_IN_AFTER_S, key=lambda after_s: costs[after_s])
    curves = {"tune": tuned[after_s], "test": curve("test", after_s)}
    headroom = chosen(curves["tune"])
    held_out = [each for each in curves["test"] if each["headroom"] == headroom]
    return {
        "curves": curves,
        "scale_in_after_s_from_tuning": after_s,
        "headroom_from_tuning": headroom,
        "held_out": held_out[0] if held_out else None,
        "replica_seconds_at_target": {which: at_target(each) for which, each in curves.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", type=Path, required=True, metavar="FILE", help="servegen_requests_day3.csv.gz")
    parser.add_argument("--test", type=Path, required=True, metavar="FILE", help="servegen_requests_day8.csv.gz")
    parser.add_argument("--policy", nargs="+", help="some of the policies")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    fleet = build_fleet(config())
    days = {"tune": day(options.tune, fleet), "test": day(options.test, fleet)}
    policies: dict[str, Callable[[Day], Foresight]] = {
        "reactive": lambda _day: Recent(),
        "ewma": lambda _day: Ewma(),
        "dynamo-constant": lambda _day: Dynamo("constant"),
        "dynamo-kalman": lambda _day: Dynamo("kalman"),
        "dynamo-arima": lambda _day: Dynamo("arima"),
        "zeta": lambda _day: Zeta(),
        "perfect": lambda day: Perfect(day.by_second),
    }
    found: dict[str, Any] = {}
    begin = time.perf_counter()
    for name, made in policies.items():
        if options.policy and name not in options.policy:
            continue
        try:
            found[name] = measured(days, fleet, made, name in LOOKS_AHEAD)
        except Absent as absent:
            found[name] = {"absent": str(absent)}
            continue
        print(name, json.dumps({k: v for k, v in found[name].items() if k != "curves"}), flush=True)
        for which, each in found[name]["curves"].items():
            print("  ", which, [(r["headroom"], round(r["attainment"], 4), round(r["replica_seconds"])) for r in each])
    result = {
        "command": f"python -m bench.macro.scaling --tune {options.tune.name} --test {options.test.name}",
        "is_simulated": True,
        "target": TARGET,
        "start_up_s": START_UP_S,
        "mean_work": {which: float(each.by_second[int(WARM_S) :].mean()) for which, each in days.items()},
        "requests": {which: len(each.work) for which, each in days.items()},
        "policies": found,
        "wall_s": time.perf_counter() - begin,
        "machine": machine.describe(),
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
