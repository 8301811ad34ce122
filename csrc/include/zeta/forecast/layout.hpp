#pragma once
// What a forecast is made of: its windows, horizons and quantiles, and the order of a net's inputs and outputs. The
// manifest of a trained net repeats these numbers, and a net made for others is refused.

#include <array>
#include <cstddef>

namespace zeta::forecast {

/// Raised when a feature or an output comes to mean something else, though their numbers stay: nets made for another
/// version are refused.
inline constexpr int kLayoutVersion = 1;

inline constexpr std::size_t kFineBins = 32;     ///< Newest bins that a net sees one by one.
inline constexpr std::size_t kCoarseBins = 16;   ///< Means that it sees beside them,
inline constexpr std::size_t kCoarseWidth = 30;  ///< each of this many bins, the newest ending now.
inline constexpr std::size_t kWindow = kCoarseBins * kCoarseWidth;

/// Horizons in bins: with bins of 1 s, the mean rate over the next 1, 10, 60, 180 and 600 s.
inline constexpr std::array<std::size_t, 5> kHorizonBins{1, 10, 60, 180, 600};
inline constexpr std::size_t kHorizons = kHorizonBins.size();
inline constexpr std::size_t kLongestHorizon = kHorizonBins.back();

inline constexpr std::array<double, 3> kQuantiles{0.5, 0.9, 0.99};
inline constexpr std::size_t kQuantileCount = kQuantiles.size();

/// What is forecast of each model: requests per second, and GPU-seconds of predicted work per second.
enum class Target : unsigned char { kArrivals, kWork };
inline constexpr std::size_t kTargets = 2;

/// One row of a net's output: for each horizon in order its quantiles in order, each as a multiple of the series' scale
/// (see Scale in history.hpp): rate = out * scale. Not negative, and not falling from one quantile to the next.
inline constexpr std::size_t kOutputs = kHorizons * kQuantileCount;

/// Where each feature stands in a row. "Log-ratio" is ln(1 + x / scale) - ln 2: 0 at the scale, -0.69 at nothing.
namespace feature {
inline constexpr std::size_t kFine = 0;                          ///< Log-ratios of the last 32 bins, oldest first.
inline constexpr std::size_t kCoarse = kFine + kFineBins;        ///< Of 16 means over 30 bins, oldest first.
inline constexpr std::size_t kLevel = kCoarse + kCoarseBins;     ///< Of the level itself (not 0 where the floor holds).
inline constexpr std::size_t kFast = kLevel + 1;                 ///< Of the fast mean (half-life 3 bins).
inline constexpr std::size_t kSlow = kFast + 1;                  ///< Of the slow mean (half-life 480 bins).
inline constexpr std::size_t kNoise = kSlow + 1;                 ///< ln(1 + mean absolute step off the level / scale).
inline constexpr std::size_t kCount = kNoise + 1;                ///< ln(1 + arrivals in a bin at their level) / 8.
inline constexpr std::size_t kBin = kCount + 1;                  ///< ln(1 + bin in seconds) / 8.
inline constexpr std::size_t kIsWork = kBin + 1;                 ///< 1 for work, 0 for arrivals.
inline constexpr std::size_t kFineMissing = kIsWork + 1;         ///< Part of the last 32 bins that is missing.
inline constexpr std::size_t kCoarseMissing = kFineMissing + 1;  ///< Part of the last 480 bins that is missing.
inline constexpr std::size_t kDaySine = kCoarseMissing + 1;      ///< Phase of the day and of the week; 0 if not known.
inline constexpr std::size_t kDayCosine = kDaySine + 1;
inline constexpr std::size_t kWeekSine = kDayCosine + 1;
inline constexpr std::size_t kWeekCosine = kWeekSine + 1;
inline constexpr std::size_t kDayLag = kWeekCosine + 1;          ///< Log-ratio per horizon of the same span a day ago.
inline constexpr std::size_t kWeekLag = kDayLag + kHorizons;     ///< And a week ago. 0 until two periods exist.
inline constexpr std::size_t kHasDayLag = kWeekLag + kHorizons;  ///< 1 once they do.
inline constexpr std::size_t kHasWeekLag = kHasDayLag + 1;
}  // namespace feature
inline constexpr std::size_t kFeatures = feature::kHasWeekLag + 1;

}  // namespace zeta::forecast
