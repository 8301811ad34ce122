#pragma once
// What a model costs its device, as a few numbers: enough to predict a start, a promise and a share in nanoseconds.

#include <cstdint>

#include "zeta/core/time.hpp"

namespace zeta {

/// Predicted engine times of one model on one kind of device, in seconds. A value; anybody may copy it.
///
/// prefill(p)      = prefill_base_s + prefill_per_token_s * p + prefill_per_token2_s * p^2
/// decode step     = decode_base_s + decode_per_sequence_s * batch + decode_per_context_token_s * (sum of contexts)
///
/// The same shape as the fits that DistServe publishes for its simulator (a + b p + c p^2; a + b n per step).
struct ServiceModel {
  double prefill_base_s = 0.0;
  double prefill_per_token_s = 0.0;
  double prefill_per_token2_s = 0.0;
  double decode_base_s = 0.0;
  double decode_per_sequence_s = 0.0;
  double decode_per_context_token_s = 0.0;
  /// Sequences that are assumed to share a decode step when one request's work is priced.
  double reference_batch = 32.0;

  [[nodiscard]] constexpr double prefill_s(double prompt_tokens) const noexcept {
    return prefill_base_s + prompt_tokens * (prefill_per_token_s + prompt_tokens * prefill_per_token2_s);
  }

  [[nodiscard]] constexpr double step_s(double batch, double context_tokens) const noexcept {
    return decode_base_s + decode_per_sequence_s * batch + decode_per_context_token_s * context_tokens;
  }

  /// GPU-seconds of one request: its prefill, and its part of the decode steps that it shares with others.
  [[nodiscard]] constexpr double work_s(double prompt_tokens, double output_tokens) const noexcept {
    const double mean_context_tokens = prompt_tokens + 0.5 * output_tokens;
    const double per_token_s =
        decode_base_s / reference_batch + decode_per_sequence_s + decode_per_context_token_s * mean_context_tokens;
    return prefill_s(prompt_tokens) + output_tokens * per_token_s;
  }

  /// The same model on an engine whose prefills and decode steps take this many times as long.
  [[nodiscard]] constexpr ServiceModel scaled(double prefill, double decode) const noexcept {
    return {prefill_base_s * prefill, prefill_per_token_s * prefill,  prefill_per_token2_s * prefill,
            decode_base_s * decode,   decode_per_sequence_s * decode, decode_per_context_token_s * decode,
            reference_batch};
  }
};

}  // namespace zeta
