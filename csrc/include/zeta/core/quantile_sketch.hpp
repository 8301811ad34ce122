#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace zeta {

/// Quantiles of the recent past of a positive quantity, in fixed memory (1.3 kB).
///
/// DDSketch (Masson, Rim and Lee, VLDB 2019) with its linearly interpolated mapping: buckets of equal width within each
/// power of two, found in the bits of the number. Eight to an octave, so that an answer is within 1/16 of the true
/// quantile. From 1 us to 18 minutes, where values are seconds; what lies outside counts in the outermost buckets.
/// Every kHalved values all counts are halved: what is old fades, half its weight with each kHalved / 2 newer values.
///
/// A value; one owner; no libm, so that the same values give the same answers on every machine.
class QuantileSketch {
 public:
  static constexpr std::uint32_t kHalved = 2'048;
  static constexpr double kRelativeError = 1.0 / 16.0;

  /// NaN and negative values are ignored.
  void add(double value) noexcept {
    if (!(value >= 0.0)) return;
    ++counts_[bucket_of(value)];
    ++seen_;
    if (++total_ >= kHalved) halve();
  }

  /// The smallest value that at least `q` (0 to 1) of the recent ones do not exceed; nothing before the first value.
  [[nodiscard]] std::optional<double> quantile(double q) const noexcept {
    if (total_ == 0) return std::nullopt;
    const double rank = std::clamp(q, 0.0, 1.0) * static_cast<double>(total_ - 1);
    std::uint32_t below = 0;
    for (std::size_t bucket = 0; bucket < kBuckets; ++bucket) {
      below += counts_[bucket];
      if (static_cast<double>(below) > rank) return middle_of(bucket);
    }
    return middle_of(kBuckets - 1);
  }

  /// Values ever added.
  [[nodiscard]] std::uint64_t seen() const noexcept { return seen_; }

 private:
  static constexpr std::size_t kPerOctave = 8;
  static constexpr int kLowest = -20;  ///< 2^-20 s, about 1 us.
  static constexpr std::size_t kOctaves = 31;
  static constexpr std::size_t kBuckets = kOctaves * kPerOctave;

  static constexpr std::size_t bucket_of(double value) noexcept {
    const auto bits = std::bit_cast<std::uint64_t>(value);
    const auto octave = static_cast<std::int64_t>(bits >> 52U) - 1023 - kLowest;
    const auto within = static_cast<std::int64_t>((bits >> 49U) & (kPerOctave - 1));
    const std::int64_t bucket = octave * static_cast<std::int64_t>(kPerOctave) + within;
    return static_cast<std::size_t>(std::clamp<std::int64_t>(bucket, 0, kBuckets - 1));
  }

  static constexpr double middle_of(std::size_t bucket) noexcept {
    const auto exponent = static_cast<std::uint64_t>(static_cast<std::int64_t>(bucket / kPerOctave) + kLowest + 1023);
    const double octave = std::bit_cast<double>(exponent << 52U);
    return octave * (1.0 + (static_cast<double>(bucket % kPerOctave) + 0.5) / static_cast<double>(kPerOctave));
  }

  void halve() noexcept {
    total_ = 0;
    for (std::uint32_t& count : counts_) total_ += count /= 2;
  }

  std::array<std::uint32_t, kBuckets> counts_{};
  std::uint32_t total_ = 0;
  std::uint64_t seen_ = 0;
};

}  // namespace zeta
