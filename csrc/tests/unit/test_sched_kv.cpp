// Requests that need more KV than is free.

#include <doctest/doctest.h>

#include <deque>

#include "sched_config.hpp"

using namespace zeta;
using namespace zeta::test;
using sched::Scheduler;
using sched::Ticket;

namespace {

/// Runs short requests one after another on a replica of 10,000 tokens, eight at a time, while a huge one waits; when
/// the huge one started, and how many short ones did meanwhile.
struct Wait {
  Duration waited{0};
  int passed = 0;
};

Wait wait_of_huge(sched::SchedulerConfig config, const sched::Request& huge, const sched::Request& small) {
  Scheduler scheduler{config};
  std::deque<Ticket> running;
  Instant now = kStart;
  const auto take = [&] {
    while (const auto placed = scheduler.next_placement()) running.push_back(placed->ticket);
  };
  for (int i = 0; i < 8; ++i) (void)scheduler.submit(small, now);
  take();
  const Ticket waiting = scheduler.submit(huge, now);
  REQUIRE(scheduler.outcome(waiting) == Outcome::queued);
  Wait wait;
  while (scheduler.outcome(waiting) == Outcome::queued) {
    now += 100_ms;
    for (int i = 0; i < 2; ++i) (void)scheduler.submit(small, now);
    REQUIRE(!running.empty());
    (void)scheduler.complete(running.front(), 256, now);
    running.pop_front();
    CHECK_FALSE(scheduler.ticket_with_idle_capacity().has_value());
    const std::size_t before = running.size();
    take();
    wait.passed += static_cast<int>(running.size() - before);
    REQUIRE(now < kStart + 600_s);
  }
  wait.waited = now - kStart;
  return wait;
}

}  // namespace

TEST_CASE("a huge request blocks nobody until its promise, and starts soon after it") {
  auto config = one_model(8, 10'000);
  config.promise = 5_s;
  const auto small = request(1000);
  SUBCASE("of the same tenant") {
    const Wait wait = wait_of_huge(config, request(9000), small);
    CHECK(wait.passed > 40);
    CHECK(wait.waited > 4_s);
    CHECK(wait.waited < 10_s);
  }
  SUBCASE("of another tenant") {
    auto huge = request(9000);
    huge.tenant = TenantId{1};
    const Wait wait = wait_of_huge(config, huge, small);
    CHECK(wait.passed > 40);
    CHECK(wait.waited < 10_s);
  }
  SUBCASE("of a more urgent band") {
    auto huge = request(9000);
    huge.priority = 0;
    const Wait wait = wait_of_huge(config, huge, small);
    CHECK(wait.passed > 40);
    CHECK(wait.waited < 10_s);
  }
}

TEST_CASE("a huge request that waits for one model lets requests for others and for any pass") {
  auto config = several_models(2, 8);
  for (auto& replica : config.replicas) replica.kv_tokens = 10'000;
  Scheduler scheduler{config};
  const auto on = [](std::uint32_t models, std::uint32_t prompt) {
    auto made = request(prompt);
    made.allowed = ModelMask{models};
    return made;
  };
  (void)scheduler.submit(on(1, 5000), kStart);
  const Ticket huge = scheduler.submit(on(1, 9000), kStart);
  CHECK(scheduler.outcome(huge) == Outcome::queued);
  CHECK(scheduler.outcome(scheduler.submit(on(2, 5000), kStart)) == Outcome::placed);
  CHECK(scheduler.outcome(scheduler.submit(on(3, 1000), kStart)) == Outcome::placed);
  CHECK(scheduler.outcome(scheduler.submit(on(1, 1000), kStart)) == Outcome::placed);
}

TEST_CASE("answers that grew longer than a replica holds do not stop a request that was let in") {
  auto config = one_model(8, 1000);
  config.models[0].mean_output_tokens = 10;
  Scheduler scheduler{config};
  Ticket running = start(scheduler, request(900), kStart);
  const Ticket waiting = scheduler.submit(request(900), kStart);
  REQUIRE(scheduler.outcome(waiting) == Outcome::queued);
  CHECK(next_after(scheduler, running, kStart, 1'000'000) == waiting);
}

TEST_CASE("a request whose models lose their replicas goes to others that it may use, at once") {
  for (const auto order : {sched::Order::edf, sched::Order::fifo}) {
    auto config = several_models(2, 1);
    config.order = order;
    Scheduler scheduler{config};
    auto hard = request(10, kStart, 3600_s);
    hard.complexity = 0.5F;  // edf: held for model 1; fifo: waits for model 0, the cheapest
    Ticket ticket = scheduler.submit(hard, kStart);
    const ModelId first = scheduler.live(ticket)->model;
    ticket = scheduler.submit(hard, kStart);
    REQUIRE(scheduler.outcome(ticket) == Outcome::queued);
    scheduler.drain_replica(ReplicaId{static_cast<std::uint16_t>(index_of(first))}, kStart + 1_ms);
    CHECK(scheduler.outcome(ticket) == Outcome::placed);
    CHECK(scheduler.live(ticket)->model != first);
  }
}

TEST_CASE("a prompt that no replica can hold any more ends, and nobody waits behind it") {
  auto config = one_model(1, 10'000);
  config.replicas.push_back({.model = ModelId{0}, .max_in_flight = 1, .kv_tokens = 1000});
  Scheduler scheduler{config};
  (void)start(scheduler, request(500), kStart);
  (void)start(scheduler, request(500), kStart);
  const Ticket huge = scheduler.submit(request(5000), kStart);
  const Ticket small = scheduler.submit(request(100), kStart);
  scheduler.drain_replica(ReplicaId{0}, kStart + 60_s);
  CHECK(scheduler.outcome(huge) == Outcome::rejected_infeasible);
  CHECK(scheduler.outcome(small) == Outcome::queued);
  scheduler.drain_replica(ReplicaId{1}, kStart + 60_s);  // nobody left: it waits for the next
  CHECK(scheduler.outcome(small) == Outcome::queued);
  (void)scheduler.add_replica({.model = ModelId{0}}, kStart + 61_s);
  CHECK(scheduler.outcome(small) == Outcome::placed);
  CHECK(scheduler.ledger().adds_up());
}
