// What a scheduler learns of its engines' times, and where that goes.

#include <doctest/doctest.h>

#include "sched_config.hpp"
#include "zeta/core/rng.hpp"

using namespace zeta;
using namespace zeta::test;
using sched::Scheduler;
using sched::Ticket;

namespace {

/// One at a time: a prompt of 1,000 tokens and an answer of 100, whose prefill and steps take this many times as long
/// as the prior says. Returns the instant after the last.
Instant serve(Scheduler& scheduler, int requests, double prefill, double decode, Instant now) {
  Rng rng{5};
  for (int i = 0; i < requests; ++i) {
    const Ticket ticket = start(scheduler, request(1'000, now), now);
    const ServiceModel service = scheduler.config().models[0].service;
    const double noise = 0.9 + 0.2 * rng.next_unit();
    now += duration_from_seconds(noise * prefill * service.prefill_s(1'000));
    REQUIRE(scheduler.first_token(ticket, now));
    now += duration_from_seconds(noise * decode * 99 * service.step_s(1, 1'000));
    REQUIRE(scheduler.complete(ticket, 100, now));
    now += 10_ms;
  }
  return now;
}

const sched::Model& model_of(const Scheduler& scheduler) { return scheduler.fleet()[ModelId{0}]; }

}  // namespace

TEST_CASE("a prior that is off by two is corrected, in prices, keys and paces alike") {
  for (const bool is_shared : {false, true}) {
    auto config = one_model(4);
    config.devices[0].is_shared = is_shared;
    Scheduler scheduler{config};
    const Instant now = serve(scheduler, 100, 2.0, 0.5, kStart);
    CHECK(model_of(scheduler).service.prefill_s(1'000) == doctest::Approx(2.0 * 0.01).epsilon(0.1));
    CHECK(model_of(scheduler).service.step_s(1, 1'000) == doctest::Approx(0.5 * 0.01).epsilon(0.1));
    const Ticket ticket = start(scheduler, request(1'000, now, 1_s), now);
    CHECK(to_seconds(scheduler.live(ticket)->prefill) == doctest::Approx(0.02).epsilon(0.1));
    CHECK(to_seconds(scheduler.live(ticket)->latest_start - now) == doctest::Approx(0.98).epsilon(0.01));
    REQUIRE(scheduler.first_token(ticket, now + 20_ms));
    CHECK(model_of(scheduler).decode_pace() == doctest::Approx(0.005 / 0.075).epsilon(0.1));
  }
}

TEST_CASE("a prior that is right stays exactly what it was") {
  Scheduler scheduler{one_model(4)};
  serve(scheduler, 500, 1.0, 1.0, kStart);
  CHECK(model_of(scheduler).service.prefill_s(1'000) == simple_service().prefill_s(1'000));
  CHECK(model_of(scheduler).service.step_s(8, 9'000) == simple_service().step_s(8, 9'000));
}

TEST_CASE("learning can be switched off, and is still shown") {
  auto config = one_model(4);
  config.learns_service = false;
  Scheduler scheduler{config};
  serve(scheduler, 100, 3.0, 3.0, kStart);
  CHECK(model_of(scheduler).prefill.estimate() == doctest::Approx(3.0).epsilon(0.1));
  CHECK(model_of(scheduler).service.prefill_s(1'000) == simple_service().prefill_s(1'000));
}

TEST_CASE("an engine that becomes three times slower is noticed and priced so") {
  Scheduler scheduler{one_model(4)};
  Instant now = serve(scheduler, 300, 1.0, 1.0, kStart);
  now = serve(scheduler, 80, 3.0, 3.0, now);
  CHECK(model_of(scheduler).prefill.changes() == 1);
  CHECK(model_of(scheduler).service.prefill_s(1'000) == doctest::Approx(0.03).epsilon(0.15));
  CHECK(model_of(scheduler).service.step_s(1, 1'000) == doctest::Approx(0.03).epsilon(0.15));
}

TEST_CASE("prefills that overlap teach nothing of prefill times") {
  Scheduler scheduler{one_model(4)};
  Instant now = kStart;
  for (int i = 0; i < 100; ++i) {
    const Ticket first = start(scheduler, request(1'000, now), now);
    const Ticket second = start(scheduler, request(1'000, now), now);
    now += 20_ms;  // both are through only now: each seems twice as long as it is
    REQUIRE(scheduler.first_token(first, now));
    REQUIRE(scheduler.first_token(second, now));
    REQUIRE(scheduler.complete(first, 1, now));
    REQUIRE(scheduler.complete(second, 1, now));
  }
  CHECK(model_of(scheduler).prefill.in_force() == 1.0);
}

TEST_CASE("a replica's percentiles are its own, and a new one starts without any") {
  auto config = one_model(4);
  Scheduler scheduler{config};
  const Instant now = serve(scheduler, 50, 1.0, 1.0, kStart);
  const route::ResponseTimes& times = scheduler.fleet().times(ReplicaId{0});
  CHECK(times.ttft_s.quantile(0.5).value() == doctest::Approx(0.01).epsilon(0.1));
  CHECK(times.tpot_s.quantile(0.5).value() == doctest::Approx(0.01).epsilon(0.1));
  scheduler.remove_replica(ReplicaId{0}, now);
  const ReplicaId other = scheduler.add_replica({.model = ModelId{0}}, now);
  CHECK_FALSE(scheduler.fleet().times(other).ttft_s.quantile(0.5).has_value());
}
