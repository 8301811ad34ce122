#pragma once

#include <cstdint>

#include "zeta/core/time.hpp"
#include "zeta/core/types.hpp"
#include "zeta/route/window.hpp"

namespace zeta::route {

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

  [[nodiscard]] bool has_slot() const noexcept {
    return is_present && !is_draining && in_flight < window.limit() && in_flight < max_batch;
  }
  [[nodiscard]] bool fits(std::uint64_t tokens) const noexcept { return kv_reserved + tokens <= kv_tokens; }
};

}  // namespace zeta::route
