#pragma once
// Small fleets for the scheduler's tests.

#include <cstdint>

#include "zeta/sched/config.hpp"
#include "zeta/sched/scheduler.hpp"

namespace zeta::test {

inline constexpr Duration operator""_ms(unsigned long long ms) { return std::chrono::milliseconds{ms}; }
inline constexpr Duration operator""_s(unsigned long long s) { return std::chrono::seconds{s}; }

inline constexpr Instant kStart = instant_from_ns(1'000'000'000'000);

/// Prefill of 10 us per token and a decode step of 10 ms, so that sums can be done in the head.
inline ServiceModel simple_service() {
  return {.prefill_per_token_s = 1e-5, .decode_base_s = 0.01, .reference_batch = 100.0};
}

/// One model on a device of its own, with one replica.
inline sched::SchedulerConfig one_model(std::uint32_t max_in_flight, std::uint64_t kv_tokens = 1U << 20U) {
  sched::SchedulerConfig config;
  config.max_queued = 10'000;
  config.max_running = 1'000;
  config.max_replicas = 16;
  config.devices = {{.is_shared = false}};
  config.models = {{.quality = 0.5, .service = simple_service(), .device = DeviceId{0}}};
  config.replicas = {{.model = ModelId{0}, .max_in_flight = max_in_flight, .kv_tokens = kv_tokens}};
  return config;
}

/// `count` models, each with a device and a replica of its own, of rising quality and price.
inline sched::SchedulerConfig several_models(std::size_t count, std::uint32_t max_in_flight) {
  sched::SchedulerConfig config = one_model(max_in_flight);
  config.devices.assign(count, {.is_shared = false});
  config.models.clear();
  config.replicas.clear();
  for (std::size_t m = 0; m < count; ++m) {
    ServiceModel service = simple_service();
    service.prefill_per_token_s *= static_cast<double>(m + 1);
    service.decode_base_s *= static_cast<double>(m + 1);
    config.models.push_back({.quality = 0.4 + 0.5 * static_cast<double>(m) / static_cast<double>(count),
                             .service = service,
                             .device = DeviceId{static_cast<std::uint8_t>(m)}});
    config.replicas.push_back({.model = ModelId{static_cast<std::uint8_t>(m)}, .max_in_flight = max_in_flight});
  }
  return config;
}

/// A request of `prompt` tokens; deadline from `now`, none if 0.
inline sched::Request request(std::uint32_t prompt, Instant now = kStart, Duration deadline = Duration{0}) {
  sched::Request made;
  made.prompt_tokens = prompt;
  if (deadline > Duration{0}) made.first_token_deadline = now + deadline;
  return made;
}

/// Submits and hands out the placement: the request must have room.
inline sched::Ticket start(sched::Scheduler& scheduler, const sched::Request& what, Instant now) {
  const sched::Ticket ticket = scheduler.submit(what, now);
  while (scheduler.next_placement()) {
  }
  return ticket;
}

/// Completes `running` and says who came next; the null ticket if nobody did.
inline sched::Ticket next_after(sched::Scheduler& scheduler, sched::Ticket running, Instant now,
                                std::uint32_t output_tokens = 256) {
  (void)scheduler.complete(running, output_tokens, now);
  const auto placement = scheduler.next_placement();
  return placement ? placement->ticket : sched::Ticket{};
}

}  // namespace zeta::test
