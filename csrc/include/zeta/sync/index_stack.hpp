#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "zeta/core/cacheline.hpp"

namespace zeta::sync {

/// A stack of small integers [0, capacity), each in at most one place of it at a time. Lock-free: a thread stopped
/// anywhere stops nobody. Any thread may push, pop and take all.
///
/// When to use: a free list, or an inbox that one owner empties at once (`take_all`, then reverse for arrival order).
/// Treiber's stack (IBM RJ 5118, 1986) over indices; the head carries a count of changes against ABA, which wraps after
/// 2^32 changes while one thread stands between its two steps.
template <template <class> class Atomic = std::atomic>
class IndexStack {
 public:
  static constexpr std::uint32_t kNull = 0xFFFFFFFFU;

  explicit IndexStack(std::uint32_t capacity) : next_(capacity) {}

  void push(std::uint32_t index) noexcept {
    std::uint64_t head = head_.load(std::memory_order_relaxed);  // a stale head only makes the exchange fail
    do {
      next_[index].store(index_of(head), std::memory_order_relaxed);  // published by the exchange below
      // E50: publishes next_ and what `index` names to whoever takes it. E51: seq_cst, so that a push followed by a
      // look at a flag is ordered against a store to the flag followed by a look at this head (is_empty).
    } while (!head_.compare_exchange_weak(head, with_tag(head, index), std::memory_order_seq_cst,
                                          std::memory_order_relaxed));  // relaxed on failure: head is only retried
  }

  /// Fetches what a push of this integer will write.
  [[gnu::always_inline]] void expect(std::uint32_t index) const noexcept { __builtin_prefetch(&next_[index], 1); }

  /// kNull when empty.
  [[nodiscard]] std::uint32_t pop() noexcept {
    // E50: its next_ and what it names are seen.
    std::uint64_t head = head_.load(std::memory_order_acquire);
    while (index_of(head) != kNull) {
      const std::uint32_t below = next_[index_of(head)].load(std::memory_order_relaxed);  // checked by the exchange
      // E50: as above, for the head that the exchange has seen.
      if (head_.compare_exchange_weak(head, with_tag(head, below), std::memory_order_acquire,
                                      std::memory_order_acquire)) {
        return index_of(head);
      }
    }
    return kNull;
  }

  /// Empties the stack; walk what it held with `below`. kNull when it was empty.
  [[nodiscard]] std::uint32_t take_all() noexcept {
    std::uint64_t head = head_.load(std::memory_order_relaxed);  // a stale head only makes the exchange fail
    while (index_of(head) != kNull &&
           // E50: as in pop.
           !head_.compare_exchange_weak(head, with_tag(head, kNull), std::memory_order_acquire,
                                        std::memory_order_relaxed)) {  // relaxed on failure: head is only retried
    }
    return index_of(head);
  }

  /// Of a chain that this thread has taken: the index pushed before `index`.
  [[nodiscard]] std::uint32_t below(std::uint32_t index) const noexcept {
    return next_[index].load(std::memory_order_relaxed);  // the chain is this thread's alone
  }

  [[nodiscard]] bool is_empty() const noexcept {
    // E51: the look that follows a store to a flag.
    return index_of(head_.load(std::memory_order_seq_cst)) == kNull;
  }

 private:
  static constexpr std::uint32_t index_of(std::uint64_t head) noexcept { return static_cast<std::uint32_t>(head); }
  static constexpr std::uint64_t with_tag(std::uint64_t old, std::uint32_t index) noexcept {
    return (((old >> 32U) + 1) << 32U) | index;
  }

  alignas(kNoFalseSharing) Atomic<std::uint64_t> head_{kNull};
  std::vector<Atomic<std::uint32_t>> next_;
};

}  // namespace zeta::sync
