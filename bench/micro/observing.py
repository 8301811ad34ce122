"""What it costs to be watched: recording a request, a scrape, a look at the router, a state document.

``python -m bench.micro.observing`` runs all; ``--json OUT`` keeps the figures. The gateway is real, with three models
of eleven replicas whose servers do not exist; the requests that it has seen are made up, and so are the readings.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from bench import machine
from bench.harness import WrongAnswer

from zeta.clock import VirtualClock
from zeta.config import Config, Device, Model, Replica, Serve
from zeta.gateway import Gateway
from zeta.gateway._metrics import GatewayCollector, exposition
from zeta.gateway._observed import Observed
from zeta.gateway._state import HISTORY_S, State
from zeta.monitor import DEVICE_FIELDS, HOST_FIELDS, REPLICA_FIELDS, Board, Kind, Reading, Snapshot

MODELS, REPLICAS = ("small", "mid", "large"), 11
SEEN = 5000


class _Readings:
    """Of one GPU, the host and every replica, none of them real."""

    def __init__(self, replicas: list[str]) -> None:
        self._board = Board(8, 64)
        for kind, keys, fields in (
            (Kind.DEVICE, ["GPU-0"], DEVICE_FIELDS),
            (Kind.HOST, ["host"], HOST_FIELDS),
            (Kind.REPLICA, replicas, REPLICA_FIELDS[:12]),
        ):
            rows = {key: {field.name: 0.5 for field in fields} for key in keys}
            self._board.publish("bench", kind, Reading(rows), time.monotonic_ns(), 10**15)

    def snapshot(self) -> Snapshot:
        return self._board.snapshot(time.monotonic_ns())


def _config() -> Config:
    return Config(
        models=tuple(
            Model(
                name,
                0.5 + 0.1 * number,
                "gpu0",
                tuple(Replica(f"{name}-{i}", "http://127.0.0.1:9/v1", kv_tokens=100_000) for i in range(REPLICAS)),
            )
            for number, name in enumerate(MODELS)
        ),
        devices=(Device("gpu0"),),
        serve=Serve(port=0),
    )


def _see(observed: Observed) -> None:
    for number in range(SEEN):
        model = MODELS[number % 3]
        observed.placed(model, number % 4, 1.0 + number % 900, 8.0, "earliest_deadline")
        observed.first_token(model, 100.0 + number % 900)
        observed.ended(model, "acme", "completed", 100.0, 20.0 + number % 30, 2000.0, 100, number % 9 != 0)


def recording(rounds: int = 7, calls: int = 100_000) -> dict[str, float]:
    """Nanoseconds a call, folding included; the best round."""
    observed = Observed(MODELS)
    work: dict[str, Callable[[], None]] = {
        "placed": lambda: observed.placed("small", 1, 12.5, 8.0, "earliest_deadline"),
        "first_token": lambda: observed.first_token("small", 12.5),
        "ended": lambda: observed.ended("small", "acme", "completed", 12.5, 30.0, 4000.0, 200, True),
        "refused": lambda: observed.refused(429, "queue_full"),
        "nothing": lambda: None,
    }
    best = dict.fromkeys(work, float("inf"))
    for _ in range(rounds):
        for name, call in work.items():
            from_ns = time.perf_counter_ns()
            for _ in range(calls):
                call()
            best[name] = min(best[name], (time.perf_counter_ns() - from_ns) / calls)
    if observed.ttft.count(observed.row("small")) > rounds * calls or observed.slo("small")[0] != rounds * calls:
        raise WrongAnswer(f"{rounds * calls} ends were recorded, {observed.slo('small')[0]} counted")
    nothing = best.pop("nothing")
    return {f"{name}_ns": each - nothing for name, each in best.items()}


async def looking(rounds: int = 15) -> dict[str, float]:
    """A scrape, a look at the router and documents, in milliseconds of the event loop; the best round."""
    gateway = Gateway(_config())
    await gateway.start()
    try:
        _see(gateway.observed)
        gateway.monitor = _Readings(list(gateway.servers))  # type: ignore[assignment]
        clock = VirtualClock()
        state, collector = State(gateway, clock), GatewayCollector(gateway)
        for _ in range(HISTORY_S):
            clock.advance(1_000_000_000)
            state.sample()
        found = {
            "sample_ms": _best(state.sample, rounds),
            "state_ms": _best(lambda: msgspec.json.encode(state.document(is_admin=True)), rounds),
            "history_ms": _best(lambda: msgspec.json.encode(state.document(is_admin=True, since_s=0)), rounds),
            "state_bytes": len(msgspec.json.encode(state.document(is_admin=True))),
            "history_bytes": len(msgspec.json.encode(state.document(is_admin=True, since_s=0))),
        }
        body = b""
        whole, longest = float("inf"), float("inf")
        for _ in range(rounds):
            pieces: list[int] = []
            beside = asyncio.create_task(_turns(pieces))
            await asyncio.sleep(0)
            from_ns = time.perf_counter_ns()
            body, _ = await exposition(collector, None)
            whole = min(whole, (time.perf_counter_ns() - from_ns) / 1e6)
            beside.cancel()
            longest = min(longest, max(b - a for a, b in itertools.pairwise(pieces)) / 1e6)
        if body.count(b"zeta_replica_healthy{") != len(MODELS) * REPLICAS:
            raise WrongAnswer("the exposition does not tell of every replica")
        return found | {"scrape_ms": whole, "scrape_longest_hold_ms": longest, "scrape_lines": body.count(b"\n")}
    finally:
        await gateway.stop(0)


async def _turns(at_ns: list[int]) -> None:
    while True:
        at_ns.append(time.perf_counter_ns())
        await asyncio.sleep(0)


def _best(work: Callable[[], Any], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        from_ns = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - from_ns)
    return min(times) / 1e6


def main() -> int:
    """Prints the figures, and keeps them where ``--json`` says."""
    parser = argparse.ArgumentParser(prog="python -m bench.micro.observing", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args()
    logging.getLogger("zeta.gateway").setLevel(logging.ERROR)  # that no server is there is known
    found = {
        "machine": machine.describe(),
        "replicas": len(MODELS) * REPLICAS,
        "recording": recording(),
        "looking": asyncio.run(looking()),
    }
    for part in ("recording", "looking"):
        for name, value in found[part].items():
            print(f"{name:<24} {value:12.2f}")
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
