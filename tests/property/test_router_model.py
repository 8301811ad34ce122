"""Random runs of the router beside a plain-Python model of its rules, and of shared fleets beside their invariants."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.property.router_model import NEVER, Replica, Request, RouterModel

import zeta
from zeta.clock import VirtualClock
from zeta.config import Config, Scheduler
from zeta.engine_tables import ServiceModel
from zeta.testing import check_invariants

SERVICE = ServiceModel(0.005, 2e-5, 1e-9, 0.02, 1e-4, 1e-7)
MS = 1_000_000
quick = settings(max_examples=60, stateful_step_count=90, deadline=None, suppress_health_check=list(HealthCheck))


class Beside:
    """A router of one model and the model of it, told the same."""

    def __init__(
        self,
        promise_ms: int,
        tenants: int,
        quantum_ms: int,
        max_queued: int,
        replicas: list[tuple[int, int]],
        slowness: float = 1.0,
    ) -> None:
        self.clock = VirtualClock(1000 * MS)
        self.tenants = tenants
        scheduler = Scheduler(
            promise_ms=promise_ms,
            tenant_quantum_ms=quantum_ms,
            max_queued=max_queued,
            max_running=500,
            max_replicas=8,
            learns_service=False,  # the model keeps to the prior
        )
        fleet = tuple(
            zeta.Replica(f"r{i}", max_in_flight=window, max_batch=batch) for i, (window, batch) in enumerate(replicas)
        )
        config = Config(scheduler=scheduler, models=(zeta.Model("m", 0.5, replicas=fleet),))
        values = tuple(slowness * getattr(SERVICE, name) for name in SERVICE.__slots__)[:6]
        service = ServiceModel(*values)
        with priced_at(service):
            self.router = zeta.Router.from_config(config, clock=self.clock)
        self.model = RouterModel(scheduler, service)
        self.model.replicas = [Replica(r.name, r.max_in_flight, r.max_batch, r.max_in_flight) for r in fleet]
        self.joined = len(replicas)
        self.live: list[Request] = []  # worth asking about, the ended ones among them

    @property
    def now(self) -> int:
        return self.clock.now_ns()

    def submit(
        self, prompt: int, output: int, deadline_ms: int, end_ms: int, wait_ms: int, band: int, tenant: int
    ) -> None:
        tenant %= self.tenants
        ticket = self.router.submit(
            prompt_tokens=prompt,
            max_tokens=output,
            deadline_ms=deadline_ms or None,
            end_deadline_ms=end_ms or None,
            max_wait_ms=wait_ms or None,
            priority=band,
            tenant=f"t{tenant}" if tenant else None,
        )

        def at(ms: int) -> int:
            return self.now + ms * MS if ms else NEVER

        request = Request(ticket, self.now, prompt, output, at(deadline_ms), at(end_ms), at(wait_ms), band, tenant)
        self.model.submit(request, self.now)
        self.model.settle(self.now)
        self.live.append(request)

    def pick(self, which: int) -> Request:
        nobody = Request(12345, 0, 0, 0, 0, 0, 0, 0, 0, "unknown")
        return self.live[which % len(self.live)] if self.live else nobody

    def poll(self, most: int) -> None:
        expected = [(r.ticket, r.replica.name, (r.placed_at - r.arrival) * 1e-6) for r in self.model.poll(most)]
        assert [(lease.ticket, lease.replica, lease.queued_ms) for lease in self.router.poll(max=most)] == expected

    def report(self, told: bool, applies: bool, event: Callable[[], None]) -> None:
        """The router says whether a report was about something that runs; only then does the model hear of it."""
        assert told == applies
        if applies:
            event()
        self.model.settle(self.now)

    def first_token(self, which: int) -> None:
        request = self.pick(which)
        applies = self.model.is_running(request) and not request.is_decoding
        told = self.router.first_token(request.ticket)
        self.report(told, applies, lambda: self.model.first_token(request, self.now))

    def complete(self, which: int, output: int) -> None:
        request = self.pick(which)
        told = self.router.complete(request.ticket, output)
        self.report(told, self.model.is_running(request), lambda: self.model.complete(request, output))

    def fail(self, which: int, requeue: bool) -> None:
        request = self.pick(which)
        told = self.router.fail(request.ticket, requeue=requeue)
        self.report(told, self.model.is_running(request), lambda: self.model.give_back(request, requeue))

    def cancel(self, which: int) -> None:
        request = self.pick(which)
        told = self.router.cancel(request.ticket)
        self.report(told, request.state in ("queued", "placed"), lambda: self.model.cancel(request))

    def wait(self, ms: float) -> None:
        self.clock.advance(round(ms * MS))

    def advance(self) -> None:
        self.router.advance()
        self.model.advance(self.now)
        self.model.settle(self.now)

    def tick(self) -> None:
        self.router.tick()
        self.model.tick(self.now)
        self.model.settle(self.now)

    def add_replica(self, window: int, batch: int) -> None:
        if len(self.model.replicas) == 8:
            return
        name = f"r{self.joined}"
        self.joined += 1
        self.router.add_replica("m", name, max_in_flight=window, max_batch=batch)
        self.model.replicas.append(Replica(name, window, batch, window))
        self.model.settle(self.now)

    def drain_replica(self, which: int) -> None:
        if self.model.replicas:
            replica = self.model.replicas[which % len(self.model.replicas)]
            self.router.drain_replica(replica.name)
            replica.is_draining = True
            self.model.settle(self.now)

    def resume_replica(self, which: int) -> None:
        if self.model.replicas:
            replica = self.model.replicas[which % len(self.model.replicas)]
            self.router.resume_replica(replica.name)
            replica.is_draining = False
            self.model.settle(self.now)

    def remove_replica(self, which: int) -> None:
        if self.model.replicas:
            replica = self.model.replicas[which % len(self.model.replicas)]
            self.router.remove_replica(replica.name)
            self.model.remove_replica(replica)
            self.model.settle(self.now)

    def compare(self) -> None:
        stats = self.router.stats()
        waiting, running = self.model.waiting(), sum(len(replica.held) for replica in self.model.replicas)
        assert (stats["waiting"], stats["running"]) == (len(waiting), running)
        due = min((request.expires for request in waiting), default=NEVER)
        assert self.router.next_timer_ns() == (None if due == NEVER else due)
        check_invariants(self.router)
        for request in self.live:
            assert self.router.outcome(request.ticket) == request.state
        self.live = [request for request in self.live if request.state in ("queued", "placed")]


@contextlib.contextmanager
def priced_at(service: ServiceModel):  # type: ignore[no-untyped-def]
    """Routers built inside take this for every model's prior."""
    from zeta.scheduler import _native_config

    before = _native_config.service_prior
    _native_config.service_prior = lambda *_: service  # type: ignore[assignment]
    try:
        yield
    finally:
        _native_config.service_prior = before


# Ranges of every argument; hypothesis and the seeded runs draw from the same.
WHICH = (0, 1 << 16)
RULES: dict[str, list[tuple[int, int]]] = {
    "submit": [(1, 4000), (0, 600), (0, 4000), (0, 9000), (0, 3000), (0, 3), (0, 5)],
    "poll": [(0, 5)],
    "first_token": [WHICH],
    "complete": [WHICH, (1, 900)],
    "fail": [WHICH, (0, 1)],
    "cancel": [WHICH],
    "wait": [(0, 900)],
    "advance": [],
    "tick": [],
    "add_replica": [(1, 6), (1, 8)],
    "drain_replica": [WHICH],
    "resume_replica": [WHICH],
    "remove_replica": [WHICH],
}
WEIGHTS = {
    "submit": 9,
    "poll": 8,
    "first_token": 5,
    "complete": 9,
    "fail": 0.7,
    "cancel": 0.7,
    "wait": 6,
    "advance": 2,
    "tick": 0.5,
    "add_replica": 0.4,
    "drain_replica": 0.1,
    "resume_replica": 0.1,
    "remove_replica": 0.2,
}


def drive(beside: Beside, seed: int, steps: int) -> None:
    """The rules in a seeded random order; a failure names the seed and the step."""
    chance = random.Random(seed)
    names = list(RULES)
    weights = [WEIGHTS[name] for name in names]
    for step in range(steps):
        (name,) = chance.choices(names, weights)
        arguments = [chance.randint(low, high) for low, high in RULES[name]]
        if name == "submit":  # most have no end deadline and no longest wait
            arguments[3] *= chance.random() < 0.2
            arguments[4] *= chance.random() < 0.2
            arguments[2] *= chance.random() < 0.8
        try:
            getattr(beside, name)(*arguments)
            if step % 7 == 0:
                beside.compare()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, step {step}: {name}{tuple(arguments)}") from error


class Machine(RuleBasedStateMachine):
    @initialize(
        promise_ms=st.sampled_from([1, 500, 3000, 20_000]),
        tenants=st.sampled_from([1, 1, 3, 6]),
        quantum_ms=st.sampled_from([10, 250]),
        max_queued=st.sampled_from([4, 25]),
        replicas=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 8)), min_size=0, max_size=3),
        slowness=st.sampled_from([1.0, 40.0]),
    )
    def build(
        self,
        promise_ms: int,
        tenants: int,
        quantum_ms: int,
        max_queued: int,
        replicas: list[tuple[int, int]],
        slowness: float,
    ) -> None:
        self.beside = Beside(promise_ms, tenants, quantum_ms, max_queued, replicas, slowness)

    @invariant()
    def is_as_the_model_says(self) -> None:
        if hasattr(self, "beside"):
            self.beside.compare()

    def teardown(self) -> None:
        if hasattr(self, "beside"):
            self.beside.router.close()


def _add_rules() -> None:
    def make(name: str, ranges: list[tuple[int, int]]) -> Callable[..., None]:
        def step(self: Machine, arguments: tuple[int, ...]) -> None:
            getattr(self.beside, name)(*arguments)

        step.__name__ = name
        return rule(arguments=st.tuples(*(st.integers(low, high) for low, high in ranges)))(step)

    for name, ranges in RULES.items():
        setattr(Machine, name, make(name, ranges))


_add_rules()
TestRouterBesideItsModel = Machine.TestCase
TestRouterBesideItsModel.settings = quick


def build(seed: int) -> Beside:
    chance = random.Random(~seed)
    replicas = [(chance.randint(1, 6), chance.randint(1, 8)) for _ in range(chance.randint(1, 4))]
    promise_ms, tenants = chance.choice([500, 3000, 20_000]), chance.choice([1, 1, 3, 6])
    max_queued, slowness = chance.choice([5, 30, 30]), chance.choice([1.0, 1.0, 40.0])
    return Beside(promise_ms, tenants, chance.choice([10, 250]), max_queued, replicas, slowness)


@pytest.mark.parametrize("seed", range(40))
def test_random_steps_leave_the_router_as_its_model(seed: int) -> None:
    drive(build(seed), seed, 2500)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(100, 300))
def test_a_million_random_steps_leave_the_router_as_its_model(seed: int) -> None:
    drive(build(seed), seed, 5000)
