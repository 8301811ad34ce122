#pragma once
// How well a model suits a request right now, and the request's key.

#include "zeta/core/math.hpp"
#include "zeta/core/time.hpp"

namespace zeta::score {

/// P(model answers well | complexity): the model's quality prior moved along the logit by the request's complexity.
///
///   P(good) = logistic(logit(quality) + 4 (1/2 - complexity))
///
/// A Rasch (1960) item-response curve with a fixed slope: an average request (complexity 1/2) is answered with
/// probability `quality`; the easiest and the hardest move the odds by e^2 either way.
struct QualityCurve {
  double quality_logit = 0.0;

  static constexpr QualityCurve from_quality(double quality) noexcept {
    const double clamped = quality < 1e-6 ? 1e-6 : (quality > 1.0 - 1e-6 ? 1.0 - 1e-6 : quality);
    return {logit(clamped)};
  }
  [[nodiscard]] constexpr double p_good(double complexity) const noexcept {
    return logistic(quality_logit + 4.0 * (0.5 - complexity));
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
  double time_left_s = 0.0;    ///< First-token deadline − now; 0 or less: already late.
  bool has_affinity = false;
};

/// Suitability of one model for one request; larger is better.
///
///   quality · P(good) − cost · relative cost − deadline · min(1, TTFT / time left) + affinity · [prefix held]
///
/// A weighted sum of normalised criteria (Fishburn, 1967), as the scorers of llm-d's router combine theirs. Without a
/// deadline `time_left_s` is huge and the third term vanishes.
constexpr double suitability(const Weights& weights, const Features& f) noexcept {
  const double risk = f.time_left_s <= 0.0 || f.first_token_s >= f.time_left_s ? 1.0 : f.first_token_s / f.time_left_s;
  return weights.quality * f.p_good - weights.cost * f.relative_cost - weights.deadline * risk +
         (f.has_affinity ? weights.affinity : 0.0);
}

/// The queue's key: the latest instant at which service may begin, in nanoseconds (least laxity; Mok, 1983).
constexpr Instant latest_start(Instant deadline, Duration service) noexcept {
  return deadline == kNever ? kNever : deadline - service;
}

}  // namespace zeta::score
