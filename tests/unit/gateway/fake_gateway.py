"""A gateway without sockets: a real router under a load that is made up, and all that the control application asks.

Nothing here is measured: times of first tokens and answers are drawn from a seed.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections import deque
from typing import Any

from zeta.clock import Clock, SteadyClock
from zeta.config import Config, Device, Key, Model, Replica, Scheduler, Serve, Tenant
from zeta.gateway._keys import Keys
from zeta.gateway._observed import Observed
from zeta.monitor import Board, Kind, Reading, Snapshot
from zeta.scheduler import Router

ADMIN, CLIENT = "sk-admin-canary-7d1f", "sk-client-canary-93ab"
MODELS = ("qwen-7b", "llama-8b", "qwen-14b")


@dataclasses.dataclass(frozen=True)
class ReplicaStatus:
    name: str
    model: str
    url: str
    is_healthy: bool
    is_ejected: bool
    is_draining: bool
    in_flight: int
    failures: int
    last_error: str | None
    since_s: float


@dataclasses.dataclass(frozen=True)
class WaitingStatus:
    request_id: str
    ticket: int
    model: str | None
    position: int
    eta_ms: float | None
    waited_ms: float


@dataclasses.dataclass(frozen=True)
class Catalogue:
    names: tuple[str, ...]


class FakeMonitor:
    """Readings as they were published last."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.board = Board(8, 64)

    def publish(self, kind: Kind, rows: dict[str, dict[str, float | None]], **details: dict[str, Any]) -> None:
        now_ns = self._clock.now_ns()
        self.board.publish("fake", kind, Reading(rows, details=details), now_ns, now_ns + 3_000_000_000)

    def snapshot(self) -> Snapshot:
        return self.board.snapshot(self._clock.now_ns())


class FakeGateway:
    """As a gateway is shown: `step` lets some requests arrive and others end."""

    def __init__(
        self,
        *,
        replicas: int = 1,
        has_keys: bool = False,
        host: str = "127.0.0.1",
        open_metrics: bool = True,
        clock: Clock | None = None,
        max_in_flight: int = 8,
        seed: int = 1,
    ) -> None:
        keys = (Key("ops", env="ADMIN", is_admin=True), Key("acme", env="CLIENT")) if has_keys else ()
        self.config = Config(
            scheduler=Scheduler(max_queued=500),
            models=tuple(
                Model(
                    name,
                    0.5 + 0.1 * number,
                    "gpu0",
                    tuple(
                        Replica(
                            f"{name}-{i}", f"http://10.0.0.{i}:80/v1", max_in_flight=max_in_flight, kv_tokens=400_000
                        )
                        for i in range(replicas)
                    ),
                    engine_model="qwen2.5-7b",
                    aliases=(f"alias-{number}",),
                )
                for number, name in enumerate(MODELS)
            ),
            devices=(Device("gpu0", kind="h200-sxm-141gb"),),
            tenants=(Tenant("acme"), Tenant("ops")),
            serve=Serve(host=host, keys=keys, open_metrics=open_metrics),
        )
        self.clock = SteadyClock() if clock is None else clock
        self.router = Router.from_config(self.config, clock=clock, background=clock is None)
        self.keys = Keys(keys, {"ADMIN": ADMIN, "CLIENT": CLIENT})
        self.catalogue = Catalogue(("zeta/auto", *MODELS))
        self.observed = Observed(MODELS)
        self.is_draining = False
        self.monitor: FakeMonitor | None = FakeMonitor(self.clock)
        self.down: dict[str, str] = {}
        self._rng = random.Random(seed)
        self._running: deque[tuple[Any, int]] = deque()
        self._decisions: deque[tuple[float, int]] = deque(maxlen=256)
        self._waiting: dict[int, str] = {}
        self.read()

    def read(self) -> None:
        """Publishes readings."""
        if self.monitor is None:
            return
        draw = self._rng.random
        self.monitor.publish(
            Kind.DEVICE,
            {
                "GPU-0a1b": {
                    "utilisation": 0.5 + 0.5 * draw(),
                    "memory_used_bytes": 100e9 + 1e9 * draw(),
                    "memory_total_bytes": 141e9,
                    "power_w": 400 + 200 * draw(),
                    "energy_j": 1e6,
                    "sm_clock_mhz": 1980.0,
                    "temperature_c": 50 + 10 * draw(),
                    "throttle_reasons": 0.0,
                }
            },
            **{"GPU-0a1b": {"name": "NVIDIA H200 (made up)"}},
        )
        self.monitor.publish(Kind.HOST, {"host": {"cpu_utilisation": draw(), "load_1m": 2.0, "memory_used_bytes": 8e9}})
        self.monitor.publish(
            Kind.REPLICA,
            {
                replica.name: {
                    "running": 3.0,
                    "waiting": 0.0,
                    "kv_used": draw(),
                    "ttft_sum_s": 12.0,
                    "ttft_count": 80.0,
                }
                for model in self.config.models
                for replica in model.replicas
            },
        )

    def submit(self, tenant: str = "acme", **more: Any) -> int:
        """One request; its text is a canary."""
        began = time.perf_counter()
        ticket = self.router.submit(
            prompt=f"canary-prompt {self._rng.random()}",
            max_tokens=64,
            tenant=tenant,
            **{"priority": self._rng.randrange(4), "complexity": self._rng.random(), "deadline_ms": 2000.0, **more},
        )
        self._decision_us = (time.perf_counter() - began) * 1e6
        if self.router.outcome(ticket).is_final:
            self.observed.ended(None, tenant, self.router.outcome(ticket), None, None, 0.2, None, False)
        else:
            self._waiting[ticket] = tenant
        return ticket

    def step(self, arrivals: int = 20, endings: int = 16) -> None:
        """Some arrive, some are placed, some end."""
        rng = self._rng
        for _ in range(arrivals):
            self.submit(rng.choice(("acme", "ops")))
        for lease in self.router.poll():
            self._waiting.pop(lease.ticket, None)
            why = self.router.explain(lease.ticket)
            priority, reason = (1, None) if why is None else (why["priority"], why["reason"])
            self.observed.placed(lease.model, priority, lease.queued_ms, self._decision_us, reason)
            self._decisions.append((time.time(), lease.ticket))
            self._running.append((lease, priority))
        rng.shuffle(self._running)
        for _ in range(min(endings, len(self._running))):
            lease, _ = self._running.popleft()
            ttft_ms, tpot_ms = rng.lognormvariate(6.0, 0.7), rng.lognormvariate(3.2, 0.3)
            self.router.first_token(lease)
            self.observed.first_token(lease.model, ttft_ms)
            self.router.complete(lease, output_tokens=40)
            took_ms = ttft_ms + 39 * tpot_ms
            self.observed.ended(lease.model, "acme", "completed", ttft_ms, tpot_ms, took_ms, 40, ttft_ms < 1500.0)

    # --- what the control application asks

    def replicas(self) -> list[ReplicaStatus]:
        stats = self.router.stats()["replicas"]
        return [
            ReplicaStatus(
                replica.name,
                model.name,
                replica.url or "",
                replica.name not in self.down,
                False,
                stats[replica.name]["is_draining"],
                stats[replica.name]["in_flight"],
                3 if replica.name in self.down else 0,
                self.down.get(replica.name),
                12.5,
            )
            for model in self.router.config.models
            for replica in model.replicas
        ]

    def waiting_of(self, tenant: str) -> list[WaitingStatus]:
        found = []
        for ticket, whose in self._waiting.items():
            eta = self.router._eta_ms(ticket)
            if whose == tenant and eta is not None:
                found.append(WaitingStatus(f"req-{ticket}", ticket, None, len(found) + 1, eta[0], 5.0))
        return found

    def recent_decisions(self, n: int) -> list[dict[str, Any]]:
        found = []
        for at_s, ticket in list(reversed(self._decisions))[:n]:
            if (why := self.router.explain(ticket)) is not None:
                found.append({"time_s": at_s, "request_id": f"req-{ticket}", "prompt": "canary-prompt", **why})
        return found

    def add_replica(self, model: str, replica: Replica) -> None:
        self.router.add_replica(model, replica.name, replica.url, replica.engine, replica.max_in_flight)

    def drain_replica(self, name: str) -> None:
        self.router.drain_replica(name)

    def resume_replica(self, name: str) -> None:
        self.router.resume_replica(name)

    def remove_replica(self, name: str) -> None:
        self.router.remove_replica(name)

    def close(self) -> None:
        self.router.close()
