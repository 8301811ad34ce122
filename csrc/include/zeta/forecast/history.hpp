#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include "zeta/core/math.hpp"
#include "zeta/forecast/layout.hpp"
#include "zeta/forecast/season.hpp"

namespace zeta::forecast {

/// Mean with exponentially fading weights. The weights of what was seen are divided out, so that the first values count
/// in full and a missing one changes nothing.
class FadingMean {
 public:
  /// `half_life` in pushes, above 0.
  explicit FadingMean(double half_life) : keep_{exact_exp(-0.6931471805599453 / half_life)} {}

  void push(double value) noexcept {
    sum_ = keep_ * sum_ + (1.0 - keep_) * value;
    weight_ = keep_ * weight_ + (1.0 - keep_);
  }
  [[nodiscard]] double mean() const noexcept { return weight_ > 0.0 ? sum_ / weight_ : 0.0; }
  [[nodiscard]] bool empty() const noexcept { return weight_ <= 0.0; }

 private:
  double keep_;
  double sum_ = 0.0;
  double weight_ = 0.0;
};

/// Half-life of the level in bins: 30 s, and at least 3 bins.
[[nodiscard]] constexpr double level_half_life_bins(double bin_s) noexcept { return std::max(30.0 / bin_s, 3.0); }

/// What is remembered of one series (a rate per bin): the last 480 bins, fading means, what was a day and a week ago.
///
/// A missing bin stays missing: it enters no mean and is never read as zero. One owner; the constructor allocates,
/// nothing else does; a push costs O(30).
class History {
 public:
  /// Throws std::invalid_argument unless 1e-3 <= bin_s <= 86,400.
  explicit History(double bin_s)
      : bin_s_{checked(bin_s)},
        fast_{3.0},
        level_{level_half_life_bins(bin_s)},
        slow_{static_cast<double>(kWindow)},
        noise_{level_half_life_bins(bin_s)},
        day_{static_cast<std::size_t>(86'400.0 / bin_s + 0.5)},
        week_{static_cast<std::size_t>(604'800.0 / bin_s + 0.5)} {
    is_missing_.fill(true);
  }

  /// Closes a bin. A value that is no number, or negative, counts as missing.
  void push(double rate, bool is_missing) noexcept {
    is_missing = is_missing || !(rate >= 0.0) || rate > 1e30;
    const std::size_t at = slot(bins_);
    values_[at] = is_missing ? 0.0 : rate;
    is_missing_[at] = is_missing;
    ++bins_;
    Block block;
    for (std::size_t back = 0; back < kCoarseWidth; ++back) {
      const std::size_t i = slot(bins_ - 1 - back);
      block.sum += values_[i];
      block.count += is_missing_[i] ? 0.0 : 1.0;
    }
    blocks_[at] = block;
    day_.push(rate, is_missing);
    week_.push(rate, is_missing);
    if (is_missing) return;
    if (!level_.empty()) noise_.push(rate > level() ? rate - level() : level() - rate);
    fast_.push(rate);
    level_.push(rate);
    slow_.push(rate);
    last_ = rate;
  }

  [[nodiscard]] double bin_s() const noexcept { return bin_s_; }
  [[nodiscard]] std::uint64_t bins() const noexcept { return bins_; }
  [[nodiscard]] bool has_values() const noexcept { return !level_.empty(); }

  /// The bin `back` bins before the newest (0: the newest), back < 480.
  [[nodiscard]] double value(std::size_t back) const noexcept { return values_[slot(bins_ - 1 - back)]; }
  [[nodiscard]] bool is_missing(std::size_t back) const noexcept {
    return back >= bins_ || is_missing_[slot(bins_ - 1 - back)];
  }

  struct Block {
    double sum = 0.0;
    double count = 0.0;  ///< Bins that are not missing.
    [[nodiscard]] double mean_or(double otherwise) const noexcept { return count > 0.0 ? sum / count : otherwise; }
  };
  /// The 30 bins that end `back` blocks of 30 before now, back < 16.
  [[nodiscard]] Block block(std::size_t back) const noexcept {
    return back * kCoarseWidth >= bins_ ? Block{} : blocks_[slot(bins_ - 1 - back * kCoarseWidth)];
  }

  [[nodiscard]] double last() const noexcept { return last_; }           ///< The newest bin that is not missing.
  [[nodiscard]] double fast() const noexcept { return fast_.mean(); }    ///< Half-life 3 bins.
  [[nodiscard]] double level() const noexcept { return level_.mean(); }  ///< Half-life max(30 s, 3 bins).
  [[nodiscard]] double slow() const noexcept { return slow_.mean(); }    ///< Half-life 480 bins.
  [[nodiscard]] double noise() const noexcept { return noise_.mean(); }  ///< Mean absolute step off the level.

  /// What features and net outputs are multiples of: the level, held above a twentieth of the slow mean so that ratios
  /// stay small when a quiet series wakes. Never 0.
  [[nodiscard]] double scale() const noexcept { return std::max({level(), 0.05 * slow(), 1e-9}); }

  [[nodiscard]] const Season& day() const noexcept { return day_; }
  [[nodiscard]] const Season& week() const noexcept { return week_; }

 private:
  static double checked(double bin_s) {
    if (!(bin_s >= 1e-3 && bin_s <= 86'400.0)) throw std::invalid_argument("a bin is 0.001 to 86,400 seconds long");
    return bin_s;
  }
  static std::size_t slot(std::uint64_t bin) noexcept { return static_cast<std::size_t>(bin % kWindow); }

  double bin_s_;
  std::uint64_t bins_ = 0;
  std::array<double, kWindow> values_{};
  std::array<bool, kWindow> is_missing_{};
  std::array<Block, kWindow> blocks_{};
  double last_ = 0.0;
  FadingMean fast_;
  FadingMean level_;
  FadingMean slow_;
  FadingMean noise_;
  Season day_;
  Season week_;
};

}  // namespace zeta::forecast
