#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "zeta/forecast/dataset.hpp"
#include "zeta/forecast/series_forecaster.hpp"

namespace zeta::forecast {

/// What one forecaster's answers were worth over the origins that count.
struct Score {
  std::uint64_t origins = 0;
  std::array<double, kQuantileCount> pinball_sum{};
  double absolute_sum = 0.0;  ///< Of actual - median.
  double actual_sum = 0.0;
  std::uint64_t below_90 = 0;
  std::uint64_t below_99 = 0;
  double cost_median = 0.0;  ///< 10 per unit under, 1 per unit over, had the median been provided;
  double cost_90 = 0.0;      ///< and had the 0.9 quantile.

  void add(const Quantiles& forecast, double actual) noexcept {
    const auto at = [&forecast](std::size_t i) { return static_cast<double>(forecast[i]); };
    const auto cost = [actual](double q) { return actual > q ? 10.0 * (actual - q) : q - actual; };
    ++origins;
    for (std::size_t i = 0; i < kQuantileCount; ++i) pinball_sum[i] += pinball(kQuantiles[i], actual, at(i));
    absolute_sum += std::abs(actual - at(0));
    actual_sum += actual;
    below_90 += actual <= at(1) ? 1 : 0;
    below_99 += actual <= at(2) ? 1 : 0;
    cost_median += cost(at(0));
    cost_90 += cost(at(1));
  }
};

/// The five candidates in their order, then the guard.
struct HorizonScores {
  std::size_t horizon_bins = 0;
  std::array<Score, kCandidates + 1> scores{};
};

/// Walks a series bin by bin with the forecaster that runs live, and scores what was forecast at origins from bin
/// number `first_origin` on (0: after the first bin). Rolling origin: every forecast uses only bins before it, all of
/// it is learnt online, and an origin counts only when its whole target is there. `net` holds a row of kOutputs per
/// bin, or nothing.
inline std::vector<HorizonScores> backtest(const Series& series, std::span<const std::size_t> horizons,
                                           std::size_t first_origin, std::span<const float> net, GuardRule rule) {
  std::vector<HorizonScores> results(horizons.size());
  for (std::size_t h = 0; h < horizons.size(); ++h) results[h].horizon_bins = horizons[h];
  SeriesForecaster own{series.bin_s, horizons, rule};
  History arrivals{series.bin_s};
  std::array<float, kFeatures> features{};
  for (std::size_t i = 0; i < series.rates.size(); ++i) {
    const bool is_gap = series.is_missing(i);
    own.close(series.rates[i], is_gap, [&](std::size_t h, const Pending& made, double actual) {
      if (made.bin < first_origin + 2) return;  // made.bin is 1 + bins closed, so bin number + 2
      for (std::size_t k = 0; k < kCandidates; ++k) {
        if (k != index_of(Candidate::kNet) || made.has_net) results[h].scores[k].add(made.candidates[k], actual);
      }
      results[h].scores[kCandidates].add(made.guard, actual);
    });
    const bool has_arrivals = !series.arrival_rates.empty();
    if (has_arrivals) arrivals.push(series.arrival_rates[i], is_gap);
    if (!own.can_predict()) continue;
    if (!net.empty()) {
      write_features(own.history(), has_arrivals ? &arrivals : series.own_counts(own.history()), series.target,
                     series.phase_after(i), features);
    }
    own.predict(features, net.empty() ? net : net.subspan(i * kOutputs, kOutputs));
  }
  return results;
}

/// The same for point forecasts that somebody else made: `points` holds one rate per bin, made at its end. Their
/// quantiles come from residuals as a candidate's do.
inline Score backtest_points(const Series& series, std::size_t horizon, std::size_t first_origin,
                             std::span<const double> points) {
  Score score;
  WindowSums sums{horizon};
  ResidualWindow window;
  Tail tail{horizon};
  const std::size_t stride = std::max<std::size_t>(1, horizon / 20);
  std::vector<Quantiles> made(horizon);
  std::vector<double> at(horizon, -1.0);
  std::size_t completed = 0;
  for (std::size_t i = 0; i < series.rates.size(); ++i) {
    const bool is_gap = series.is_missing(i);
    sums.push(series.rates[i], is_gap);
    const std::size_t slot = i % horizon;
    if (i >= horizon && at[slot] >= 0.0 && sums.is_whole(horizon)) {
      const double actual = sums.mean(horizon);
      if (i - horizon >= first_origin) score.add(made[slot], actual);
      if (completed++ % stride == 0) window.push(static_cast<float>(actual - at[slot]));
      tail.push(actual, static_cast<double>(made[slot][1]), static_cast<double>(made[slot][2]));
    }
    at[slot] = -1.0;
    if (is_gap || !(points[i] >= 0.0)) continue;
    at[slot] = points[i];
    const double q50 = std::max(0.0, points[i] + window.quantile(0.5));
    const double q90 = std::max(q50, points[i] + window.quantile(0.9));
    made[slot] = {static_cast<float>(q50), static_cast<float>(q90), static_cast<float>(std::max(q90, tail.above(q90)))};
  }
  return score;
}

}  // namespace zeta::forecast
