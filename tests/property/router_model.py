"""The rules of docs/scheduling.md for one model that shares its device with nobody, in plain Python.

It answers what the router must answer, bit for bit: whose turn is next, on which replica, and what became of whom. Tell
it an event, then `settle`. Times are integer nanoseconds; floats appear where they do in the core, in the same order.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict, deque

from zeta.config import Scheduler
from zeta.engine_tables import ServiceModel

NEVER = (1 << 63) - 1
MS = 1_000_000
MOST_CREDIT = 4.0
CONGESTED_NS = 2000 * MS
TPOT_SLO_NS = 100 * MS


def nanoseconds(seconds: float) -> int:
    return math.trunc(seconds * 1e9 + (-0.5 if seconds < 0 else 0.5))


@dataclasses.dataclass(eq=False)
class Request:
    ticket: int
    arrival: int
    prompt: int
    max_tokens: int
    deadline: int
    end_deadline: int
    expires: int
    band: int
    tenant: int
    state: str = "queued"  # then placed, at last how it ended
    is_decoding: bool = False
    is_rekeyed: bool = False
    requeues: int = 0
    key: int = 0  # latest start
    output: int = 0
    prefill: int = 0
    work: int = 0
    placed_at: int = 0
    replica: Replica = dataclasses.field(init=False)


@dataclasses.dataclass(eq=False)
class Replica:
    name: str
    upper: int
    max_batch: int
    limit: int
    is_draining: bool = False
    held: list[Request] = dataclasses.field(default_factory=list)
    grown: int = 0
    last_decrease: int = -CONGESTED_NS

    def has_room(self) -> bool:
        return not self.is_draining and len(self.held) < min(self.limit, self.max_batch)

    def load(self) -> tuple[int, int, int]:
        prefill = sum(r.prefill for r in self.held if not r.is_decoding)
        return prefill, len(self.held), sum(r.prompt + r.output // 2 for r in self.held)

    def on_first_token(self, lag: int, now: int) -> None:
        if lag > CONGESTED_NS:
            if now - self.last_decrease < CONGESTED_NS:
                return
            self.last_decrease = now
            self.limit = max(min(2, self.upper), min(self.limit, len(self.held)) * 9 // 10)
            self.grown = 0
        elif len(self.held) + 1 >= self.limit and self.limit < self.upper:
            self.grown += 1
            if self.grown >= self.limit // 4:
                self.limit, self.grown = self.limit + 1, 0


@dataclasses.dataclass
class Band:
    promise_credit: float = 0.0
    owed: float = 0.0
    arrivals: deque[Request] = dataclasses.field(default_factory=deque)
    ring: deque[int] = dataclasses.field(default_factory=deque)  # tenants with waiting work, the one in turn first
    deficit: dict[int, int] = dataclasses.field(default_factory=lambda: defaultdict(int))

    def of(self, tenant: int) -> list[Request]:
        return sorted((r for r in self.arrivals if r.tenant == tenant), key=lambda r: (r.key, r.ticket))


class RouterModel:
    def __init__(self, scheduler: Scheduler, service: ServiceModel) -> None:
        self.scheduler, self.service = scheduler, service
        self.promise_ns = round(scheduler.promise_ms * MS)
        self.ready: list[Request] = []
        self.replicas: list[Replica] = []
        self.bands = [Band() for _ in range(scheduler.bands)]
        self.mean_output, self.lag_s = 256.0, 0.0
        self.lifts_cap = True
        self.tenants: set[int] = set()
        self.arriving: dict[int, int] = defaultdict(int)  # work by bins of ten seconds

    def waiting(self) -> list[Request]:
        return [request for band in self.bands for request in band.arrivals]

    def is_running(self, request: Request) -> bool:
        return request.state == "placed" and request not in self.ready

    def submit(self, request: Request, now: int) -> None:
        self.tenants.add(request.tenant)
        waiting = self.waiting()
        free = self.scheduler.max_queued - len(waiting)
        of_tenant = sum(r.tenant == request.tenant for r in waiting)
        if free <= 0 or (len(self.tenants) > 1 and of_tenant > 8 * free):
            request.state = "rejected_capacity"
        elif all(replica.is_draining for replica in self.replicas):
            request.state = "rejected_no_replica"
        else:
            self.enter(request, in_front=False)
            self.arriving[now // 10_000_000_000] += request.work

    def first_token(self, request: Request, now: int) -> None:
        lag = now - request.placed_at - request.prefill
        self.lag_s += 0.1 * (max(lag * 1e-9, 0.0) - self.lag_s)
        request.is_decoding = True
        request.replica.on_first_token(lag, now)

    def complete(self, request: Request, output: int) -> None:
        self.mean_output += 0.02 * (output - self.mean_output)
        self.vacate(request, "completed")

    def cancel(self, request: Request) -> None:
        if request.state == "queued":
            self.leave(request, "cancelled")
        else:
            self.vacate(request, "cancelled_running" if self.is_running(request) else "cancelled")

    def poll(self, most: int) -> list[Request]:
        taken, self.ready = self.ready[:most], self.ready[most:]
        return taken

    def advance(self, now: int) -> None:
        for request in self.waiting():
            if request.expires <= now:
                self.leave(request, "expired_in_queue")

    def tick(self, now: int) -> None:
        recent = sum(work for number, work in self.arriving.items() if number > now // 10_000_000_000 - 30)
        self.lifts_cap = recent / 300_000_000_000 <= 0.95 * len(self.replicas)

    def remove_replica(self, replica: Replica) -> None:
        for request in sorted(replica.held, key=lambda r: r.ticket & 0xFFFFFF):
            self.give_back(request)
        self.replicas.remove(replica)

    def settle(self, now: int) -> None:
        while self.waiting() and (rooms := [replica for replica in self.replicas if replica.has_room()]):
            request, reason = self.offer(now)
            here = self.latest_start(request) - nanoseconds(self.lag_s)
            if reason == "earliest_deadline" and not request.is_rekeyed and here < now:
                request.is_rekeyed, request.key = True, here
                continue
            self.account(request, reason, now)
            self.leave(request, "placed")
            self.appraise(request)
            request.replica, request.placed_at, request.is_decoding = min(rooms, key=Replica.load), now, False
            request.replica.held.append(request)
            self.ready.append(request)

    def offer(self, now: int) -> tuple[Request, str]:
        for band in self.bands[1:]:
            if band.arrivals and band.owed >= 1.0:
                return self.first_of(band, now)[0], "lower_band"
        return self.first_of(next(band for band in self.bands if band.arrivals), now)

    def first_of(self, band: Band, now: int) -> tuple[Request, str]:
        while len(band.ring) > 1 and band.deficit[band.ring[0]] <= 0:
            band.ring.rotate(-1)
            band.deficit[band.ring[0]] += round(self.scheduler.tenant_quantum_ms * MS)
        in_turn = band.of(band.ring[0])
        feasible = [request for request in in_turn if request.key >= now]
        oldest = band.arrivals[0]
        is_lifted = self.lifts_cap and oldest.arrival + self.promise_ns + self.promise_ns // 2 <= now
        may_go_ahead = not feasible or band.promise_credit >= 1.0 or is_lifted
        if oldest.arrival + self.promise_ns <= now and may_go_ahead:
            return oldest, "promise"
        return (feasible[0], "earliest_deadline") if feasible else (in_turn[0], "late")

    def account(self, request: Request, reason: str, now: int) -> None:
        band = self.bands[request.band]
        past_s = (now - (band.arrivals[0].arrival + self.promise_ns)) * 1e-9
        gain = self.scheduler.promise_take_cap * min(max(2.0 * past_s / (self.promise_ns * 1e-9), 0.1), 1.0)
        band.promise_credit = min(band.promise_credit + gain, MOST_CREDIT)
        if reason == "promise":
            band.promise_credit = max(band.promise_credit - 1.0, 0.0)
        band.owed = max(band.owed - 1.0, 0.0)
        for lower in self.bands[request.band + 1 :]:
            if lower.arrivals:
                lower.owed = min(lower.owed + self.scheduler.lower_band_share, MOST_CREDIT)
        is_alone = len(band.ring) == 1  # then a tenant neither pays nor saves
        band.deficit[request.tenant] = 0 if is_alone else band.deficit[request.tenant] - request.work

    def enter(self, request: Request, in_front: bool) -> None:
        self.appraise(request)
        request.key = self.latest_start(request)
        request.state = "queued"
        band = self.bands[request.band]
        (band.arrivals.appendleft if in_front else band.arrivals.append)(request)
        if request.tenant not in band.ring:
            band.deficit[request.tenant] = min(band.deficit[request.tenant], 0)
            band.ring.append(request.tenant)

    def leave(self, request: Request, state: str) -> None:
        request.state = state
        band = self.bands[request.band]
        band.arrivals.remove(request)
        if not band.of(request.tenant):
            if len(band.ring) == 1:
                band.deficit[request.tenant] = 0
            band.ring.remove(request.tenant)

    def vacate(self, request: Request, state: str) -> None:
        request.state = state
        request.replica.held.remove(request)
        if request in self.ready:
            self.ready.remove(request)

    def give_back(self, request: Request, requeue: bool = True) -> None:
        self.vacate(request, "failed_replica")
        if requeue and request.requeues < 3:
            request.requeues += 1
            request.is_rekeyed = False
            self.enter(request, in_front=True)

    def appraise(self, request: Request) -> None:
        mean = int(max(self.mean_output, 1.0))
        request.output = mean if request.max_tokens == 0 else min(mean, request.max_tokens)
        prompt, output, of = request.prompt, request.output, self.service
        prefill_s = of.prefill_base_s + prompt * (of.prefill_per_token_s + prompt * of.prefill_per_token2_s)
        context_s = of.decode_per_context_token_s * (prompt + 0.5 * output)
        token_s = of.decode_base_s / of.reference_batch + of.decode_per_sequence_s + context_s
        request.prefill, request.work = nanoseconds(prefill_s), nanoseconds(prefill_s + output * token_s)

    def latest_start(self, request: Request) -> int:
        deadline = min(request.deadline, request.end_deadline - TPOT_SLO_NS * request.output)
        if request.deadline == request.end_deadline == NEVER:
            deadline = request.arrival + self.promise_ns
        return deadline - request.prefill
