"""How soon could the backlog of a burst on the large model be gone at all, beside how soon it is?

``python -m bench.macro.burst_bound`` prints a row for each start of a 4 x burst on the 14B for 45 s, at utilisation
0.55. The backlog is gone at the first T by which the device has had time for all that had to be done until then:

    prefill of every large request that arrived + its decode steps + what the smaller models' requests take <= T

A decode step costs nearly the same for any batch, so the number of steps is what KV allows: a request of p + o tokens
takes o (p + o / 2) / KV of them. What is in flight at T needs its prefill only, and part of its decoding.

- ``least``: full KV at every step; in flight at T are those with most decoding per token of prompt, and none of it is
  done; the 8B runs at the slowest pace that keeps its promises. No order of service on these engines is faster, if what
  is placed is also prefilled and the other models' requests are kept in time.
- ``fluid``: full KV; one step of the 8B for each of the 14B, which is how engines that share a device take turns; in
  flight at T are the latest, half done.
- ``as full``: likewise, with KV as full as it was in the replay.

Arrivals are known in advance in all three. Simulated.
"""

from __future__ import annotations

import argparse
import dataclasses
import math

import numpy as np

from bench.macro.policies import BURST_UTILISATION, CONFIGS, FLEET, OWN, utilisation
from zeta._core import StepTable
from zeta.config import default_fleet
from zeta.engine_tables import serving_constants, step_table
from zeta.scheduler import resolve
from zeta.sim.measures import RequestTimes, backlog_absorbed_s
from zeta.sim.replay import play
from zeta.sim.workload import Burst, FloatArray, Rules, Workload, build_workload
from zeta.traces import Trace

__all__ = ["main"]

STARTS_S = (600.0, 900.0, 1200.0, 1500.0, 1800.0, 2100.0, 2400.0, 2700.0)
SECONDS = 45.0
LARGE = 2
PIECE = 2048  # tokens of prefill in a step, as the simulated engines take them
SLOWEST_STEPS_PER_S = 10.0  # the TPOT SLO is 100 ms
BESIDE = (20, 20_000)  # sequences and context of the 8B, as in the replays
GRID_S = 0.25


@dataclasses.dataclass(frozen=True, slots=True)
class Assumed:
    """What a bound takes for granted.

    Attributes
    ----------
    kv_part : float
        Of the KV, in use by decoding sequences at each step.
    left_to_do : float
        Of the decoding of what is in flight at the end.
    is_least : bool
        Hindsight about what is in flight, and the 8B at its slowest.
    """

    kv_part: float
    left_to_do: float
    is_least: bool


def table_of(index: int) -> StepTable:
    fleet = default_fleet()
    kind, model = fleet.devices[0].kind, fleet.models[index]
    assert kind is not None  # the default fleet names it
    name = model.engine_model or model.name
    return step_table(kind, name, model.tp, serving_constants(kind, name, model.tp))


def prefill_s(table: StepTable, tokens: int, batch: int, context: int) -> float:
    """What a prompt adds to steps that decode `batch` sequences."""
    pieces = [(min(PIECE, tokens - done), done) for done in range(0, tokens, PIECE)]
    alone = table.step_time_ns(0, 0, batch, context)
    return sum(table.step_time_ns(piece, done, batch, context) - alone for piece, done in pieces) * 1e-9


def absorbed_s(work: Workload, start_s: float, kv_tokens: int, assumed: Assumed) -> float:
    """From the end of the burst to the first T by which the device could have done what it had to."""
    arrival_s, prompt, output = work.arrival_ns * 1e-9, work.prompt_tokens, work.output_tokens
    large, small = table_of(LARGE), table_of(1)
    kv = assumed.kv_part * kv_tokens
    mine = np.flatnonzero((work.required_model == LARGE) & (arrival_s >= start_s))
    mine = mine[arrival_s[mine] <= start_s + 400.0]
    context = prompt[mine] + 0.5 * output[mine]
    batch = round(kv / float(context.mean()))
    beside_s = small.step_time_ns(0, 0, *BESIDE) * 1e-9
    step_s = large.step_time_ns(0, 0, batch, round(kv)) * 1e-9 + (0.0 if assumed.is_least else beside_s)
    decode_s: FloatArray = output[mine] * context / kv * step_s
    prefills_s = np.array([prefill_s(large, int(tokens), batch, round(kv)) for tokens in prompt[mine]])
    others = np.flatnonzero((work.required_model < LARGE) & (arrival_s >= start_s))
    due_s = work.deadline_ns[others] * 1e-9 - start_s
    others, due_s = others[due_s <= 400.0], due_s[due_s <= 400.0]
    others_s = np.array([prefill_s(small, int(tokens), *BESIDE) for tokens in prompt[others]])
    since_s = arrival_s[mine] - start_s

    def needed_s(at_s: float) -> float:
        here = np.flatnonzero(since_s <= at_s)
        order = np.argsort(-decode_s[here] / prompt[mine][here]) if assumed.is_least else np.arange(len(here))[::-1]
        held = np.cumsum((prompt[mine] if assumed.is_least else context)[here][order])
        window = default_fleet().models[LARGE].replicas[0].max_in_flight
        in_flight = here[order[: min(window, int(np.searchsorted(held, kv)) + 1)]]
        total = prefills_s[here].sum() + decode_s[here].sum() - assumed.left_to_do * decode_s[in_flight].sum()
        total += others_s[due_s <= at_s].sum()
        return float(total) + (beside_s * SLOWEST_STEPS_PER_S * at_s if assumed.is_least else 0.0)

    for at_s in np.arange(SECONDS, 400.0, GRID_S):
        if needed_s(float(at_s)) <= at_s:
            return float(at_s) - SECONDS
    return math.inf


def kv_part_used(times: RequestTimes, from_s: float, to_s: float, kv_tokens: int) -> float:
    """Mean context of what decodes on the large model, relative to its KV."""
    work = times.workload
    on = (times.model == LARGE) & (times.last_token_ns > 0)
    first_s, last_s = times.first_token_ns[on] * 1e-9, times.last_token_ns[on] * 1e-9
    at_s = np.arange(from_s, to_s, GRID_S)[:, None]
    done = np.clip((at_s - first_s) / np.maximum(last_s - first_s, 1e-9), 0.0, 1.0)
    decodes = (at_s >= first_s) & (at_s < last_s)
    context = (work.prompt_tokens[on] + done * work.output_tokens[on]) * decodes
    return float(context.sum(axis=1).mean()) / kv_tokens


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.macro.burst_bound", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2, 3, 4), metavar="N")
    parser.add_argument("--starts", type=float, nargs="+", default=STARTS_S, metavar="S")
    options = parser.parse_args()
    rows, fleet = Trace.embedded().read(), default_fleet()
    kv_tokens = resolve(fleet)[0].models[LARGE].replicas[0].kv_tokens
    assert kv_tokens is not None  # resolved
    load = BURST_UTILISATION / utilisation(build_workload(rows, fleet, Rules(), options.seeds[0]))
    print("| burst starts | absorbed s (worst) | KV in use | least s | fluid s | as full s |")
    print("|---:|---:|---:|---:|---:|---:|")
    for start_s in options.starts:
        burst = Burst("large", 4.0, start_s, SECONDS)
        found = []
        for seed in options.seeds:
            work = build_workload(rows, fleet, Rules(load=load, bursts=(burst,)), seed)
            times = play(work, CONFIGS[OWN], FLEET).times
            measured = backlog_absorbed_s(times, burst, LARGE)
            absorbed = math.inf if measured is None else measured
            end_s = start_s + SECONDS + min(absorbed, 400.0)
            part = kv_part_used(times, start_s + 10.0, end_s, kv_tokens)
            bounds = [
                absorbed_s(work, start_s, kv_tokens, assumed)
                for assumed in (Assumed(1.0, 1.0, True), Assumed(1.0, 0.5, False), Assumed(part, 0.5, False))
            ]
            found.append([absorbed, part, *bounds])
        mean = np.mean(found, axis=0)
        print(
            f"| {start_s:g} | {mean[0]:.1f} ({max(row[0] for row in found):.1f}) | {mean[1]:.2f} | "
            + " | ".join(f"{value:.1f}" for value in mean[2:])
            + " |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
