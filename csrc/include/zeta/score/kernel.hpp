#pragma once
// Suitability of many requests on many models at once: columns in, scores, the best model and keys out.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "zeta/core/cpu.hpp"
#include "zeta/score/suitability.hpp"

namespace zeta::score {

/// A feature of each (model, request) pair: one row of n values per model, or one value per model for all requests.
struct PairColumn {
  const double* values = nullptr;  ///< Null: 0 everywhere.
  bool is_per_request = false;     ///< m × n values, one model's after another's; otherwise m.
};

/// What a batch is scored from: n requests, m models. Doubles, as in score::suitability, so that a batch and the
/// scheduler's own single scores agree in every bit; half as wide a type would be twice as fast and would not.
struct Batch {
  std::size_t requests = 0;
  std::size_t models = 0;
  const double* complexity = nullptr;    ///< n; NaN or negative: unknown.
  const double* time_left_s = nullptr;   ///< n; infinite: no deadline.
  const double* odds_against = nullptr;  ///< m; QualityCurve::odds_against.
  PairColumn relative_cost;
  PairColumn first_token_s;
  PairColumn prefix_held;
};

inline constexpr std::int64_t kNoBest = -1;

namespace detail {

/// Requests per step: the step's columns and results stay in the first-level cache.
inline constexpr std::size_t kStep = 128;

/// What the models of one step share.
struct StepState {
  alignas(64) std::array<double, kStep> hardness;
  alignas(64) std::array<double, kStep> urgency;
  alignas(64) std::array<double, kStep> least_risk;
  alignas(64) std::array<double, kStep> best_score;
  alignas(64) std::array<std::int64_t, kStep> best;
};

[[gnu::always_inline]] inline void begin_step(StepState& state, const double* __restrict complexity,
                                              const double* __restrict time_left_s, std::size_t count) noexcept {
  double* __restrict hard = state.hardness.data();
  double* __restrict urgency = state.urgency.data();
  double* __restrict least_risk = state.least_risk.data();
  for (std::size_t i = 0; i < count; ++i) hard[i] = hardness(complexity[i]);
  for (std::size_t i = 0; i < count; ++i) {
    const Urgency mine = Urgency::from_time_left(time_left_s[i]);
    urgency[i] = mine.per_second;
    least_risk[i] = mine.least_risk;
  }
  std::fill_n(state.best_score.data(), count, -std::numeric_limits<double>::infinity());
  std::fill_n(state.best.data(), count, kNoBest);
}

[[gnu::always_inline]] inline void score_model(StepState& state, const Weights weights, double odds_against,
                                               std::int64_t model, const double* __restrict relative_cost,
                                               const double* __restrict first_token_s,
                                               const double* __restrict prefix_held, double* __restrict scores,
                                               std::size_t count) noexcept {
  const double* __restrict hard = state.hardness.data();
  const double* __restrict urgency = state.urgency.data();
  const double* __restrict least_risk = state.least_risk.data();
  double* __restrict best_score = state.best_score.data();
  std::int64_t* __restrict best = state.best.data();
  for (std::size_t i = 0; i < count; ++i) {
    const double p_good = 1.0 / (1.0 + odds_against * hard[i]);
    const double risk = Urgency{urgency[i], least_risk[i]}.risk(first_token_s[i]);
    const double score = weighted_sum(weights, p_good, relative_cost[i], risk, prefix_held[i]);
    scores[i] = score;
    const double best_yet = best_score[i];
    const std::int64_t best_model = best[i];
    best[i] = score > best_yet ? model : best_model;
    best_score[i] = score > best_yet ? score : best_yet;
  }
}

/// The rows of one step: where a feature is one value per model, a row filled with it.
[[gnu::always_inline]] inline const double* row_of(const PairColumn& column, std::size_t model, std::size_t requests,
                                                   std::size_t first, double* __restrict filled,
                                                   std::size_t count) noexcept {
  if (column.is_per_request) return column.values + model * requests + first;
  std::fill_n(filled, count, column.values == nullptr ? 0.0 : column.values[model]);
  return filled;
}

[[gnu::always_inline]] inline void score_step(const Batch& batch, const Weights& weights, double* scores,
                                              std::int64_t* best, std::size_t first, std::size_t count) noexcept {
  StepState state;
  alignas(64) std::array<double, kStep> cost;
  alignas(64) std::array<double, kStep> first_token;
  alignas(64) std::array<double, kStep> held;
  begin_step(state, batch.complexity + first, batch.time_left_s + first, count);
  for (std::size_t model = 0; model < batch.models; ++model) {
    score_model(state, weights, batch.odds_against[model], static_cast<std::int64_t>(model),
                row_of(batch.relative_cost, model, batch.requests, first, cost.data(), count),
                row_of(batch.first_token_s, model, batch.requests, first, first_token.data(), count),
                row_of(batch.prefix_held, model, batch.requests, first, held.data(), count),
                scores + model * batch.requests + first, count);
  }
  std::copy_n(state.best.data(), count, best + first);
}

[[gnu::always_inline]] inline void score_batch(const Batch& batch, const Weights& weights, double* scores,
                                               std::int64_t* best) noexcept {
  std::size_t first = 0;
  for (; first + kStep <= batch.requests; first += kStep) score_step(batch, weights, scores, best, first, kStep);
  if (first < batch.requests) score_step(batch, weights, scores, best, first, batch.requests - first);
}

#if defined(__x86_64__)
ZETA_TARGET_AVX2 inline void score_batch_avx2(const Batch& batch, const Weights& weights, double* scores,
                                              std::int64_t* best) noexcept {
  score_batch(batch, weights, scores, best);
}
ZETA_TARGET_AVX512 inline void score_batch_avx512(const Batch& batch, const Weights& weights, double* scores,
                                                  std::int64_t* best) noexcept {
  score_batch(batch, weights, scores, best);
}
#endif

[[gnu::flatten]] inline void score_batch_baseline(const Batch& batch, const Weights& weights, double* scores,
                                                  std::int64_t* best) noexcept {
  score_batch(batch, weights, scores, best);
}

}  // namespace detail

/// Scores of all pairs, `scores[model * n + request]`, and each request's best model: the highest score, the lowest
/// model number among equals, kNoBest where every score is minus infinity (an input is NaN). The same bits as
/// score::suitability with QualityCurve::p_good, at every level. Outputs share no memory with the columns or each
/// other. `level` is one that this processor offers.
///
/// Any thread; allocates nothing; needs -ffp-contract=off, as all of the core.
inline void suitability(const Batch& batch, const Weights& weights, double* scores, std::int64_t* best,
                        SimdLevel level = simd_level()) noexcept {
#if defined(__x86_64__)
  if (level == SimdLevel::avx512) return detail::score_batch_avx512(batch, weights, scores, best);
  if (level == SimdLevel::avx2) return detail::score_batch_avx2(batch, weights, scores, best);
#endif
  static_cast<void>(level);
  detail::score_batch_baseline(batch, weights, scores, best);
}

/// Each request's key: its deadline less its predicted service on the fastest model (least laxity; Mok, 1983), in
/// nanoseconds, at least 0. A deadline of kNever (int64's largest) stays the last of all keys; NaN services are left
/// out, and where nothing is known the deadline is the key.
inline void latest_start_keys(const std::int64_t* deadline_ns, const PairColumn& service_s, std::size_t requests,
                              std::size_t models, std::uint64_t* keys) noexcept {
  constexpr double kUnknown = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < requests; ++i) {
    double fastest_s = kUnknown;
    for (std::size_t model = 0; model < models; ++model) {
      const double here = service_s.values[service_s.is_per_request ? model * requests + i : model];
      fastest_s = here < fastest_s ? here : fastest_s;
    }
    const Duration service = fastest_s == kUnknown ? Duration{0} : duration_from_seconds(std::max(fastest_s, 0.0));
    const std::int64_t deadline = std::max<std::int64_t>(deadline_ns[i], 0);
    keys[i] =
        static_cast<std::uint64_t>(std::max<std::int64_t>(to_ns(latest_start(instant_from_ns(deadline), service)), 0));
  }
}

}  // namespace zeta::score
