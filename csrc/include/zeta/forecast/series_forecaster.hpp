#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <vector>

#include "zeta/forecast/candidates.hpp"
#include "zeta/forecast/history.hpp"
#include "zeta/forecast/horizon.hpp"
#include "zeta/forecast/net_watch.hpp"

namespace zeta::forecast {

/// Sums over the last bins of a series, and whether they were all there. A push is O(1) but for one pass over the ring
/// each time it comes round, which keeps the sums from growing.
class WindowSums {
 public:
  explicit WindowSums(std::size_t longest) : sums_(longest + 1, 0.0), missing_(longest + 1, 0) {}

  void push(double rate, bool is_missing) noexcept {
    const std::size_t before = at_;
    at_ = (at_ + 1) % sums_.size();
    sums_[at_] = sums_[before] + (is_missing ? 0.0 : rate);
    missing_[at_] = missing_[before] + (is_missing ? 1 : 0);
    if (at_ != 0) return;
    const double base = sums_[1 % sums_.size()];
    for (double& sum : sums_) sum -= base;
  }

  /// Whether none of the last `bins` (at most the longest) is missing.
  [[nodiscard]] bool is_whole(std::size_t bins) const noexcept { return missing_[at_] == missing_[back(bins)]; }
  [[nodiscard]] double mean(std::size_t bins) const noexcept {
    return std::max(0.0, (sums_[at_] - sums_[back(bins)]) / static_cast<double>(bins));
  }

 private:
  [[nodiscard]] std::size_t back(std::size_t bins) const noexcept { return (at_ + sums_.size() - bins) % sums_.size(); }

  std::vector<double> sums_;
  std::vector<std::uint64_t> missing_;
  std::size_t at_ = 0;
};

/// Everything that forecasts one series: its history, and for each horizon the candidates and the guard.
///
/// close() once per bin, then predict() at most once. Live and in a backtest alike. One owner; the constructor
/// allocates, nothing else does.
class SeriesForecaster {
 public:
  /// Horizons in bins, 1 or more of 1 to 100,000. Throws std::invalid_argument otherwise.
  SeriesForecaster(double bin_s, std::span<const std::size_t> horizons, GuardRule rule = GuardRule::kBlend,
                   std::size_t turn = 0)
      : history_{bin_s}, sums_{longest_of(horizons)} {
    horizons_.reserve(horizons.size());
    for (const std::size_t bins : horizons) {
      const auto* found = std::find(kHorizonBins.begin(), kHorizonBins.end(), bins);
      net_slots_.push_back(static_cast<std::size_t>(found - kHorizonBins.begin()));
      horizons_.emplace_back(bins, rule, turn + 3 * horizons_.size());
    }
  }

  /// Closes a bin and learns from the forecasts whose time is over: calls `seen(horizon index, pending, actual)`.
  template <class Seen>
  void close(double rate, bool is_missing, Seen&& seen) noexcept {
    is_missing = is_missing || !(rate >= 0.0 && rate <= 1e30);
    history_.push(rate, is_missing);
    if (!is_missing) bank_.push(rate);
    sums_.push(rate, is_missing);
    for (std::size_t h = 0; h < horizons_.size(); ++h) {
      const std::size_t bins = horizons_[h].horizon();
      const Pending* const made = horizons_[h].due(history_.bins());
      if (made == nullptr || !sums_.is_whole(bins)) continue;
      const double actual = sums_.mean(bins);
      seen(h, *made, actual);
      if (h == 0) watch_.settle(*made, actual);
      horizons_[h].settle(*made, actual);
    }
  }
  void close(double rate, bool is_missing) noexcept {
    close(rate, is_missing, [](std::size_t, const Pending&, double) {});
  }

  /// Whether a forecast can be made now: something was seen, and the newest bin is not missing.
  [[nodiscard]] bool can_predict() const noexcept { return history_.has_values() && !history_.is_missing(0); }

  /// Forecasts for every horizon. `net` is one row of a net's output (kOutputs), empty where there is none.
  void predict(std::span<const float, kFeatures> features, std::span<const float> net) noexcept {
    const bool is_sound = watch_.take(features, net, history_.scale());
    for (std::size_t h = 0; h < horizons_.size(); ++h) {
      const bool has_net = is_sound && net_slots_[h] < kHorizons;
      const std::span<const float> row =
          has_net ? watch_.rates().subspan(net_slots_[h] * kQuantileCount, kQuantileCount) : std::span<const float>{};
      const Pending& made = horizons_[h].predict(history_.bins(), history_, bank_, row, watch_.is_trusted());
      if (h < kHorizons) outputs_[h] = made.guard;
      is_net_used_ = h == 0 ? made.is_net_used : is_net_used_ || made.is_net_used;
    }
  }

  /// The guard's quantiles of the last predict(), for the first five horizons.
  [[nodiscard]] const Quantiles& quantiles(std::size_t horizon) const noexcept { return outputs_[horizon]; }
  [[nodiscard]] bool is_net_used() const noexcept { return is_net_used_; }
  [[nodiscard]] const History& history() const noexcept { return history_; }
  [[nodiscard]] const NetWatch& watch() const noexcept { return watch_; }
  [[nodiscard]] const HorizonForecaster& horizon(std::size_t h) const noexcept { return horizons_[h]; }

 private:
  static std::size_t longest_of(std::span<const std::size_t> horizons) {
    if (horizons.empty()) throw std::invalid_argument("a forecast needs at least one horizon");
    const auto [least, most] = std::minmax_element(horizons.begin(), horizons.end());
    if (*least < 1 || *most > 100'000) throw std::invalid_argument("a horizon is 1 to 100,000 bins");
    return *most;
  }

  History history_;
  LevelBank bank_;
  WindowSums sums_;
  NetWatch watch_;
  std::vector<HorizonForecaster> horizons_;
  std::vector<std::size_t> net_slots_;
  std::array<Quantiles, kHorizons> outputs_{};
  bool is_net_used_ = false;
};

}  // namespace zeta::forecast
