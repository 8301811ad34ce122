#include <doctest/doctest.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "zeta/sim/replay.hpp"

namespace {

using namespace zeta;
using sim::Replay;
using sim::ReplayArrivals;
using sim::ReplayConfig;

constexpr std::int64_t kMs = 1'000'000;

/// A step takes 10 ms whatever it holds.
sim::Device device_of(std::size_t engines, std::uint32_t kv_tokens = 1 << 16) {
  sim::StepTableData data;
  data.dense_ns = {10.0 * kMs, 10.0 * kMs};
  data.per_sequence_ns = {0.0, 0.0};
  data.decode_attention = data.mixed_decode_attention = data.prefill_attention =
      sim::KnotSurface{2, 2, std::vector<double>(4, 0.0)};
  const auto table = std::make_shared<const sim::StepTable>(data);
  sim::Device device{sim::DeviceConfig{}};
  sim::EngineConfig config;
  config.kv_tokens = kv_tokens;
  for (std::size_t i = 0; i < engines; ++i) device.add_engine(sim::Engine{table, config});
  return device;
}

sched::SchedulerConfig scheduler_of(std::size_t models) {
  sched::SchedulerConfig config;
  config.max_queued = 64;
  config.max_running = 64;
  config.max_tenants = 1;
  config.devices.push_back({});
  for (std::size_t m = 0; m < models; ++m) {
    sched::ModelConfig model;
    model.service.prefill_per_token_s = 1e-4;
    model.service.decode_base_s = 1e-2;
    config.models.push_back(model);
    sched::ReplicaConfig replica;
    replica.model = ModelId{static_cast<std::uint8_t>(m)};
    replica.kv_tokens = 1 << 16;
    config.replicas.push_back(replica);
  }
  return config;
}

/// Every column of `count` like requests, 20 ms apart.
struct Columns {
  explicit Columns(std::size_t count, std::int64_t first_ns = 0) {
    for (std::size_t i = 0; i < count; ++i) {
      at.push_back(first_ns + static_cast<std::int64_t>(i) * 20 * kMs);
      deadline.push_back(at.back() + 2'000 * kMs);
    }
    prompt.assign(count, 100);
    output.assign(count, 5);
    allowed.assign(count, 1);
    downgrade.assign(count, 0);
  }

  [[nodiscard]] ReplayArrivals arrivals() const {
    ReplayArrivals all;
    all.arrival_ns = at;
    all.prompt_tokens = prompt;
    all.output_tokens = output;
    all.allowed_mask = allowed;
    all.downgrade_mask = downgrade;
    all.deadline_ns = deadline;
    return all;
  }

  std::vector<std::int64_t> at;
  std::vector<std::int64_t> deadline;
  std::vector<std::uint32_t> prompt;
  std::vector<std::uint32_t> output;
  std::vector<std::uint32_t> allowed;
  std::vector<std::uint32_t> downgrade;
};

Replay replay_of(std::size_t models, ReplayConfig config = {}) {
  std::vector<sim::Device> devices;
  devices.push_back(device_of(models));
  std::vector<sim::ReplicaPlace> places;
  for (std::uint32_t m = 0; m < models; ++m) places.push_back({0, m});
  return Replay{scheduler_of(models), config, std::move(devices), std::move(places)};
}

constexpr Duration kMinute{60'000 * kMs};

}  // namespace

TEST_SUITE("sim/replay") {
  TEST_CASE("every request ends once, its instants in order") {
    ReplayConfig config;
    config.checks_every = 1;
    Replay replay = replay_of(1, config);
    replay.feed(Columns{20}.arrivals());
    replay.drain(kMinute);
    const sim::ReplayTimes& times = replay.times();
    for (std::size_t i = 0; i < 20; ++i) {
      CHECK(times.outcome[i] == static_cast<std::uint8_t>(Outcome::completed));
      CHECK(times.placed_ns[i] >= static_cast<std::int64_t>(i) * 20 * kMs);
      CHECK(times.first_token_ns[i] > times.placed_ns[i]);
      CHECK(times.last_token_ns[i] - times.first_token_ns[i] >= 4 * 10 * kMs);
      CHECK(times.model[i] == 0);
    }
    CHECK(replay.violations() == 0);
    CHECK(replay.scheduler().ledger().adds_up());
  }

  TEST_CASE("feeding in chunks changes nothing") {
    const Columns all{30};
    Replay whole = replay_of(1);
    whole.feed(all.arrivals());
    whole.drain(kMinute);
    Replay parts = replay_of(1);
    for (int part = 0; part < 3; ++part) parts.feed(Columns{10, part * 200 * kMs}.arrivals());
    parts.drain(kMinute);
    CHECK(whole.event_hash() == parts.event_hash());
    CHECK(whole.times().last_token_ns == parts.times().last_token_ns);
  }

  TEST_CASE("what the drain leaves is left, not lost") {
    Columns columns{3};
    columns.output.assign(3, 10'000);  // 100 s of decoding
    Replay replay = replay_of(1);
    replay.feed(columns.arrivals());
    replay.drain(Duration{1'000 * kMs});
    CHECK(replay.scheduler().ledger().running() == 3);
    for (const std::uint8_t outcome : replay.times().outcome) {
      CHECK(outcome == static_cast<std::uint8_t>(Outcome::placed));
    }
  }

  TEST_CASE("a request larger than the memory is rejected and the rest goes on") {
    Columns columns{3};
    columns.prompt[1] = 100'000;
    Replay replay = replay_of(1);
    replay.feed(columns.arrivals());
    replay.drain(kMinute);
    CHECK(replay.times().outcome[1] == static_cast<std::uint8_t>(Outcome::rejected_infeasible));
    CHECK(replay.times().outcome[2] == static_cast<std::uint8_t>(Outcome::completed));
  }

  TEST_CASE("an engine that is smaller than the scheduler believes fails the request") {
    std::vector<sim::Device> devices;
    devices.push_back(device_of(1, 1024));
    Replay replay{scheduler_of(1), {}, std::move(devices), {{0, 0}}};
    Columns columns{2};
    columns.prompt[0] = 4000;
    replay.feed(columns.arrivals());
    replay.drain(kMinute);
    CHECK(replay.times().outcome[0] == static_cast<std::uint8_t>(Outcome::failed_replica));
    CHECK(replay.times().outcome[1] == static_cast<std::uint8_t>(Outcome::completed));
  }

  TEST_CASE("ticks come at the interval, and their shares add up to one") {
    ReplayConfig config;
    config.keeps_ticks = true;
    Replay replay = replay_of(2, config);
    Columns columns{50};
    for (std::size_t i = 0; i < 50; i += 2) columns.allowed[i] = 2;
    replay.feed(columns.arrivals());
    REQUIRE(replay.ticks().size() == 19);  // the last request comes at 980 ms
    std::int64_t at = 0;
    for (const sim::ReplayTick& tick : replay.ticks()) {
      CHECK(tick.at_ns == (at += 50 * kMs));
      CHECK(tick.models[0].share + tick.models[1].share == doctest::Approx(1.0));
    }
  }

  TEST_CASE("a plan takes effect after the actuation delay, not before") {
    std::vector<std::int64_t> moved;
    for (const std::int64_t delay_ms : {0, 500}) {
      ReplayConfig config;
      config.keeps_ticks = true;
      config.actuation_delay = Duration{delay_ms * kMs};
      Replay replay = replay_of(2, config);
      Columns columns{60};
      columns.at.assign(60, 0);
      columns.prompt.assign(60, 5000);
      replay.feed(columns.arrivals());
      replay.drain(kMinute);
      for (const sim::ReplayTick& tick : replay.ticks()) {
        if (tick.models[0].share <= 0.55) continue;
        moved.push_back(tick.at_ns);
        break;
      }
    }
    REQUIRE(moved.size() == 2);
    CHECK(moved[1] - moved[0] == 500 * kMs);
  }

  TEST_CASE("replicas and places must match") {
    const auto build = [](std::vector<sim::ReplicaPlace> places) {
      std::vector<sim::Device> devices;
      devices.push_back(device_of(1));
      return Replay{scheduler_of(1), {}, std::move(devices), std::move(places)};
    };
    CHECK_THROWS_AS(build({}), std::invalid_argument);
    CHECK_THROWS_AS(build({{0, 1}}), std::invalid_argument);
    CHECK_THROWS_AS(build({{1, 0}}), std::invalid_argument);
  }
}
