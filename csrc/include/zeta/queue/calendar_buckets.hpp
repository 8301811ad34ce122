#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "zeta/core/lazy_zeros.hpp"
#include "zeta/queue/cell_pool.hpp"
#include "zeta/queue/occupancy_tree.hpp"

namespace zeta::queue {

/// The buckets of a calendar, used in a circle: each a few stacks of cells, with a tree that shows which hold some.
/// Lock-free: a thread stopped anywhere stops nobody, and a cell whose `link` has returned is found by every search.
///
/// Stacks are Treiber's (IBM RJ 5118, 1986), one per group of threads so that they seldom meet. The head's `told` flag
/// says that the bucket was announced to the tree after the stack last became non-empty, as in OccupancyTree.
template <template <class> class Atomic, unsigned kFanBits, unsigned kStacks>
class CalendarBuckets {
  static_assert((kStacks & (kStacks - 1)) == 0);

 public:
  using Tree = OccupancyTree<Atomic, kFanBits>;
  using Spot = typename Tree::Spot;
  static constexpr unsigned kChunkBits = Tree::kRootBits;

  /// The top of one stack, as seen.
  struct Top {
    std::uint64_t head;
    [[nodiscard]] Index cell() const noexcept { return static_cast<Index>(head) & kCell; }
  };

  CalendarBuckets(Cells<Atomic>& cells, std::size_t chunks)
      : cells_{cells}, mask_{(chunks << kChunkBits) - 1}, heads_{(chunks << kChunkBits) * kStacks}, tree_{chunks} {}

  /// The first bucket in [from, end) shown as holding cells.
  [[nodiscard]] bool find(std::uint64_t from, std::uint64_t end, Spot& spot) noexcept {
    return tree_.find(from, end, spot);
  }
  /// The first bucket of a chunk and the next that is shown as holding cells, or false: `find` says then whether there
  /// is one.
  [[nodiscard]] bool find_in_two(std::uint64_t chunk, Spot& spot) const noexcept {
    return tree_.find_below_two(chunk, spot);
  }
  [[nodiscard]] bool is_chunk_empty(std::uint64_t chunk) const noexcept { return tree_.is_root_empty(chunk); }

  /// Asks the memory for what `link` will write. (g++ drops calls of functions that only prefetch, hence inline.)
  [[gnu::always_inline]] void prefetch(std::uint64_t number, unsigned stack) noexcept {
    __builtin_prefetch(&head(number, stack), 1);
  }

  [[gnu::always_inline]] void link(std::uint64_t number, unsigned stack, Index cell) noexcept {
    Atomic<std::uint64_t>& at = head(number, stack);
    std::uint64_t seen = at.load(std::memory_order_relaxed);  // a stale head only makes the exchange fail
    std::uint64_t linked = 0;
    do {
      cells_[cell].next.store(static_cast<Index>(seen) & kCell, std::memory_order_relaxed);  // published below
      linked = changed(seen, cell, (seen & kCell) != 0 ? seen & kTold : 0);
      // E10: publishes the cell; and, by `told`, sees that the bucket was announced.
    } while (!at.compare_exchange_weak(seen, linked, std::memory_order_acq_rel,
                                       std::memory_order_relaxed));  // relaxed on failure: only retried
    if ((linked & kTold) != 0) return;
    tree_.announce(number);
    // E10: who sees `told` sees the announcement.
    (void)at.compare_exchange_strong(linked, linked | kTold, std::memory_order_release,
                                     std::memory_order_relaxed);  // relaxed on failure: the next one tells
  }

  /// Takes a cell from any stack of the bucket, this thread's first: the cell, or 0 when the bucket is empty. Asks
  /// `is_valid()` after it has seen the cell to take, and gives up with kRefused when that says no. Who finds or leaves
  /// the bucket empty retires it.
  template <class IsValid>
  [[nodiscard]] [[gnu::always_inline]] Index unlink(const Spot& spot, unsigned stack, IsValid&& is_valid) noexcept {
    for (unsigned i = 0; i < kStacks; ++i) {
      Atomic<std::uint64_t>& at = head(spot.number, stack + i);
      for (Top seen = top_of(at); seen.cell() != 0;) {
        if (!is_valid()) return kRefused;
        const Index below = below_of(seen);
        if (!drop_to(at, seen, below)) continue;
        if (below != 0) {
          __builtin_prefetch(&cells_[below], 1);
        } else {
          look_ahead(spot.number, stack);
          if (are_others_empty(spot.number, stack + i)) tree_.retire(spot);
        }
        return seen.cell();
      }
    }
    tree_.retire(spot);
    return 0;
  }

  [[nodiscard]] Top top(std::uint64_t number, unsigned stack) const noexcept { return top_of(head(number, stack)); }

  /// Takes the top of a stack if it is still the one seen.
  [[nodiscard]] bool drop(std::uint64_t number, unsigned stack, Top seen) noexcept {
    return drop_to(head(number, stack), seen, below_of(seen));
  }

  /// Says that the bucket was seen empty after `spot` was found.
  void retire(const Spot& spot) noexcept { tree_.retire(spot); }

  static constexpr Index kRefused = ~Index{0};

 private:
  // changes : 36 | told : 1 | cell : 27
  static constexpr std::uint64_t kCell = (std::uint64_t{1} << 27U) - 1;
  static constexpr std::uint64_t kTold = kCell + 1;
  static constexpr unsigned kChangeShift = 28;

  static constexpr std::uint64_t changed(std::uint64_t head, Index cell, std::uint64_t told) noexcept {
    return ((head >> kChangeShift) + 1) << kChangeShift | told | cell;
  }

  [[nodiscard]] Index below_of(Top seen) const noexcept {
    return cells_[seen.cell()].next.load(std::memory_order_relaxed);  // checked by the exchange
  }

  [[nodiscard]] static Top top_of(const Atomic<std::uint64_t>& at) noexcept {
    return Top{at.load(std::memory_order_acquire)};  // E10: the cell and those below it are seen
  }

  /// Renews `seen` on failure.
  [[nodiscard]] static bool drop_to(Atomic<std::uint64_t>& at, Top& seen, Index below) noexcept {
    // E10: who finds it gone sees why. On failure: the cell that is on top instead is seen.
    return at.compare_exchange_strong(seen.head, changed(seen.head, below, below != 0 ? seen.head & kTold : 0),
                                      std::memory_order_release, std::memory_order_acquire);
  }

  [[nodiscard]] bool are_others_empty(std::uint64_t number, unsigned stack) const noexcept {
    for (unsigned i = 1; i < kStacks; ++i) {
      if (top(number, stack + i).cell() != 0) return false;
    }
    return true;
  }

  /// Asks the memory for cells that later pops will probably take: of the next bucket the second, of the one after it
  /// the first.
  [[gnu::always_inline]] void look_ahead(std::uint64_t number, unsigned stack) const noexcept {
    // Relaxed: only guesses.
    const Top next{head(number + 1, stack).load(std::memory_order_relaxed)};
    const Top after{head(number + 2, stack).load(std::memory_order_relaxed)};
    __builtin_prefetch(&cells_[after.cell()], 1);
    __builtin_prefetch(&cells_[below_of(next)], 1);
  }

  [[nodiscard]] std::size_t place_of(std::uint64_t number, unsigned stack) const noexcept {
    return (number & mask_) + (stack & (kStacks - 1)) * (mask_ + 1);
  }
  [[nodiscard]] Atomic<std::uint64_t>& head(std::uint64_t number, unsigned stack) noexcept {
    return heads_[place_of(number, stack)];
  }
  [[nodiscard]] const Atomic<std::uint64_t>& head(std::uint64_t number, unsigned stack) const noexcept {
    return heads_[place_of(number, stack)];
  }

  Cells<Atomic>& cells_;
  const std::uint64_t mask_;
  LazyZeros<Atomic<std::uint64_t>, kIsStdAtomic<Atomic>> heads_;
  Tree tree_;
};

}  // namespace zeta::queue
