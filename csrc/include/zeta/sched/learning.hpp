#pragma once
// What answers teach: how long they are, how late they start, how fast they go, how good they were.

#include <algorithm>

#include "zeta/sched/finals.hpp"
#include "zeta/sched/fleet.hpp"

namespace zeta::sched {

inline constexpr double kOutputRate = 0.02;  ///< Of the running mean of output lengths: about the last 50 answers.
inline constexpr double kLagRate = 0.1;
inline constexpr double kFeedbackRate = 0.05;
/// Prompt tokens that an engine prefills between two rounds of its neighbours' decode steps: vLLM's chunk.
inline constexpr double kChunkTokens = 2048.0;

inline void learn_output(Model& model, std::uint32_t output_tokens) noexcept {
  if (output_tokens == kUnknownTokens) return;
  model.mean_output_tokens += kOutputRate * (static_cast<double>(output_tokens) - model.mean_output_tokens);
}

/// `lag`: from placement to first token, beyond the predicted prefill.
inline void learn_start_lag(Model& model, Duration lag) noexcept {
  model.start_lag_s += kLagRate * (std::max(to_seconds(lag), 0.0) - model.start_lag_s);
}

/// From a prefill that had its device to itself, as far as prefills go. One chunk takes turns with one round of decode
/// steps; where those took most of the time it teaches nothing.
inline void learn_prefill(Fleet& fleet, const Slot& s, Instant now) noexcept {
  route::ResponseTimes& times = fleet.times(s.replica);
  const double ttft_s = to_seconds(now - s.stage_began);
  times.ttft_s.add(ttft_s);
  times.queue_wait_s.add(std::max(ttft_s - to_seconds(s.prefill), 0.0));
  Model& model = fleet[s.model];
  Device& device = fleet.device_of(s.model);
  const double full_chunks = static_cast<double>(s.request.prompt_tokens) / kChunkTokens;
  const double predicted_s = model.config.service.prefill_s(s.request.prompt_tokens);
  const double likely_s = predicted_s * model.prefill.estimate();
  const double own_step_s = fleet.prior_step_s(model, fleet.copies_of(device)) * model.decode.estimate();
  // Prompts that share a chunk let their own model decode in it only once, so only full ones count.
  device.rounds.take_off(std::max(likely_s - full_chunks * own_step_s, 0.0) / fleet.copies_of(device));
  if (!s.is_alone || s.mark != device.placed) return;
  const double steps_s = (full_chunks + 1.5) * fleet.likely_round_s(device);  // one to come in, half to wait for
  if (steps_s > predicted_s) return;
  const double before = model.prefill.in_force();
  model.prefill.observe(std::max(ttft_s - steps_s, 0.0), predicted_s);
  if (model.prefill.in_force() != before) fleet.correct(model);
}

/// From a whole answer: its length and, where that is known, its tokens against the rounds of decode steps that its
/// device should have done meanwhile. What is wrong with a round is put on its models, more on those that make up more
/// of it; the mix varies, and so each finds its own.
inline void learn_answer(Fleet& fleet, const Slot& s, std::uint32_t output_tokens, Instant now) noexcept {
  Model& model = fleet[s.model];
  learn_output(model, output_tokens);
  if (s.phase != Phase::decoding || output_tokens == kUnknownTokens) return;
  if (output_tokens < route::ResponseTimes::kShortest) return;
  const double tokens = static_cast<double>(output_tokens - 1);
  const double elapsed_s = to_seconds(now - s.stage_began);
  fleet.times(s.replica).tpot_s.add(elapsed_s / tokens);
  const Device& device = fleet.device_of(s.model);
  const double rounds = RoundClock::between(device.rounds.read(now), s.mark);
  const double round_s = device.rounds.round_s();
  // Where prefills took most of the time, what is left is the difference of two large numbers.
  if (rounds < 1.0 || !(round_s > 0.0) || rounds < 0.5 * elapsed_s / round_s) return;
  const double own = fleet.prior_step_s(model, fleet.copies_of(device)) / round_s;
  const double before = model.decode.in_force();
  model.decode.observe(rounds, tokens, own * own);
  if (model.decode.in_force() != before) fleet.correct(model);
}

/// One step of the stochastic gradient of the log loss; `quality` in [0, 1].
inline void learn_quality(Model& model, float complexity, double quality) noexcept {
  const double known = complexity < 0.0F ? 0.5 : static_cast<double>(complexity);
  model.curve.learn(known, quality, kFeedbackRate);
}

}  // namespace zeta::sched
