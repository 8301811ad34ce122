#pragma once

#include <algorithm>
#include <cstdint>

namespace zeta {

/// How far a prediction is off, as a factor learned from what was observed, with its standard error.
///
/// A stochastic approximation (Robbins and Monro, 1951) of the factor's median-like centre: each observation moves the
/// estimate by a step of its bounded relative residual, so a single wild one moves it by at most 1/n. The step is 1/n
/// up to kMemory observations and stays there, so that the estimate follows slow drift. A two-sided cumulative sum of
/// the residuals (Page, 1954) finds a sudden change: most of what was learned is then forgotten, and the estimate
/// follows within a few observations.
///
/// The factor *in force* is exactly 1 until the evidence for another is clear, and again once it is not: predictions
/// that are right within kTolerance are left alone, and with them every decision.
///
/// A value; one owner; additions, multiplications and divisions only.
class Correction {
 public:
  static constexpr double kMemory = 64.0;
  static constexpr double kEnough = 24.0;  ///< Observations of full weight before it can come into force.
  static constexpr double kTolerance =
      0.45;  ///< Step tables are within 12.5 % at p90; in congestion steps take up to 1.35 times as long.
  static constexpr double kReturned = 0.25;

  /// `weight` in (0, 1]: the part of what was observed that this prediction stands for.
  void observe(double observed, double predicted, double weight = 1.0) noexcept {
    if (!(observed > 0.0) || !(predicted > 0.0) || !(weight > 0.0)) return;
    const double ratio = std::clamp(observed / predicted, 1.0 / kWidest, kWidest);
    const double part = std::min(weight, 1.0);
    count_ = std::min(count_ + part, kMemory);
    if (count_ == part) {
      estimate_ = ratio;
      return;
    }
    const double residual = (ratio - estimate_) / std::max(ratio, estimate_);  // in (-1, 1), odd in the logarithm
    const double step = part / count_;
    estimate_ *= 1.0 + step * residual;
    deviation_ += step * ((residual < 0.0 ? -residual : residual) - deviation_);
    look_for_change(residual, part);
    settle();
  }

  /// As learned so far; 1 before the first observation.
  [[nodiscard]] double estimate() const noexcept { return estimate_; }
  /// Standard error of the estimate, relative to it; 1 before there is one.
  [[nodiscard]] double relative_error() const noexcept {
    if (count_ < 2.0) return 1.0;
    return kDeviationToSigma * deviation_ / root(count_);
  }
  /// What predictions are to be multiplied by.
  [[nodiscard]] double in_force() const noexcept { return in_force_; }
  /// Sudden changes found.
  [[nodiscard]] std::uint32_t changes() const noexcept { return changes_; }

 private:
  static constexpr double kWidest = 64.0;
  static constexpr double kDeviationToSigma = 1.25;  // mean absolute deviation of a normal variable: 0.8 sigma
  static constexpr double kAllowed = 0.5;            // sigmas; half the change that is looked for
  static constexpr double kAlarm = 8.0;              // sigmas; once in about 3,000 observations without a change
  static constexpr double kKept = 1.0;               // of the memory, after a change

  void look_for_change(double residual, double part) noexcept {
    if (count_ < kEnough) return;
    const double z = residual / std::max(kDeviationToSigma * deviation_, 0.02);
    rise_ = std::max(0.0, rise_ + part * (z - kAllowed));
    fall_ = std::max(0.0, fall_ - part * (z + kAllowed));
    if (rise_ < kAlarm && fall_ < kAlarm) return;
    ++changes_;
    count_ = kKept;
    rise_ = fall_ = 0.0;
  }

  void settle() noexcept {
    if (count_ < kEnough) return;  // while it learns anew, what was in force stays
    const double off = estimate_ > 1.0 ? estimate_ - 1.0 : 1.0 / estimate_ - 1.0;
    const bool is_clear = off > kTolerance && off - 3.0 * relative_error() > kTolerance;
    if (is_clear || (in_force_ != 1.0 && off > kReturned)) {
      in_force_ = estimate_;
    } else {
      in_force_ = 1.0;
    }
  }

  /// Newton's method from above; x in [1, kMemory].
  static constexpr double root(double x) noexcept {
    double r = 0.5 * (x + 1.0);
    for (int i = 0; i < 5; ++i) r = 0.5 * (r + x / r);
    return r;
  }

  double estimate_ = 1.0;
  double deviation_ = 0.3;  ///< Mean absolute residual.
  double in_force_ = 1.0;
  double rise_ = 0.0;
  double fall_ = 0.0;
  double count_ = 0.0;  ///< Observations that the estimate stands on, by weight.
  std::uint32_t changes_ = 0;
};

}  // namespace zeta
