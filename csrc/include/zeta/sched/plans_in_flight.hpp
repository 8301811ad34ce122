#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "zeta/core/time.hpp"
#include "zeta/share/policy.hpp"

namespace zeta::sched {

/// Plans of one device that were made and do not act yet, in the order in which they will. One owner; allocates at
/// construction only.
///
/// At most kMost are kept: a plan whose shares are those of the one before it is left out, and so is one that would act
/// within a kMost-th of its delay after the one before it (0.12 s of a minute). The next tick's plan takes its place.
class PlansInFlight {
 public:
  static constexpr std::size_t kMost = 512;

  struct Entry {
    Instant due{};
    share::Plan plan;
  };

  explicit PlansInFlight(bool is_used) : entries_(is_used ? kMost : 0) {}

  void push(const share::Plan& plan, Instant due, Duration delay) noexcept {
    if (size_ == entries_.size()) return;
    if (has_last_) {
      due = std::max(due, last_due_);
      if (plan.count == last_.count && plan.share == last_.share) return;
      if (due - last_due_ < delay / static_cast<std::int64_t>(kMost) + Duration{1}) return;
    }
    has_last_ = true;
    last_ = plan;
    last_due_ = due;
    entries_[(first_ + size_++) % entries_.size()] = {due, plan};
  }

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  /// The `index`-th of those on their way, 0 the next to act.
  [[nodiscard]] const Entry& operator[](std::size_t index) const noexcept {
    return entries_[(first_ + index) % entries_.size()];
  }
  [[nodiscard]] Instant next_due() const noexcept { return size_ == 0 ? kNever : entries_[first_].due; }

  void pop() noexcept {
    first_ = (first_ + 1) % entries_.size();
    --size_;
  }

 private:
  std::vector<Entry> entries_;
  std::size_t first_ = 0;
  std::size_t size_ = 0;
  share::Plan last_;  ///< The newest that was pushed, acting or not.
  Instant last_due_{};
  bool has_last_ = false;
};

}  // namespace zeta::sched
