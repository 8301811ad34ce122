#pragma once
// Replays a list of arrivals straight into a device's engines, with no scheduler before them.

#include <cstddef>
#include <cstdint>
#include <span>

#include "zeta/core/event_hash.hpp"
#include "zeta/core/time.hpp"
#include "zeta/sim/device.hpp"

namespace zeta::sim {

/// Arrivals in time order, one entry per request in every column.
struct OpenLoopArrivals {
  std::span<const std::int64_t> arrival_ns;
  std::span<const std::uint32_t> prompt_tokens;
  std::span<const std::uint32_t> output_tokens;
  std::span<const std::uint32_t> cached_tokens;  ///< Empty: nothing is cached.
  std::span<const std::uint32_t> engine;         ///< Index on the device. Empty: all go to engine 0.
};

/// When each request was first scheduled, gave its first token, and its last; -1 where it never did.
struct OpenLoopTimes {
  std::span<std::int64_t> scheduled_ns;
  std::span<std::int64_t> first_token_ns;
  std::span<std::int64_t> last_token_ns;
};

struct OpenLoopResult {
  std::uint64_t completed = 0;
  std::uint64_t refused = 0;  ///< The engine's queue was full or the request did not fit.
  Instant ended_at{};
  std::uint64_t event_hash = 0;  ///< Of every report in order.
};

/// What calibration compares with an engine's log. Allocates nothing; runs until the device is idle.
inline OpenLoopResult run_open_loop(Device& device, const OpenLoopArrivals& arrivals, const OpenLoopTimes& times) {
  struct Sink {
    const OpenLoopTimes& times;
    OpenLoopResult result{};
    EventHash hash{};
    void first_token(std::size_t engine, std::uint64_t tag, Instant scheduled_at, Instant at) noexcept {
      times.scheduled_ns[tag] = to_ns(scheduled_at);
      times.first_token_ns[tag] = to_ns(at);
      note(1, engine, tag, at);
    }
    void completed(std::size_t engine, std::uint64_t tag, Instant at) noexcept {
      times.last_token_ns[tag] = to_ns(at);
      ++result.completed;
      result.ended_at = at;
      note(2, engine, tag, at);
    }
    void note(std::uint64_t kind, std::size_t engine, std::uint64_t tag, Instant at) noexcept {
      hash.add(kind << 32U | engine);
      hash.add(tag);
      hash.add(static_cast<std::uint64_t>(to_ns(at)));
    }
  } sink{times};

  for (std::size_t i = 0; i < arrivals.arrival_ns.size(); ++i) {
    const Instant at = instant_from_ns(arrivals.arrival_ns[i]);
    device.advance_to(at, sink);
    times.scheduled_ns[i] = times.first_token_ns[i] = times.last_token_ns[i] = -1;
    EngineRequest request;
    request.tag = i;
    request.prompt_tokens = arrivals.prompt_tokens[i];
    request.output_tokens = arrivals.output_tokens[i];
    request.cached_tokens = arrivals.cached_tokens.empty() ? 0 : arrivals.cached_tokens[i];
    const std::size_t engine = arrivals.engine.empty() ? 0 : arrivals.engine[i];
    if (!device.enqueue(engine, request, at)) {
      ++sink.result.refused;
      sink.note(3, engine, i, at);
    }
  }
  while (device.next_event() != kNever) device.advance_to(device.next_event(), sink);
  sink.result.event_hash = sink.hash.value();
  return sink.result;
}

}  // namespace zeta::sim
