#pragma once
// How many of one model's waiting requests could still start in time if the model were there only later.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "zeta/core/time.hpp"

namespace zeta::share {

/// Waiting requests counted by the second of their latest start, and those whose second has passed as one number.
///
/// A latest start further than kFarthest behind the arrival counts as that far, a function of the request's own
/// numbers, so that `remove` takes away exactly what `add` put in, however much later. One owner; allocates nothing.
class DueCounts {
 public:
  static constexpr Duration kFarthest{1'000'000'000'000};

  void add(Instant latest_start, Instant arrival, Instant now) noexcept { change(latest_start, arrival, now, 1); }
  void remove(Instant latest_start, Instant arrival, Instant now) noexcept {
    change(latest_start, arrival, now, ~std::uint32_t{0});
  }

  [[nodiscard]] std::uint32_t size() const noexcept { return size_; }

  /// Those whose latest start is not before `at`, to the second. `at` is not before the last add or remove.
  [[nodiscard]] std::uint32_t in_time(Instant at) const noexcept {
    std::uint32_t sum = 0;
    for (std::int64_t second = std::max(second_of(at), first_); second < first_ + kSeconds; ++second) {
      sum += counts_[slot_of(second)];
    }
    return sum;
  }

 private:
  static constexpr std::int64_t kSeconds = 1024;
  static_assert(kFarthest.count() / 1'000'000'000 + 2 <= kSeconds, "the farthest and the present second are both held");

  static constexpr std::int64_t second_of(Instant at) noexcept { return to_ns(at) / 1'000'000'000; }
  static constexpr std::size_t slot_of(std::int64_t second) noexcept {
    return static_cast<std::size_t>(second & (kSeconds - 1));
  }

  void change(Instant latest_start, Instant arrival, Instant now, std::uint32_t by) noexcept {
    roll(now);
    size_ += by;
    const std::int64_t second = second_of(std::min(latest_start, arrival + kFarthest));
    if (second >= first_) counts_[slot_of(second)] += by;
  }

  void roll(Instant now) noexcept {
    const std::int64_t present = second_of(now);
    if (present - first_ >= kSeconds) {
      counts_.fill(0);
      first_ = present;
    }
    for (; first_ < present; ++first_) counts_[slot_of(first_)] = 0;
  }

  std::array<std::uint32_t, static_cast<std::size_t>(kSeconds)> counts_{};
  std::uint32_t size_ = 0;
  std::int64_t first_ = 0;  ///< The present second, as of the last add or remove.
};

}  // namespace zeta::share
