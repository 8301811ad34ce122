#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "zeta/core/time.hpp"

namespace zeta::share {

/// Waiting work by the size of the requests that bring it, eight sizes per octave.
///
/// Answers one question: if only a part of the waiting work can be done in time, up to which size of request should be
/// done so that the most requests are? Leaving the largest out maximises the number on time (Moore, 1968). Integer
/// sums, so adding and removing in any order leaves exactly nothing. One owner; allocates nothing.
class SizeHistogram {
 public:
  void add(Duration work) noexcept { sum_ns_[bucket_of(work)] += work.count(); }
  void remove(Duration work) noexcept { sum_ns_[bucket_of(work)] -= work.count(); }

  /// The largest size to keep when `part` (0 to 1) of all waiting work can be kept.
  [[nodiscard]] Duration largest_within(double part) const noexcept {
    std::int64_t total = 0;
    for (const std::int64_t sum : sum_ns_) total += sum;
    const double keep = part * static_cast<double>(total);
    std::int64_t kept = 0;
    for (std::size_t i = 0; i < kBuckets; ++i) {
      kept += sum_ns_[i];
      if (static_cast<double>(kept) > keep) return lower_bound(i);
    }
    return Duration::max();
  }

 private:
  static constexpr std::size_t kBuckets = 8 * 40;

  static constexpr std::size_t bucket_of(Duration work) noexcept {
    const auto ns = static_cast<std::uint64_t>(work.count() < 8 ? 8 : work.count());
    const auto exponent = static_cast<unsigned>(std::bit_width(ns)) - 1U;
    const std::size_t bucket = 8 * (exponent - 3U) + static_cast<std::size_t>((ns >> (exponent - 3U)) & 7U);
    return bucket < kBuckets ? bucket : kBuckets - 1;
  }
  static constexpr Duration lower_bound(std::size_t bucket) noexcept {
    return Duration{static_cast<std::int64_t>((8 + bucket % 8) << (bucket / 8))};
  }

  std::array<std::int64_t, kBuckets> sum_ns_{};
};

}  // namespace zeta::share
