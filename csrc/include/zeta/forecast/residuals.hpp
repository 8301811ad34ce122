#pragma once
// From what forecasts missed by to quantiles of what comes.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "zeta/core/math.hpp"

namespace zeta::forecast {

/// The last 250 residuals in order: rolling split-conformal quantiles (Papadopoulos et al., 2002; rolling: Barber et
/// al., 2023).
///
/// One owner, no allocation; a push moves at most 1 kB.
class ResidualWindow {
 public:
  static constexpr std::size_t kSize = 250;

  void push(float residual) noexcept {
    float* const sorted = sorted_.data();
    if (count_ < kSize) {
      float* const in = sorted + first_not_below(residual);
      std::move_backward(in, sorted + count_, sorted + count_ + 1);
      *in = residual;
      ++count_;
    } else {
      // The oldest leaves and the new one enters: only what stands between their places moves.
      float* const out = sorted + first_not_below(ring_[next_]);
      float* const in = sorted + first_not_below(residual);
      if (in > out) {
        std::move(out + 1, in, out);
        *(in - 1) = residual;
      } else {
        std::move_backward(in, out, out + 1);
        *in = residual;
      }
    }
    ring_[next_] = residual;
    next_ = next_ + 1 == kSize ? 0 : next_ + 1;
  }

  [[nodiscard]] std::size_t size() const noexcept { return count_; }

  /// The value that a new residual stays below with this probability, interpolated; 0 while there are none.
  [[nodiscard]] double quantile(double probability) const noexcept {
    if (count_ == 0) return 0.0;
    const double place = std::max(0.0, probability * static_cast<double>(count_ + 1) - 1.0);
    const auto below = static_cast<std::size_t>(place);
    if (below + 1 >= count_) return static_cast<double>(sorted_[count_ - 1]);
    const auto low = static_cast<double>(sorted_[below]);
    return low + (place - static_cast<double>(below)) * (static_cast<double>(sorted_[below + 1]) - low);
  }

 private:
  /// By counting all of them: a loop that compilers vectorise, while a search mispredicts half of its eight branches.
  [[nodiscard]] std::size_t first_not_below(float value) const noexcept {
    std::uint32_t below = 0;
    for (std::size_t i = 0; i < kSize; ++i) below += sorted_[i] < value ? 1U : 0U;
    return below;
  }

  static constexpr std::array<float, kSize> all_above() noexcept {
    std::array<float, kSize> values{};
    for (float& value : values) value = std::numeric_limits<float>::infinity();
    return values;
  }

  std::array<float, kSize> ring_{};
  std::array<float, kSize> sorted_ = all_above();  ///< What is not there yet stands above everything.
  std::size_t count_ = 0;
  std::size_t next_ = 0;
};

/// The 0.99 quantile as the 0.9 quantile plus a multiple of the mean excess over it.
///
/// Beyond a high threshold excesses are about exponential (Pickands, 1975, with shape 0), so the multiple begins at
/// ln 10. It then moves by stochastic approximation (Robbins and Monro, 1951) until one target in a hundred lies above:
/// heavier tails raise it. Steps shrink with the square root of the horizon, whose overlapping targets hit together.
class Tail {
 public:
  explicit Tail(std::size_t horizon) : step_{0.15 / std::sqrt(static_cast<double>(horizon))} {}

  void push(double actual, double q90, double q99) noexcept {
    if (actual > q90) {
      excess_ = kKeep * excess_ + (1.0 - kKeep) * (actual - q90);
      weight_ = kKeep * weight_ + (1.0 - kKeep);
    }
    multiple_ = std::max(0.3, multiple_ + step_ * ((actual > q99 ? 1.0 : 0.0) - 0.01));
  }

  [[nodiscard]] double above(double q90) const noexcept {
    return q90 + (weight_ > 0.0 ? multiple_ * excess_ / weight_ : 0.0);
  }

 private:
  static constexpr double kKeep = 0.98851402;  // 2^(-1/60), counted in excesses

  double step_;
  double multiple_ = 2.302585092994046;
  double excess_ = 0.0;
  double weight_ = 0.0;
};

/// Pinball loss (Koenker and Bassett, 1978): the mean of it is smallest where `forecast` is the quantile.
[[nodiscard]] constexpr double pinball(double probability, double actual, double forecast) noexcept {
  const double miss = actual - forecast;
  return miss > 0.0 ? probability * miss : (probability - 1.0) * miss;
}

}  // namespace zeta::forecast
