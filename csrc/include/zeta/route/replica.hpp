#pragma once

#include <algorithm>
#include <cstdint>

#include "zeta/core/time.hpp"
#include "zeta/core/types.hpp"
#include "zeta/route/window.hpp"

namespace zeta::route {

/// What others than this scheduler hold on a replica, by the engine's own word. Nothing, where nobody has told.
struct ExternalLoad {
  std::uint32_t requests = 0;   ///< Running and waiting.
  std::uint64_t kv_tokens = 0;  ///< Of the replica's capacity.
  bool is_known = false;
};

/// What the scheduler knows of one running copy of a model.
struct Replica {
  ModelId model = kNoModel;
  bool is_present = false;
  bool is_draining = false;
  std::uint32_t in_flight = 0;  ///< Placed and not ended.
  std::uint32_t max_batch = 0;
  std::uint64_t kv_tokens = 0;    ///< Capacity.
  std::uint64_t kv_reserved = 0;  ///< Prompt and expected output of what is in flight.
  Duration prefill_in_flight{0};  ///< Predicted prefill time of what has no first token yet.
  Window window;
  ExternalLoad others;

  /// Requests of ours that it may have in flight: what others hold of its window is theirs. One is always ours, so that
  /// others never keep us out.
  [[nodiscard]] std::uint32_t limit() const noexcept {
    const std::uint32_t most = std::min(window.limit(), max_batch);
    return most > others.requests ? most - others.requests : std::min(most, 1U);
  }
  [[nodiscard]] bool has_slot() const noexcept { return is_present && !is_draining && in_flight < limit(); }
  /// Others' tokens count only beside ours: a request that fits an empty replica waits for nobody but us.
  [[nodiscard]] bool fits(std::uint64_t tokens) const noexcept {
    return kv_reserved + tokens + (in_flight > 0 ? others.kv_tokens : 0) <= kv_tokens;
  }
  /// In flight there, whoever sent them.
  [[nodiscard]] std::uint64_t requests() const noexcept { return std::uint64_t{in_flight} + others.requests; }
};

}  // namespace zeta::route
