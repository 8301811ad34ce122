#pragma once

#include <atomic>
#include <cstdint>

#include "zeta/core/cacheline.hpp"

namespace zeta::queue {

/// Where a circular calendar begins: the number of its first chunk, agreed on by all who fill and empty it. Lock-free.
///
/// The window moves in two steps: a mover marks the word, looks once more whether everything before the new first chunk
/// is empty, and then exchanges the marked word. Who has filled a bucket looks at the word afterwards (`settled_first`)
/// and takes the mark away if it finds one, since the mover may have looked too early. So nothing that was filled is
/// ever left before the window; who stops in either step stops nobody, as a mark binds only the mover who set it.
template <template <class> class Atomic, unsigned kFirstBits = 49>
class CalendarWindow {
 public:
  static constexpr std::uint64_t kLastFirst = (std::uint64_t{1} << kFirstBits) - 1;

  explicit CalendarWindow(std::uint64_t first = 0) noexcept : word_{first << kFirstShift} {}

  /// The first chunk; a hint until what was found by it has been checked against a second look.
  [[nodiscard]] std::uint64_t first() const noexcept {
    return first_of(word_.load(std::memory_order_acquire));  // E8: what the mover knew is seen
  }

  /// The first chunk, with no move under way that may have overlooked what this thread has filled before.
  [[nodiscard]] std::uint64_t settled_first() noexcept {
    // E7: in one order with moves and with the looks at the roots between their steps.
    std::uint64_t word = word_.load(std::memory_order_seq_cst);
    while ((word & kMoving) != 0) {
      const std::uint64_t halted = renewed(word & ~kMoving);
      // Relaxed: the mover's own exchange fails whichever order this has; a later mover marks, and then looks at the
      // roots, after the load above.
      if (word_.compare_exchange_weak(word, halted, std::memory_order_relaxed, std::memory_order_relaxed)) break;
    }
    return first_of(word);
  }

  /// Moves from `from` to `to` > `from`, unless the window is elsewhere already or `is_empty_before(to)` says no.
  template <class IsEmptyBefore>
  bool move(std::uint64_t from, std::uint64_t to, IsEmptyBefore&& is_empty_before) noexcept {
    std::uint64_t word = word_.load(std::memory_order_relaxed);  // checked by the exchange
    if (first_of(word) != from) return false;
    std::uint64_t marked = renewed(word | kMoving);
    // E7: in one order with the looks of those who fill.
    if (!word_.compare_exchange_strong(word, marked, std::memory_order_seq_cst,
                                       std::memory_order_relaxed)) {  // relaxed on failure: given up
      return false;
    }
    const bool is_free = is_empty_before(to);
    const std::uint64_t next = renewed(with_first(marked & ~kMoving, is_free ? to : from));
    // E8: who sees the window here sees what this thread saw empty as empty.
    return word_.compare_exchange_strong(marked, next, std::memory_order_release,
                                         std::memory_order_relaxed) &&  // relaxed on failure: halted
           is_free;
  }

 private:
  // first : kFirstBits | version | is moving : 1
  static constexpr std::uint64_t kMoving = 1;
  static constexpr unsigned kFirstShift = 64 - kFirstBits;
  static constexpr std::uint64_t kVersion = ((std::uint64_t{1} << kFirstShift) - 1) & ~kMoving;

  /// With another version; it wraps within its field.
  static constexpr std::uint64_t renewed(std::uint64_t word) noexcept {
    return (word & ~kVersion) | ((word + (kMoving << 1U)) & kVersion);
  }

  static constexpr std::uint64_t first_of(std::uint64_t word) noexcept { return word >> kFirstShift; }
  static constexpr std::uint64_t with_first(std::uint64_t word, std::uint64_t first) noexcept {
    return (word & ((std::uint64_t{1} << kFirstShift) - 1)) | first << kFirstShift;
  }

  alignas(kNoFalseSharing) Atomic<std::uint64_t> word_;
};

}  // namespace zeta::queue
