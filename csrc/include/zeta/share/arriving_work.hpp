#pragma once

#include <array>
#include <cstdint>

#include "zeta/core/time.hpp"

namespace zeta::share {

/// Predicted work that arrived for a device in the last five minutes ÷ the device's time. Thirty bins of ten seconds;
/// the first five minutes count as if they had been idle before. One owner; allocates nothing; integer sums.
class ArrivingWork {
 public:
  void add(Duration work, Instant now) noexcept {
    roll(now);
    work_ns_[number_of(now) % kBins] += work.count();
    total_ns_ += work.count();
  }

  [[nodiscard]] double utilisation(Instant now) noexcept {
    roll(now);
    return static_cast<double>(total_ns_) / static_cast<double>(kBins * kBinWidth.count());
  }

 private:
  static constexpr std::int64_t kBins = 30;
  static constexpr Duration kBinWidth{10'000'000'000};

  static constexpr std::int64_t number_of(Instant now) noexcept { return to_ns(now) / kBinWidth.count(); }

  void roll(Instant now) noexcept {
    const std::int64_t present = number_of(now);
    if (present - latest_ >= kBins) {
      work_ns_.fill(0);
      total_ns_ = 0;
      latest_ = present;
    }
    while (latest_ < present) {
      std::int64_t& oldest = work_ns_[static_cast<std::size_t>(++latest_ % kBins)];
      total_ns_ -= oldest;
      oldest = 0;
    }
  }

  std::array<std::int64_t, kBins> work_ns_{};
  std::int64_t total_ns_ = 0;
  std::int64_t latest_ = 0;
};

}  // namespace zeta::share
