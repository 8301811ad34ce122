#pragma once

#include <cstdint>

#include "zeta/core/quantile_sketch.hpp"

namespace zeta::route {

/// What one replica's answers looked like from here, recent percentiles in fixed memory. In seconds.
///
/// - queue wait: from placement to first token, beyond the predicted prefill; what its window follows.
/// - ttft: from placement to first token.
/// - tpot: mean time per output token after the first, of answers of at least kShortest tokens.
struct ResponseTimes {
  static constexpr std::uint32_t kShortest = 8;

  QuantileSketch queue_wait_s;
  QuantileSketch ttft_s;
  QuantileSketch tpot_s;
};

}  // namespace zeta::route
