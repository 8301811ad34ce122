"""Replays a trace through the real scheduler into simulated engines, on virtual time."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator

import numpy as np

from zeta._core import OUTCOME_NAMES, Replay
from zeta.config import Config, Order, Policy
from zeta.errors import ConfigError
from zeta.scheduler import resolve
from zeta.sim.fleet import SimulatedFleet, build_fleet, scheduler_config
from zeta.sim.measures import RequestTimes, Ticks, attainment, backlog_absorbed_s, percentile_ms, series_of
from zeta.sim.response import ShareResponse, share_response
from zeta.sim.results import ModelTick, ReplayResult, ReplaySeries, Run, Tick, TickWriter
from zeta.sim.spec import Progress, ReplaySpec
from zeta.sim.workload import FloatArray, Workload, build_workload, model_of, read_complexities
from zeta.traces import Trace, TraceChunk

__all__ = ["DRAIN_S", "Played", "highest_load", "play", "run_replay", "share_response_of", "work_by_second"]

DRAIN_S = 600.0  # after the last arrival; what is left then is a miss
_MIN_QUEUE = 400_000  # nothing is refused for lack of room unless the fleet's own limit is larger
_LOAD_RANGE = (1.0 / 64, 64.0)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Played:
    """One run of one workload.

    Attributes
    ----------
    times : RequestTimes
    ticks : Ticks or None
        Only where asked for.
    end_s : float
        When the last event came, in replayed time.
    share_changes : int
        Times that a share moved by more than 2 points.
    swaps : int
    violations : int
        Invariants found broken; always 0 unless checks were asked for.
    wall_s : float
    event_hash : str
    foreseen_part : float
        Part of the allocation ticks that looked ahead.
    """

    times: RequestTimes
    ticks: Ticks | None
    end_s: float
    share_changes: int
    swaps: int
    violations: int
    wall_s: float
    event_hash: str
    foreseen_part: float = 0.0


def play(
    workload: Workload,
    config: Config,
    fleet: SimulatedFleet,
    *,
    actuation_delay_s: float = 0.0,
    forecast: str = "auto",
    keeps_ticks: bool = False,
    checks_every: int = 0,
) -> Played:
    """Runs one workload on one fleet.

    Parameters
    ----------
    workload : Workload
    config : Config
        Its scheduler part says policy, order and admission.
    fleet : SimulatedFleet
        Of the same configuration.
    actuation_delay_s : float, default 0.0
        From a plan of shares to its effect.
    forecast : str, default "auto"
        See `ReplaySpec`.
    keeps_ticks : bool, default False
    checks_every : int, default 0
        Events between two checks that the scheduler is work-conserving and its ledger adds up; 0: none.
    """
    begin = time.perf_counter()
    replay = Replay(
        scheduler=scheduler_config(config),
        devices=fleet.devices,
        places=fleet.places,
        tick_interval_ns=round(config.scheduler.tick_interval_ms * 1e6),
        actuation_delay_ns=round(actuation_delay_s * 1e9),
        forecast=forecast,
        future=work_by_second(workload, fleet).ravel() if forecast == "perfect" else None,
        keeps_ticks=keeps_ticks,
        checks_every=checks_every,
    )
    everything = np.uint32((1 << len(config.models)) - 1)
    replay.feed(
        arrival_ns=workload.arrival_ns,
        prompt_tokens=workload.prompt_tokens.astype(np.uint32),
        output_tokens=workload.output_tokens.astype(np.uint32),
        allowed_mask=workload.allowed_mask,
        downgrade_mask=everything & ~workload.allowed_mask,
        deadline_ns=workload.deadline_ns,
    )
    replay.drain(round(DRAIN_S * 1e9))
    return Played(
        times=RequestTimes(workload, **replay.times()),
        ticks=Ticks(**replay.ticks()) if keeps_ticks else None,
        end_s=replay.now_ns * 1e-9,
        share_changes=replay.share_changes,
        swaps=replay.swaps,
        violations=replay.violations,
        wall_s=time.perf_counter() - begin,
        event_hash=f"{replay.event_hash:016x}",
        foreseen_part=replay.foreseen_ticks * config.scheduler.tick_interval_ms * 1e6 / max(replay.now_ns, 1),
    )


def work_by_second(workload: Workload, fleet: SimulatedFleet) -> FloatArray:
    """Predicted GPU-seconds that arrive in each second for each required model, were output lengths known.

    Returns
    -------
    ndarray of float64, shape (seconds, models)
        C-contiguous.
    """
    second = workload.arrival_ns // 1_000_000_000
    work_s = np.zeros((int(second[-1]) + 1 if len(second) else 1, len(workload.model_names)))
    np.add.at(work_s, (second, workload.required_model), fleet.predicted_work_s(workload))
    return work_s


def run_replay(spec: ReplaySpec, progress: Progress | None = None) -> ReplayResult:
    """Every policy, order and seed of `spec` on the same workloads.

    Parameters
    ----------
    spec : ReplaySpec
    progress : Progress, optional
        Told after each run.

    Returns
    -------
    ReplayResult

    Raises
    ------
    TraceError, ConfigError
        If the trace or the fleet cannot be used.
    """
    trace = Trace.embedded() if spec.trace is None else Trace(spec.trace)
    rows = trace.read()
    complexities = None if spec.complexity is None else read_complexities(spec.complexity, trace.summary)
    fleet = build_fleet(spec.fleet)

    def workload(load: float, seed: int) -> Workload:
        return _workload(spec, rows, complexities, load, seed)

    pairs = list(spec.pairs())
    rounds = len(pairs) * (len(spec.seeds) + (1 if spec.capacity_at is not None else 0))
    report = progress or _silent
    runs: list[Run] = []
    series: list[ReplaySeries] = []
    notes: list[str] = []
    requests = 0
    with _tick_writer(spec) as writer:
        for policy, order in pairs:
            config = _configured(spec, policy, order)
            capacity_x = None
            if spec.capacity_at is not None:
                report(len(runs) / rounds, f"{policy}/{order}: capacity")
                capacity_x = _capacity(spec, config, fleet, workload, spec.capacity_at)
            for seed in spec.seeds:
                report(len(runs) / rounds, f"{policy}/{order}, seed {seed}")
                work = workload(spec.load, seed)
                requests = len(work)
                notes = list(work.notes)
                played = play(
                    work,
                    config,
                    fleet,
                    actuation_delay_s=spec.actuation_delay_s,
                    forecast=spec.forecast,
                    keeps_ticks=spec.wants_series or writer is not None,
                )
                runs.append(_run_of(spec, policy, order, seed, played, fleet, capacity_x))
                if spec.wants_series and played.ticks is not None:
                    series.append(series_of(played.times, played.ticks, policy, order, seed, work.model_names))
                if writer is not None and played.ticks is not None:
                    _write_ticks(writer, played.ticks, policy, order, seed, work.model_names)
    report(1.0, "done")
    bound = sum(run.fluid_bound_x for run in runs) / len(runs)
    notes.append(
        f"fluid bound: predicted work equals capacity at load {bound:.2f} "
        f"(decode steps shared by {fleet.service_models[0].reference_batch:.0f})"
    )
    return ReplayResult(
        trace=trace.name,
        fleet=spec.fleet_name,
        load=spec.load,
        requests=requests,
        results=tuple(runs),
        series=tuple(series),
        notes=tuple(notes),
        summary=trace.summary,
    )


def highest_load(holds: Callable[[float], bool], within: float = 1.02) -> float | None:
    """The highest load that `holds`, to a ratio of `within`; None where none from 1/64 to 64 does.

    Parameters
    ----------
    holds : callable
        Whether a load can be carried. Asked from 1 upwards or downwards by doubling, then by bisection in the
        logarithm, which takes it to be true below some load and false above.
    within : float, default 1.02
        Highest ratio of a load that does not hold to the answer; above 1.
    """
    low = high = 1.0
    if holds(1.0):
        while high < _LOAD_RANGE[1] and holds(high * 2):
            high *= 2
        low, high = high, high * 2
    else:
        while not holds(low / 2):
            low /= 2
            if low <= _LOAD_RANGE[0]:
                return None
        low, high = low / 2, low
    while high / low > within:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def share_response_of(spec: ReplaySpec) -> ShareResponse:
    """How the shares of the spec's first policy answered its last burst, with its first seed.

    Raises
    ------
    ConfigError
        If the spec has no burst.
    """
    if not spec.bursts:
        raise ConfigError("no burst to answer; give one with --burst MODEL:FACTOR:START_S:SECONDS", "burst")
    trace = Trace.embedded() if spec.trace is None else Trace(spec.trace)
    fleet = build_fleet(spec.fleet)
    policy, order = next(spec.pairs())
    work = _workload(spec, trace.read(), None, spec.load, spec.seeds[0])
    played = play(
        work,
        _configured(spec, policy, order),
        fleet,
        actuation_delay_s=spec.actuation_delay_s,
        forecast=spec.forecast,
        keeps_ticks=True,
    )
    assert played.ticks is not None  # asked for
    burst = spec.bursts[-1]
    name = model_of(burst.model, spec.fleet)
    return share_response(played.ticks, burst, work.model_names.index(name), name)


def _silent(done: float, label: str) -> None:
    """Tells nobody."""


def _workload(spec: ReplaySpec, rows: TraceChunk, complexities: FloatArray | None, load: float, seed: int) -> Workload:
    return build_workload(rows, spec.fleet, dataclasses.replace(spec.rules, load=load), seed, complexities)


def _configured(spec: ReplaySpec, policy: Policy, order: Order) -> Config:
    settings = spec.fleet.scheduler
    settings = dataclasses.replace(
        settings,
        policy=policy,
        order=order,
        admission=spec.admission,
        max_queued=max(settings.max_queued, _MIN_QUEUE),
    )
    return dataclasses.replace(spec.fleet, scheduler=settings)


def _capacity(
    spec: ReplaySpec,
    config: Config,
    fleet: SimulatedFleet,
    workload: Callable[[float, int], Workload],
    target: float,
) -> float | None:
    """The highest load whose mean attainment over the seeds is `target`; requests that fit no model are left out."""

    def holds(load: float) -> bool:
        reached = []
        for seed in spec.seeds:
            played = play(
                workload(load, seed),
                config,
                fleet,
                actuation_delay_s=spec.actuation_delay_s,
                forecast=spec.forecast,
            )
            reached.append(attainment(played.times, leave_out=played.times.ended("rejected_infeasible")))
        return sum(reached) / len(reached) >= target

    return highest_load(holds)


def _run_of(
    spec: ReplaySpec,
    policy: Policy,
    order: Order,
    seed: int,
    played: Played,
    fleet: SimulatedFleet,
    capacity_x: float | None,
) -> Run:
    times = played.times
    work = times.workload
    met = times.met_slo()
    span_s = max(work.duration_s, 1e-9)
    utilisation = float(fleet.predicted_work_s(work).sum()) / (span_s * fleet.capacity_gpus)
    ttft_ms, tpot_ms = times.ttft_ms(), times.tpot_ms()
    completed = times.ended("completed")
    ttft_ms = np.where(completed, ttft_ms, np.nan)
    count = {name: int(times.ended(name).sum()) for name in OUTCOME_NAMES}
    absorbed = None
    if spec.bursts:
        last = spec.bursts[-1]
        absorbed = backlog_absorbed_s(times, last, _burst_model(work, spec.fleet, last.model))
    return Run(
        policy=policy,
        order=order,
        admission=spec.admission,
        seed=seed,
        utilisation=utilisation,
        fluid_bound_x=spec.load / utilisation,
        attainment=attainment(times),
        attainment_by_model={
            name: float(met[work.required_model == index].mean()) if (work.required_model == index).any() else None
            for index, name in enumerate(work.model_names)
        },
        capacity_x=capacity_x,
        goodput_rps=float(met.sum()) / span_s,
        completed=int(completed.sum()),
        rejected=count["rejected_capacity"] + count["rejected_infeasible"] + count["rejected_no_replica"],
        expired=count["expired_in_queue"],
        failed=count["failed_replica"] + count["failed_timeout"],
        cancelled=count["cancelled"] + count["cancelled_running"],
        left=count["queued"] + count["placed"],
        unservable=count["rejected_infeasible"] if spec.admission == "queue" else _unservable(spec, times, fleet),
        ttft_p50_ms=percentile_ms(ttft_ms, 50.0),
        ttft_p99_ms=percentile_ms(ttft_ms, 99.0),
        tpot_p50_ms=percentile_ms(tpot_ms, 50.0),
        tpot_p99_ms=percentile_ms(tpot_ms, 99.0),
        longest_wait_s=times.longest_wait_s(),
        backlog_absorbed_s=absorbed,
        share_changes_per_min=played.share_changes / max(played.end_s / 60.0, 1e-9),
        replica_seconds=len(fleet.places) * played.end_s,
        swaps=played.swaps,
        wall_s=played.wall_s,
        event_hash=played.event_hash,
        forecast=spec.forecast,
        foreseen_part=played.foreseen_part,
    )


def _unservable(spec: ReplaySpec, times: RequestTimes, fleet: SimulatedFleet) -> int:
    """Under a rule that rejects for deadlines too: those whose prompt alone fits no model that may serve them."""
    largest = _largest_kv_tokens(spec.fleet)
    work = times.workload
    room = np.zeros(len(work), dtype=np.int64)
    for index in range(len(fleet.service_models)):
        allowed = (work.allowed_mask >> np.uint32(index)) & np.uint32(1)
        room = np.maximum(room, np.where(allowed == 1, largest[index], 0))
    return int((times.ended("rejected_infeasible") & (work.prompt_tokens >= room)).sum())


def _largest_kv_tokens(config: Config) -> list[int]:
    resolved, _ = resolve(config)
    return [max(replica.kv_tokens or 0 for replica in model.replicas) for model in resolved.models]


def _burst_model(work: Workload, config: Config, name: str) -> int:
    return work.model_names.index(model_of(name, config))


@contextlib.contextmanager
def _tick_writer(spec: ReplaySpec) -> Iterator[TickWriter | None]:
    if spec.ticks is None:
        yield None
        return
    with TickWriter(spec.ticks) as writer:
        yield writer


def _write_ticks(
    writer: TickWriter, ticks: Ticks, policy: Policy, order: Order, seed: int, names: tuple[str, ...]
) -> None:
    for row in range(len(ticks.at_ns)):
        models = {
            name: ModelTick(
                float(ticks.share[row, index]),
                float(ticks.need[row, index]),
                int(ticks.waiting[row, index]),
                int(ticks.running[row, index]),
            )
            for index, name in enumerate(names)
        }
        writer.write(Tick(policy, order, seed, float(ticks.at_ns[row]) * 1e-9, models))
