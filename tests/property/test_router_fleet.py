"""Random runs of routers with many models, shared devices, holds and scarce KV, beside what must hold of any router."""

from __future__ import annotations

import random

import pytest

import zeta
from zeta.clock import VirtualClock
from zeta.config import Scheduler
from zeta.testing import check_invariants

MS = 1_000_000


class Fleet:
    """A router of a random fleet, with what a caller knows of each request."""

    def __init__(self, seed: int, *, models: int, kv_tokens: int, **settings: object) -> None:
        self.chance = chance = random.Random(seed)
        self.clock = VirtualClock(1000 * MS)
        self.kv_tokens = kv_tokens
        self.names = [f"m{i}-{size}b" for i, size in enumerate(chance.choices([1, 7, 14, 32], k=models))]
        self.joined = 0
        devices = [zeta.Device("gpu0"), zeta.Device("gpu1", colocation="exclusive"), zeta.Device("gpu2")]
        fleet = [
            zeta.Model(
                name,
                chance.uniform(0.1, 0.9),
                device=chance.choice(["gpu0", "gpu0", "gpu1", "gpu2", None]),
                replicas=[self.new_replica() for _ in range(chance.randint(1, 2))],  # type: ignore[arg-type]
            )
            for name in self.names
        ]
        used = {model.device for model in fleet}
        self.router = zeta.Router(
            fleet,
            [device for device in devices if device.name in used],
            [zeta.Tenant("t1", 3.0)],
            Scheduler(max_queued=60, max_running=400, max_replicas=20, **settings),  # type: ignore[arg-type]
            clock=self.clock,
        )
        self.allowed: dict[int, set[str]] = {}
        self.handed_out: dict[int, int] = {}  # ticket to requeues when it was handed out
        self.requeues: dict[int, int] = {}
        self.final: dict[int, zeta.Outcome] = {}

    def new_replica(self) -> zeta.Replica:
        self.joined += 1
        window, tokens = self.chance.randint(1, 6), self.chance.randint(self.kv_tokens // 4, self.kv_tokens)
        return zeta.Replica(f"r{self.joined}", max_in_flight=window, kv_tokens=tokens)

    def maybe(self, value: float, probability: float) -> float | None:
        return value if self.chance.random() < probability else None

    def submit(self) -> None:
        chance = self.chance
        allowed = chance.sample(self.names, chance.randint(1, len(self.names))) if chance.random() < 0.5 else None
        ticket = self.router.submit(
            prompt_tokens=round(10 ** chance.uniform(0.5, 3.8)),
            max_tokens=chance.choice([0, 10, 500]),
            deadline_ms=self.maybe(chance.uniform(0, 6000), 0.7),
            end_deadline_ms=self.maybe(chance.uniform(0, 30_000), 0.2),
            max_wait_ms=self.maybe(chance.uniform(0, 6000), 0.2),
            complexity=self.maybe(chance.random(), 0.6),
            min_quality=chance.choice([0.0, 0.0, 0.3]),
            tenant=chance.choice([None, "t1", "t2", "t3"]),
            priority=chance.choice([0, 1, 1, 1, 2, 3]),
            affinity_key=self.maybe(chance.randrange(5), 0.4),
            models=allowed,
        )
        assert ticket not in self.allowed, "a ticket was given twice"
        self.allowed[ticket] = set(allowed or self.names)

    def poll(self) -> None:
        for lease in self.router.poll(max=self.chance.choice([None, 1, 3])):
            ticket = lease.ticket
            assert lease.model in self.allowed[ticket]
            assert lease.replica in self.router.stats()["replicas"]
            requeues = self.requeues.get(ticket, 0)
            assert self.handed_out.get(ticket, -1) < requeues, "one turn was handed out twice"
            self.handed_out[ticket] = requeues

    def any_ticket(self) -> int:
        return self.chance.choice([*self.handed_out, *list(self.allowed)[-50:]]) if self.allowed else 77

    def first_token(self) -> None:
        self.router.first_token(self.any_ticket())

    def complete(self) -> None:
        ticket = self.any_ticket()
        if self.router.complete(ticket, self.chance.randint(1, 700)):
            assert ticket in self.handed_out
            assert self.router.outcome(ticket) is zeta.Outcome.COMPLETED

    def fail(self) -> None:
        ticket = self.any_ticket()
        if self.router.fail(ticket, requeue=self.chance.random() < 0.7):
            assert ticket in self.handed_out
            self.requeues[ticket] = self.requeues.get(ticket, 0) + 1

    def cancel(self) -> None:
        ticket = self.any_ticket()
        if self.router.cancel(ticket):
            assert self.router.outcome(ticket) in (zeta.Outcome.CANCELLED, zeta.Outcome.CANCELLED_RUNNING)

    def wait(self) -> None:
        self.clock.advance(round(self.chance.choice([1, 100, 1500]) * self.chance.random() * MS))

    def advance(self) -> None:
        self.router.advance()
        due = self.router.next_timer_ns()
        assert due is None or due > self.clock.now_ns()

    def tick(self) -> None:
        self.router.tick()

    def add_replica(self) -> None:
        if len(self.router.stats()["replicas"]) < 20:
            new = self.new_replica()
            self.router.add_replica(
                self.chance.choice(self.names), new.name, max_in_flight=new.max_in_flight, kv_tokens=new.kv_tokens
            )

    def drain_replica(self) -> None:
        if names := [name for name in self.router.replica_names if name]:
            self.router.drain_replica(self.chance.choice(names))

    def resume_replica(self) -> None:
        if names := [name for name in self.router.replica_names if name]:
            self.router.resume_replica(self.chance.choice(names))

    def remove_replica(self) -> None:
        if names := [name for name in self.router.replica_names if name]:
            self.router.remove_replica(self.chance.choice(names))
            for ticket in self.handed_out:
                self.requeues[ticket] = self.requeues.get(ticket, 0) + 1  # those that ran there may come again

    def set_external_load(self) -> None:
        if names := [name for name in self.router.replica_names if name]:
            requests = self.chance.choice([None, 0, 1, 3, 99])
            self.router.set_external_load(self.chance.choice(names), requests, self.chance.randint(0, self.kv_tokens))

    def check(self) -> None:
        check_invariants(self.router)
        for ticket in self.allowed:
            outcome = self.router.outcome(ticket)
            assert self.final.get(ticket, outcome) is outcome, "a final outcome changed"
            if outcome.is_final:
                self.final[ticket] = outcome
        for ticket in self.final:
            self.allowed.pop(ticket, None)
            self.handed_out.pop(ticket, None)

    def drain(self) -> None:
        """Everything that can be served is, once time passes and answers come."""
        for _ in range(400):
            self.poll()
            for ticket in list(self.handed_out):
                self.router.complete(ticket, 5)
            self.clock.advance(500 * MS)
            self.advance()
            self.tick()
            self.check()
        served = {row["model"] for row in self.router.stats()["replicas"].values() if not row["is_draining"]}
        left = {ticket: self.router.explain(ticket) for ticket in self.allowed}
        stuck = {t: told for t, told in left.items() if told is None or served & set(told["could_use"])}
        assert stuck == {}, "left waiting although a replica serves them"


WEIGHTS = {
    Fleet.submit: 9,
    Fleet.poll: 8,
    Fleet.first_token: 6,
    Fleet.complete: 9,
    Fleet.fail: 0.5,
    Fleet.cancel: 0.5,
    Fleet.wait: 6,
    Fleet.advance: 2,
    Fleet.tick: 1,
    Fleet.add_replica: 0.3,
    Fleet.drain_replica: 0.07,
    Fleet.resume_replica: 0.07,
    Fleet.remove_replica: 0.15,
    Fleet.set_external_load: 0.6,
}
SHAPES: dict[str, dict[str, object]] = {
    "three models": {"models": 3, "kv_tokens": 1 << 20},
    "scarce KV": {"models": 3, "kv_tokens": 9000},
    "one model, scarce KV": {"models": 1, "kv_tokens": 9000},
    "more sets than queues": {"models": 7, "kv_tokens": 1 << 20},
    "more sets than queues, scarce KV": {"models": 7, "kv_tokens": 12_000},
    "short promise": {"models": 2, "kv_tokens": 9000, "promise_ms": 300.0},
    "reject": {"models": 3, "kv_tokens": 1 << 20, "admission": "reject"},
    "downgrade": {"models": 3, "kv_tokens": 1 << 20, "admission": "downgrade"},
    "fifo": {"models": 3, "kv_tokens": 20_000, "order": "fifo"},
}


def run(shape: str, seed: int, steps: int) -> None:
    fleet = Fleet(seed, **SHAPES[shape])  # type: ignore[arg-type]
    rules, weights = list(WEIGHTS), list(WEIGHTS.values())
    for step in range(steps):
        (rule,) = fleet.chance.choices(rules, weights)
        try:
            rule(fleet)
            if step % 5 == 0:
                fleet.check()
        except AssertionError as error:
            raise AssertionError(f"shape {shape}, seed {seed}, step {step}: {rule.__name__}: {error}") from error
    fleet.drain()
    fleet.router.close()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_to_a_fleet_its_invariants_hold(shape: str, seed: int) -> None:
    run(shape, seed, 600)


@pytest.mark.nightly
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(100, 150))
def test_whatever_happens_for_long_its_invariants_hold(shape: str, seed: int) -> None:
    run(shape, seed, 2500)
