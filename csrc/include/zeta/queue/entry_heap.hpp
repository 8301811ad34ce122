#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "zeta/core/huge_pages.hpp"
#include "zeta/queue/entry.hpp"

namespace zeta::queue {

/// What the heap orders: by key, then by reference, whose upper bits say who came first.
struct HeapEntry {
  Key key;
  std::uint64_t reference;

  [[nodiscard]] friend bool operator<(const HeapEntry& a, const HeapEntry& b) noexcept {
    // One comparison of 128 bits.
    return ((static_cast<unsigned __int128>(a.key) << 64U) | a.reference) <
           ((static_cast<unsigned __int128>(b.key) << 64U) | b.reference);
  }
};

/// An implicit 8-ary min-heap of bounded size. One thread at a time; its fields are atomic only so that whoever checks
/// the caller's locking can watch them.
///
/// The eight children of a node fill two cache lines exactly; a heap of 100,000 is six levels deep. A pop only opens a
/// hole at the top. The next push fills it and sinks from there, so that a pop and a push are one way down together;
/// or, if the heap is looked at first, the hole moves down to a leaf and the last entry rises from there (Wegener,
/// 1993), which it seldom does. References with all bits set are the heap's: they fill the room behind the last entry,
/// so that a node always has eight children.
template <template <class> class Atomic = std::atomic>
class EntryHeap {
 public:
  explicit EntryHeap(std::size_t limit) : cells_((limit / 8 + 11) * 8), limit_{limit} {
    for (std::size_t at = 0; at < cells_.size(); ++at) set_cell(at, kNothing);
  }

  [[nodiscard]] std::size_t size() const noexcept {
    return places_.load(std::memory_order_relaxed) - hole_.load(std::memory_order_relaxed);  // the owner's
  }
  [[nodiscard]] bool is_full() const noexcept { return size() == limit_; }

  /// Of those in [0, size()), after `close`.
  [[nodiscard]] HeapEntry operator[](std::size_t at) const noexcept { return cell(at + kShift); }

  /// Asks for what a push and a pop will touch first, so that it comes at once and not one after the other.
  [[gnu::always_inline]] void prefetch() const noexcept {
    const Cell* const cells = cells_.data();
    __builtin_prefetch(cells + kShift);
    __builtin_prefetch(cells + kShift + 1);
    __builtin_prefetch(cells + kShift + 5);
    __builtin_prefetch(cells + kShift + places());
  }

  /// Adds to a heap that is not full. Calls `near(entry)` for entries that come within one level of the top, some pops
  /// before their own, so that the caller can ask for what belongs to them.
  template <class Near>
  void push(HeapEntry entry, Near&& near) noexcept {
    if (has_hole()) {
      set_hole(false);
      sink_from_top(entry, near);
      return;
    }
    const std::size_t at = places();
    set_places(at + 1);
    rise(at, entry);
  }

  /// The least of a heap that is not empty. `near` as of push.
  template <class Near>
  [[nodiscard]] HeapEntry top(Near&& near) noexcept {
    if (has_hole()) close(near);
    return (*this)[0];
  }

  /// Removes the top, after `top` has said what it is.
  void pop() noexcept { set_hole(true); }

  /// Fills the hole that a pop has left, if there is one. `near` as of push.
  template <class Near>
  void close(Near&& near) noexcept {
    if (!has_hole()) return;
    set_hole(false);
    const std::size_t last = places() - 1;
    set_places(last);
    const HeapEntry moved = (*this)[last];
    set(last, kNothing);
    if (last == 0) return;
    std::size_t hole = 0;
    for (std::size_t child = 1; child < last; child = hole * 8 + 1) {
      prefetch_below(child, last);
      const std::size_t least = least_of_eight(child);
      const HeapEntry rising = (*this)[least];
      if (hole <= 8) near(rising);
      set(hole, rising);
      hole = least;
    }
    rise(hole, moved);
  }

  /// Keeps only the entries for which `keep(entry)` says true.
  template <class Keep>
  void filter(Keep&& keep) noexcept {
    close([](HeapEntry) {});
    const std::size_t before = places();
    std::size_t kept = 0;
    for (std::size_t at = 0; at < before; ++at) {
      if (const HeapEntry entry = (*this)[at]; keep(entry)) set(kept++, entry);
    }
    for (std::size_t at = kept; at < before; ++at) set(at, kNothing);
    set_places(kept);
    make_heap(kept);
  }

  /// Sorts ascending, which is a heap too.
  void sort() noexcept {
    close([](HeapEntry) {});
    const std::size_t count = places();
    for (std::size_t end = count; end > 1; --end) {
      const HeapEntry least = (*this)[0];
      const HeapEntry moved = (*this)[end - 1];
      set(end - 1, least);
      sink(0, moved, end - 1);
    }
    for (std::size_t low = 0, high = count; low + 1 < high; ++low, --high) {
      const HeapEntry entry = (*this)[low];
      set(low, (*this)[high - 1]);
      set(high - 1, entry);
    }
  }

  /// Changes the reference of the entry at `at`, which must not change its place in the order.
  void set_reference(std::size_t at, std::uint64_t reference) noexcept {
    cells_[at + kShift].reference.store(reference, std::memory_order_relaxed);  // the owner's
  }

 private:
  struct Cell {
    Atomic<Key> key{0};
    Atomic<std::uint64_t> reference{0};
  };
  static constexpr std::size_t kShift = 7;  ///< Puts each group of eight children at a multiple of eight.
  static constexpr HeapEntry kNothing{~Key{0}, ~std::uint64_t{0}};

  [[nodiscard]] bool has_hole() const noexcept { return hole_.load(std::memory_order_relaxed) != 0; }    // the owner's
  void set_hole(bool is_open) noexcept { hole_.store(is_open ? 1 : 0, std::memory_order_relaxed); }      // as above
  [[nodiscard]] std::size_t places() const noexcept { return places_.load(std::memory_order_relaxed); }  // as above
  void set_places(std::size_t count) noexcept { places_.store(count, std::memory_order_relaxed); }       // as above

  [[nodiscard]] HeapEntry cell(std::size_t at) const noexcept {
    return {cells_[at].key.load(std::memory_order_relaxed),         // the owner's
            cells_[at].reference.load(std::memory_order_relaxed)};  // as above
  }

  void set_cell(std::size_t at, HeapEntry entry) noexcept {
    cells_[at].key.store(entry.key, std::memory_order_relaxed);              // the owner's
    cells_[at].reference.store(entry.reference, std::memory_order_relaxed);  // as above
  }

  void set(std::size_t at, HeapEntry entry) noexcept { set_cell(at + kShift, entry); }

  /// A key and the cell that has it.
  struct Candidate {
    Key key;
    const Cell* cell;
  };

  /// Makes `a` the one with the lesser key, without a branch: which of eight children is least cannot be predicted, and
  /// g++ 12 makes branches of everything short of this (200 ns instead of 50 for a push and a pop at 100,000 entries).
  static void keep_lesser(Candidate& a, const Candidate& b) noexcept {
#if defined(__x86_64__)
    asm("cmp %[a_key], %[b_key]\n\t"
        "cmovb %[b_key], %[a_key]\n\t"
        "cmovb %[b_cell], %[a_cell]"
        : [a_key] "+&r"(a.key), [a_cell] "+&r"(a.cell)
        : [b_key] "r"(b.key), [b_cell] "r"(b.cell)
        : "cc");
#else
    std::uintptr_t mask = std::uintptr_t{0} - static_cast<std::uintptr_t>(b.key < a.key);
    asm("" : "+r"(mask));  // the compiler must not know that it is all zeros or all ones
    a.key ^= (a.key ^ b.key) & mask;
    a.cell += (b.cell - a.cell) & static_cast<std::ptrdiff_t>(mask);
#endif
  }

  [[nodiscard]] static Candidate candidate(const Cell* cell) noexcept {
    return {cell->key.load(std::memory_order_relaxed), cell};  // the owner's
  }

  /// Asks for all children of the eight entries from `first` on, in a heap of `count`, before it is known whose will be
  /// looked at. In 100,000 entries the slowest hundredth of one thread's pops took 188 to 277 ns before, and 99 now.
  /// (Always inline: g++ 12 drops calls of functions that only prefetch, as if they did nothing.)
  [[gnu::always_inline]] void prefetch_below(std::size_t first, std::size_t count) const noexcept {
    const std::size_t below = first * 8 + 1;
    if (below >= count) return;
    const Cell* const cells = cells_.data() + kShift + below;
    for (std::size_t i = 0; i < 64; i += 4) __builtin_prefetch(cells + i);
  }

  /// Where the least of the eight entries from `first` on is. Compares keys alone, as long as no two that meet are
  /// equal.
  [[nodiscard]] [[gnu::always_inline]] std::size_t least_of_eight(std::size_t first) const noexcept {
    const Cell* const cells = cells_.data() + kShift + first;
    Candidate least[4] = {candidate(cells), candidate(cells + 2), candidate(cells + 4), candidate(cells + 6)};
    const Candidate others[4] = {candidate(cells + 1), candidate(cells + 3), candidate(cells + 5),
                                 candidate(cells + 7)};
    for (std::size_t i = 0; i < 4; ++i) {
      if (least[i].key == others[i].key) [[unlikely]]
        return least_among(first, first + 8);
      keep_lesser(least[i], others[i]);
    }
    if (least[0].key == least[1].key || least[2].key == least[3].key) [[unlikely]]
      return least_among(first, first + 8);
    keep_lesser(least[0], least[1]);
    keep_lesser(least[2], least[3]);
    if (least[0].key == least[2].key) [[unlikely]]
      return least_among(first, first + 8);
    keep_lesser(least[0], least[2]);
    return static_cast<std::size_t>(least[0].cell - cells) + first;
  }

  /// Where the least of the entries from `first` to before `end` is.
  [[nodiscard]] [[gnu::noinline]] std::size_t least_among(std::size_t first, std::size_t end) const noexcept {
    std::size_t least = first;
    for (std::size_t at = first + 1; at < end; ++at) {
      if ((*this)[at] < (*this)[least]) least = at;
    }
    return least;
  }

  void rise(std::size_t hole, HeapEntry entry) noexcept {
    while (hole > 0) {
      const std::size_t parent = (hole - 1) / 8;
      const HeapEntry above = (*this)[parent];
      if (!(entry < above)) break;
      set(hole, above);
      hole = parent;
    }
    set(hole, entry);
  }

  template <class Near>
  void sink_from_top(HeapEntry entry, Near&& near) noexcept {
    const std::size_t count = places();
    std::size_t hole = 0;
    for (std::size_t child = 1; child < count; child = hole * 8 + 1) {
      prefetch_below(child, count);
      const std::size_t least = least_of_eight(child);
      const HeapEntry below = (*this)[least];
      if (!(below < entry)) break;
      if (hole <= 8) near(below);
      set(hole, below);
      hole = least;
    }
    if (hole <= 8) near(entry);
    set(hole, entry);
  }

  /// Puts `entry` at `hole` or below it, among the first `count` places.
  void sink(std::size_t hole, HeapEntry entry, std::size_t count) noexcept {
    for (std::size_t child = hole * 8 + 1; child < count; child = hole * 8 + 1) {
      const std::size_t least = least_among(child, std::min(child + 8, count));
      const HeapEntry below = (*this)[least];
      if (!(below < entry)) break;
      set(hole, below);
      hole = least;
    }
    set(hole, entry);
  }

  void make_heap(std::size_t count) noexcept {
    for (std::size_t at = (count + 6) / 8; at-- > 0;) sink(at, (*this)[at], count);
  }

  LargeVector<Cell> cells_;
  std::size_t limit_;
  Atomic<std::size_t> places_{0};  ///< In use, with the hole's.
  Atomic<std::size_t> hole_{0};    ///< 1 if the top has been taken and nothing put in its place.
};

}  // namespace zeta::queue
