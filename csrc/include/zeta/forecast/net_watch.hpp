#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>

#include "zeta/forecast/horizon.hpp"
#include "zeta/forecast/layout.hpp"
#include "zeta/forecast/residuals.hpp"

namespace zeta::forecast {

/// Decides at each tick whether a net's answer for one series may be heard.
///
/// Not a number, infinite, negative or beyond 1e6 times the scale: no answer at all, at once. The same bits three times
/// running while what it read has changed (frozen): not heard until they move. Three times running a one-bin loss above
/// four times EWMA's usual one and its own one: not heard until its fading loss (half-life 30 targets) is within a
/// quarter of EWMA's again. Outputs are put in order and clamped to 50 times the scale. One owner, no allocation.
class NetWatch {
 public:
  /// Reads this tick's features and output row (empty: none). True if there is an answer to record, in rates().
  bool take(std::span<const float, kFeatures> features, std::span<const float> out, double scale) noexcept {
    is_present_ = false;
    if (out.size() != kOutputs) return false;
    for (const float value : out) {
      if (!(value >= 0.0F && value <= 1e6F)) {
        has_last_ = false;
        return false;
      }
    }
    const bool is_same_output = has_last_ && std::equal(out.begin(), out.end(), last_out_.begin());
    const bool is_same_input = has_last_ && std::equal(features.begin(), features.end(), last_features_.begin());
    frozen_ = is_same_output ? (is_same_input ? frozen_ : frozen_ + 1) : 0;
    std::copy(out.begin(), out.end(), last_out_.begin());
    std::copy(features.begin(), features.end(), last_features_.begin());
    has_last_ = true;
    for (std::size_t h = 0; h < kHorizons; ++h) {
      float least = 0.0F;
      for (std::size_t q = 0; q < kQuantileCount; ++q) {
        least = std::max(least, std::min(out[h * kQuantileCount + q], kMostOfScale));
        rates_[h * kQuantileCount + q] = static_cast<float>(static_cast<double>(least) * scale);
      }
    }
    is_present_ = true;
    return true;
  }

  /// Learns from the shortest horizon, whose targets complete first.
  void settle(const Pending& made, double actual) noexcept {
    const double ewma = loss_of(made.candidates[index_of(Candidate::kEwma)], actual);
    fade(ewma_, ewma);
    if (!made.has_net) return;
    const double net = loss_of(
        {made.net_median, made.points[index_of(Candidate::kNet)], made.candidates[index_of(Candidate::kNet)][2]},
        actual);
    fade(net_, net);
    strikes_ = net > 4.0 * std::max(ewma, ewma_) ? strikes_ + 1 : 0;
    if (strikes_ >= kPatience) is_suspended_ = true;
    if (is_suspended_ && net_ <= 1.25 * ewma_) is_suspended_ = false;
  }

  [[nodiscard]] bool is_trusted() const noexcept { return is_present_ && !is_suspended_ && frozen_ + 1 < kPatience; }
  [[nodiscard]] bool is_suspended() const noexcept { return is_suspended_; }
  [[nodiscard]] std::span<const float, kOutputs> rates() const noexcept { return rates_; }

 private:
  static constexpr std::size_t kPatience = 3;  ///< Ticks.
  static constexpr float kMostOfScale = 50.0F;
  static constexpr double kKeep = 0.97715997;  // 2^(-1/30)

  static double loss_of(const Quantiles& q, double actual) noexcept {
    return pinball(0.5, actual, static_cast<double>(q[0])) + pinball(0.9, actual, static_cast<double>(q[1]));
  }
  static void fade(double& mean, double value) noexcept { mean = kKeep * mean + (1.0 - kKeep) * value; }

  std::array<float, kOutputs> rates_{};
  std::array<float, kOutputs> last_out_{};
  std::array<float, kFeatures> last_features_{};
  double ewma_ = 0.0;
  double net_ = 0.0;
  std::size_t frozen_ = 0;
  std::size_t strikes_ = 0;
  bool has_last_ = false;
  bool is_present_ = false;
  bool is_suspended_ = false;
};

}  // namespace zeta::forecast
