"""The rules of docs/scheduling.md for one model that shares its device with nobody, in plain Python.

It answers what the router must answer, bit for bit: whose turn is next, on which replica, and what became of whom.
Times are integer nanoseconds; floats appear in the same places, in the same order, as in the core.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque

NEVER = (1 << 63) - 1
MOST_CREDIT = 4.0
CONGESTED_NS = 2_000_000_000


def nanoseconds(seconds: float) -> int:
    return math.trunc(seconds * 1e9 + (-0.5 if seconds < 0 else 0.5))


@dataclasses.dataclass
class Settings:
    service: tuple[float, float, float, float, float, float]
    promise_ns: int = 20_000_000_000
    promise_take_cap: float = 0.25
    lower_band_share: float = 0.05
    bands: int = 4
    max_queued: int = 100_000
    tpot_slo_ns: int = 100_000_000
    tenant_quantum_ns: int = 250_000_000
    reference_batch: float = 32.0

    def prefill_ns(self, prompt: int) -> int:
        base, per_token, per_token2, *_ = self.service
        return nanoseconds(base + prompt * (per_token + prompt * per_token2))

    def work_ns(self, prompt: int, output: int) -> int:
        base, per_token, per_token2, step, per_sequence, per_context = self.service
        token_s = step / self.reference_batch + per_sequence + per_context * (prompt + 0.5 * output)
        return nanoseconds(base + prompt * (per_token + prompt * per_token2) + output * token_s)


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
    state: str = "queued"
    is_handed_out: bool = False
    is_decoding: bool = False
    is_rekeyed: bool = False
    requeues: int = 0
    key: int = 0
    output: int = 0
    work: int = 0
    prefill: int = 0
    placed_at: int = 0
    replica: Replica | None = None


@dataclasses.dataclass(eq=False)
class Replica:
    number: int
    upper: int
    limit: int
    max_batch: int
    is_draining: bool = False
    in_flight: int = 0
    prefill: int = 0
    reserved: int = 0
    grown: int = 0
    last_decrease: int = -CONGESTED_NS

    def has_room(self) -> bool:
        return not self.is_draining and self.in_flight < self.limit and self.in_flight < self.max_batch

    def on_first_token(self, lag: int, now: int) -> None:
        if lag > CONGESTED_NS:
            if now - self.last_decrease < CONGESTED_NS:
                return
            self.last_decrease = now
            self.limit = max(min(2, self.upper), min(self.limit, self.in_flight) * 9 // 10)
            self.grown = 0
        elif self.in_flight + 1 >= self.limit and self.limit < self.upper:
            self.grown += 1
            if self.grown >= self.limit // 4:
                self.limit += 1
                self.grown = 0


@dataclasses.dataclass
class Band:
    promise_credit: float = 0.0
    owed: float = 0.0
    arrivals: deque[Request] = dataclasses.field(default_factory=deque)
    ring: deque[int] = dataclasses.field(default_factory=deque)  # tenants with waiting work, the one in turn first
    deficit: dict[int, int] = dataclasses.field(default_factory=dict)

    def of(self, tenant: int) -> list[Request]:
        return sorted((r for r in self.arrivals if r.tenant == tenant), key=lambda r: (r.key, r.ticket >> 24))


class RouterModel:
    def __init__(self, settings: Settings, replicas: list[tuple[int, int]]) -> None:
        self.settings = settings
        self.requests: dict[int, Request] = {}
        self.ready: list[Request] = []
        self.replicas: list[Replica] = []
        self.bands = [Band() for _ in range(settings.bands)]
        self.mean_output = 256.0
        self.lag_s = 0.0
        self.lifts_cap = True
        self.tenants: set[int] = set()
        self.arriving: dict[int, int] = {}  # work by bins of ten seconds
        for window, max_batch in replicas:
            self.add_replica(window, max_batch, 0)

    # --- what happens ------------------------------------------------------------------------------------------------

    def submit(self, request: Request, now: int) -> None:
        self.requests[request.ticket] = request
        self.tenants.add(request.tenant)
        free = self.settings.max_queued - self.waiting()
        of_tenant = sum(r.tenant == request.tenant for band in self.bands for r in band.arrivals)
        if free <= 0 or (len(self.tenants) > 1 and of_tenant > 8 * free):
            request.state = "rejected_capacity"
        elif all(replica.is_draining for replica in self.replicas):
            request.state = "rejected_no_replica"
        else:
            self.price(request)
            number = now // 10_000_000_000
            self.arriving[number] = self.arriving.get(number, 0) + request.work
            self.enter(request, in_front=False)
        self.settle(now)

    def first_token(self, ticket: int, now: int) -> bool:
        request = self.running(ticket)
        if request is None or request.is_decoding:
            return False
        replica = request.replica
        assert replica is not None
        lag = now - request.placed_at - request.prefill
        self.lag_s += 0.1 * (max(lag * 1e-9, 0.0) - self.lag_s)
        replica.prefill -= request.prefill
        request.is_decoding = True
        replica.on_first_token(lag, now)
        self.settle(now)
        return True

    def complete(self, ticket: int, output: int, now: int) -> bool:
        request = self.running(ticket)
        if request is not None:
            self.mean_output += 0.02 * (output - self.mean_output)
            self.vacate(request, "completed")
        self.settle(now)
        return request is not None

    def fail(self, ticket: int, requeue: bool, now: int) -> bool:
        request = self.running(ticket)
        if request is None:
            return False
        self.give_back(request, requeue)
        self.settle(now)
        return True

    def cancel(self, ticket: int, now: int) -> bool:
        request = self.requests.get(ticket)
        if request is None or request.state not in ("queued", "placed"):
            return False
        if request.state == "queued":
            self.leave(request)
            request.state = "cancelled"
        else:
            if not request.is_handed_out:
                self.ready.remove(request)
            self.vacate(request, "cancelled_running" if request.is_handed_out else "cancelled")
        self.settle(now)
        return True

    def poll(self, most: int) -> list[Request]:
        taken, self.ready = self.ready[:most], self.ready[most:]
        for request in taken:
            request.is_handed_out = True
        return taken

    def advance(self, now: int) -> None:
        due = [r for band in self.bands for r in band.arrivals if r.expires <= now]
        for request in sorted(due, key=lambda r: (r.expires, r.ticket >> 24)):
            self.leave(request)
            request.state = "expired_in_queue"
        self.settle(now)

    def tick(self, now: int) -> None:
        recent = sum(work for number, work in self.arriving.items() if number > now // 10_000_000_000 - 30)
        self.lifts_cap = recent / 300_000_000_000 <= 0.95 * len(self.replicas)
        self.settle(now)

    def add_replica(self, window: int, max_batch: int, now: int) -> int:
        taken = {replica.number for replica in self.replicas}
        number = next(i for i in range(len(taken) + 1) if i not in taken)
        self.replicas.append(Replica(number, window, window, max_batch))
        self.settle(now)
        return number

    def drain_replica(self, number: int, now: int) -> None:
        self.replica(number).is_draining = True
        self.settle(now)

    def remove_replica(self, number: int, now: int) -> None:
        gone = self.replica(number)
        for request in sorted(self.requests.values(), key=lambda r: r.ticket & 0xFFFFFF):
            if request.state == "placed" and request.replica is gone:
                if not request.is_handed_out:
                    self.ready.remove(request)
                self.give_back(request, True)
        self.replicas.remove(gone)
        self.settle(now)

    # --- what follows from it ----------------------------------------------------------------------------------------

    def settle(self, now: int) -> None:
        while self.waiting() and any(replica.has_room() for replica in self.replicas):
            request, reason = self.offer(now)
            if reason == "earliest_deadline" and not request.is_rekeyed:
                here = self.latest_start(request) - nanoseconds(self.lag_s)
                if here < now:
                    request.is_rekeyed = True
                    request.key = here
                    continue
            self.take(request, reason, now)
            rooms = [replica for replica in self.replicas if replica.has_room()]
            replica = min(rooms, key=lambda r: (r.prefill, r.in_flight, r.reserved))
            self.appraise(request)
            request.state, request.replica, request.placed_at = "placed", replica, now
            request.is_handed_out = request.is_decoding = False
            replica.in_flight += 1
            replica.prefill += request.prefill
            replica.reserved += request.prompt + request.output // 2
            self.ready.append(request)

    def offer(self, now: int) -> tuple[Request, str]:
        for band in self.bands[1:]:
            if band.arrivals and band.owed >= 1.0:
                return self.first_of(band, now)[0], "lower_band"
        return self.first_of(next(band for band in self.bands if band.arrivals), now)

    def first_of(self, band: Band, now: int) -> tuple[Request, str]:
        if len(band.ring) > 1:
            while band.deficit[band.ring[0]] <= 0:
                band.ring.rotate(-1)
                band.deficit[band.ring[0]] += self.settings.tenant_quantum_ns
        in_turn = band.of(band.ring[0])
        feasible = [request for request in in_turn if request.key >= now]
        oldest = band.arrivals[0]
        promise_ns = self.settings.promise_ns
        is_lifted = self.lifts_cap and oldest.arrival + promise_ns + promise_ns // 2 <= now
        if oldest.arrival + promise_ns <= now and (not feasible or band.promise_credit >= 1.0 or is_lifted):
            return oldest, "promise"
        return (feasible[0], "earliest_deadline") if feasible else (in_turn[0], "late")

    def take(self, request: Request, reason: str, now: int) -> None:
        promise_ns, band = self.settings.promise_ns, self.bands[request.band]
        past_s = (now - (band.arrivals[0].arrival + promise_ns)) * 1e-9
        gain = self.settings.promise_take_cap * min(max(2.0 * past_s / (promise_ns * 1e-9), 0.1), 1.0)
        band.promise_credit = min(band.promise_credit + gain, MOST_CREDIT)
        if reason == "promise":
            band.promise_credit = max(band.promise_credit - 1.0, 0.0)
        band.owed = max(band.owed - 1.0, 0.0)
        for lower in self.bands[request.band + 1 :]:
            if lower.arrivals:
                lower.owed = min(lower.owed + self.settings.lower_band_share, MOST_CREDIT)
        is_alone = len(band.ring) == 1
        band.deficit[request.tenant] = 0 if is_alone else band.deficit[request.tenant] - request.work
        self.leave(request)

    def enter(self, request: Request, in_front: bool) -> None:
        band = self.bands[request.band]
        request.state = "queued"
        (band.arrivals.appendleft if in_front else band.arrivals.append)(request)
        if request.tenant not in band.ring:
            band.deficit[request.tenant] = min(band.deficit.get(request.tenant, 0), 0)
            band.ring.append(request.tenant)

    def leave(self, request: Request) -> None:
        band = self.bands[request.band]
        band.arrivals.remove(request)
        if not any(other.tenant == request.tenant for other in band.arrivals):
            if len(band.ring) == 1:
                band.deficit[request.tenant] = 0
            band.ring.remove(request.tenant)

    def give_back(self, request: Request, requeue: bool) -> None:
        self.vacate(request, "failed_replica")
        if requeue and request.requeues < 3:
            request.requeues += 1
            request.is_rekeyed = False
            self.price(request)
            self.enter(request, in_front=True)

    def vacate(self, request: Request, state: str) -> None:
        replica = request.replica
        assert replica is not None
        replica.in_flight -= 1
        replica.reserved -= request.prompt + request.output // 2
        if not request.is_decoding:
            replica.prefill -= request.prefill
        request.state = state

    def price(self, request: Request) -> None:
        self.appraise(request)
        request.key = self.latest_start(request)

    def appraise(self, request: Request) -> None:
        mean = int(max(self.mean_output, 1.0))
        request.output = mean if request.max_tokens == 0 else min(mean, request.max_tokens)
        request.prefill = self.settings.prefill_ns(request.prompt)
        request.work = self.settings.work_ns(request.prompt, request.output)

    def latest_start(self, request: Request) -> int:
        deadline = request.deadline
        if request.end_deadline != NEVER:
            deadline = min(deadline, request.end_deadline - self.settings.tpot_slo_ns * request.output)
        if deadline == NEVER:
            deadline = request.arrival + self.settings.promise_ns
        return deadline - self.settings.prefill_ns(request.prompt)

    # --- questions ---------------------------------------------------------------------------------------------------

    def waiting(self) -> int:
        return sum(len(band.arrivals) for band in self.bands)

    def running(self, ticket: int) -> Request | None:
        request = self.requests.get(ticket)
        return request if request and request.state == "placed" and request.is_handed_out else None

    def replica(self, number: int) -> Replica:
        return next(replica for replica in self.replicas if replica.number == number)

    def next_timer(self) -> int | None:
        due = (r.expires for band in self.bands for r in band.arrivals if r.expires != NEVER)
        return min(due, default=None)
