#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "zeta/forecast/features.hpp"

namespace zeta::forecast {

/// A whole series, bin by bin: what a net would have read after each bin, and what then came.
struct Series {
  std::span<const double> rates;          ///< Mean rate in each bin.
  std::span<const double> arrival_rates;  ///< Of the same model's requests; empty where not known.
  std::span<const std::uint8_t> is_gap;   ///< Not 0 where a bin is missing; empty for none.
  double bin_s = 1.0;
  Target target = Target::kArrivals;
  WeekPhase start{};  ///< When the first bin begins.
};

/// Fills, for the end of each bin, a row of features (n x kFeatures), of targets (n x horizons: mean rate over the next
/// horizon bins, NaN where they are not complete or one of them, or this bin, is missing) and the scale (n).
///
/// The very History and write_features that run live, pushed once per bin, so no feature can see a later bin.
inline void write_dataset(const Series& series, std::span<const std::size_t> horizons, std::span<float> features,
                          std::span<double> targets, std::span<double> scales) {
  const std::size_t n = series.rates.size();
  const auto is_gap = [&series](std::size_t i) {
    return !(series.rates[i] >= 0.0 && series.rates[i] <= 1e30) || (!series.is_gap.empty() && series.is_gap[i] != 0);
  };
  History own{series.bin_s};
  History arrivals{series.bin_s};
  const bool has_arrivals = !series.arrival_rates.empty();
  for (std::size_t i = 0; i < n; ++i) {
    own.push(series.rates[i], is_gap(i));
    if (has_arrivals) arrivals.push(series.arrival_rates[i], is_gap(i));
    const History* counts = has_arrivals ? &arrivals : series.target == Target::kArrivals ? &own : nullptr;
    WeekPhase now = series.start;
    if (now) *now += static_cast<double>(i + 1) * series.bin_s;
    write_features(own, counts, series.target, now, std::span<float, kFeatures>{&features[i * kFeatures], kFeatures});
    scales[i] = own.scale();
    for (std::size_t h = 0; h < horizons.size(); ++h) {
      double sum = 0.0;
      bool is_whole = !is_gap(i) && i + horizons[h] < n;
      for (std::size_t j = i + 1; is_whole && j <= i + horizons[h]; ++j) {
        is_whole = !is_gap(j);
        sum += series.rates[j];
      }
      targets[i * horizons.size() + h] =
          is_whole ? sum / static_cast<double>(horizons[h]) : std::numeric_limits<double>::quiet_NaN();
    }
  }
}

}  // namespace zeta::forecast
