#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "zeta/core/cacheline.hpp"
#include "zeta/queue/calendar_window.hpp"
#include "zeta/queue/cell_pool.hpp"

namespace zeta::queue {

/// Cells pushed into far buckets that are not linked yet, some for each lane, so that the memory can fetch the bucket
/// while its thread goes on. Every thread sees them, and where the *reach* ends: a cell that stands here belongs to a
/// block of buckets at the reach or behind it, so who takes from before the reach need not look here. Lock-free.
///
/// The reach moves as CalendarWindow does: a mover marks it, looks whether no cell before its new end is left here, and
/// exchanges the marked word; who has put a cell here looks at the word afterwards. A cell leaves its place only after
/// it has been linked; so whoever finds it gone sees it in its bucket.
///
/// Lanes below kLanes − 1 must each be one thread's alone, which alone writes them; other threads cannot put here.
template <template <class> class Atomic, unsigned kLanes, unsigned kPlaces>
class DeferredLinks {
  static_assert((kPlaces & (kPlaces - 1)) == 0);
  using Reach = CalendarWindow<Atomic, 51>;

 public:
  /// With `is_used` false the reach is everywhere, so that nobody puts or looks for anything here.
  explicit DeferredLinks(bool is_used) noexcept : reach_{is_used ? 0 : Reach::kLastFirst} {}

  /// The first block whose cells may stand here. It never falls.
  [[nodiscard]] [[gnu::always_inline]] std::uint64_t reach() const noexcept { return reach_.first(); }

  /// Puts a cell here after calling link(number, cell) for the one whose place it takes. False when the reach has come
  /// to its block meanwhile: then the caller links it, and says so by `withdraw`.
  template <class Link>
  [[nodiscard]] bool put(std::uint32_t lane, Index cell, std::uint64_t number, std::uint64_t block,
                         Link&& link) noexcept {
    Lane& own = lanes_[lane];
    const unsigned i = own.next++ & (kPlaces - 1);
    // Relaxed: only this thread writes it.
    if (const Index before = own.cells[i].load(std::memory_order_relaxed); before != 0) link(own.numbers[i], before);
    own.numbers[i] = number;
    // E15: in one order with moves of the reach. E16: who finds the one before gone sees it linked.
    own.cells[i].exchange(cell, std::memory_order_seq_cst);
    return reach_.settled_first() <= block;
  }

  /// Takes back the last cell that this lane has put here.
  void withdraw(std::uint32_t lane) noexcept {
    // Relaxed: the reach has passed its block, so nobody takes its absence for anything.
    lanes_[lane].cells[(lanes_[lane].next - 1) & (kPlaces - 1)].store(0, std::memory_order_relaxed);
  }

  /// Calls link(number, cell) for all that stands in the caller's lane, which is empty then.
  template <class Link>
  void link_own(std::uint32_t lane, Link&& link) noexcept {
    if (lane >= kLanes - 1) return;
    Lane& own = lanes_[lane];
    for (unsigned i = 0; i < kPlaces; ++i) {
      const Index cell = own.cells[i].load(std::memory_order_relaxed);  // only this thread writes it
      if (cell == 0) continue;
      link(own.numbers[i], cell);
      own.cells[i].store(0, std::memory_order_release);  // E16: who finds it gone sees it linked
    }
  }

  /// Whether `holds(cell)` of every cell that stands here.
  template <class Holds>
  [[nodiscard]] bool all_of(Holds&& holds) const noexcept {
    for (const Lane& lane : lanes_) {
      for (const auto& place : lane.cells) {
        // E15: in one order with moves of the reach. E16: what has left is seen where it is now.
        const Index cell = place.load(std::memory_order_seq_cst);
        if (cell != 0 && !holds(cell)) return false;
      }
    }
    return true;
  }

  /// Moves the reach from one block to a later one, unless it is elsewhere already or `is_clear()` says no, which is
  /// asked in between.
  template <class IsClear>
  void move(std::uint64_t from, std::uint64_t to, IsClear&& is_clear) noexcept {
    (void)reach_.move(from, to, [&](std::uint64_t) noexcept { return is_clear(); });
  }

 private:
  struct alignas(kNoFalseSharing) Lane {
    std::array<Atomic<Index>, kPlaces> cells{};
    std::array<std::uint64_t, kPlaces> numbers{};  ///< This and the next are only the lane's.
    unsigned next = 0;
  };

  Reach reach_;
  std::array<Lane, kLanes> lanes_;
};

}  // namespace zeta::queue
