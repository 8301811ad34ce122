#pragma once
// What a model's answers teach: how long they are, how late they start, how good they were.

#include <algorithm>

#include "zeta/sched/finals.hpp"
#include "zeta/sched/fleet.hpp"

namespace zeta::sched {

inline constexpr double kOutputRate = 0.02;  ///< Of the running mean of output lengths: about the last 50 answers.
inline constexpr double kLagRate = 0.1;
inline constexpr double kFeedbackRate = 0.05;

inline void learn_output(Model& model, std::uint32_t output_tokens) noexcept {
  if (output_tokens == kUnknownTokens) return;
  model.mean_output_tokens += kOutputRate * (static_cast<double>(output_tokens) - model.mean_output_tokens);
}

/// `lag`: from placement to first token, beyond the predicted prefill.
inline void learn_start_lag(Model& model, Duration lag) noexcept {
  model.start_lag_s += kLagRate * (std::max(to_seconds(lag), 0.0) - model.start_lag_s);
}

/// One step of the stochastic gradient of the log loss; `quality` in [0, 1].
inline void learn_quality(Model& model, float complexity, double quality) noexcept {
  const double known = complexity < 0.0F ? 0.5 : static_cast<double>(complexity);
  model.curve.learn(known, quality, kFeedbackRate);
}

}  // namespace zeta::sched
