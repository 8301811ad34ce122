#pragma once
// From what is remembered of a series to the numbers that a net reads. Additions, multiplications and divisions only,
// so that every machine computes the same bits.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "zeta/forecast/history.hpp"
#include "zeta/forecast/layout.hpp"

namespace zeta::forecast {

/// ln x for finite x >= 1, absolute error below 1e-8: the exponent, and the first five terms of the atanh series on a
/// mantissa brought to [0.71, 1.41]. A third of the time of exact_log, and enough for a float.
[[nodiscard]] constexpr double brief_log(double x) noexcept {
  auto bits = std::bit_cast<std::uint64_t>(x);
  // Adding the gap between sqrt(2) and 2 to the mantissa carries into the exponent exactly where the mantissa is above.
  const std::uint64_t shifted = bits + 0x00095F619980C433ULL;
  const auto exponent = static_cast<double>(static_cast<std::int64_t>(shifted >> 52U) - 1023);
  bits = (shifted & 0x000FFFFFFFFFFFFFULL) + 0x3FE6A09E667F3BCDULL;
  const double m = std::bit_cast<double>(bits);
  const double s = (m - 1.0) / (m + 1.0);
  const double s2 = s * s;
  const double series = 1.0 + s2 * (1.0 / 3 + s2 * (1.0 / 5 + s2 * (1.0 / 7 + s2 * (1.0 / 9))));
  return exponent * 0.6931471805599453 + 2.0 * s * series;
}

/// ln(1 + x) for x >= 0; above 1e12 as at 1e12.
[[nodiscard]] constexpr double brief_log1p(double x) noexcept { return brief_log(1.0 + std::min(x, 1e12)); }

/// sin of `turns` whole turns; absolute error below 4e-6. Taylor on a quarter turn.
[[nodiscard]] inline double sine_of_turns(double turns) noexcept {
  double part = turns - std::floor(turns);  // [0, 1); floor is exact in IEEE arithmetic
  const bool is_second_half = part >= 0.5;
  if (is_second_half) part -= 0.5;
  if (part > 0.25) part = 0.5 - part;
  const double x = part * 6.283185307179586;
  const double x2 = x * x;
  const double sine = x * (1.0 + x2 * (-1.0 / 6 + x2 * (1.0 / 120 + x2 * (-1.0 / 5040 + x2 * (1.0 / 362880)))));
  return is_second_half ? -sine : sine;
}

/// Seconds from a Monday's midnight, where somebody knows the wall clock.
using WeekPhase = std::optional<double>;

/// Fills one row of kFeatures (see layout.hpp).
///
/// `own` is the series that is forecast; `arrivals` the requests per second of the same model (the same object for
/// Target::kArrivals), or null where they are not known. Reads nothing that comes after the newest bin: features are
/// causal by construction.
inline void write_features(const History& own, const History* arrivals, Target target, WeekPhase now,
                           std::span<float, kFeatures> out) noexcept {
  const double per_scale = 1.0 / own.scale();
  const auto log_ratio = [per_scale](double rate) {
    return static_cast<float>(brief_log1p(rate * per_scale) - 0.6931471805599453);
  };
  const float at_level = log_ratio(own.level());
  std::size_t missing = 0;
  for (std::size_t i = 0; i < kFineBins; ++i) {
    const std::size_t back = kFineBins - 1 - i;
    const bool is_missing = own.is_missing(back);
    missing += is_missing ? 1 : 0;
    out[feature::kFine + i] = is_missing ? at_level : log_ratio(own.value(back));
  }
  double present = 0.0;
  for (std::size_t i = 0; i < kCoarseBins; ++i) {
    const History::Block block = own.block(kCoarseBins - 1 - i);
    present += block.count;
    out[feature::kCoarse + i] = block.count > 0.0 ? log_ratio(block.sum / block.count) : at_level;
  }
  out[feature::kLevel] = at_level;
  out[feature::kFast] = log_ratio(own.fast());
  out[feature::kSlow] = log_ratio(own.slow());
  out[feature::kNoise] = static_cast<float>(brief_log1p(own.noise() * per_scale));
  out[feature::kCount] =
      arrivals == nullptr ? 0.0F : static_cast<float>(brief_log1p(arrivals->level() * arrivals->bin_s()) / 8.0);
  out[feature::kBin] = static_cast<float>(brief_log1p(own.bin_s()) / 8.0);
  out[feature::kIsWork] = target == Target::kWork ? 1.0F : 0.0F;
  out[feature::kFineMissing] = static_cast<float>(missing) / static_cast<float>(kFineBins);
  out[feature::kCoarseMissing] = static_cast<float>(1.0 - present / static_cast<double>(kWindow));
  const double day = now.value_or(0.0) / 86'400.0;
  const bool has_phase = now.has_value();
  out[feature::kDaySine] = has_phase ? static_cast<float>(sine_of_turns(day)) : 0.0F;
  out[feature::kDayCosine] = has_phase ? static_cast<float>(sine_of_turns(day + 0.25)) : 0.0F;
  out[feature::kWeekSine] = has_phase ? static_cast<float>(sine_of_turns(day / 7.0)) : 0.0F;
  out[feature::kWeekCosine] = has_phase ? static_cast<float>(sine_of_turns(day / 7.0 + 0.25)) : 0.0F;
  const auto write_lags = [&](const Season& season, std::size_t first, std::size_t known) {
    for (std::size_t h = 0; h < kHorizons; ++h) {
      const std::optional<double> mean = season.mean(kHorizonBins[h]);
      out[first + h] = mean ? log_ratio(*mean) : 0.0F;
    }
    out[known] = season.is_known() ? 1.0F : 0.0F;
  };
  write_lags(own.day(), feature::kDayLag, feature::kHasDayLag);
  write_lags(own.week(), feature::kWeekLag, feature::kHasWeekLag);
}

}  // namespace zeta::forecast
