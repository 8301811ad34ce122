#include <doctest/doctest.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "zeta/sim/device.hpp"

namespace {

using namespace zeta;
using namespace std::chrono_literals;
using sim::Colocation;
using sim::Device;
using sim::DeviceConfig;
using sim::Engine;
using sim::EngineConfig;
using sim::EngineRequest;
using sim::EngineSetup;

/// Every step takes 1000 ns, of which the device is busy for `device_ns`.
std::shared_ptr<const sim::StepTable> flat_table(double device_ns) {
  sim::StepTableData data;
  data.dense_ns = {device_ns, device_ns};
  data.per_sequence_ns = {0.0, 0.0};
  data.decode_attention = data.mixed_decode_attention = data.prefill_attention =
      sim::KnotSurface{2, 2, std::vector<double>(4, 0.0)};
  data.step_overhead_ns = 1000.0 - device_ns;
  return std::make_shared<const sim::StepTable>(data);
}

Engine engine_of(double device_ns = 1000.0) {
  EngineConfig config;
  config.kv_tokens = 1 << 16;
  config.plans_ahead = false;
  return Engine{flat_table(device_ns), config};
}

struct Log {
  std::vector<Instant> done = std::vector<Instant>(8, kNever);
  std::vector<std::uint64_t> losses;
  void first_token(std::size_t, std::uint64_t, Instant, Instant) {}
  void completed(std::size_t, std::uint64_t tag, Instant at) { done[tag] = at; }
  void lost(std::size_t, std::uint64_t tag, Instant) { losses.push_back(tag); }
};

Instant at_ns(std::int64_t ns) { return instant_from_ns(ns); }

Device device_of(Colocation colocation, std::size_t engines, double device_ns = 1000.0) {
  DeviceConfig config;
  config.colocation = colocation;
  Device device{config};
  for (std::size_t i = 0; i < engines; ++i) device.add_engine(engine_of(device_ns));
  return device;
}

void drain(Device& device, Log& log) {
  while (device.next_event() != kNever) device.advance_to(device.next_event(), log);
}

}  // namespace

TEST_CASE("sim device: timeslice gives each running model an equal slice of steps") {
  Device device = device_of(Colocation::timeslice, 3);
  Log log;
  for (std::size_t i = 0; i < 3; ++i) REQUIRE(device.enqueue(i, EngineRequest{i, 10, 10, 0}, at_ns(0)));
  drain(device, log);
  // 30 steps in all, one at a time; the three end next to each other.
  for (std::size_t i = 0; i < 3; ++i) CHECK(log.done[i] >= at_ns(28'000));
  CHECK(device.now() == at_ns(30'000));
}

TEST_CASE("sim device: timeslice costs a model that runs alone nothing") {
  Device device = device_of(Colocation::timeslice, 3);
  Log log;
  REQUIRE(device.enqueue(1, EngineRequest{1, 10, 10, 0}, at_ns(0)));
  drain(device, log);
  CHECK(log.done[1] == at_ns(10'000));
}

TEST_CASE("sim device: exclusive engines do not slow each other down") {
  Device device = device_of(Colocation::exclusive, 3);
  Log log;
  for (std::size_t i = 0; i < 3; ++i) REQUIRE(device.enqueue(i, EngineRequest{i, 10, 10, 0}, at_ns(0)));
  drain(device, log);
  for (std::size_t i = 0; i < 3; ++i) CHECK(log.done[i] == at_ns(10'000));
}

TEST_CASE("sim device: overlapping steps share the device's time and hide only the host's") {
  // Each step is busy for 80 %: two demand 1.6 devices, so everything takes 1.6 times as long.
  Device device = device_of(Colocation::mps, 2, 800.0);
  Log log;
  for (std::size_t i = 0; i < 2; ++i) REQUIRE(device.enqueue(i, EngineRequest{i, 10, 10, 0}, at_ns(0)));
  drain(device, log);
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(log.done[i] >= at_ns(16'000));
    CHECK(log.done[i] <= at_ns(16'020));  // each step is rounded up
  }
  Device light = device_of(Colocation::mps, 2, 400.0);
  Log calm;
  for (std::size_t i = 0; i < 2; ++i) REQUIRE(light.enqueue(i, EngineRequest{i, 10, 10, 0}, at_ns(0)));
  drain(light, calm);
  CHECK(calm.done[0] <= at_ns(10'020));
}

TEST_CASE("sim device: a step that is half done when another joins keeps its progress") {
  Device device = device_of(Colocation::mps, 2, 1000.0);
  Log log;
  REQUIRE(device.enqueue(0, EngineRequest{0, 10, 1, 0}, at_ns(0)));
  device.advance_to(at_ns(500), log);
  REQUIRE(device.enqueue(1, EngineRequest{1, 10, 1, 0}, at_ns(500)));
  drain(device, log);
  CHECK(log.done[0] >= at_ns(1'500));
  CHECK(log.done[0] <= at_ns(1'502));
  CHECK(log.done[1] <= at_ns(2'004));
}

TEST_CASE("sim device: swap runs one model at a time and pays for the change") {
  DeviceConfig config;
  config.colocation = Colocation::swap;
  Device device{config};
  device.add_engine(engine_of(), EngineSetup{at_ns(0), 5us, 2us});
  device.add_engine(engine_of(), EngineSetup{at_ns(0), 7us, 3us});
  Log log;
  REQUIRE(device.enqueue(0, EngineRequest{0, 10, 10, 0}, at_ns(0)));
  REQUIRE(device.enqueue(1, EngineRequest{1, 10, 10, 0}, at_ns(0)));
  drain(device, log);
  CHECK(log.done[0] == at_ns(10'000));
  CHECK(log.done[1] == at_ns(10'000 + 2'000 + 7'000 + 10'000));
  CHECK(device.swaps() == 1);
}

TEST_CASE("sim device: one that obeys changes its resident model only when told, and says once when it is loaded") {
  DeviceConfig config;
  config.colocation = Colocation::swap;
  Device device{config};
  device.add_engine(engine_of(), EngineSetup{at_ns(0), 5us, 2us});
  device.add_engine(engine_of(), EngineSetup{at_ns(0), 7us, 3us});
  device.obey();
  Log log;
  REQUIRE(device.enqueue(1, EngineRequest{1, 10, 10, 0}, at_ns(0)));
  drain(device, log);
  CHECK(device.swaps() == 0);
  CHECK(log.done[1] == kNever);
  device.bring_in(1, at_ns(100));
  CHECK_FALSE(device.take_loaded());
  device.advance_to(at_ns(100 + 2'000 + 7'000), log);
  CHECK(device.take_loaded() == 1);
  CHECK_FALSE(device.take_loaded());
  drain(device, log);
  CHECK(log.done[1] == at_ns(100 + 9'000 + 10'000));
  CHECK(device.swaps() == 1);
}

TEST_CASE("sim device: a resident model that never runs dry is swapped out after its residency") {
  DeviceConfig config;
  config.colocation = Colocation::swap;
  config.max_residency = 20us;
  Device device{config};
  device.add_engine(engine_of());
  device.add_engine(engine_of());
  Log log;
  REQUIRE(device.enqueue(1, EngineRequest{1, 10, 2, 0}, at_ns(0)));  // swapped in at once: engine 0 is idle
  device.advance_to(at_ns(100), log);
  CHECK(device.resident() == 1);
  for (std::int64_t t = 200; t < 100'000; t += 900) {
    device.advance_to(at_ns(t), log);
    (void)device.enqueue(1, EngineRequest{2, 10, 4, 0}, at_ns(t));
    if (t < 1'200) REQUIRE(device.enqueue(0, EngineRequest{0, 10, 2, 0}, at_ns(t)));
  }
  drain(device, log);
  CHECK(log.done[0] <= at_ns(40'000));
}

TEST_CASE("sim device: an engine that is starting up queues and begins when it is ready") {
  DeviceConfig config;
  Device device{config};
  device.add_engine(engine_of(), EngineSetup{at_ns(50'000), {}, {}});
  Log log;
  REQUIRE(device.enqueue(0, EngineRequest{0, 10, 1, 0}, at_ns(10)));
  CHECK(device.next_event() == at_ns(50'000));
  drain(device, log);
  CHECK(log.done[0] == at_ns(51'000));
}

TEST_CASE("sim device: a stalled engine makes no progress and the others go on") {
  for (const Colocation colocation : {Colocation::timeslice, Colocation::exclusive, Colocation::mps}) {
    Device device = device_of(colocation, 2);
    Log log;
    REQUIRE(device.enqueue(0, EngineRequest{0, 10, 3, 0}, at_ns(0)));
    device.advance_to(at_ns(500), log);
    device.stall(0, at_ns(500), at_ns(90'000));
    REQUIRE(device.enqueue(1, EngineRequest{1, 10, 3, 0}, at_ns(500)));
    drain(device, log);
    CHECK(log.done[1] < at_ns(10'000));
    CHECK(log.done[0] >= at_ns(91'000));
  }
}

TEST_CASE("sim device: a crashed engine reports its losses, and comes back when told") {
  for (const Colocation colocation : {Colocation::timeslice, Colocation::exclusive, Colocation::mps}) {
    Device device = device_of(colocation, 2);
    Log log;
    REQUIRE(device.enqueue(0, EngineRequest{0, 10, 50, 0}, at_ns(0)));
    REQUIRE(device.enqueue(1, EngineRequest{1, 10, 5, 0}, at_ns(0)));
    device.advance_to(at_ns(2'500), log);
    device.crash(0, at_ns(2'500), at_ns(60'000), log);
    CHECK(log.losses == std::vector<std::uint64_t>{0});
    REQUIRE(device.enqueue(0, EngineRequest{2, 10, 1, 0}, at_ns(2'500)));
    drain(device, log);
    CHECK(log.done[0] == kNever);
    CHECK(log.done[1] < at_ns(20'000));
    CHECK(log.done[2] >= at_ns(61'000));
    CHECK(log.done[2] <= at_ns(61'002));
  }
}

TEST_CASE("sim device: a slow-down stretches steps by its factor") {
  Device device = device_of(Colocation::exclusive, 1);
  Log log;
  device.set_slow_down(0, 2.5);
  REQUIRE(device.enqueue(0, EngineRequest{0, 10, 4, 0}, at_ns(0)));
  drain(device, log);
  CHECK(log.done[0] == at_ns(10'000));
}
