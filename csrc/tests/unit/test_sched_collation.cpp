// One device, several models, one of them resident: who may take, when it changes, and who is told.

#include <doctest/doctest.h>

#include "sched_config.hpp"

using namespace zeta;
using namespace zeta::test;
using sched::Scheduler;
using sched::Ticket;

namespace {

/// Three models on one device that holds one at a time; 20 s to change.
sched::SchedulerConfig swap_fleet(bool awaits_load = true) {
  sched::SchedulerConfig config = several_models(3, 8);
  config.devices = {
      {.is_shared = true, .prefill_budget = 10.0, .is_swapped = true, .swap_cost = 20_s, .awaits_load = awaits_load}};
  for (sched::ModelConfig& model : config.models) model.device = DeviceId{0};
  config.collation.max_wait = 300_s;
  return config;
}

sched::Request for_model(std::uint8_t model) {
  sched::Request made = request(10, kStart, 1000_s);
  made.allowed = ModelMask::of(ModelId{model});
  return made;
}

/// Until the scheduler says something or `until` has come.
Instant run_timers(Scheduler& scheduler, Instant until) {
  Instant now = kStart;
  while (scheduler.next_timer() <= until) {
    now = scheduler.next_timer();
    scheduler.advance(now);
  }
  return now;
}

}  // namespace

TEST_CASE("collation: the resident model takes, requests for another wait for it without idle capacity") {
  Scheduler scheduler{swap_fleet()};
  const Ticket here = start(scheduler, for_model(0), kStart);
  const Ticket held = start(scheduler, for_model(1), kStart);
  CHECK(scheduler.outcome(here) == Outcome::placed);
  CHECK(scheduler.outcome(held) == Outcome::queued);
  CHECK_FALSE(scheduler.ticket_with_idle_capacity());
  CHECK(scheduler.next_timer() != kNever);  // somebody waits for a change: it is looked at again
}

TEST_CASE("collation: what runs finishes, then the command comes once, and nothing is taken until it is confirmed") {
  Scheduler scheduler{swap_fleet()};
  const Ticket running = start(scheduler, for_model(0), kStart);
  const Ticket held = start(scheduler, for_model(1), kStart);
  Instant now = run_timers(scheduler, kStart + 5_s);
  CHECK_FALSE(scheduler.next_swap());  // still running
  const Ticket late = start(scheduler, for_model(0), now);
  CHECK(scheduler.outcome(late) == Outcome::queued);  // draining
  scheduler.complete(running, 10, now);
  const auto swap = scheduler.next_swap();
  REQUIRE(swap);
  CHECK(swap->unload == ModelId{0});
  CHECK(swap->load == ModelId{1});
  CHECK_FALSE(scheduler.next_swap());
  scheduler.advance(now + 10_s);
  CHECK(scheduler.outcome(held) == Outcome::queued);
  CHECK(scheduler.next_timer() == kNever);  // only the confirmation can change anything
  scheduler.loaded(DeviceId{0}, ModelId{1}, now + 20_s);
  CHECK(scheduler.outcome(held) == Outcome::placed);
  CHECK(scheduler.outcome(late) == Outcome::queued);
}

TEST_CASE("collation: after a load that failed the device is empty, and another try comes later") {
  Scheduler scheduler{swap_fleet()};
  const Ticket held = start(scheduler, for_model(1), kStart);
  Instant now = run_timers(scheduler, kStart + 1_s);
  REQUIRE(scheduler.next_swap());
  scheduler.loaded(DeviceId{0}, kNoModel, now + 1_s);
  CHECK(scheduler.outcome(held) == Outcome::queued);
  CHECK_FALSE(scheduler.next_swap());
  now = run_timers(scheduler, now + 10_s);
  const auto again = scheduler.next_swap();
  REQUIRE(again);
  CHECK(again->unload == kNoModel);
  scheduler.loaded(DeviceId{0}, again->load, now);
  CHECK(scheduler.outcome(held) == Outcome::placed);
}

TEST_CASE("collation: where nobody confirms, the first request loads the model") {
  Scheduler scheduler{swap_fleet(false)};
  const Ticket held = start(scheduler, for_model(1), kStart);
  run_timers(scheduler, kStart + 1_s);
  CHECK(scheduler.outcome(held) == Outcome::placed);
  const auto swap = scheduler.next_swap();
  REQUIRE(swap);
  CHECK(swap->load == ModelId{1});
}

TEST_CASE("collation: a request that the resident model may serve never asks for a change") {
  Scheduler scheduler{swap_fleet()};
  scheduler.loaded(DeviceId{0}, ModelId{2}, kStart);
  for (int i = 0; i < 50; ++i) start(scheduler, request(10), kStart);  // any model
  CHECK(scheduler.waiting() == 42);
  CHECK(scheduler.next_timer() > kStart + 1_s);  // presumed starts only
  run_timers(scheduler, kStart + 100_s);
  CHECK_FALSE(scheduler.next_swap());
}

TEST_CASE("collation: a request is brought in within the longest wait although the resident model is never idle") {
  Scheduler scheduler{swap_fleet()};
  std::vector<Ticket> running;
  for (int i = 0; i < 12; ++i) running.push_back(start(scheduler, for_model(0), kStart));
  const Ticket held = start(scheduler, for_model(1), kStart);
  Instant now = kStart;
  std::optional<sched::SwapCommand> swap;
  for (std::size_t next = 0; !swap && now < kStart + 400_s; ++next) {  // one ends, one comes, others always wait
    now += 1_s;
    scheduler.advance(now);
    scheduler.complete(running[next], 10, now);
    while (scheduler.next_placement()) {
    }
    swap = scheduler.next_swap();
    running.push_back(start(scheduler, for_model(0), now));
  }
  REQUIRE(swap);
  CHECK(swap->load == ModelId{1});
  CHECK(now < kStart + 280_s);  // and 20 s of loading
  CHECK(now > kStart + 100_s);  // not before it must be
  scheduler.loaded(DeviceId{0}, ModelId{1}, now + 20_s);
  CHECK(scheduler.outcome(held) == Outcome::placed);
}

TEST_CASE("collation: under fifo the device decides, and nothing is held") {
  sched::SchedulerConfig config = swap_fleet();
  config.order = sched::Order::fifo;
  Scheduler scheduler{config};
  for (std::uint8_t m = 0; m < 3; ++m)
    CHECK(scheduler.outcome(start(scheduler, for_model(m), kStart)) == Outcome::placed);
  CHECK_FALSE(scheduler.next_swap());
}

TEST_CASE("collation: a held request past the longest wait on a device that stays is found") {
  sched::SchedulerConfig config = swap_fleet();
  config.collation.max_wait = 1_s;
  Scheduler scheduler{config};
  start(scheduler, for_model(0), kStart);
  start(scheduler, for_model(1), kStart);
  CHECK(scheduler.find_overheld(kStart + 10_s) == sched::kNull);
  CHECK(scheduler.find_overheld(kStart + 1000_s) != sched::kNull);  // nobody has called advance since
}

TEST_CASE("collation: without its replica the resident model gives way") {
  Scheduler scheduler{swap_fleet()};
  const Ticket held = start(scheduler, for_model(1), kStart);
  scheduler.remove_replica(ReplicaId{0}, kStart);
  run_timers(scheduler, kStart + 1_s);
  const auto swap = scheduler.next_swap();
  REQUIRE(swap);
  CHECK(swap->load == ModelId{1});
  scheduler.loaded(DeviceId{0}, ModelId{1}, kStart + 20_s);
  CHECK(scheduler.outcome(held) == Outcome::placed);
}
