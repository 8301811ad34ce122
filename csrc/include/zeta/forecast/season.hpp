#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace zeta::forecast {

/// What the rate was one period (a day, a week) ago: means over slots of a fixed number of bins, kept for one period
/// and a little.
///
/// Exists only where a period is at least kLeastSlots slots long. One owner; the constructor allocates, nothing else.
class Season {
 public:
  static constexpr std::size_t kMostSlots = 288;  ///< Per period: five minutes of a day.
  static constexpr std::size_t kLeastSlots = 8;

  /// `period_bins`: the period in bins, rounded; 0 or a short one makes a season that never answers.
  explicit Season(std::size_t period_bins) : period_bins_{period_bins} {
    if (period_bins < kLeastSlots) {
      period_bins_ = 0;
      return;
    }
    slot_bins_ = std::max<std::size_t>(1, (period_bins + kMostSlots - 1) / kMostSlots);
    sums_.assign(period_bins / slot_bins_ + 3, Slot{});
  }

  void push(double value, bool is_missing) noexcept {
    if (period_bins_ == 0) return;
    const std::size_t slot = static_cast<std::size_t>(bins_ / slot_bins_);
    Slot& into = sums_[slot % sums_.size()];
    if (bins_ % slot_bins_ == 0) into = Slot{};
    ++bins_;
    if (is_missing) return;
    into.sum += value;
    into.count += 1;
  }

  /// True once two whole periods have gone by.
  [[nodiscard]] bool is_known() const noexcept { return period_bins_ != 0 && bins_ >= 2 * period_bins_; }

  /// Mean rate over `horizon` bins from one period before now; nothing if it is unknown, missing or not yet over (a
  /// horizon longer than the period).
  [[nodiscard]] std::optional<double> mean(std::size_t horizon) const noexcept {
    if (!is_known() || horizon > period_bins_) return std::nullopt;
    const std::uint64_t from = bins_ - period_bins_;
    // A span within a slot is the slot around its middle; a longer one is whole slots.
    const std::uint64_t reach = std::max<std::uint64_t>(horizon, slot_bins_);
    const std::uint64_t middle2 = 2 * from + horizon;
    const std::uint64_t begin2 = middle2 > reach ? middle2 - reach : 0;
    const std::uint64_t first = (begin2 / 2 + slot_bins_ / 2) / slot_bins_;
    const std::uint64_t slots = std::max<std::uint64_t>(1, (reach + slot_bins_ / 2) / slot_bins_);
    double sum = 0.0;
    double count = 0.0;
    for (std::uint64_t slot = first; slot < first + slots; ++slot) {
      if ((slot + 1) * slot_bins_ > bins_) break;  // not over yet
      const Slot& at = sums_[static_cast<std::size_t>(slot) % sums_.size()];
      sum += at.sum;
      count += at.count;
    }
    if (count <= 0.0) return std::nullopt;
    return sum / count;
  }

 private:
  struct Slot {
    double sum = 0.0;
    double count = 0.0;
  };

  std::uint64_t period_bins_ = 0;
  std::uint64_t slot_bins_ = 1;
  std::uint64_t bins_ = 0;
  std::vector<Slot> sums_;
};

}  // namespace zeta::forecast
