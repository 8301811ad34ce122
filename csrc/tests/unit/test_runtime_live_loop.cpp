#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "allocation_count.hpp"
#include "runtime/live_loop.hpp"
#include "runtime/router.hpp"
#include "sched_config.hpp"

using namespace zeta;
using namespace zeta::test;
using runtime::ForecastMode;
using runtime::LiveLoop;
using runtime::LoopRound;

namespace {

constexpr Duration kTick = 50_ms;
std::atomic<int> nets_alive{0};

/// Answers a number of its own in every place, and counts.
class NumberedNet final : public forecast::NetRunner {
 public:
  explicit NumberedNet(float number, Duration takes = Duration{0}) : number_{number}, takes_{takes} { ++nets_alive; }
  ~NumberedNet() override { --nets_alive; }
  NumberedNet(const NumberedNet&) = delete;
  NumberedNet& operator=(const NumberedNet&) = delete;

  [[nodiscard]] bool run(std::span<const float>, std::size_t, std::span<float> out) noexcept override {
    const Instant until = runtime::SteadyClock{}.now() + takes_;
    for (float& each : out) each = number_;
    while (runtime::SteadyClock{}.now() < until) {
    }
    ++stats_.runs;
    stats_.last_run_ns = takes_.count();
    // All of one answer comes from one net.
    for (const float each : out) mixed_ = mixed_ || each != number_;
    return true;
  }
  void warm_up() noexcept { ++warm_ups; }
  [[nodiscard]] runtime::OnnxSessionStats stats() const noexcept { return stats_; }
  [[nodiscard]] bool is_mixed() const noexcept { return mixed_; }

  int warm_ups = 0;

 private:
  float number_;
  Duration takes_;
  runtime::OnnxSessionStats stats_;
  bool mixed_ = false;
};

sched::SchedulerConfig shared_device(std::size_t models) {
  auto config = several_models(models, 4);
  config.devices = {{.is_shared = true}};
  for (auto& model : config.models) model.device = DeviceId{0};
  return config;
}

/// A loop beside a scheduler, in virtual time.
template <class Net>
struct Rig {
  explicit Rig(std::size_t models, ForecastMode mode) : config{shared_device(models)}, shared{config}, loop{mode} {
    shared.with_owner([this](sched::Scheduler& scheduler) { loop.prepare(scheduler.fleet(), now); });
  }
  void arrive(std::size_t model, std::uint32_t prompt = 10'000) {
    auto made = request(prompt, now, 2_s);
    made.allowed = ModelMask::of(ModelId{static_cast<std::uint8_t>(model)});
    made.max_tokens = 1;
    shared.submit(made, now);
  }
  void round() {
    now += kTick;
    loop.act(shared, now);
    loop.round(shared, now, now);
    loop.act(shared, now);
  }
  [[nodiscard]] LoopRound last() const {
    LoopRound round;
    REQUIRE(loop.read(round));
    return round;
  }
  [[nodiscard]] std::uint64_t hash() {
    return shared.with_owner([](sched::Scheduler& scheduler) { return scheduler.hash().value(); });
  }

  sched::SchedulerConfig config;
  sched::SharedScheduler<> shared;
  LiveLoop<Net> loop;
  Instant now = kStart;
};

/// Does recorded events again on a scheduler of its own.
class Recorder final : public sched::EventRecorder {
 public:
  void record(const sched::EventRecord& event, std::uint64_t hash_after) noexcept override {
    events.push_back({event, hash_after});
  }
  [[nodiscard]] bool is_exact(const sched::SchedulerConfig& config) const {
    return runtime::replay_events(config, events.data(), events.size()).first_difference < 0;
  }
  std::vector<runtime::LoggedEvent> events;
};

}  // namespace

TEST_SUITE("runtime/live_loop") {
  TEST_CASE("without a delay every mode decides what the scheduler alone decides, bit for bit") {
    for (const ForecastMode mode : {ForecastMode::automatic, ForecastMode::ewma, ForecastMode::off}) {
      Rig<NumberedNet> rig{3, mode};
      sched::SharedScheduler<> alone{rig.config};
      rig.loop.nets().offer(std::make_unique<NumberedNet>(3.0F));
      for (int t = 0; t < 400; ++t) {
        if (t % 3 == 0) {
          rig.arrive(t % 9 / 3);
          auto made = request(10'000, rig.now, 2_s);
          made.allowed = ModelMask::of(ModelId{static_cast<std::uint8_t>(t % 9 / 3)});
          made.max_tokens = 1;
          alone.submit(made, rig.now);
        }
        rig.round();
        alone.tick(rig.now);
      }
      CHECK(rig.hash() == alone.with_owner([](sched::Scheduler& scheduler) { return scheduler.hash().value(); }));
    }
  }

  TEST_CASE("a forecast is made in every second, used or not, and stands in what is published") {
    Rig<NumberedNet> rig{2, ForecastMode::automatic};
    for (int t = 0; t < 20 * 90; ++t) {
      if (t % 4 == 0) rig.arrive(0);  // 5 per second of 0.1 s each
      rig.round();
    }
    const LoopRound round = rig.last();
    CHECK(round.rounds == 20 * 90);
    CHECK(round.forecasts == 90);
    CHECK(round.of_model[0].work[0] == doctest::Approx(0.5).epsilon(0.1));
    CHECK(round.of_model[0].work[1] >= round.of_model[0].work[0]);
    CHECK(round.of_model[0].share + round.of_model[1].share == doctest::Approx(1.0));
    CHECK(round.of_model[0].need > round.of_model[1].need);
    CHECK(round.forecast.p50_ns > 0);
    CHECK(round.took.p99_ns >= round.took.p50_ns);
    CHECK(round.net_number == 0);
  }

  TEST_CASE("plans that act later are recorded, so that the log does the run again exactly") {
    Rig<NumberedNet> rig{3, ForecastMode::automatic};
    Recorder recorder;
    rig.shared.set_recorder(&recorder);
    double largest = 0.0;
    for (int t = 0; t < 20 * 120; ++t) {
      if (t == 20 * 20) rig.loop.set_actuation_delay(10_s);
      if (t == 20 * 90) rig.loop.set_actuation_delay(0_s);
      if (t % 2 == 0) rig.arrive(0, 40'000);
      rig.round();
      largest = std::max(largest, rig.last().of_model[0].share);
    }
    CHECK(largest > 0.5);
    CHECK(recorder.is_exact(rig.config));
    bool has_shares = false;
    for (const auto& logged : recorder.events) has_shares |= logged.event.kind == sched::EventKind::set_share;
    CHECK(has_shares);
    CHECK(rig.last().actuation_delay_ns == 0);
    CHECK(rig.loop.next_due() == kNever);
  }

  TEST_CASE("a plan takes the whole delay to act") {
    Rig<NumberedNet> rig{2, ForecastMode::off};
    rig.loop.set_actuation_delay(10_s);
    for (int i = 0; i < 40; ++i) rig.arrive(0, 40'000);
    for (int t = 0; t < 20 * 9; ++t) rig.round();
    CHECK(rig.last().of_model[0].share == doctest::Approx(0.5));
    for (int t = 0; t < 20 * 3; ++t) rig.round();
    CHECK(rig.last().of_model[0].share > 0.6);
  }

  TEST_CASE("shares that are planned elsewhere stay as they were set") {
    Rig<NumberedNet> rig{2, ForecastMode::off};
    Recorder recorder;
    rig.shared.set_recorder(&recorder);
    rig.loop.set_planned_elsewhere(true);
    rig.shared.apply_in_turn([&](sched::Scheduler&, auto&& apply) {
      for (std::uint8_t m = 0; m < 2; ++m) {
        auto event = sched::SharedScheduler<>::make(sched::EventKind::set_share, {}, rig.now);
        event.model = ModelId{m};
        event.quality = m == 0 ? 0.8 : 0.2;
        event.in_batch = m == 0;
        apply(event);
      }
    });
    for (int i = 0; i < 40; ++i) rig.arrive(1, 40'000);
    for (int t = 0; t < 100; ++t) rig.round();
    CHECK(rig.last().of_model[0].share == doctest::Approx(0.8));
    CHECK(recorder.is_exact(rig.config));
    rig.loop.set_planned_elsewhere(false);
    for (int t = 0; t < 100; ++t) rig.round();
    CHECK(rig.last().of_model[0].share < 0.5);
  }

  TEST_CASE("nets that are swapped under load are never mixed, and none is lost or kept") {
    nets_alive = 0;
    {
      Rig<NumberedNet> rig{3, ForecastMode::automatic};
      std::atomic<bool> is_over{false};
      std::atomic<int> offers{0};
      std::thread swapper{[&] {
        for (float number = 1.0F; !is_over; number += 1.0F) {
          (void)rig.loop.nets().offer(std::make_unique<NumberedNet>(number));
          (void)rig.loop.nets().collect();
          ++offers;
          std::this_thread::yield();
        }
      }};
      std::uint64_t last = 0;
      while (offers < 200 || last < 20) {
        rig.arrive(0);
        rig.round();
        const std::uint64_t number = rig.last().net_number;
        CHECK(number >= last);
        last = number;
      }
      is_over = true;
      swapper.join();
      (void)rig.loop.nets().offer(nullptr);
      for (int t = 0; t < 21; ++t) rig.round();
      CHECK(rig.last().net_number == 0);
      CHECK(rig.last().is_net_used == 0);
      (void)rig.loop.nets().collect();
      CHECK(nets_alive == 0);
    }
    CHECK(nets_alive == 0);
  }

  TEST_CASE("a slow net delays no plan that does not wait for a forecast") {
    Rig<NumberedNet> rig{2, ForecastMode::automatic};
    (void)rig.loop.nets().offer(std::make_unique<NumberedNet>(1.0F, 5_ms));
    struct Times final : sched::EventRecorder {
      void record(const sched::EventRecord& event, std::uint64_t) noexcept override {
        if (event.kind == sched::EventKind::tick) at = runtime::SteadyClock{}.now();
      }
      Instant at{};
    } times;
    rig.shared.set_recorder(&times);
    int slow = 0;
    for (int t = 0; t < 20 * 20; ++t) {
      rig.arrive(0);
      const Instant began = runtime::SteadyClock{}.now();
      rig.round();
      const Duration to_plan = times.at - began;
      const Duration whole = runtime::SteadyClock{}.now() - began;
      slow += whole > 5_ms && whole - to_plan >= 5_ms ? 1 : 0;
    }
    CHECK(slow >= 15);  // the net did run, after the plan
    CHECK(rig.last().net.p50_ns > 4'000'000);
  }

  TEST_CASE("a round allocates nothing") {
    for (const std::size_t models : {std::size_t{3}, std::size_t{16}}) {
      Rig<NumberedNet> rig{models, ForecastMode::automatic};
      (void)rig.loop.nets().offer(std::make_unique<NumberedNet>(1.0F));
      rig.loop.set_actuation_delay(10_s);
      for (int t = 0; t < 50; ++t) rig.round();
      rig.arrive(0);
      const std::uint64_t before = allocations();
      for (int t = 0; t < 20 * 60; ++t) rig.round();
      CHECK(allocations() == before);
    }
  }

  TEST_CASE("a router's thread runs rounds, can be read meanwhile, and ends when it is stopped") {
    auto router = std::make_unique<runtime::Router>(shared_device(3), std::make_shared<runtime::SteadyClock>(), 1_ms,
                                                    ForecastMode::automatic);
    LoopRound round;
    CHECK_FALSE(router->loop().read(round));
    router->start();
    std::uint64_t last = 0;
    while (last < 50) {
      if (router->loop().read(round)) {
        CHECK(round.rounds >= last);
        last = round.rounds;
      }
      (void)router->submit(request(100, router->now()), router->now());
      std::this_thread::yield();
    }
    router->tick();  // beside the thread's own
    router->stop();
    CHECK(router->loop().read(round));
    CHECK(round.rounds == router->ticks());
    CHECK(round.late.p50_ns >= 0);
  }
}
