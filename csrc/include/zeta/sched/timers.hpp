#pragma once

#include <vector>

#include "zeta/queue/timer_queue.hpp"
#include "zeta/sched/slab.hpp"

namespace zeta::sched {

/// At most one timer per live request: the end of its hold or its expiry while it waits, the end of its prefill budget
/// once it is placed. One owner; allocates only at construction.
class Timers {
 public:
  explicit Timers(std::uint32_t capacity) : queue_{capacity}, is_set_(capacity) {}

  /// The slot must have none.
  void set(SlotIndex slot, Ticket ticket, Instant due) noexcept {
    is_set_[slot] = true;
    queue_.insert(slot, to_ns(due), ticket.sequence());
  }

  /// Fetches a slot's timer.
  [[gnu::always_inline]] void expect(SlotIndex slot) const noexcept { queue_.prefetch(slot); }

  void clear(SlotIndex slot) noexcept {
    if (is_set_[slot]) queue_.erase(slot);
    is_set_[slot] = false;
  }

  /// The instant of the earliest; kNever where there is none.
  [[nodiscard]] Instant next() const noexcept {
    return queue_.first() == kNull ? kNever : instant_from_ns(queue_.key(queue_.first()));
  }

  /// Removes the earliest that is due by `now`; kNull where none is.
  [[nodiscard]] SlotIndex take_due(Instant now) noexcept {
    const SlotIndex slot = queue_.first();
    if (slot == kNull || next() > now) return kNull;
    clear(slot);
    return slot;
  }

 private:
  queue::TimerQueue queue_;
  std::vector<bool> is_set_;
};

}  // namespace zeta::sched
