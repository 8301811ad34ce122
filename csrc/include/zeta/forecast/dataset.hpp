#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "zeta/forecast/features.hpp"

namespace zeta::forecast {

/// A whole series, bin by bin: what a net would have read after each bin, and what then came.
struct Series {
  std::span<const double> rates{};          ///< Mean rate in each bin.
  std::span<const double> arrival_rates{};  ///< Of the same model's requests; empty where not known.
  std::span<const std::uint8_t> is_gap{};   ///< Not 0 where a bin is missing; empty for none.
  double bin_s = 1.0;
  Target target = Target::kArrivals;
  WeekPhase start{};  ///< When the first bin begins.

  [[nodiscard]] bool is_missing(std::size_t i) const noexcept {
    return !(rates[i] >= 0.0 && rates[i] <= 1e30) || (!is_gap.empty() && is_gap[i] != 0);
  }
  /// Where the arrivals are, when they are not given apart: in the series itself, or nowhere.
  [[nodiscard]] const History* own_counts(const History& own) const noexcept {
    return target == Target::kArrivals ? &own : nullptr;
  }
  [[nodiscard]] WeekPhase phase_after(std::size_t i) const noexcept {
    return start ? WeekPhase{*start + static_cast<double>(i + 1) * bin_s} : WeekPhase{};
  }
};

/// Fills, for the end of each bin, a row of features (n x kFeatures), of targets (n x horizons: mean rate over the next
/// horizon bins, NaN where they are not complete or one of them, or this bin, is missing) and the scale (n).
///
/// The very History and write_features that run live, pushed once per bin, so no feature can see a later bin.
inline void write_dataset(const Series& series, std::span<const std::size_t> horizons, std::span<float> features,
                          std::span<double> targets, std::span<double> scales) {
  const std::size_t n = series.rates.size();
  History own{series.bin_s};
  History arrivals{series.bin_s};
  const bool has_arrivals = !series.arrival_rates.empty();
  for (std::size_t i = 0; i < n; ++i) {
    own.push(series.rates[i], series.is_missing(i));
    if (has_arrivals) arrivals.push(series.arrival_rates[i], series.is_missing(i));
    write_features(own, has_arrivals ? &arrivals : series.own_counts(own), series.target, series.phase_after(i),
                   std::span<float, kFeatures>{&features[i * kFeatures], kFeatures});
    scales[i] = own.scale();
    for (std::size_t h = 0; h < horizons.size(); ++h) {
      double sum = 0.0;
      bool is_whole = !series.is_missing(i) && i + horizons[h] < n;
      for (std::size_t j = i + 1; is_whole && j <= i + horizons[h]; ++j) {
        is_whole = !series.is_missing(j);
        sum += series.rates[j];
      }
      targets[i * horizons.size() + h] =
          is_whole ? sum / static_cast<double>(horizons[h]) : std::numeric_limits<double>::quiet_NaN();
    }
  }
}

}  // namespace zeta::forecast
