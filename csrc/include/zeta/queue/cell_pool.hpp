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
/// Each lane has its own stack of free cells, so that threads seldom meet; a lane that runs out takes cells that were
/// never used, then steals from the others. So `take` fails only when no lane has a cell, but for those that other
/// threads hold in the middle of an operation: each at most kBatch. Stacks are Treiber's (IBM RJ 5118, 1986) with a
/// count of changes in the head against ABA.
template <template <class> class Atomic, unsigned kLanes>
class CellPool {
 public:
  CellPool(Cells<Atomic>& cells, Index first, Index count) noexcept
      : cells_{cells}, first_{first}, count_{count}, batch_{std::clamp<Index>(count / (4 * kLanes), 1, kBatch)} {}
  CellPool(const CellPool&) = delete;
  CellPool& operator=(const CellPool&) = delete;

  /// A cell, or 0 when there is none.
  [[nodiscard]] Index take(std::uint32_t lane) noexcept {
    const Index cell = pop_some(lane_of(lane).free, 1);
    return cell != 0 ? cell : take_elsewhere(lane);
  }

  void give_back(Index cell, std::uint32_t lane) noexcept { push_chain(lane_of(lane).free, cell, cell); }

 private:
  static constexpr Index kBatch = 16;

  struct alignas(kNoFalseSharing) Lane {
    Atomic<std::uint64_t> free{0};  ///< Changes in the upper half, the top cell in the lower.
  };

  [[nodiscard]] Lane& lane_of(std::uint32_t lane) noexcept { return lanes_[lane % kLanes]; }

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
      // E1: as above, for the head that the exchange has seen.
      if (free.compare_exchange_weak(head, changed(head, below), std::memory_order_acquire,
                                     std::memory_order_acquire)) {
        if (most > 1) cells_[last].next.store(0, std::memory_order_relaxed);  // this thread's alone until pushed
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

  /// Keeps the first of a chain and pushes the rest into the lane.
  Index keep_first(Index chain, std::uint32_t lane) noexcept {
    if (batch_ == 1) return chain;  // alone: its `next` still names the cell that was below it
    const Index second = cells_[chain].next.load(std::memory_order_relaxed);  // this thread's alone
    if (second != 0) {
      Index last = second;
      for (Index below = 0; (below = cells_[last].next.load(std::memory_order_relaxed)) != 0;)
        last = below;  // as above
      push_chain(lane_of(lane).free, second, last);
    }
    return chain;
  }

  [[nodiscard]] [[gnu::noinline]] Index take_elsewhere(std::uint32_t lane) noexcept {
    if (const Index chain = take_unused(); chain != 0) return keep_first(chain, lane);
    for (std::uint32_t other = 1; other <= kLanes; ++other) {
      if (const Index chain = pop_some(lane_of(lane + other).free, batch_); chain != 0) return keep_first(chain, lane);
    }
    return 0;
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
  const Index batch_;
  std::array<Lane, kLanes> lanes_;
  alignas(kNoFalseSharing) Atomic<Index> used_{0};
};

}  // namespace zeta::queue
