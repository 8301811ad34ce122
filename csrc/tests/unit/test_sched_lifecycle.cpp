// From placement to the end, and doing it all again.

#include <doctest/doctest.h>

#include <vector>

#include "sched_config.hpp"
#include "zeta/core/rng.hpp"
#include "zeta/sched/apply.hpp"
#include "zeta/sched/shared_scheduler.hpp"

using namespace zeta;
using namespace zeta::test;
using sched::Scheduler;
using sched::Ticket;

TEST_CASE("a failed request comes back at most three times, first in line for its promise") {
  Scheduler scheduler{one_model(1)};
  const Ticket ticket = start(scheduler, request(10), kStart);
  for (int i = 0; i < 3; ++i) {
    CHECK(scheduler.fail(ticket, true, Outcome::failed_replica, kStart));
    CHECK(scheduler.next_placement()->ticket == ticket);
  }
  CHECK(scheduler.fail(ticket, true, Outcome::failed_replica, kStart));
  CHECK(scheduler.outcome(ticket) == Outcome::failed_replica);
  CHECK_FALSE(scheduler.fail(ticket, true, Outcome::failed_replica, kStart));
}

TEST_CASE("a cancel ends a request wherever it is, once") {
  Scheduler scheduler{one_model(1)};
  const Ticket running = start(scheduler, request(10), kStart);
  const Ticket waiting = scheduler.submit(request(10), kStart);
  CHECK(scheduler.cancel(waiting, kStart));
  CHECK(scheduler.outcome(waiting) == Outcome::cancelled);
  const Ticket next = scheduler.submit(request(10), kStart);
  CHECK(scheduler.cancel(running, kStart));
  CHECK(scheduler.outcome(running) == Outcome::cancelled_running);
  CHECK(scheduler.outcome(next) == Outcome::placed);
  CHECK(scheduler.cancel(next, kStart));  // placed, not handed out: the caller never saw it
  CHECK(scheduler.outcome(next) == Outcome::cancelled);
  CHECK_FALSE(scheduler.next_placement().has_value());
  CHECK_FALSE(scheduler.cancel(next, kStart));
  CHECK(scheduler.ledger().adds_up());
  CHECK(scheduler.ledger().running() == 0);
}

TEST_CASE("a drained replica finishes what it has; a removed one gives it back") {
  auto config = one_model(2);
  Scheduler scheduler{config};
  const Ticket a = start(scheduler, request(10), kStart);
  const Ticket b = start(scheduler, request(10), kStart);
  scheduler.drain_replica(ReplicaId{0}, kStart);
  const ReplicaId other = scheduler.add_replica({.model = ModelId{0}, .max_in_flight = 1}, kStart);
  const Ticket c = start(scheduler, request(10), kStart);
  CHECK(scheduler.live(c)->replica == other);
  CHECK(scheduler.complete(a, 10, kStart));
  CHECK(scheduler.outcome(scheduler.submit(request(10), kStart)) == Outcome::queued);
  scheduler.remove_replica(ReplicaId{0}, kStart);
  CHECK(scheduler.outcome(b) == Outcome::queued);
  CHECK(next_after(scheduler, c, kStart) == b);  // the oldest
  CHECK(scheduler.ledger().adds_up());
}

TEST_CASE("a drained replica that resumes takes what waits") {
  Scheduler scheduler{one_model(1)};
  const Ticket a = start(scheduler, request(10), kStart);
  const Ticket b = scheduler.submit(request(10), kStart);
  scheduler.drain_replica(ReplicaId{0}, kStart);
  CHECK(scheduler.complete(a, 10, kStart));
  CHECK_FALSE(scheduler.next_placement().has_value());
  CHECK(scheduler.outcome(scheduler.submit(request(10), kStart)) == Outcome::rejected_no_replica);
  scheduler.resume_replica(ReplicaId{0}, kStart);
  CHECK(scheduler.next_placement()->ticket == b);
  CHECK(scheduler.ledger().adds_up());
}

TEST_CASE("the number of a removed replica is used again, and late news of its requests is not believed") {
  Scheduler scheduler{one_model(1)};
  const Ticket lost = start(scheduler, request(10), kStart);
  scheduler.remove_replica(ReplicaId{0}, kStart);
  CHECK_FALSE(scheduler.complete(lost, 10, kStart));
  CHECK(scheduler.add_replica({.model = ModelId{0}, .max_in_flight = 1}, kStart) == ReplicaId{0});
  CHECK(scheduler.next_placement()->ticket == lost);
  CHECK(scheduler.complete(lost, 10, kStart));
}

TEST_CASE("a recorded run is done again bit for bit") {
  struct Recorder final : sched::EventRecorder {
    struct Line {
      sched::EventRecord event;
      std::uint64_t hash;
    };
    std::vector<Line> lines;
    void record(const sched::EventRecord& event, std::uint64_t hash) noexcept override {
      lines.push_back({event, hash});
    }
  };
  auto config = several_models(4, 3);
  config.devices = {{.is_shared = true}, {.is_shared = false}};
  for (std::size_t m = 0; m < 4; ++m) config.models[m].device = DeviceId{static_cast<std::uint8_t>(m / 3)};
  config.max_queued = 50;
  Recorder recorder;
  sched::SharedScheduler<> shared{config};
  shared.set_recorder(&recorder);
  Rng random{7};
  Instant now = kStart;
  std::vector<Ticket> tickets;
  for (int i = 0; i < 20'000; ++i) {
    now += Duration{static_cast<std::int64_t>(random.next_below(30'000'000))};
    auto made = request(static_cast<std::uint32_t>(random.next_below(5000)), now,
                        Duration{static_cast<std::int64_t>(random.next_below(4'000'000'000))});
    made.tenant = TenantId{static_cast<std::uint16_t>(random.next_below(4))};
    made.priority = static_cast<std::uint8_t>(random.next_below(4));
    made.allowed = ModelMask{static_cast<std::uint32_t>(1 + random.next_below(15))};
    made.affinity_key = random.next_below(5);
    if (random.next_below(2) == 0) made.complexity = static_cast<float>(random.next_unit());
    if (random.next_below(5) == 0) made.expires_at = now + 300_ms;
    tickets.push_back(shared.submit(made, now));
    shared.poll(0, 100, [&](const sched::Placement&) {}, now);
    const Ticket any = tickets[tickets.size() - 1 - random.next_below(std::min<std::size_t>(tickets.size(), 60))];
    switch (random.next_below(8)) {
      case 0:
        (void)shared.first_token(any, now);
        break;
      case 1:
        (void)shared.fail(any, true, Outcome::failed_replica, now);
        break;
      case 2:
        (void)shared.cancel(any, now);
        break;
      case 3:
        (void)shared.tick(now);
        break;
      default:
        (void)shared.complete(any, static_cast<std::uint32_t>(random.next_below(600)), now);
    }
    (void)shared.advance(now);
  }
  Scheduler again{config};
  again.stop_recycling_tickets();
  std::size_t same = 0;
  for (const Recorder::Line& line : recorder.lines) {
    sched::EventRecord event = line.event;
    (void)sched::apply_event(again, event);
    if (again.hash().value() != line.hash) break;
    ++same;
  }
  CHECK(same == recorder.lines.size());
  CHECK(recorder.lines.size() > 60'000);
}

TEST_CASE("who does not wait for the end of a batch is told so, and asks between batches") {
  sched::SharedScheduler<> shared{one_model(1)};
  bool is_answered_within = true;
  shared.apply_in_turn(
      [&](sched::Scheduler&, auto&&) { is_answered_within = shared.try_with_owner([](sched::Scheduler&) {}); });
  CHECK_FALSE(is_answered_within);
  (void)shared.submit(request(10), kStart);
  std::uint64_t submitted = 0;
  CHECK(shared.try_with_owner([&](sched::Scheduler& s) { submitted = s.ledger().submitted(); }));
  CHECK(submitted == 1);
}
