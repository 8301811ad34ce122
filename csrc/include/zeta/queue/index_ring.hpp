#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "zeta/core/cacheline.hpp"
#include "zeta/core/lazy_zeros.hpp"
#include "zeta/queue/cell_pool.hpp"

namespace zeta::queue {

/// A bounded first-in first-out sequence of indices, from which any thread may also remove one in the middle.
/// Lock-free: a thread stopped anywhere stops nobody and hides nothing whose `append` has returned.
///
/// Each place carries the turn in which it was written, so an exchange of a place succeeds only in its own turn. Who
/// appends writes the first unwritten place and then moves the tail; who finds a written place at the tail moves it
/// on the writer's behalf (as in Tsigas and Zhang, "A simple, fast and scalable non-blocking concurrent FIFO queue",
/// SPAA 2001, with turns in place of their two kinds of null). A place that has been emptied in its turn is passed
/// over.
template <template <class> class Atomic>
class IndexRing {
 public:
  /// A written place: where, what it holds, and the word to exchange.
  struct Place {
    std::uint64_t position;
    std::uint64_t word;
    [[nodiscard]] Index index() const noexcept { return static_cast<Index>(word); }
  };

  explicit IndexRing(std::size_t at_least)
      : mask_{std::bit_ceil(at_least) - 1},
        turn_shift_{static_cast<unsigned>(std::countr_one(mask_))},
        places_{mask_ + 1} {}

  /// Whether nothing is in it; a hint to any thread that did not take part in emptying it.
  [[nodiscard]] bool is_empty() const noexcept {
    // Relaxed: only compared; who then looks for an index does so by `find`.
    const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
    return begin() == tail;
  }

  /// False when the ring is full.
  [[nodiscard]] bool append(Index index) noexcept {
    for (;;) {
      const std::uint64_t tail = tail_.load(std::memory_order_relaxed);  // the place's turn says whether it is still so
      const auto used = static_cast<std::int64_t>(tail - begin());
      if (used < 0) continue;  // the head has passed this tail meanwhile
      if (static_cast<std::uint64_t>(used) > mask_) return false;
      Atomic<std::uint64_t>& place = places_[tail & mask_];
      std::uint64_t word = place.load(std::memory_order_relaxed);  // checked by the exchange
      if (turn_of(word) == turn_at(tail)) {
        advance(tail_, tail);  // written by another that has not yet said so
        continue;
      }
      if (turn_of(word) != turn_before(tail)) continue;  // an old look at the tail or at the place
      // E4: hands over what the index names.
      if (place.compare_exchange_strong(word, turn_at(tail) << 32U | index, std::memory_order_release,
                                        std::memory_order_relaxed)) {  // relaxed on failure: looks again
        advance(tail_, tail);
        return true;
      }
    }
  }

  /// The first written place at or after `position` that still holds an index; false when there is none.
  [[nodiscard]] bool find(std::uint64_t position, Place& found) noexcept {
    for (;; ++position) {
      // E2: the places before the tail are seen as written.
      const std::uint64_t tail = tail_.load(std::memory_order_acquire);
      const std::uint64_t head = begin();
      if (static_cast<std::int64_t>(position - head) < 0) position = head;
      // E4: what the index names is seen. E14: or where it went.
      const std::uint64_t word = places_[position & mask_].load(std::memory_order_acquire);
      if (static_cast<std::int64_t>(position - tail) >= 0) {
        if (position != tail || turn_of(word) != turn_at(tail)) {
          pass_emptied();
          return false;
        }
        advance(tail_, tail);
      }
      if (turn_of(word) == turn_at(position) && static_cast<Index>(word) != 0) {
        found = Place{position, word};
        return true;
      }
    }
  }

  /// The position before which nothing is left.
  [[nodiscard]] std::uint64_t begin() const noexcept {
    return head_.load(std::memory_order_acquire);  // E3: where that went which stood before it is seen
  }

  /// Empties a place. True for exactly one caller of each place: the index is then the caller's.
  [[nodiscard]] bool remove(const Place& found) noexcept {
    Atomic<std::uint64_t>& place = places_[found.position & mask_];
    std::uint64_t word = found.word;
    // E14: who finds the place emptied sees where the index went. (It is emptied only of the word that `find`
    // acquired.)
    const bool won = place.compare_exchange_strong(word, found.word >> 32U << 32U, std::memory_order_release,
                                                   std::memory_order_relaxed);  // relaxed on failure: another has it
    pass_emptied();
    return won;
  }

  /// How many places lie between the first and the last, emptied ones included.
  [[nodiscard]] std::uint64_t span() const noexcept {
    const std::uint64_t head = begin();
    const std::uint64_t tail = tail_.load(std::memory_order_relaxed);  // a number only
    return static_cast<std::int64_t>(tail - head) > 0 ? tail - head : 0;
  }
  [[nodiscard]] std::uint64_t places() const noexcept { return mask_ + 1; }

 private:
  void pass_emptied() noexcept {
    for (;;) {
      const std::uint64_t head = begin();
      if (head == tail_.load(std::memory_order_relaxed)) return;  // only compared: the place's turn says the rest
      // E14: where the index went, for E3.
      const std::uint64_t word = places_[head & mask_].load(std::memory_order_acquire);
      if (turn_of(word) != turn_at(head) || static_cast<Index>(word) != 0) return;
      advance(head_, head);
    }
  }

  void advance(Atomic<std::uint64_t>& end, std::uint64_t from) noexcept {
    // E2 (tail): the places before it have been written. E3 (head): they have been emptied.
    (void)end.compare_exchange_strong(from, from + 1, std::memory_order_release,
                                      std::memory_order_relaxed);  // relaxed on failure: another has moved it
  }

  /// Turns count from 1, so that a place that was never written is in none.
  [[nodiscard]] std::uint64_t turn_at(std::uint64_t position) const noexcept {
    return ((position >> turn_shift_) + 1) & 0xFFFFFFFFU;
  }
  [[nodiscard]] std::uint64_t turn_before(std::uint64_t position) const noexcept {
    return (turn_at(position) - 1) & 0xFFFFFFFFU;
  }
  [[nodiscard]] static constexpr std::uint64_t turn_of(std::uint64_t word) noexcept { return word >> 32U; }

  const std::uint64_t mask_;
  const unsigned turn_shift_;
  LazyZeros<Atomic<std::uint64_t>, kIsStdAtomic<Atomic>> places_;
  alignas(kNoFalseSharing) Atomic<std::uint64_t> head_{0};
  alignas(kNoFalseSharing) Atomic<std::uint64_t> tail_{0};
};

}  // namespace zeta::queue
