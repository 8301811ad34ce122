#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "zeta/core/cacheline.hpp"

namespace zeta::queue {

/// Where producers leave slots for the one thread that empties: a stack of slots per lane, and a word that says which
/// lanes to look at. Slots are linked through their owner's slab, so a lane holds any number of them.
///
/// `post` is wait-free while a lane is one thread's: its exchange fails only if the lane was emptied since it looked,
/// and an empty lane is left alone. Threads that share a lane are lock-free. `empty_lane` is wait-free. Treiber's stack
/// (IBM RJ 5118, 1986); there is no single pop, hence no ABA. Each head counts what was ever posted to it.
template <template <class> class Atomic = std::atomic>
class Inbox {
 public:
  using Slot = std::uint32_t;
  static constexpr Slot kNull = 0xFFFFFFFFU;
  static constexpr std::size_t kLanes = 64;

  struct Chain {
    Slot last = kNull;  ///< The slot posted last; each links to the one posted before it.
    std::uint32_t count = 0;
  };

  /// Adds a chain of `count` slots, `last` linked to ... linked to `first`; `link(first, slot)` must make the link from
  /// `first` on. Any thread.
  template <class Link>
  void post(std::size_t lane, Slot first, Slot last, std::uint32_t count, Link&& link) noexcept {
    Atomic<std::uint64_t>& stack = lanes_[lane].head;
    std::uint64_t before = stack.load(std::memory_order_relaxed);  // a stale head only makes the exchange fail
    do {
      link(first, static_cast<Slot>(before));
      // E25: publishes the slots. E29: seq_cst, so that it is ordered before the look at the word of lanes below.
    } while (!stack.compare_exchange_strong(before, (((before >> 32U) + count) << 32U) | last,
                                            std::memory_order_seq_cst,
                                            std::memory_order_relaxed));  // relaxed on failure: only retried
    const std::uint64_t bit = std::uint64_t{1} << lane;
    // E29: either this look comes before the bit was cleared, and then the clearing thread sees the head; or it is set
    // again here.
    if ((busy_.load(std::memory_order_seq_cst) & bit) == 0) {
      // E30: whoever sees the bit sees the head.
      busy_.fetch_or(bit, std::memory_order_release);
    }
  }

  /// Hands every chain to `take(chain)`. One thread at a time, which says what its own lane is.
  template <class Take>
  [[gnu::always_inline]] void empty(std::size_t own, Take&& take) noexcept {
    // E30: the heads behind the bits are seen.
    for (std::uint64_t bits = busy_.load(std::memory_order_acquire); bits != 0; bits &= bits - 1) {
      empty_lane(static_cast<std::size_t>(std::countr_zero(bits)), own, take);
    }
  }

  /// Does as `empty`, and stops looking at lanes that had nothing since the last call. One thread at a time; for now
  /// and then.
  template <class Take>
  [[gnu::noinline]] void empty_and_forget_idle(std::size_t own, Take&& take) noexcept {
    empty(own, take);
    const std::uint64_t used = used_.exchange(0, std::memory_order_relaxed);   // the emptying thread's own
    const std::uint64_t idle = busy_.load(std::memory_order_relaxed) & ~used;  // bits stay until they are cleared here
    if (idle == 0) return;
    // E29: a producer that still saw the bit has changed its head before, so the look below finds it. E30: read again.
    busy_.fetch_and(~idle, std::memory_order_seq_cst);
    for (std::uint64_t bits = idle; bits != 0; bits &= bits - 1) {
      empty_lane(static_cast<std::size_t>(std::countr_zero(bits)), own, take);
    }
  }

  /// How many were ever posted, modulo 2^32. Any thread.
  [[nodiscard]] std::uint32_t posted() const noexcept {
    std::uint32_t sum = 0;
    for (const Lane& lane : lanes_) {
      sum += static_cast<std::uint32_t>(lane.head.load(std::memory_order_relaxed) >> 32U);  // a count
    }
    return sum;
  }

 private:
  struct alignas(kNoFalseSharing) Lane {
    Atomic<std::uint64_t> head{kNull};  ///< Posted so far | the slot posted last.
    Atomic<std::uint32_t> emptied{0};   ///< How many of those posted have been taken out.
  };

  template <class Take>
  [[gnu::always_inline]] void empty_lane(std::size_t lane, std::size_t own, Take&& take) noexcept {
    Atomic<std::uint64_t>& stack = lanes_[lane].head;
    const bool is_this_threads = lane == own && own < kLanes - 1;  // the last is shared
    const std::uint64_t before = is_this_threads ? take_own(stack) : take_head(stack);
    if (static_cast<Slot>(before) == kNull) return;
    const auto posted = static_cast<std::uint32_t>(before >> 32U);
    Atomic<std::uint32_t>& emptied_so_far = lanes_[lane].emptied;
    const std::uint32_t count = posted - emptied_so_far.load(std::memory_order_relaxed);  // the emptying thread's own
    emptied_so_far.store(posted, std::memory_order_relaxed);                              // as above
    const std::uint64_t bit = std::uint64_t{1} << lane;
    // As above. Seldom written, so that its line stays with all who take.
    if (const std::uint64_t used = used_.load(std::memory_order_relaxed); (used & bit) == 0) {
      used_.store(used | bit, std::memory_order_relaxed);  // as above
    }
    take(Chain{static_cast<Slot>(before), count});
  }

  static_assert(kNull == 0xFFFFFFFFU, "setting every bit of a head's lower half makes it kNull");

  /// What the head was; the lane is empty from now on.
  [[nodiscard]] static std::uint64_t take_head(Atomic<std::uint64_t>& head) noexcept {
    // E29: the look that follows the clearing of the lane's bit.
    const std::uint64_t seen = head.load(std::memory_order_seq_cst);
    if (static_cast<Slot>(seen) == kNull) return seen;
    return head.fetch_or(kNull, std::memory_order_acquire);  // E25: the slots are seen
  }

  /// The same in the lane of the thread that empties. Nobody changes it meanwhile: only this thread posts to it.
  [[nodiscard]] static std::uint64_t take_own(Atomic<std::uint64_t>& head) noexcept {
    const std::uint64_t seen = head.load(std::memory_order_relaxed);  // this thread's, see above
    if (static_cast<Slot>(seen) != kNull) {
      head.store(seen | kNull, std::memory_order_relaxed);  // as above; who empties next has seen it
    }
    return seen;
  }

  Lane lanes_[kLanes];
  alignas(kNoFalseSharing) Atomic<std::uint64_t> busy_{0};  ///< Lanes to look at; seldom written.
  alignas(kNoFalseSharing) Atomic<std::uint64_t> used_{0};  ///< Lanes that had something since the last forgetting.
};

}  // namespace zeta::queue
