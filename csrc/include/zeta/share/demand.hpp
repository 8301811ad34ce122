#pragma once
// What one model's waiting requests ask of the device, kept as sums at push, take and cancel.

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>

#include "zeta/core/time.hpp"

namespace zeta::share {

/// How much of a device one model needs so that what waits can still start in time. A histogram of waiting work
/// (predicted GPU nanoseconds) over latest-start instants: 256 bins of 250 ms, the first of which holds the present.
///
/// One owner at a time (whoever owns placement); not for concurrent use. Allocates nothing. Sums are integers, so that
/// removing everything that was added leaves exactly nothing, in whatever order and however much later.
///
/// - `add` returns the bin number. The caller keeps it with the request and hands it back to `remove`, together with
///   the same promise and work; a request that is re-keyed is removed and added again.
/// - A latest start beyond the 64 s horizon is filed in the last bin of the moment: far work is asked for early, never
///   late. A latest start that has passed is filed as overdue.
/// - When a bin's end passes, its work becomes overdue. Overdue work is one sum with its work-weighted mean promise:
///   it is asked for at a constant pace until that mean, or over 1 s where less is left. A promise further than 64 s
///   behind its bin (or kNever) counts as 64 s behind, so that one patient request cannot hide the others.
///
/// need(now) = max over bins b of (work due by the end of b) / max(end of b - now, 1 s): the demand-bound test of EDF
/// (Baruah, Rosier and Howell, 1990) read as a rate. O(256) additions and divisions, whatever the queue's length.
class DemandHistogram {
 public:
  static constexpr std::uint32_t kBins = 256;
  static constexpr Duration kBinWidth{250'000'000};
  static constexpr Duration kHorizon{static_cast<std::int64_t>(kBins) * kBinWidth.count()};
  static constexpr Duration kShortest{1'000'000'000};  ///< Nothing is asked for faster than within this.

  /// Files `work` as due to start by `latest_start`. Returns the number to hand back to `remove`.
  [[nodiscard]] std::uint32_t add(Instant latest_start, Instant promise, Duration work, Instant now) noexcept {
    roll(now);
    const std::uint32_t bin = std::clamp(number_of(latest_start), first_ - 1, first_ + kBins - 1);
    change(bin, promise, work.count());
    return bin;
  }

  /// Undoes one `add`, whether its bin still lies ahead or has become overdue.
  void remove(std::uint32_t bin, Instant promise, Duration work, Instant now) noexcept {
    roll(now);
    change(bin, promise, -work.count());
    assert(total_ns_ >= 0);
  }

  /// Fraction of the device that keeps every waiting request on time; above 1 when one device cannot. 0 when empty.
  [[nodiscard]] double need(Instant now) const noexcept {
    if (total_ns_ == 0) return 0.0;
    const std::uint32_t present = std::max(number_of(now), first_);
    std::int64_t overdue_ns = overdue_.work_ns;
    Wide overdue_promise = overdue_.work_times_promise;
    const std::uint32_t end = first_ + kBins;
    // Bins whose end has passed since the last add or remove.
    for_each_filled(first_, std::min(present, end), [&](std::uint32_t bin) {
      overdue_ns += work_ns_[slot_of(bin)];
      overdue_promise += work_times_promise_[slot_of(bin)];
    });
    double left_s = kShortestS;
    if (overdue_ns > 0) {
      const auto mean_promise_ns = static_cast<std::int64_t>(overdue_promise / overdue_ns);
      left_s = std::max(left_s, static_cast<double>(mean_promise_ns - to_ns(now)) * 1e-9);
    }
    const double overdue_s = static_cast<double>(overdue_ns) * 1e-9;
    const double per_left_s = 1.0 / left_s;
    double need = overdue_s * per_left_s;
    // The ratio can only rise where a bin has work, so the empty ones are skipped by their bits.
    std::int64_t due_ns = 0;
    const double present_end_s = static_cast<double>(end_ns_of(present) - to_ns(now)) * 1e-9;
    for_each_filled(present, end, [&](std::uint32_t bin) {
      due_ns += work_ns_[slot_of(bin)];
      const double until_s = std::max(present_end_s + static_cast<double>(bin - present) * kBinWidthS, kShortestS);
      const double per_until_s = 1.0 / until_s;
      // By the end of b overdue work has had its pace for until_s, or all of it where that is later than its promise.
      const double overdue_pace = overdue_s * std::min(per_left_s, per_until_s);
      need = std::max(need, static_cast<double>(due_ns) * 1e-9 * per_until_s + overdue_pace);
    });
    return need;
  }

  /// As `need`, of what can still start in time: overdue work left out.
  [[nodiscard]] double feasible_need(Instant now) const noexcept {
    const std::uint32_t present = std::max(number_of(now), first_);
    std::int64_t due_ns = 0;
    double need = 0.0;
    for_each_filled(present, first_ + kBins, [&](std::uint32_t bin) {
      due_ns += work_ns_[slot_of(bin)];
      const double until_s = std::max(static_cast<double>(end_ns_of(bin) - to_ns(now)) * 1e-9, kShortestS);
      need = std::max(need, static_cast<double>(due_ns) * 1e-9 / until_s);
    });
    return need;
  }

  /// Predicted work that is due to start by `latest_start`, overdue work included. Exact to a bin.
  [[nodiscard]] Duration due_by(Instant latest_start) const noexcept {
    if (total_ns_ == 0) return Duration{0};
    const std::uint32_t last = std::min(number_of(latest_start), first_ + kBins - 1);
    std::int64_t due_ns = overdue_.work_ns;
    for (std::uint32_t bin = first_; bin <= last; ++bin) due_ns += work_ns_[slot_of(bin)];
    return Duration{due_ns};
  }

  /// Predicted work of everything waiting.
  [[nodiscard]] Duration backlog() const noexcept { return Duration{total_ns_}; }

  /// The part of the backlog whose bin has passed, as of the last `add` or `remove`.
  [[nodiscard]] Duration overdue() const noexcept { return Duration{overdue_.work_ns}; }

 private:
  // Work (up to 2^63 ns) times an instant (up to 2^63 ns) does not fit 64 bits; both platforms have this type.
  using Wide = __int128;
  static constexpr double kShortestS = to_seconds(kShortest);
  static constexpr double kBinWidthS = to_seconds(kBinWidth);

  struct Overdue {
    std::int64_t work_ns = 0;
    Wide work_times_promise = 0;
  };

  // Bin numbers start at 1 at the clock's zero, so that first_ - 1 is always a number and always means overdue. 32 bits
  // of 250 ms are 34 years from the clock's zero.
  static constexpr std::uint32_t number_of(Instant at) noexcept {
    constexpr std::int64_t kLast = 0xFFFF'FF00LL - kBins;
    const std::int64_t bin = to_ns(at) < 0 ? 0 : 1 + to_ns(at) / kBinWidth.count();
    return static_cast<std::uint32_t>(std::min(bin, kLast));
  }
  static constexpr std::int64_t end_ns_of(std::uint32_t bin) noexcept {
    return static_cast<std::int64_t>(bin) * kBinWidth.count();
  }
  static constexpr std::size_t slot_of(std::uint32_t bin) noexcept { return bin % kBins; }

  // A function of the request's own numbers only, so that remove takes away exactly what add put in.
  static constexpr std::int64_t capped_promise_ns(std::uint32_t bin, Instant promise) noexcept {
    return std::clamp(to_ns(promise), std::int64_t{0}, end_ns_of(bin) + kHorizon.count());
  }

  void change(std::uint32_t bin, Instant promise, std::int64_t work_ns) noexcept {
    const Wide weighted = static_cast<Wide>(work_ns) * capped_promise_ns(bin, promise);
    total_ns_ += work_ns;
    if (bin < first_) {
      overdue_.work_ns += work_ns;
      overdue_.work_times_promise += weighted;
      return;
    }
    const std::size_t slot = slot_of(bin);
    work_ns_[slot] += work_ns;
    work_times_promise_[slot] += weighted;
    const std::uint64_t bit = std::uint64_t{1} << (slot % 64);
    if (work_ns_[slot] != 0) {
      filled_[slot / 64] |= bit;
    } else {
      filled_[slot / 64] &= ~bit;
    }
  }

  void roll(Instant now) noexcept {
    const std::uint32_t present = number_of(now);
    if (present <= first_) return;
    for_each_filled(first_, std::min(present, first_ + kBins), [this](std::uint32_t bin) {
      const std::size_t slot = slot_of(bin);
      overdue_.work_ns += work_ns_[slot];
      overdue_.work_times_promise += work_times_promise_[slot];
      work_ns_[slot] = 0;
      work_times_promise_[slot] = 0;
      filled_[slot / 64] &= ~(std::uint64_t{1} << (slot % 64));
    });
    first_ = present;
  }

  /// Calls `visit(bin)` for each bin of [from, end) that has work, in ascending order. At most kBins bins.
  template <class Visit>
  void for_each_filled(std::uint32_t from, std::uint32_t end, Visit&& visit) const noexcept {
    while (from < end) {
      const std::size_t slot = slot_of(from);
      const std::uint32_t run = std::min(64 - static_cast<std::uint32_t>(slot % 64), end - from);
      std::uint64_t filled = filled_[slot / 64] >> (slot % 64);
      if (run < 64) filled &= (std::uint64_t{1} << run) - 1;
      for (; filled != 0; filled &= filled - 1) visit(from + static_cast<std::uint32_t>(__builtin_ctzll(filled)));
      from += run;
    }
  }

  std::array<std::int64_t, kBins> work_ns_{};
  std::array<Wide, kBins> work_times_promise_{};
  std::array<std::uint64_t, kBins / 64> filled_{};
  Overdue overdue_{};
  std::int64_t total_ns_ = 0;
  std::uint32_t first_ = 1;  ///< Number of the bin that holds the present, as of the last add or remove.
};

}  // namespace zeta::share
