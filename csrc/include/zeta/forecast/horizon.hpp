#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "zeta/core/math.hpp"
#include "zeta/forecast/candidates.hpp"
#include "zeta/forecast/layout.hpp"
#include "zeta/forecast/residuals.hpp"

namespace zeta::forecast {

using Quantiles = std::array<float, kQuantileCount>;

/// How the guard makes one forecast of several.
enum class GuardRule : unsigned char {
  kBlend,  ///< Means of the candidates' quantiles, weighted by recent loss.
  kPick,   ///< The candidate with the smallest recent loss.
};

/// What was forecast at one origin, kept until its target is complete.
struct Pending {
  std::uint64_t bin = 0;  ///< Bins closed before it, plus 1; 0: no forecast stands here.
  std::array<Quantiles, kCandidates + 1> candidates{};
  std::array<float, kCandidates + 1> points{};  ///< What residuals of the 0.9 quantile are taken from.
  Quantiles guard{};
  Regressors regressors{};
  float net_median = 0.0F;
  bool has_net = false;
  bool is_net_used = false;
};

/// Candidates, their quantiles and the guard for one series and one horizon.
///
/// Guard: weights fall with how much a candidate's discounted pinball loss (half-life 300 + h completed targets)
/// exceeds the least one, the faster the more independent targets stand behind it: w = prior * exp(-3 sqrt(n / h) *
/// (loss / least - 1)), by quantile. The forecaster's exponential weights (Vovk, 1990), tempered for overlap. The slow
/// mean (480 bins) takes part beside the five candidates. EWMA alone until 350 targets have completed. A net whose
/// own 0.9 quantile has lately covered less than 0.8 or more than 0.98 is left out. The guard's 0.9 quantile is then
/// moved by online conformal steps (Gibbs and Candes, 2021), and its 0.99 quantile is its own tail above that.
///
/// One owner; the constructor allocates, nothing else does.
class HorizonForecaster {
 public:
  static constexpr std::size_t kWarmUp = 350;  ///< Completed targets before the guard departs from EWMA.
  static constexpr std::size_t kSlow = kCandidates;
  static constexpr std::size_t kSources = kCandidates + 1;

  /// What is not done at each bin is done at those that `turn` picks, so that many series take turns.
  explicit HorizonForecaster(std::size_t horizon, GuardRule rule = GuardRule::kBlend, std::size_t turn = 0)
      : horizon_{horizon},
        rule_{rule},
        turn_{turn},
        stride_{std::max<std::size_t>(1, horizon / 20)},
        refresh_{std::min<std::size_t>(horizon, 8)},
        keep_{exact_exp(-0.6931471805599453 / (300.0 + static_cast<double>(horizon)))},
        coverage_keep_{exact_exp(-0.6931471805599453 / (200.0 + 3.0 * static_cast<double>(horizon)))},
        most_{1.0 / (1.0 - keep_)},
        shift_step_{0.05 / (1.0 + static_cast<double>(horizon))},
        ridge_{horizon, turn},
        tail_{horizon},
        pending_(horizon),
        tails_(kSources, Tail{horizon}) {}

  [[nodiscard]] std::size_t horizon() const noexcept { return horizon_; }
  [[nodiscard]] std::uint64_t completed() const noexcept { return completed_; }

  /// The forecast whose target is the `horizon` bins that end with bin number `bins` (bins closed so far), if any.
  [[nodiscard]] const Pending* due(std::uint64_t bins) const noexcept {
    if (bins < horizon_) return nullptr;
    const Pending& at = pending_[static_cast<std::size_t>(bins % horizon_)];
    return at.bin == bins - horizon_ + 1 ? &at : nullptr;
  }

  /// Learns from a forecast that is due and what came.
  void settle(const Pending& made, double actual) noexcept {
    const bool is_sampled = (completed_ + turn_) % stride_ == 0;
    ++completed_;
    for (std::size_t k = 0; k < kSources; ++k) {
      if (k == index_of(Candidate::kNet) && !made.has_net) continue;
      Record& record = records_[k];
      const Quantiles& q = made.candidates[k];
      ++record.completed;
      for (std::size_t i = 0; i < kQuantileCount; ++i) {
        record.loss[i] =
            keep_ * record.loss[i] + (1.0 - keep_) * pinball(kQuantiles[i], actual, static_cast<double>(q[i]));
      }
      record.weight = keep_ * record.weight + (1.0 - keep_);
      fade_coverage(record.coverage, actual, static_cast<double>(q[1]));
      if (is_sampled) record.window.push(static_cast<float>(actual - static_cast<double>(made.points[k])));
      tails_[k].push(actual, static_cast<double>(q[1]), static_cast<double>(q[2]));
    }
    miss_ = keep_ * miss_ + (1.0 - keep_) * std::abs(actual - static_cast<double>(made.guard[0]));
    miss_weight_ = keep_ * miss_weight_ + (1.0 - keep_);
    shift_ +=
        shift_step_ * (miss_ / miss_weight_) * ((actual > static_cast<double>(made.guard[1]) ? 1.0 : 0.0) - kAimedMiss);
    tail_.push(actual, static_cast<double>(made.guard[1]), static_cast<double>(made.guard[2]));
    const Regressors& x = made.regressors;
    if (x.unit > 0.0) ridge_.learn(x.values, (actual - x.level) / x.unit);
  }

  /// Forecasts at the end of bin number `bins`. `net` is empty where there is no answer, else its three quantiles as
  /// rates, finite and in order; `may_use_net` says whether the guard may listen to it.
  const Pending& predict(std::uint64_t bins, const History& history, const LevelBank& bank, std::span<const float> net,
                         bool may_use_net) noexcept {
    Pending& made = pending_[static_cast<std::size_t>(bins % horizon_)];
    made.bin = bins + 1;
    made.regressors = regressors_of(history, bank, horizon_);
    const Regressors& x = made.regressors;
    made.has_net = !net.empty();
    set_point(made, Candidate::kLast, history.last());
    set_point(made, Candidate::kEwma, history.level());
    set_point(made, Candidate::kKalman, bank.best());
    set_point(made, Candidate::kRidgeAr, std::clamp(x.level + x.unit * ridge_.predict(x.values), x.low, x.high));
    set_point(made, static_cast<Candidate>(kSlow), bank.slowest());
    if (made.has_net) set_net(made, net);
    guard(made, made.has_net && may_use_net);
    return made;
  }

  /// Discounted pinball loss of a candidate (0: the median's, and so on); 0 before its first completed target.
  [[nodiscard]] double loss(std::size_t source, std::size_t quantile) const noexcept {
    const Record& record = records_[source];
    return record.weight > 0.0 ? record.loss[quantile] / record.weight : 0.0;
  }

 private:
  /// Half a point below the tenth that the quantile promises: what the shift learns from is as old as the horizon, and
  /// load that rises meanwhile is met too low.
  static constexpr double kAimedMiss = 0.095;
  /// What a source weighs before any loss is known: the two extremes of memory have to earn their part.
  static constexpr std::array<double, kSources> kPriors{0.05, 1.0, 1.0, 1.0, 1.0, 0.3};

  struct Coverage {
    double below = 0.0;
    double weight = 0.0;
    [[nodiscard]] double value() const noexcept { return weight > 0.0 ? below / weight : 0.9; }
  };
  struct Record {
    std::array<double, kQuantileCount> loss{};
    double weight = 0.0;
    Coverage coverage;
    std::uint64_t completed = 0;
    ResidualWindow window;
  };

  void fade_coverage(Coverage& coverage, double actual, double q90) const noexcept {
    coverage.below = coverage_keep_ * coverage.below + (actual <= q90 ? 1.0 - coverage_keep_ : 0.0);
    coverage.weight = coverage_keep_ * coverage.weight + (1.0 - coverage_keep_);
  }

  /// Not negative, not falling from one quantile to the next, and a number whatever came in.
  static Quantiles ordered(double q50, double q90, double q99) noexcept {
    const double low = q50 > 0.0 ? std::min(q50, 1e30) : 0.0;
    const double high = q90 > low ? std::min(q90, 1e30) : low;
    const double highest = q99 > high ? std::min(q99, 1e30) : high;
    return {static_cast<float>(low), static_cast<float>(high), static_cast<float>(highest)};
  }

  void set_point(Pending& made, Candidate candidate, double rate) noexcept {
    const std::size_t k = static_cast<std::size_t>(candidate);
    const double point = rate > 0.0 ? rate : 0.0;
    const ResidualWindow& window = records_[k].window;
    const double q90 = point + window.quantile(0.9);
    // Before a tail has formed the window's own highest residuals stand in for it.
    const double early = window.size() < 100 ? point + window.quantile(0.99) : 0.0;
    made.points[k] = static_cast<float>(point);
    made.candidates[k] = ordered(point + window.quantile(0.5), q90, std::max(early, tails_[k].above(q90)));
  }

  void set_net(Pending& made, std::span<const float> net) noexcept {
    constexpr std::size_t k = index_of(Candidate::kNet);
    // As many independent targets as stand behind the residuals, against twenty's worth of belief in the net's own.
    const double held = static_cast<double>(records_[k].window.size() * stride_) / static_cast<double>(horizon_);
    const double q90 = static_cast<double>(net[1]) + held / (held + 20.0) * records_[k].window.quantile(0.9);
    made.net_median = net[0];
    made.points[k] = net[1];
    made.candidates[k] =
        ordered(static_cast<double>(net[0]), q90,
                std::max(tails_[k].above(q90), records_[k].completed < 100 ? static_cast<double>(net[2]) : 0.0));
  }

  void guard(Pending& made, bool may_use_net) noexcept;
  void weigh(bool has_net) noexcept;

  std::size_t horizon_;
  GuardRule rule_;
  std::size_t turn_;
  std::size_t stride_;
  std::size_t refresh_;
  double keep_;
  double coverage_keep_;
  double most_;
  double shift_step_;
  RidgeAr ridge_;
  Tail tail_;
  std::vector<Pending> pending_;
  std::vector<Tail> tails_;
  std::array<Record, kSources> records_{};
  double miss_ = 0.0;
  double miss_weight_ = 0.0;
  double shift_ = 0.0;
  std::uint64_t completed_ = 0;
  std::array<std::array<double, kSources>, kQuantileCount> weights_{};  ///< As they were when last weighed.
  std::uint64_t weights_age_ = 0;
  bool weights_have_net_ = false;
  bool has_weights_ = false;
};

inline void HorizonForecaster::guard(Pending& made, bool may_use_net) noexcept {
  constexpr std::size_t kEwma = index_of(Candidate::kEwma);
  constexpr std::size_t kNet = index_of(Candidate::kNet);
  const Quantiles& ewma = made.candidates[kEwma];
  made.is_net_used = false;
  if (completed_ < kWarmUp) {
    made.guard = ewma;
    return;
  }
  const double net_coverage = records_[kNet].coverage.value();
  const bool is_alarmed = net_coverage < 0.8 || net_coverage > 0.98;
  const bool has_net = may_use_net && !is_alarmed && records_[kNet].completed >= kWarmUp;
  made.is_net_used = has_net;
  if ((weights_age_++ + turn_) % refresh_ == 0 || !has_weights_ || has_net != weights_have_net_) weigh(has_net);
  std::array<double, kQuantileCount> mixed{};
  for (std::size_t i = 0; i < kQuantileCount; ++i) {
    for (std::size_t k = 0; k < kSources; ++k) {
      mixed[i] += weights_[i][k] * static_cast<double>(made.candidates[k][i]);
    }
  }
  const double q90 = mixed[1] + shift_;
  made.guard = ordered(mixed[0], q90, tail_.above(std::max(q90, mixed[0])));
}

/// Each source's part of each quantile.
inline void HorizonForecaster::weigh(bool has_net) noexcept {
  constexpr std::size_t kEwma = index_of(Candidate::kEwma);
  constexpr std::size_t kNet = index_of(Candidate::kNet);
  weights_have_net_ = has_net;
  has_weights_ = true;
  const double independent =
      std::max(1.0, std::min(static_cast<double>(completed_), most_) / static_cast<double>(horizon_));
  const double steepness = 3.0 * std::sqrt(independent);
  for (std::size_t i = 0; i < kQuantileCount; ++i) {
    std::array<double, kSources> losses{};
    std::size_t least = kEwma;
    for (std::size_t k = 0; k < kSources; ++k) {
      losses[k] = loss(k, i);
      if ((k != kNet || has_net) && losses[k] < losses[least]) least = k;
    }
    weights_[i].fill(0.0);
    if (rule_ == GuardRule::kPick || !(losses[least] > 0.0)) {
      weights_[i][least] = 1.0;
      continue;
    }
    double sum = 0.0;
    for (std::size_t k = 0; k < kSources; ++k) {
      const double behind = steepness * (losses[k] / losses[least] - 1.0);
      if ((k == kNet && !has_net) || behind > 30.0) continue;
      weights_[i][k] = kPriors[k] * exact_exp(-behind);
      sum += weights_[i][k];
    }
    for (double& weight : weights_[i]) weight /= sum;
  }
}

}  // namespace zeta::forecast
