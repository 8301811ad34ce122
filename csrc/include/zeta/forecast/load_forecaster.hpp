#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <vector>

#include "zeta/core/time.hpp"
#include "zeta/core/types.hpp"
#include "zeta/forecast/features.hpp"
#include "zeta/forecast/layout.hpp"
#include "zeta/forecast/net.hpp"
#include "zeta/forecast/series_forecaster.hpp"

namespace zeta::forecast {

struct LoadForecasterConfig {
  std::size_t models = 1;
  double bin_s = 1.0;
  std::array<std::size_t, kHorizons> horizon_bins = kHorizonBins;  ///< A net answers only for those of the layout.
  GuardRule rule = GuardRule::kBlend;
  /// Seconds from a Monday's midnight at Instant 0, where somebody knows the wall clock.
  WeekPhase week_phase{};
};

/// Forecasts arrivals and work of n models: what the allocation loop asks.
///
/// Each tick: observe() what has come since the last one, advance(now), predict(net). Between two closings of a bin the
/// last forecast stands and predict() costs nothing. Not thread-safe: one owner. The constructor checks, throws and
/// allocates; nothing else does.
class LoadForecaster {
 public:
  LoadForecaster(const LoadForecasterConfig& config, Instant start)
      : config_{checked(config)},
        bin_{duration_from_seconds(config.bin_s)},
        closes_{start + bin_},
        open_(config.models * kTargets, 0.0),
        gaps_(config.models, 0),
        features_(config.models * kTargets * kFeatures, 0.0F),
        net_out_(config.models * kTargets * kOutputs, 0.0F) {
    rows_.reserve(config.models * kTargets);
    for (std::size_t i = 0; i < config.models * kTargets; ++i) {
      rows_.emplace_back(config.bin_s, config.horizon_bins, config.rule, i);
    }
  }

  /// Requests that came to a model and their predicted work in GPU-seconds, since the last call.
  void observe(ModelId model, double arrivals, double work_s) noexcept {
    const std::size_t row = index_of(model) * kTargets;
    if (row >= open_.size()) return;
    open_[row] += arrivals;
    open_[row + 1] += work_s;
  }

  /// Nobody counted this model for some of the open bin: it is missing, not zero.
  void mark_missing(ModelId model) noexcept {
    if (index_of(model) < gaps_.size()) gaps_[index_of(model)] = 1;
  }

  /// Closes the bins that have ended; returns how many. What was observed is spread over them if there are several, for
  /// nobody knows more; after a pause of more than 30 bins they are missing instead.
  std::size_t advance(Instant now) noexcept {
    if (now < closes_) return 0;
    const auto ended = static_cast<std::size_t>((now - closes_) / bin_) + 1;
    const bool is_pause = ended > kMostSpread;
    const std::size_t pushed = std::min(ended, kMostClosed);
    const double per_s = 1.0 / (config_.bin_s * static_cast<double>(ended));
    for (std::size_t row = 0; row < rows_.size(); ++row) {
      const bool is_missing = is_pause || gaps_[row / kTargets] != 0;
      for (std::size_t i = 0; i < pushed; ++i) rows_[row].close(open_[row] * per_s, is_missing);
      open_[row] = 0.0;
    }
    for (auto& gap : gaps_) gap = 0;
    closes_ += bin_ * static_cast<std::int64_t>(ended);
    is_stale_ = true;
    return ended;
  }

  /// Renews the forecast if a bin was closed since. `net` may be null. True if the net's answer was used for any row.
  bool predict(NetRunner* net) noexcept {
    if (!is_stale_) return is_net_used_;
    is_stale_ = false;
    const Instant bin_end = closes_ - bin_;
    WeekPhase phase = config_.week_phase;
    if (phase) *phase += static_cast<double>(to_ns(bin_end)) * 1e-9;
    for (std::size_t row = 0; row < rows_.size(); ++row) {
      write_features(rows_[row].history(), &rows_[row - row % kTargets].history(), static_cast<Target>(row % kTargets),
                     phase, features_of(row));
    }
    const bool has_net = net != nullptr && net->run(features_, rows_.size(), net_out_);
    is_net_used_ = false;
    for (std::size_t row = 0; row < rows_.size(); ++row) {
      if (!rows_[row].can_predict()) continue;
      const std::span<const float> all{net_out_};
      rows_[row].predict(features_of(row), has_net ? all.subspan(row * kOutputs, kOutputs) : std::span<const float>{});
      is_net_used_ = is_net_used_ || rows_[row].is_net_used();
    }
    return is_net_used_;
  }

  /// Whether there is a forecast made at the newest bin: false before the first bin, and while bins are missing.
  [[nodiscard]] bool is_valid(ModelId model, Target target) const noexcept {
    const std::size_t row = row_of(model, target);
    return row < rows_.size() && !is_stale_ && rows_[row].can_predict();
  }

  /// The quantile of the mean rate over (bin end, bin end + horizon]: requests or GPU-seconds per second. 0 where not
  /// valid.
  [[nodiscard]] double rate(ModelId model, Target target, std::size_t horizon, std::size_t quantile) const noexcept {
    if (!is_valid(model, target) || horizon >= kHorizons || quantile >= kQuantileCount) return 0.0;
    return static_cast<double>(rows_[row_of(model, target)].quantiles(horizon)[quantile]);
  }

  /// The horizon that covers `lead` best: the shortest that is at least as long, else the longest.
  [[nodiscard]] std::size_t horizon_for(Duration lead) const noexcept {
    std::size_t best = 0;
    for (std::size_t h = 0; h < kHorizons; ++h) {
      const Duration length = bin_ * static_cast<std::int64_t>(config_.horizon_bins[h]);
      const Duration chosen = bin_ * static_cast<std::int64_t>(config_.horizon_bins[best]);
      if (length >= lead ? (chosen < lead || length < chosen) : (chosen < lead && length > chosen)) best = h;
    }
    return best;
  }

  [[nodiscard]] const LoadForecasterConfig& config() const noexcept { return config_; }
  [[nodiscard]] Instant next_close() const noexcept { return closes_; }
  [[nodiscard]] const SeriesForecaster& series(ModelId model, Target target) const noexcept {
    return rows_[row_of(model, target)];
  }

 private:
  static constexpr std::size_t kMostSpread = 30;
  static constexpr std::size_t kMostClosed = 1024;  ///< Longer pauses are cut: every window has emptied by then.

  static const LoadForecasterConfig& checked(const LoadForecasterConfig& config) {
    if (config.models < 1 || config.models > kMaxModels) throw std::invalid_argument("models must be 1 to 32");
    return config;
  }
  static std::size_t row_of(ModelId model, Target target) noexcept {
    return index_of(model) * kTargets + static_cast<std::size_t>(target);
  }
  std::span<float, kFeatures> features_of(std::size_t row) noexcept {
    return std::span<float, kFeatures>{&features_[row * kFeatures], kFeatures};
  }

  LoadForecasterConfig config_;
  Duration bin_;
  Instant closes_;
  std::vector<double> open_;
  std::vector<unsigned char> gaps_;
  std::vector<float> features_;
  std::vector<float> net_out_;
  std::vector<SeriesForecaster> rows_;
  bool is_stale_ = false;
  bool is_net_used_ = false;
};

}  // namespace zeta::forecast
