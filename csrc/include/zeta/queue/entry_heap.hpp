#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "zeta/core/huge_pages.hpp"
#include "zeta/queue/entry.hpp"

namespace zeta::queue {

/// What the heap orders: by key, then by reference, whose upper bits say who came first.
struct HeapEntry {
  Key key;
  std::uint64_t reference;

  [[nodiscard]] friend bool operator<(const HeapEntry& a, const HeapEntry& b) noexcept {
    // One comparison of 128 bits: no branch to predict.
    return ((static_cast<unsigned __int128>(a.key) << 64U) | a.reference) <
           ((static_cast<unsigned __int128>(b.key) << 64U) | b.reference);
  }
};

/// An implicit 8-ary min-heap of bounded size. One thread at a time; its fields are atomic only so that whoever checks
/// the caller's locking can watch them.
///
/// The eight children of a node fill two cache lines exactly; a heap of 100,000 is six levels deep. A pop moves the
/// hole down to a leaf and lets the last entry rise from there (Wegener, 1993), which it seldom does. References with
/// all bits set are the heap's: they fill the room behind the last entry, so that a node always has eight children.
template <template <class> class Atomic = std::atomic>
class EntryHeap {
 public:
  explicit EntryHeap(std::size_t limit) : cells_((limit / 8 + 3) * 8), limit_{limit} {
    for (std::size_t at = 0; at < cells_.size(); ++at) set_cell(at, kNothing);
  }

  [[nodiscard]] std::size_t size() const noexcept { return size_.load(std::memory_order_relaxed); }  // the owner's
  [[nodiscard]] bool is_full() const noexcept { return size() == limit_; }
  [[nodiscard]] HeapEntry operator[](std::size_t at) const noexcept { return cell(at + kShift); }
  [[nodiscard]] HeapEntry top() const noexcept { return cell(kShift); }  ///< Of a heap that is not empty.

  /// Adds to a heap that is not full.
  void push(HeapEntry entry) noexcept {
    const std::size_t at = size();
    size_.store(at + 1, std::memory_order_relaxed);  // the owner's
    rise(at, entry);
  }

  /// Removes the top of a heap that is not empty.
  void pop() noexcept {
    const std::size_t last = size() - 1;
    size_.store(last, std::memory_order_relaxed);  // the owner's
    const HeapEntry moved = (*this)[last];
    set(last, kNothing);
    if (last == 0) return;
    std::size_t hole = 0;
    for (std::size_t child = 1; child < last; child = hole * 8 + 1) {
      const auto [entry, at] = least_of_eight(child);
      set(hole, entry);
      hole = at;
    }
    rise(hole, moved);
  }

  /// Keeps only the entries for which `keep(entry)` says true.
  template <class Keep>
  void filter(Keep&& keep) noexcept {
    const std::size_t before = size();
    std::size_t kept = 0;
    for (std::size_t at = 0; at < before; ++at) {
      if (const HeapEntry entry = (*this)[at]; keep(entry)) set(kept++, entry);
    }
    for (std::size_t at = kept; at < before; ++at) set(at, kNothing);
    size_.store(kept, std::memory_order_relaxed);  // the owner's
    make_heap(kept);
  }

  /// Sorts ascending, which is a heap too.
  void sort() noexcept {
    const std::size_t count = size();
    for (std::size_t end = count; end > 1; --end) {
      const HeapEntry least = top();
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

  [[nodiscard]] HeapEntry cell(std::size_t at) const noexcept {
    return {cells_[at].key.load(std::memory_order_relaxed),         // the owner's
            cells_[at].reference.load(std::memory_order_relaxed)};  // as above
  }

  void set_cell(std::size_t at, HeapEntry entry) noexcept {
    cells_[at].key.store(entry.key, std::memory_order_relaxed);              // the owner's
    cells_[at].reference.store(entry.reference, std::memory_order_relaxed);  // as above
  }

  void set(std::size_t at, HeapEntry entry) noexcept { set_cell(at + kShift, entry); }

  struct Found {
    HeapEntry entry;
    std::size_t at;
  };

  [[nodiscard]] static Found lesser(const Found& a, const Found& b) noexcept {
    const bool is_b = b.entry < a.entry;
    return {{is_b ? b.entry.key : a.entry.key, is_b ? b.entry.reference : a.entry.reference}, is_b ? b.at : a.at};
  }

  [[nodiscard]] Found found(std::size_t at) const noexcept { return {(*this)[at], at}; }

  [[nodiscard]] Found least_of_eight(std::size_t first) const noexcept {
    return lesser(lesser(lesser(found(first), found(first + 1)), lesser(found(first + 2), found(first + 3))),
                  lesser(lesser(found(first + 4), found(first + 5)), lesser(found(first + 6), found(first + 7))));
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

  /// Puts `entry` at `hole` or below it, among the first `count` places.
  void sink(std::size_t hole, HeapEntry entry, std::size_t count) noexcept {
    for (std::size_t child = hole * 8 + 1; child < count; child = hole * 8 + 1) {
      Found least = found(child);
      for (std::size_t at = child + 1; at < count && at < child + 8; ++at) least = lesser(least, found(at));
      if (!(least.entry < entry)) break;
      set(hole, least.entry);
      hole = least.at;
    }
    set(hole, entry);
  }

  void make_heap(std::size_t count) noexcept {
    for (std::size_t at = (count + 6) / 8; at-- > 0;) sink(at, (*this)[at], count);
  }

  LargeVector<Cell> cells_;
  std::size_t limit_;
  Atomic<std::size_t> size_{0};
};

}  // namespace zeta::queue
