#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

#include "zeta/core/cacheline.hpp"
#include "zeta/core/lazy_zeros.hpp"
#include "zeta/queue/entry.hpp"

namespace zeta::queue {

/// Names a cell. 0 names none.
using Index = std::uint32_t;

/// What a DeadlineQueue keeps of an item. Half a cache line.
///
/// A cell plays two parts, which usually come and go together. As a *home* it carries the ticket: `state` says whether
/// the item still waits, and which node stands for it. As a *node* it hangs in a bucket (or stands in a ring) with the
/// key under which it was placed. An item that has been re-keyed has its home in one cell and its node in another.
template <template <class> class Atomic>
struct alignas(32) Cell {
  Atomic<std::uint64_t> key;
  Atomic<std::uint64_t> item;   ///< Of a spare node: the state of its home for which the node was made.
  Atomic<std::uint64_t> state;  ///< Of a home; see TicketState.
  Atomic<Index> next;           ///< The node below in the same stack, of cells in use and free ones alike.
  Atomic<Index> home;           ///< Of a spare node.
};

template <template <class> class Atomic>
using Cells = LazyZeros<Cell<Atomic>, kIsStdAtomic<Atomic>>;

/// Hands out the cells [first, first + count) of an array. Lock-free for any thread; allocates nothing.
///
/// Each lane keeps a few free cells at hand, which a lane that is one thread's alone takes and gives back with plain
/// loads and stores; the rest stand on a stack of the lane, from which a lane that has run out takes its next few: its
/// own, then such as were never used, then another lane's. So `take` fails only when no cell is free but those that
/// other lanes have at hand, `most_at_hand` each: who needs n cells in all makes a pool of n + kLanes × most_at_hand.
/// Stacks are Treiber's (IBM RJ 5118, 1986) with a count of changes in the head against ABA.
///
/// Lanes below kLanes − 1 must each be one thread's alone; all other threads share the last.
template <template <class> class Atomic, unsigned kLanes>
class CellPool {
 public:
  CellPool(Cells<Atomic>& cells, Index first, Index count, Index most_at_hand) noexcept
      : cells_{cells},
        first_{first},
        count_{count},
        at_hand_{std::min(kMostAtHand, most_at_hand)},
        batch_{std::max<Index>(1, at_hand_ / 2)} {}
  CellPool(const CellPool&) = delete;
  CellPool& operator=(const CellPool&) = delete;

  static constexpr Index kMostAtHand = 16;

  /// Whether the next `take` of this lane needs to look no further than at what it has at hand.
  [[nodiscard]] bool has_at_hand(std::uint32_t lane) const noexcept {
    // Relaxed: as in take.
    return lane < kLanes - 1 && lanes_[lane].kept.load(std::memory_order_relaxed) != 0;
  }

  /// A cell, or 0 when there is none.
  [[nodiscard]] [[gnu::always_inline]] Index take(std::uint32_t lane) noexcept {
    Lane& own = lane_of(lane);
    if (lane < kLanes - 1) [[likely]] {
      // Relaxed, here and below: a lane that is one thread's alone.
      const Index n = own.kept.load(std::memory_order_relaxed);
      if (n != 0) [[likely]] {
        own.kept.store(n - 1, std::memory_order_relaxed);
        return own.cells[n - 1].load(std::memory_order_relaxed);
      }
    }
    return take_stacked(lane);
  }

  [[gnu::always_inline]] void give_back(Index cell, std::uint32_t lane) noexcept {
    Lane& own = lane_of(lane);
    if (lane < kLanes - 1) [[likely]] {
      // Relaxed: as in take.
      const Index n = own.kept.load(std::memory_order_relaxed);
      if (n < at_hand_) [[likely]] {
        own.cells[n].store(cell, std::memory_order_relaxed);
        own.kept.store(n + 1, std::memory_order_relaxed);
        return;
      }
    }
    push_chain(own.free, cell, cell);
  }

 private:
  struct alignas(kNoFalseSharing) Lane {
    std::array<Atomic<Index>, kMostAtHand> cells{};  ///< Free, and this lane's alone.
    Atomic<Index> kept{0};
    Atomic<std::uint64_t> free{0};  ///< Changes in the upper half, the top cell in the lower.
  };

  [[nodiscard]] Lane& lane_of(std::uint32_t lane) noexcept { return lanes_[std::min(lane, kLanes - 1)]; }

  [[nodiscard]] [[gnu::noinline]] Index take_stacked(std::uint32_t lane) noexcept {
    Index chain = pop_some(lane_of(lane).free, batch_);
    if (chain == 0) chain = take_unused();
    for (std::uint32_t other = 0; chain == 0 && other < kLanes; ++other) chain = pop_some(lanes_[other].free, batch_);
    if (chain == 0) return 0;
    for (Index rest = next_of(chain); rest != 0;) {
      const Index after = next_of(rest);
      give_back(rest, lane);
      rest = after;
    }
    return chain;
  }

  [[nodiscard]] Index next_of(Index cell) const noexcept {
    return cells_[cell].next.load(std::memory_order_relaxed);  // this thread's alone
  }

  /// Takes the top `most` cells off a stack, chained by `next` and ended by 0; the first of them, or 0.
  [[nodiscard]] Index pop_some(Atomic<std::uint64_t>& free, Index most) noexcept {
    // E1: the chain below the top, and all that its last users did with the cells, is seen.
    std::uint64_t head = free.load(std::memory_order_acquire);
    while (static_cast<Index>(head) != 0) {
      const auto top = static_cast<Index>(head);
      Index last = top;
      Index below = cells_[last].next.load(std::memory_order_relaxed);  // checked by the exchange
      for (Index n = 1; n < most && below != 0; ++n) {
        last = below;
        below = cells_[last].next.load(std::memory_order_relaxed);  // checked by the exchange
      }
      // E1: as above, for the head that a failed exchange has seen.
      if (free.compare_exchange_weak(head, changed(head, below), std::memory_order_acquire,
                                     std::memory_order_acquire)) {
        cells_[last].next.store(0, std::memory_order_relaxed);  // this thread's alone until it is given back
        return top;
      }
    }
    return 0;
  }

  void push_chain(Atomic<std::uint64_t>& free, Index top, Index last) noexcept {
    std::uint64_t head = free.load(std::memory_order_relaxed);  // a stale head only makes the exchange fail
    do {
      cells_[last].next.store(static_cast<Index>(head), std::memory_order_relaxed);  // published by the exchange
      // E1: hands over the cells with all that was done to them.
    } while (!free.compare_exchange_weak(head, changed(head, top), std::memory_order_release,
                                         std::memory_order_relaxed));  // relaxed on failure: head is only retried
  }

  /// Some cells that were never used, chained; 0 when all have been.
  [[nodiscard]] Index take_unused() noexcept {
    Index used = used_.load(std::memory_order_relaxed);  // only a count; the cells are still as they were made
    while (used < count_) {
      const Index n = std::min(batch_, count_ - used);
      if (!used_.compare_exchange_weak(used, used + n, std::memory_order_relaxed)) continue;  // as above
      for (Index i = 0; i < n; ++i) {
        const Index cell = first_ + used + i;
        cells_[cell].next.store(i + 1 < n ? cell + 1 : 0, std::memory_order_relaxed);  // this thread's alone
      }
      return first_ + used;
    }
    return 0;
  }

  static constexpr std::uint64_t changed(std::uint64_t head, Index top) noexcept {
    return ((head >> 32U) + 1) << 32U | top;
  }

  Cells<Atomic>& cells_;
  const Index first_;
  const Index count_;
  const Index at_hand_;
  const Index batch_;
  std::array<Lane, kLanes> lanes_;
  alignas(kNoFalseSharing) Atomic<Index> used_{0};
};

}  // namespace zeta::queue
