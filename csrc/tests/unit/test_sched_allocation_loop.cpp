#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "allocation_count.hpp"
#include "sched_config.hpp"
#include "zeta/core/rng.hpp"
#include "zeta/sched/allocation_loop.hpp"
#include "zeta/sched/forecaster_outlook.hpp"
#include "zeta/sim/outlooks.hpp"

using namespace zeta;
using namespace zeta::test;
using sched::AllocationConfig;
using sched::AllocationLoop;
using sched::ArrivedBin;

namespace {

constexpr Duration kTick = 50_ms;

sched::SchedulerConfig shared_device(std::size_t models) {
  auto config = several_models(models, 1);
  config.devices = {{.is_shared = true}};
  for (auto& model : config.models) model.device = DeviceId{0};
  return config;
}

/// Submits requests of 0.1 s of prefill to model 0, `per_second` of them, and completes nothing.
struct Arrivals {
  void until(sched::Scheduler& scheduler, Instant now, double per_second) {
    due += per_second * to_seconds(kTick);
    for (; due >= 1.0; due -= 1.0) {
      auto made = request(10'000, now, 2_s);
      made.allowed = ModelMask{1};
      made.max_tokens = 1;
      scheduler.submit(made, now);
    }
  }
  double due = 0.0;
};

/// An outlook that says what it is told to.
class Scripted final : public sched::LoadOutlook {
 public:
  void note(std::span<const ArrivedBin> models, Instant end) noexcept override {
    last = models[0];
    last_end = end;
    ++bins;
  }
  [[nodiscard]] bool expect(Instant, std::span<share::ExpectedWork> models) noexcept override {
    for (std::size_t i = 0; i < models.size(); ++i) models[i].pace.fill(i == 0 ? pace : 0.0);
    return is_there;
  }
  ArrivedBin last;
  Instant last_end{};
  int bins = 0;
  double pace = 0.0;
  bool is_there = true;
};

}  // namespace

TEST_SUITE("sched/allocation_loop") {
  TEST_CASE("without a delay a tick is the scheduler's own, whatever an outlook says") {
    const auto config = shared_device(3);
    sched::Scheduler alone{config};
    sched::Scheduler looped{config};
    AllocationLoop loop{looped.fleet(), {}};
    Scripted outlook;
    outlook.pace = 5.0;
    loop.set_outlook(&outlook);
    Arrivals a, b;
    Instant now = kStart;
    for (int t = 0; t < 2'000; ++t, now += kTick) {
      a.until(alone, now, 3.0);
      b.until(looped, now, 3.0);
      alone.tick(now);
      loop.tick(looped, now);
      CHECK(loop.next_due() == kNever);
    }
    CHECK(alone.hash().value() == looped.hash().value());
    CHECK(alone.fleet().device(0).plan.share[0] > 0.5);
    CHECK(!loop.is_foreseen());
  }

  TEST_CASE("a plan acts when its delay has passed, and plans follow the last one made") {
    sched::Scheduler scheduler{shared_device(2)};
    AllocationLoop loop{scheduler.fleet(), {.actuation_delay = 10_s}};
    Arrivals arrivals;
    Instant now = kStart;
    Instant raised = kNever;
    for (int t = 0; t < 400; ++t, now += kTick) {
      loop.act(scheduler, now);
      arrivals.until(scheduler, now, 20.0);
      loop.tick(scheduler, now);
      if (scheduler.fleet().device(0).plan.count != 0 && scheduler.fleet().device(0).plan.share[0] > 0.6) {
        raised = std::min(raised, now);
      }
    }
    CHECK(raised >= kStart + 10_s);
    CHECK(raised <= kStart + 12_s);
  }

  TEST_CASE("what arrived is counted in whole seconds, and spread over them after a stall") {
    sched::Scheduler scheduler{shared_device(1)};
    AllocationLoop loop{scheduler.fleet(), {.actuation_delay = 10_s}};
    Scripted outlook;
    loop.set_outlook(&outlook);
    Arrivals arrivals;
    Instant now = kStart;
    for (int t = 0; t < 200; ++t, now += kTick) {
      loop.tick(scheduler, now);
      arrivals.until(scheduler, now, 20.0);
    }
    CHECK(outlook.bins == 9);
    CHECK(outlook.last.arrivals == 20.0);
    CHECK(outlook.last.work_s == doctest::Approx(2.0).epsilon(0.01));
    CHECK(outlook.last_end == kStart + 9_s);
    loop.tick(scheduler, now + 4_s);  // seconds 10 to 14; 20 arrived in the tenth
    CHECK(outlook.bins == 14);
    CHECK(outlook.last.arrivals == 4.0);
  }

  TEST_CASE("the first tick of a clock that has run for years closes no bins") {
    sched::Scheduler scheduler{shared_device(1)};
    AllocationLoop loop{scheduler.fleet(), {.actuation_delay = 10_s}};
    Scripted outlook;
    loop.set_outlook(&outlook);
    loop.tick(scheduler, instant_from_ns(std::int64_t{1} << 61));
    CHECK(outlook.bins == 0);
    loop.tick(scheduler, instant_from_ns(std::int64_t{1} << 61) + 7'200_s);
    CHECK(outlook.bins == 600);
  }

  TEST_CASE("a silent, wrong or unreadable source changes nothing, bit for bit") {
    const auto run = [](sched::LoadOutlook* outlook) {
      sched::Scheduler scheduler{shared_device(3)};
      AllocationLoop loop{scheduler.fleet(), {.actuation_delay = 10_s}};
      loop.set_outlook(outlook);
      Arrivals arrivals;
      Instant now = kStart;
      for (int t = 0; t < 4'000; ++t, now += kTick) {
        loop.act(scheduler, now);
        arrivals.until(scheduler, now, t < 2'000 ? 4.0 : 12.0);
        loop.tick(scheduler, now);
      }
      return scheduler.hash().value();
    };
    const std::uint64_t reactive = run(nullptr);
    Scripted silent;
    silent.is_there = false;
    CHECK(run(&silent) == reactive);
    Scripted nothing_comes;
    CHECK(run(&nothing_comes) == reactive);
    for (const char* name : {"x10", "x0.1", "random", "nan"}) {
      const auto source = *sim::outlook_named(name, 3, {});
      CHECK_MESSAGE(run(source.get()) == reactive, name);
    }
    const auto mean = *sim::outlook_named("ewma", 3, {});
    CHECK(run(mean.get()) != reactive);
  }

  TEST_CASE("a step that is foreseen, or seen, settles within three ticks and the delay, without overshoot") {
    for (const Duration delay : {0_s, 10_s, 60_s}) {
      for (const bool looks_ahead : {false, true}) {
        if (looks_ahead && delay == 0_s) continue;
        sched::Scheduler scheduler{shared_device(3)};
        AllocationLoop loop{scheduler.fleet(), {.actuation_delay = delay}};
        Scripted outlook;
        if (looks_ahead) loop.set_outlook(&outlook);
        Arrivals quiet;
        Instant now = kStart;
        // Two minutes in which nothing but what is said comes, so that the outlook is believed.
        for (int t = 0; t < 3'000; ++t, now += kTick) {
          loop.act(scheduler, now);
          if (looks_ahead) quiet.until(scheduler, now, 1.0);
          while (const auto placed = scheduler.next_placement()) (void)scheduler.complete(placed->ticket, 1, now);
          outlook.pace = 0.1;
          loop.tick(scheduler, now);
        }
        REQUIRE(loop.is_foreseen() == looks_ahead);
        // The step: seen as a backlog of 20 s within the promise, or foreseen as a pace.
        outlook.pace = 1.5;
        const Instant step = now;
        if (!looks_ahead) {
          for (int i = 0; i < 200; ++i) {
            auto made = request(10'000, now, 30_s);
            made.allowed = ModelMask{1};
            made.max_tokens = 1;
            scheduler.submit(made, now);
          }
        }
        std::vector<double> share;
        for (; now <= step + delay + 1_s + 5 * kTick; now += kTick) {
          loop.act(scheduler, now);
          loop.tick(scheduler, now);
          loop.act(scheduler, now);
          share.push_back(scheduler.fleet().device(0).plan.share[0]);
        }
        const double last = share.back();
        CHECK(last > 0.5);
        // A forecast is read once a second: its step is seen at the next whole one.
        const auto settled = static_cast<std::size_t>((delay + (looks_ahead ? 1_s : 0_s)) / kTick) + 3;
        for (std::size_t t = settled; t < share.size(); ++t) CHECK(std::abs(share[t] - last) <= 0.1 * (last - 1.0 / 3));
        for (const double each : share) CHECK(each <= last + 0.1 * (last - 1.0 / 3));
        if (delay > 0_s) CHECK(share[static_cast<std::size_t>(delay / kTick) - 1] == doctest::Approx(1.0 / 3));
      }
    }
  }

  TEST_CASE("a delay below five seconds is left to feedback") {
    for (const Duration delay : {4'900_ms, 5'000_ms}) {
      sched::Scheduler scheduler{shared_device(2)};
      AllocationLoop loop{scheduler.fleet(), {.actuation_delay = delay}};
      sched::EwmaOutlook outlook{2};
      loop.set_outlook(&outlook);
      Arrivals arrivals;
      Instant now = kStart;
      for (int t = 0; t < 2'000; ++t, now += kTick) {
        loop.act(scheduler, now);
        arrivals.until(scheduler, now, 4.0);
        loop.tick(scheduler, now);
      }
      CHECK(loop.is_foreseen() == (delay == 5'000_ms));
    }
  }

  TEST_CASE("ticks, plans in flight and foresight allocate nothing") {
    sched::Scheduler scheduler{shared_device(8)};
    AllocationLoop loop{scheduler.fleet(), {.actuation_delay = 60_s}};
    sched::EwmaOutlook outlook{8};
    loop.set_outlook(&outlook);
    Rng random{5};
    Instant now = kStart;
    const std::uint64_t before = allocations();
    for (int t = 0; t < 20'000; ++t, now += kTick) {
      loop.act(scheduler, now);
      auto made = request(static_cast<std::uint32_t>(random.next_below(20'000)), now, 2_s);
      made.allowed = ModelMask{static_cast<std::uint32_t>(1 + random.next_below(255))};
      scheduler.submit(made, now);
      while (const auto placed = scheduler.next_placement()) (void)scheduler.complete(placed->ticket, 10, now);
      loop.tick(scheduler, now);
    }
    CHECK(allocations() == before);
    CHECK(loop.foreseen_ticks() > 10'000);
  }

  TEST_CASE("the forecaster speaks from the first second on, is believed, and allocates nothing") {
    sched::Scheduler scheduler{shared_device(2)};
    AllocationLoop loop{scheduler.fleet(), {.actuation_delay = 10_s}};
    sched::ForecasterOutlook outlook{2, kStart};
    loop.set_outlook(&outlook);
    Arrivals arrivals;
    Instant now = kStart;
    const std::uint64_t before = allocations();
    for (int t = 0; t < 4'000; ++t, now += kTick) {
      loop.act(scheduler, now);
      arrivals.until(scheduler, now, 4.0);
      while (const auto placed = scheduler.next_placement()) (void)scheduler.complete(placed->ticket, 1, now);
      loop.tick(scheduler, now);
      if (t == 30) CHECK(loop.expected()[0].is_known());
    }
    CHECK(allocations() == before);
    CHECK(loop.is_foreseen());
    for (const double pace : loop.expected()[0].pace) CHECK(pace == doctest::Approx(0.4).epsilon(0.05));
    CHECK(loop.expected()[1].pace[2] == doctest::Approx(0.0));
  }

  TEST_CASE("plans in flight keep their order, leave repeats out and never exceed their room") {
    sched::PlansInFlight plans{true};
    share::Plan plan;
    plan.count = 2;
    Instant due = kStart;
    for (int i = 0; i < 5'000; ++i, due += 10_ms) {
      plan.share = {i / 5'000.0, 1.0 - i / 5'000.0};
      plans.push(plan, due, 3'000_s);
    }
    CHECK(plans.size() <= 10);  // 50 s, one in about six seconds
    plans.push(plan, due, 1_s);
    const std::size_t size = plans.size();
    plans.push(plan, due + 100_s, 1_s);
    CHECK(plans.size() == size);
    Instant last{};
    while (plans.size() > 0) {
      CHECK(plans.next_due() > last);
      last = plans.next_due();
      plans.pop();
    }
    CHECK(plans.next_due() == kNever);
  }
}

TEST_SUITE("sched/outlook_trust") {
  TEST_CASE("a source is trusted while it is about as good as a 30 s mean, and not before it was judged") {
    sched::OutlookTrust trust{1, true};
    std::vector<share::ExpectedWork> said(1);
    Rng random{9};
    const auto second = [&](double factor) {
      const std::vector<ArrivedBin> came{{1.0, 0.5 + random.next_unit()}};
      said[0].pace.fill(factor);
      trust.note(came, said, 10);
    };
    for (int s = 0; s < 39; ++s) second(1.0);
    CHECK(!trust.is_trusted());
    for (int s = 0; s < 3; ++s) second(1.0);
    CHECK(trust.is_trusted());
    int seconds_to_lose = 0;
    for (; trust.is_trusted() && seconds_to_lose < 1'000; ++seconds_to_lose) second(10.0);
    CHECK(seconds_to_lose < 20);
    int seconds_to_win_back = 0;
    for (; !trust.is_trusted() && seconds_to_win_back < 5'000; ++seconds_to_win_back) second(1.0);
    CHECK(seconds_to_win_back > 120);
    CHECK(seconds_to_win_back < 2'000);
  }

  TEST_CASE("another delay starts the judging anew") {
    sched::OutlookTrust trust{1, true};
    std::vector<share::ExpectedWork> said(1);
    said[0].pace.fill(1.0);
    const std::vector<ArrivedBin> came{{1.0, 1.0}};
    for (int s = 0; s < 100; ++s) trust.note(came, said, 10);
    CHECK(trust.is_trusted());
    trust.note(came, said, 30);
    CHECK(!trust.is_trusted());
    for (int s = 0; s < 70; ++s) trust.note(came, said, 30);
    CHECK(trust.is_trusted());
    trust.note(came, said, 5'000);
    CHECK(!trust.is_trusted());
  }
}

TEST_SUITE("sim/outlooks") {
  TEST_CASE("the known future is what comes, and nothing after its end") {
    const std::vector<double> work{1.0, 0.0, 2.0, 0.0, 3.0, 7.0};  // three seconds of two models
    sim::KnownFuture future{2, work};
    std::vector<share::ExpectedWork> said(2);
    REQUIRE(future.expect(Instant{} + 1_s, said));
    CHECK(said[0].pace[0] == 2.0);
    CHECK(said[0].pace[1] == doctest::Approx(0.5));
    CHECK(said[1].pace[1] == doctest::Approx(0.7));
    REQUIRE(future.expect(Instant{} + 100_s, said));
    CHECK(said[0].pace[4] == 0.0);
  }

  TEST_CASE("every name has a source, and no other") {
    for (const auto name : sim::kForecastNames) CHECK(sim::outlook_named(name, 2, {}).has_value());
    CHECK(!sim::outlook_named("tarot", 2, {}).has_value());
  }
}
