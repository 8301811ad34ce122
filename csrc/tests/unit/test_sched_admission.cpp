// What is let in, and what the others are told.

#include <doctest/doctest.h>

#include "sched_config.hpp"

using namespace zeta;
using namespace zeta::test;
using sched::AdmissionRule;
using sched::Scheduler;

TEST_CASE("a full queue rejects for capacity and keeps what it has") {
  auto config = one_model(1);
  config.max_queued = 3;
  Scheduler scheduler{config};
  std::vector<sched::Ticket> tickets;
  for (int i = 0; i < 6; ++i) tickets.push_back(scheduler.submit(request(10), kStart));
  CHECK(scheduler.outcome(tickets[0]) == Outcome::placed);
  for (int i = 1; i < 4; ++i) CHECK(scheduler.outcome(tickets[static_cast<std::size_t>(i)]) == Outcome::queued);
  for (int i = 4; i < 6; ++i) {
    CHECK(scheduler.outcome(tickets[static_cast<std::size_t>(i)]) == Outcome::rejected_capacity);
  }
  CHECK(scheduler.ledger().adds_up());
}

TEST_CASE("a request that no model can hold is infeasible, one that nobody serves has no replica") {
  auto config = one_model(4, 1000);
  config.models[0].max_context_tokens = 4000;
  Scheduler scheduler{config};
  CHECK(scheduler.outcome(scheduler.submit(request(900), kStart)) == Outcome::rejected_infeasible);  // with its answer
  CHECK(scheduler.outcome(scheduler.submit(request(5000), kStart)) == Outcome::rejected_infeasible);
  CHECK(scheduler.outcome(scheduler.submit(request(500), kStart)) == Outcome::placed);
  auto picky = request(10);
  picky.min_quality = 0.99F;
  CHECK(scheduler.outcome(scheduler.submit(picky, kStart)) == Outcome::rejected_infeasible);
  scheduler.drain_replica(ReplicaId{0}, kStart);
  CHECK(scheduler.outcome(scheduler.submit(request(10), kStart)) == Outcome::rejected_no_replica);
}

TEST_CASE("under `reject` a promise that cannot be kept is refused with its estimate, a later one is taken") {
  auto config = one_model(1);
  config.admission = AdmissionRule::reject;
  Scheduler scheduler{config};
  const Duration deadline = 1_s;
  int taken = 0;
  sched::Ticket refused;
  for (; taken < 100; ++taken) {  // 10,000 tokens: 0.1 s of prefill and 0.0256 s of decode each
    refused = scheduler.submit(request(10'000, kStart, deadline), kStart);
    if (scheduler.outcome(refused) == Outcome::rejected_infeasible) break;
  }
  CHECK(taken == 9);  // one runs; 8 wait for up to 0.9 s, which is all the time there is before a prefill of 0.1 s
  const Duration eta = scheduler.final_of(refused)->eta;
  CHECK(eta > 900_ms);
  CHECK(eta < 1100_ms);
  CHECK(scheduler.outcome(scheduler.submit(request(10'000, kStart, 5_s), kStart)) == Outcome::queued);
}

TEST_CASE("under `downgrade` a smaller model that can keep the promise is used, but only where it may be") {
  auto config = several_models(2, 1);
  config.admission = AdmissionRule::downgrade;
  for (const bool may : {false, true}) {
    Scheduler scheduler{config};
    auto large = request(20'000, kStart, 1_s);
    large.allowed = ModelMask::of(ModelId{1});
    if (may) large.downgrade = ModelMask::of(ModelId{0});
    sched::Ticket last;
    for (int i = 0; i < 4; ++i) last = scheduler.submit(large, kStart);
    CHECK(scheduler.outcome(last) == (may ? Outcome::placed : Outcome::rejected_infeasible));
    if (may) CHECK(scheduler.live(last)->model == ModelId{0});
  }
}

TEST_CASE("one tenant cannot fill the queue for another, and alone it may fill all of it") {
  auto config = one_model(1);
  config.max_queued = 90;
  const auto of = [](std::uint16_t tenant) {
    auto made = request(10);
    made.tenant = TenantId{tenant};
    return made;
  };
  Scheduler alone{config};
  for (int i = 0; i < 200; ++i) (void)alone.submit(of(3), kStart);
  CHECK(alone.waiting() == 90);

  Scheduler shared{config};
  (void)shared.submit(of(1), kStart);  // runs
  for (int i = 0; i < 200; ++i) (void)shared.submit(of(2), kStart);
  CHECK(shared.waiting() == 81);
  CHECK(shared.outcome(shared.submit(of(1), kStart)) == Outcome::queued);
  CHECK(shared.outcome(shared.submit(of(2), kStart)) == Outcome::rejected_capacity);
}

TEST_CASE("one that fills the queue before anybody else came makes room as it is served") {
  auto config = one_model(1);
  config.max_queued = 90;
  Scheduler scheduler{config};
  auto flood = request(10);
  flood.tenant = TenantId{1};
  auto other = request(10);
  other.tenant = TenantId{2};
  sched::Ticket running = start(scheduler, flood, kStart);
  for (int i = 0; i < 200; ++i) (void)scheduler.submit(flood, kStart);
  CHECK(scheduler.outcome(scheduler.submit(other, kStart)) == Outcome::rejected_capacity);
  for (int i = 0; i < 12; ++i) {
    running = next_after(scheduler, running, kStart);
    (void)scheduler.submit(flood, kStart);
  }
  CHECK(scheduler.outcome(scheduler.submit(other, kStart)) == Outcome::queued);
}
