#pragma once
// How well a model suits a request right now, and the request's key. score/kernel.hpp does the same for columns.

#include <limits>

#include "zeta/core/math.hpp"
#include "zeta/core/time.hpp"

namespace zeta::score {

/// What complexity does to the odds of a bad answer: e^(4 (complexity - 1/2)), 1 for an average request. An unknown
/// complexity (NaN or negative) is infinitely hard: P(good) is 0 on every model and does not tell them apart.
constexpr double hardness(double complexity) noexcept {
  const double factor = exact_exp(4.0 * (complexity - 0.5));
  return select(complexity >= 0.0, factor, std::numeric_limits<double>::infinity());
}

/// P(model answers well | complexity): the model's quality prior moved along the logit by the request's complexity.
///
///   P(good) = logistic(logit(quality) + 4 (1/2 - complexity)) = 1 / (1 + (1 - quality) / quality * hardness)
///
/// A Rasch (1960) item-response curve with a fixed slope: an average request (complexity 1/2) is answered with
/// probability `quality`; the easiest and the hardest move the odds by e^2 either way. In odds the request's part and
/// the model's part are factors, so a batch takes one exponential per request instead of one per request and model.
struct QualityCurve {
  double odds_against = 1.0;  ///< (1 - quality) / quality.

  static constexpr QualityCurve from_quality(double quality) noexcept {
    const double clamped = quality < 1e-6 ? 1e-6 : (quality > 1.0 - 1e-6 ? 1.0 - 1e-6 : quality);
    return {(1.0 - clamped) / clamped};
  }
  [[nodiscard]] constexpr double p_good(double complexity) const noexcept { return p_good_at(hardness(complexity)); }
  /// As p_good, where the request's hardness is known: several models of one request need one exponential.
  [[nodiscard]] constexpr double p_good_at(double hardness) const noexcept {
    return 1.0 / (1.0 + odds_against * hardness);
  }
  /// One step of stochastic gradient descent of the log loss, on the logit of quality.
  constexpr void learn(double complexity, double quality, double rate) noexcept {
    odds_against *= exact_exp(-rate * (quality - p_good(complexity)));
  }
};

/// Weights of the parts of a score. Each part lies in [0, 1], so weights compare directly.
struct Weights {
  double quality = 1.0;
  double cost = 0.5;       ///< GPU-seconds relative to the dearest eligible model.
  double deadline = 1.0;   ///< Predicted time to first token relative to the time left.
  double affinity = 0.25;  ///< A replica that probably holds the prefix.
};

/// The inputs of one (request, model) pair.
struct Features {
  double p_good = 0.5;
  double relative_cost = 0.0;  ///< This model's predicted work ÷ the largest among the eligible models.
  double first_token_s = 0.0;  ///< Predicted time to first token from now.
  double time_left_s = 0.0;    ///< First-token deadline − now; infinite: none; below 1 ns: already late.
  double prefix_held = 0.0;    ///< Part of the prompt that a replica of this model probably holds.
};

/// Time left under which a request is late: time is counted in nanoseconds.
inline constexpr double kLateBelow = 1e-9;
/// Longer first tokens (and infinite ones) count as this, 30 years: infinity × 0 would be NaN.
inline constexpr double kLongestFirstToken = 1e9;

/// A request's part of the deadline risk, so that a batch divides once per request.
struct Urgency {
  double per_second = 0.0;  ///< 1 ÷ time left; 0 when late.
  double least_risk = 0.0;  ///< 1 when late.

  static constexpr Urgency from_time_left(double time_left_s) noexcept {
    const double inverse = 1.0 / time_left_s;
    const bool is_late = time_left_s < kLateBelow;
    return {select(is_late, 0.0, inverse), select(is_late, 1.0, 0.0)};
  }
  /// min(1, TTFT ÷ time left), at least 0; 1 when late. NaN where either is unknown.
  [[nodiscard]] constexpr double risk(double first_token_s) const noexcept {
    const double bounded = kLongestFirstToken < first_token_s ? kLongestFirstToken : first_token_s;
    const double ratio = bounded * per_second;
    const double capped = 1.0 < ratio ? 1.0 : ratio;
    return least_risk > capped ? least_risk : capped;
  }
};

/// Suitability from its parts; larger is better, minus infinity where any part is NaN: what is unknown is not chosen.
constexpr double weighted_sum(const Weights& weights, double p_good, double relative_cost, double risk,
                              double prefix_held) noexcept {
  const double sum = weights.quality * p_good - weights.cost * relative_cost - weights.deadline * risk +
                     weights.affinity * prefix_held;
  return select(sum == sum, sum, -std::numeric_limits<double>::infinity());
}

/// Suitability of one model for one request; larger is better.
///
///   quality · P(good) − cost · relative cost − deadline · min(1, TTFT ÷ time left) + affinity · prefix held
///
/// A weighted sum of normalised criteria (Fishburn, 1967), as the scorers of llm-d's router combine theirs. Without a
/// deadline `time_left_s` is huge and the third term vanishes.
constexpr double suitability(const Weights& weights, const Features& f) noexcept {
  const double risk = Urgency::from_time_left(f.time_left_s).risk(f.first_token_s);
  return weighted_sum(weights, f.p_good, f.relative_cost, risk, f.prefix_held);
}

/// The queue's key: the latest instant at which service may begin, in nanoseconds (least laxity; Mok, 1983).
constexpr Instant latest_start(Instant deadline, Duration service) noexcept {
  return deadline == kNever ? kNever : deadline - service;
}

}  // namespace zeta::score
