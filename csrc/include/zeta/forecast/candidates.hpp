#pragma once
// The point forecasts that compete: each says one rate for all of (now, now + h]. Their quantiles come from residuals.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <optional>
#include <span>

#include "zeta/core/math.hpp"
#include "zeta/forecast/history.hpp"
#include "zeta/forecast/layout.hpp"

namespace zeta::forecast {

enum class Candidate : unsigned char { kLast, kEwma, kKalman, kRidgeAr, kNet };
inline constexpr std::size_t kCandidates = 5;
inline constexpr std::array<const char*, kCandidates> kCandidateNames{"last", "ewma", "kalman", "ridge_ar", "net"};
constexpr std::size_t index_of(Candidate candidate) noexcept { return static_cast<std::size_t>(candidate); }

/// A local-level model with its ratio of noises chosen online: the candidate `kalman`.
///
/// In its steady state the Kalman filter of a level that walks at random and is seen through noise is an exponential
/// mean, whose half-life is a function of the ratio of the two variances alone (Muth, 1960). So a bank of half-lives is
/// a grid over that ratio; the squared one-step errors, fading over 500 bins, are its likelihood (with the variance
/// profiled out, the smallest mean square is the maximum). Missing bins are skipped. O(11) a push, no allocation.
class LevelBank {
 public:
  static constexpr std::array<double, 11> kHalfLives{0.35, 0.75, 1.5, 3.0, 6.0, 12.0, 24.0, 48.0, 96.0, 200.0, 480.0};
  static constexpr std::size_t kLevels = kHalfLives.size();

  LevelBank() {
    for (std::size_t i = 0; i < kLevels; ++i) keep_[i] = exact_exp(-0.6931471805599453 / kHalfLives[i]);
  }

  void push(double rate) noexcept {
    if (!is_empty_) {
      for (std::size_t i = 0; i < kLevels; ++i) {
        const double error = rate - level(i);
        squares_[i] = kErrorKeep * squares_[i] + error * error;
      }
      best_ = kStart;
      for (std::size_t i = 0; i < kLevels; ++i) {
        if (squares_[i] < squares_[best_]) best_ = i;
      }
    }
    is_empty_ = false;
    for (std::size_t i = 0; i < kLevels; ++i) {
      sums_[i] = keep_[i] * sums_[i] + (1.0 - keep_[i]) * rate;
      weights_[i] = keep_[i] * weights_[i] + (1.0 - keep_[i]);
      levels_[i] = sums_[i] / weights_[i];
    }
  }

  [[nodiscard]] double level(std::size_t i) const noexcept { return levels_[i]; }
  [[nodiscard]] double best() const noexcept { return levels_[best_]; }
  [[nodiscard]] double slowest() const noexcept { return levels_[kLevels - 1]; }

 private:
  static constexpr double kErrorKeep = 0.99861466;  // 2^(-1/500)
  static constexpr std::size_t kStart = 4;          // until errors tell

  std::array<double, kLevels> keep_{};
  std::array<double, kLevels> sums_{};
  std::array<double, kLevels> weights_{};
  std::array<double, kLevels> levels_{};
  std::array<double, kLevels> squares_{};
  std::size_t best_ = kStart;
  bool is_empty_ = true;
};

/// What the candidate `ridge_ar` reads of a series, all as differences from the level and in units of `unit`.
struct Regressors {
  static constexpr std::size_t kCount = 9;
  std::array<float, kCount> values{};
  double level = 0.0;
  double unit = 0.0;  ///< The slow mean: steady, so that the past weighs as the present. 0: nothing can be learnt.
  double low = 0.0;   ///< Two thirds of the least of the last value, the levels and the season,
  double high = 0.0;  ///< and three halves of the greatest: what a regression may say.
};

inline Regressors regressors_of(const History& history, const LevelBank& bank, std::size_t horizon) noexcept {
  Regressors found;
  found.level = history.level();
  found.low = found.high = history.last();
  const auto reach = [&found](double rate) {
    found.low = std::min(found.low, rate);
    found.high = std::max(found.high, rate);
  };
  for (std::size_t i = 1; i < LevelBank::kLevels; ++i) reach(bank.level(i));
  const std::optional<double> ahead = history.day().mean(horizon);
  if (ahead) reach(*ahead);
  found.low /= 1.5;
  found.high *= 1.5;
  const double unit = std::max(history.slow(), history.scale());
  if (!(unit > 1e-7)) return found;
  found.unit = unit;
  const auto off = [&](double rate) { return static_cast<float>((rate - found.level) / unit); };
  found.values[0] = 1.0F;
  found.values[1] = off(history.last());
  found.values[2] = off(bank.level(1));
  found.values[3] = off(bank.level(3));
  found.values[4] = off(bank.level(5));
  found.values[5] = off(bank.level(8));
  found.values[6] = off(history.slow());
  const std::optional<double> then = history.day().mean(1);
  if (ahead && then) {
    found.values[7] = static_cast<float>((*ahead - history.slow()) / unit);
    found.values[8] = static_cast<float>((*ahead - *then) / unit);
  }
  return found;
}

/// Direct autoregression for one horizon: the mean over (now, now + h] less the level, on fading means of several
/// lengths and the seasonal lag: the candidate `ridge_ar`.
///
/// Weighted least squares with forgetting (half-life 6,000 bins) and a ridge (Hoerl and Kennard, 1970) that does not
/// fade: each regressor's own sum of squares times 8 h / n, because the targets of h successive bins overlap and tell
/// about as much as one. With little data the answer is the level. Solved by Cholesky every min(h, 10) bins. No
/// allocation.
class RidgeAr {
 public:
  static constexpr std::size_t kCount = Regressors::kCount;

  explicit RidgeAr(std::size_t horizon, std::size_t turn = 0)
      : ridge_{8.0 * static_cast<double>(horizon)}, every_{std::min<std::size_t>(horizon, 10)}, learnt_{turn} {}

  void learn(std::span<const float, kCount> x, double y) noexcept {
    if (!(y > -1e12 && y < 1e12)) return;
    count_ = kKeep * count_ + 1.0;
    for (std::size_t i = 0; i < kCount; ++i) {
      const auto xi = static_cast<double>(x[i]);
      products_[i] = kKeep * products_[i] + xi * y;
      for (std::size_t j = 0; j <= i; ++j) {
        squares_[i][j] = kKeep * squares_[i][j] + xi * static_cast<double>(x[j]);
      }
    }
    if (learnt_++ % every_ == 0) solve();
  }

  [[nodiscard]] double predict(std::span<const float, kCount> x) const noexcept {
    double sum = 0.0;
    for (std::size_t i = 0; i < kCount; ++i) sum += weights_[i] * static_cast<double>(x[i]);
    return sum;
  }

 private:
  static constexpr double kKeep = 0.99988448;  // 2^(-1/6000)

  void solve() noexcept {
    std::array<std::array<double, kCount>, kCount> lower;
    std::array<double, kCount> inverse;  // of the diagonal
    std::array<double, kCount> forward;
    for (std::size_t i = 0; i < kCount; ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        double sum = squares_[i][j];
        for (std::size_t k = 0; k < j; ++k) sum -= lower[i][k] * lower[j][k];
        lower[i][j] = sum * inverse[j];
      }
      double sum = squares_[i][i] * (1.0 + ridge_ / (count_ + 1.0)) + 1e-9 * (count_ + 1.0);
      for (std::size_t k = 0; k < i; ++k) sum -= lower[i][k] * lower[i][k];
      inverse[i] = sum > 1e-14 ? 1.0 / std::sqrt(sum) : 0.0;  // 0: this regressor adds nothing
      double rest = products_[i];
      for (std::size_t k = 0; k < i; ++k) rest -= lower[i][k] * forward[k];
      forward[i] = rest * inverse[i];
    }
    for (std::size_t i = kCount; i-- > 0;) {
      double rest = forward[i];
      for (std::size_t k = i + 1; k < kCount; ++k) rest -= lower[k][i] * weights_[k];
      weights_[i] = rest * inverse[i];
    }
  }

  double ridge_;
  std::size_t every_;
  std::size_t learnt_;  // counts from its turn
  double count_ = 0.0;
  std::array<std::array<double, kCount>, kCount> squares_{};
  std::array<double, kCount> products_{};
  std::array<double, kCount> weights_{};
};

}  // namespace zeta::forecast
