#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "zeta/core/cacheline.hpp"

namespace zeta::queue {

/// Slots that something has happened to, for the one thread that looks after them. However often a slot is added, it
/// takes one bit. Any thread may add, wait-free; one thread at a time empties.
///
/// Bits in words, a bit for each word that may have some, and one flag. Adding writes upwards and emptying clears
/// downwards, always by read-modify-writes: who clears a level has everything below it from those who set it.
template <template <class> class Atomic = std::atomic>
class SlotSet {
 public:
  using Slot = std::uint32_t;

  explicit SlotSet(std::size_t capacity) : words_((capacity + 63) / 64), groups_((words_.size() + 63) / 64) {}

  void add(Slot slot) noexcept {
    // E33: the word's reader sees what was done to the slot.
    words_[slot / 64].fetch_or(std::uint64_t{1} << (slot % 64), std::memory_order_release);
    // E34: the group's reader sees the word.
    groups_[slot / 4096].fetch_or(std::uint64_t{1} << (slot / 64 % 64), std::memory_order_release);
    any_.fetch_or(1, std::memory_order_release);  // E35: who clears the flag sees the group
  }

  /// A cheap look before `empty`.
  [[nodiscard]] bool has_any() const noexcept {
    return any_.load(std::memory_order_acquire) != 0;  // E35: empty() after it finds what set the flag
  }

  /// Hands each slot to `visit(slot)` once and forgets it. One thread at a time.
  template <class Visit>
  void empty(Visit&& visit) noexcept {
    (void)any_.exchange(0, std::memory_order_acquire);  // E35: the groups are seen
    for (std::size_t group = 0; group < groups_.size(); ++group) {
      // What E35 showed is not missed; what comes later sets the flag again.
      if (groups_[group].load(std::memory_order_relaxed) == 0) continue;
      // E34: the words are seen.
      for (std::uint64_t bits = groups_[group].exchange(0, std::memory_order_acquire); bits != 0; bits &= bits - 1) {
        visit_word(group * 64 + static_cast<std::size_t>(std::countr_zero(bits)), visit);
      }
    }
  }

 private:
  template <class Visit>
  void visit_word(std::size_t word, Visit&& visit) noexcept {
    // E33: what was done to the slots is seen.
    for (std::uint64_t bits = words_[word].exchange(0, std::memory_order_acquire); bits != 0; bits &= bits - 1) {
      visit(static_cast<Slot>(word * 64 + static_cast<std::size_t>(std::countr_zero(bits))));
    }
  }

  std::vector<Atomic<std::uint64_t>> words_;
  std::vector<Atomic<std::uint64_t>> groups_;
  alignas(kNoFalseSharing) Atomic<std::uint32_t> any_{0};
};

}  // namespace zeta::queue
