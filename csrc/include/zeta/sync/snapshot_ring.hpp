#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "zeta/core/cacheline.hpp"

namespace zeta::sync {

/// The newest of a writer's records, for any number of readers. One writer at a time; any thread reads.
///
/// When to use: a record of some hundred bytes that changes some times a second and is read often. When not: where each
/// record counts (this keeps the newest only), or where several threads write.
///
/// `publish` is wait-free. `read` gives a record that was published whole, never a mixture, and never an older one than
/// the same thread has read before. It is lock-free: it begins again only when the writer has published kSlots - 1
/// further records since it began, so a writer that is stopped anywhere, in the middle of a record too, stops nobody
/// and tears nothing: readers keep the record before. Until the first publish there is nothing, and `read` says 0.
///
/// A ring of slots, each with the number of the record that stands in it or is being written to it. The writer puts the
/// number first, then the words, then makes the number the newest. A reader takes the words of the newest and looks at
/// the slot's number again: who has seen any word of a later record sees a later number too. That is the reader's side
/// of a sequence lock (Boehm, "Can seqlocks get along with programming language memory models?", MSPC 2012) with
/// acquiring loads in place of its fence, over several slots as in Lamport's and Peterson's registers.
template <class T, template <class> class Atomic = std::atomic, std::size_t kSlots = 4>
class SnapshotRing {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % sizeof(std::uint64_t) == 0,
                "records are copied word by word, straight into the caller's");
  static_assert(kSlots >= 2 && (kSlots & (kSlots - 1)) == 0, "one slot is read while another is written");

 public:
  SnapshotRing() = default;
  SnapshotRing(const SnapshotRing&) = delete;
  SnapshotRing& operator=(const SnapshotRing&) = delete;

  /// Writer only. Wait-free.
  void publish(const T& record) noexcept {
    // Only the writer writes it.
    const std::uint64_t number = newest_.load(std::memory_order_relaxed) + 1;
    Slot& slot = slots_[number % kSlots];
    // Seen through any of the words below (E55), or through newest_ (E54).
    slot.holds.store(number, std::memory_order_relaxed);
    const auto* from = reinterpret_cast<const unsigned char*>(&record);
    for (std::size_t i = 0; i < kWords; ++i) {
      std::uint64_t word = 0;
      std::memcpy(&word, from + i * sizeof word, sizeof word);
      // E55: who sees this word sees that the slot's number has moved.
      slot.words[i].store(word, std::memory_order_release);
    }
    // E54: publishes the words and the number.
    newest_.store(number, std::memory_order_release);
  }

  /// Copies the newest record and returns its number, counted from 1; 0, and `record` untouched, before the first.
  [[nodiscard]] std::uint64_t read(T& record) const noexcept {
    std::uint64_t number = 0;
    while (!try_read(record, number)) {
    }
    return number;
  }

  /// One attempt of `read`. Wait-free. False, and `record` a mixture, when the writer has published kSlots - 1 more
  /// records meanwhile.
  [[nodiscard]] bool try_read(T& record, std::uint64_t& number) const noexcept {
    // E54: the record's words and its number are seen.
    number = newest_.load(std::memory_order_acquire);
    if (number == 0) return true;
    const Slot& slot = slots_[number % kSlots];
    auto* to = reinterpret_cast<unsigned char*>(&record);
    for (std::size_t i = 0; i < kWords; ++i) {
      // E55: if this is a later record's word, the number read below has moved.
      const std::uint64_t word = slot.words[i].load(std::memory_order_acquire);
      std::memcpy(to + i * sizeof word, &word, sizeof word);
    }
    // Ordered by the loads above, each of which acquires; atomicity is enough.
    return slot.holds.load(std::memory_order_relaxed) == number;
  }

 private:
  static constexpr std::size_t kWords = sizeof(T) / sizeof(std::uint64_t);

  struct Slot {
    Atomic<std::uint64_t> holds{0};
    std::array<Atomic<std::uint64_t>, kWords> words{};
  };

  alignas(kNoFalseSharing) Atomic<std::uint64_t> newest_{0};
  std::array<Slot, kSlots> slots_{};
};

}  // namespace zeta::sync
