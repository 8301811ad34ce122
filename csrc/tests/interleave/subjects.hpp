#pragma once
// Small subjects that show what the model finds: one that is right, and one that looks right.

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "zeta/queue/entry.hpp"

namespace zeta::interleave {

/// Bounded FIFO between one producer and one consumer. Wait-free. (Lamport, "Proving the correctness of multiprocess
/// programs", IEEE TSE 1977.)
template <template <class> class Atomic = std::atomic>
class SpscRing {
 public:
  [[nodiscard]] bool try_push(std::uint64_t value) noexcept {
    const std::uint32_t tail = tail_.load(std::memory_order_relaxed);  // only the producer writes it
    // E901: the consumer has read the slot.
    if (tail - head_.load(std::memory_order_acquire) == kSlots) return false;
    slots_[tail % kSlots].store(value, std::memory_order_relaxed);
    tail_.store(tail + 1, std::memory_order_release);  // E900: publishes the slot
    return true;
  }

  [[nodiscard]] std::optional<std::uint64_t> try_pop() noexcept {
    const std::uint32_t head = head_.load(std::memory_order_relaxed);  // only the consumer writes it
    // E900: the slot is seen.
    if (head == tail_.load(std::memory_order_acquire)) return std::nullopt;
    const std::uint64_t value = slots_[head % kSlots].load(std::memory_order_relaxed);
    head_.store(head + 1, std::memory_order_release);  // E901: the slot may be written again
    return value;
  }

 private:
  static constexpr std::uint32_t kSlots = 2;
  std::array<Atomic<std::uint64_t>, kSlots> slots_;
  Atomic<std::uint32_t> head_{0};
  Atomic<std::uint32_t> tail_{0};
};

/// A bounded FIFO of ticketed cells, many producers, many consumers (Vyukov's). Often called lock-free, and **not**: a
/// producer stopped between its claim and its publication hides all that was pushed after it.
template <template <class> class Atomic = std::atomic>
class TicketedRing {
 public:
  TicketedRing() {
    for (std::uint32_t i = 0; i < kSlots; ++i) cells_[i].turn.store(i, std::memory_order_relaxed);
  }

  [[nodiscard]] queue::Ticket push(queue::Key key, queue::Item item) noexcept {
    std::uint32_t at = tail_.load(std::memory_order_relaxed);
    for (;;) {
      Cell& cell = cells_[at % kSlots];
      const std::uint32_t turn = cell.turn.load(std::memory_order_acquire);
      if (turn == at) {
        if (!tail_.compare_exchange_weak(at, at + 1, std::memory_order_relaxed, std::memory_order_relaxed)) continue;
        cell.key.store(key, std::memory_order_relaxed);
        cell.item.store(item, std::memory_order_relaxed);
        cell.turn.store(at + 1, std::memory_order_release);
        return at + 1;
      }
      if (static_cast<std::int32_t>(turn - at) < 0) return queue::kNoTicket;
      at = tail_.load(std::memory_order_relaxed);
    }
  }

  [[nodiscard]] std::optional<queue::Entry> pop() noexcept {
    std::uint32_t at = head_.load(std::memory_order_relaxed);
    for (;;) {
      Cell& cell = cells_[at % kSlots];
      const std::uint32_t turn = cell.turn.load(std::memory_order_acquire);
      if (turn == at + 1) {
        if (!head_.compare_exchange_weak(at, at + 1, std::memory_order_relaxed, std::memory_order_relaxed)) continue;
        const queue::Entry entry{.key = cell.key.load(std::memory_order_relaxed),
                                 .item = cell.item.load(std::memory_order_relaxed),
                                 .ticket = at + 1};
        cell.turn.store(at + kSlots, std::memory_order_release);
        return entry;
      }
      if (static_cast<std::int32_t>(turn - (at + 1)) < 0) return std::nullopt;
      at = head_.load(std::memory_order_relaxed);
    }
  }

 private:
  static constexpr std::uint32_t kSlots = 4;
  struct Cell {
    Atomic<std::uint32_t> turn{0};
    Atomic<queue::Key> key{0};
    Atomic<queue::Item> item{0};
  };
  std::array<Cell, kSlots> cells_;
  Atomic<std::uint32_t> head_{0};
  Atomic<std::uint32_t> tail_{0};
};

}  // namespace zeta::interleave
