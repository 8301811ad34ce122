#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "zeta/core/cacheline.hpp"

namespace zeta::queue {

/// The free slots [0, capacity) of a slab. Any thread may claim and give; both are wait-free.
///
/// A thread gives to and claims from a few boxes of its own lane first, last in first out, so that a slot still in
/// cache is used again at once. The rest are bits of one set; a thread whose boxes are empty claims from there, and at
/// last from the boxes of others. Every slot is claimed alone, by one atomic exchange: a thread stopped anywhere has at
/// most one slot in its hands, so `claim` fails only if all slots were claimed or changing hands during the call.
/// Each lane but the last is one thread's at a time.
template <template <class> class Atomic = std::atomic>
class SlotPool {
 public:
  using Slot = std::uint32_t;
  static constexpr Slot kNull = 0xFFFFFFFFU;

  SlotPool(std::size_t capacity, std::size_t lanes) : free_((capacity + 63) / 64), near_(lanes) {
    for (std::size_t word = 0; word < free_.size(); ++word) {
      const std::size_t left = capacity - word * 64;
      // Construction: no other thread is here yet.
      free_[word].store(left >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << left) - 1, std::memory_order_relaxed);
    }
    for (std::size_t lane = 0; lane < lanes; ++lane) {  // lanes begin apart, so that they seldom meet in one word
      near_[lane].start.store(static_cast<std::uint32_t>(lane * free_.size() / lanes),
                              std::memory_order_relaxed);  // as above
    }
  }

  /// A free slot, or kNull.
  [[nodiscard]] Slot claim(std::size_t lane) noexcept {
    const Slot slot = claim_near(near_[lane]);
    return slot != kNull ? slot : claim_far(lane);
  }

  void give(Slot slot, std::size_t lane) noexcept {
    Near& near = near_[lane];
    const std::uint32_t next = near.filled.load(std::memory_order_relaxed);  // only a guess where a box is empty
    if (next < kBoxes && fill(near.box[next], slot, lane)) {
      near.filled.store(next + 1, std::memory_order_relaxed);  // as above
      return;
    }
    // E28: whoever claims the slot may write it.
    free_[slot / 64].fetch_or(std::uint64_t{1} << (slot % 64), std::memory_order_release);
  }

 private:
  static constexpr std::uint32_t kBoxes = 30;

  /// A lane's own: where it looks next, and a few free slots.
  struct alignas(kNoFalseSharing) Near {
    Atomic<std::uint32_t> filled{0};  ///< Boxes below it were filled; others may have emptied some since.
    Atomic<std::uint32_t> start{0};   ///< Of the set: where the lane last found a slot.
    Atomic<Slot> box[kBoxes];

    Near() noexcept {
      for (auto& each : box) each.store(kNull, std::memory_order_relaxed);  // construction
    }
  };
  static_assert(sizeof(Atomic<Slot>) != 4 || kNoFalseSharing != 128 || sizeof(Near) == kNoFalseSharing,
                "a lane's boxes fill their lines");

  /// Puts a slot into a box if it is empty. Others only empty the boxes of a lane that is one thread's, so it may look
  /// first; in the last lane threads meet.
  [[nodiscard]] bool fill(Atomic<Slot>& box, Slot slot, std::size_t lane) noexcept {
    if (lane + 1 < near_.size()) {
      if (box.load(std::memory_order_relaxed) != kNull) return false;  // see above
      box.store(slot, std::memory_order_release);                      // E27: whoever claims the slot may write it
      return true;
    }
    Slot empty = kNull;
    // E27: as above. Relaxed on failure: the slot goes elsewhere.
    return box.compare_exchange_strong(empty, slot, std::memory_order_release, std::memory_order_relaxed);
  }

  [[nodiscard]] static Slot claim_box(Atomic<Slot>& box) noexcept {
    return box.exchange(kNull, std::memory_order_acquire);  // E27: the giver has done with the slot
  }

  [[nodiscard]] static Slot claim_near(Near& near) noexcept {
    std::uint32_t top =
        near.filled.load(std::memory_order_relaxed);  // only a guess; all boxes are seen before refusing
    while (top > 0) {
      const Slot slot = claim_box(near.box[--top]);
      near.filled.store(top, std::memory_order_relaxed);  // as above
      if (slot != kNull) return slot;
    }
    return kNull;
  }

  [[nodiscard]] [[gnu::noinline]] Slot claim_far(std::size_t lane) noexcept {
    const std::uint32_t first = near_[lane].start.load(std::memory_order_relaxed);  // only a guess
    for (std::size_t word = first; word < free_.size(); ++word) {
      if (const Slot slot = claim_of_word(word, lane); slot != kNull) return slot;
    }
    for (std::size_t word = 0; word < first; ++word) {
      if (const Slot slot = claim_of_word(word, lane); slot != kNull) return slot;
    }
    return claim_of_others();
  }

  [[nodiscard]] Slot claim_of_word(std::size_t word, std::size_t lane) noexcept {
    std::uint64_t bits = free_[word].load(std::memory_order_relaxed);  // a guess; the claim below decides
    while (bits != 0) {
      const std::uint64_t lowest = bits & (~bits + 1);
      // E28: the giver has done with the slot.
      if ((free_[word].fetch_and(~lowest, std::memory_order_acquire) & lowest) != 0) {
        near_[lane].start.store(static_cast<std::uint32_t>(word), std::memory_order_relaxed);  // a guess for next time
        return static_cast<Slot>(word * 64 + static_cast<std::size_t>(std::countr_zero(lowest)));
      }
      bits &= ~lowest;
    }
    return kNull;
  }

  [[nodiscard]] Slot claim_of_others() noexcept {
    for (Near& near : near_) {
      for (auto& box : near.box) {
        if (box.load(std::memory_order_relaxed) == kNull) continue;  // a guess; the claim decides
        if (const Slot slot = claim_box(box); slot != kNull) return slot;
      }
    }
    return kNull;
  }

  std::vector<Atomic<std::uint64_t>> free_;
  std::vector<Near> near_;
};

}  // namespace zeta::queue
