#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "zeta/core/huge_pages.hpp"
#include "zeta/sched/request.hpp"
#include "zeta/sync/index_stack.hpp"

namespace zeta::sched {

using SlotIndex = std::uint32_t;
inline constexpr SlotIndex kNull = 0xFFFFFFFFU;

enum class Phase : std::uint8_t {
  free,
  waiting,   ///< In the waiting room's ordered queues.
  ready,     ///< Placed; not yet handed to a caller.
  running,   ///< Handed out; no token yet.
  decoding,  ///< First token seen.
};

/// All that is kept of one live request. The prompt is not.
struct Slot {
  Request request;
  Ticket ticket;
  Instant arrival{};
  Instant stage_began{};  ///< Placed at; once it decodes, its first token.
  Duration prefill{0};    ///< Predicted, on the model it waits for or runs on.
  Duration work{0};       ///< Predicted GPU time, prefill and decode, on that model.
  Instant latest_start = kNever;
  ModelMask waits_for;  ///< The set that it waits in: `request.allowed`, or fewer while a hold lasts.
  Instant hold_until{};
  std::uint64_t reserved_tokens = 0;
  std::uint32_t expected_output = 0;
  std::uint32_t demand_bin = 0;
  std::uint32_t mark = 0;  ///< Its number among its device's placements; once it decodes, the rounds read then.
  SlotIndex next = kNull;  ///< In the promise queue while waiting, in the ready list once placed.
  SlotIndex previous = kNull;
  ModelId demand_model = kNoModel;  ///< The model whose backlog carries this request's work.
  ModelId model = kNoModel;         ///< Where it was placed.
  ReplicaId replica = kNoReplica;
  std::uint8_t set = 0;
  Phase phase = Phase::free;
  bool is_late = false;       ///< In the late heap of its tenant.
  bool holds_budget = false;  ///< Its prefill counts against its device's budget.
  bool is_alone = false;      ///< When it was placed no other prefill was in flight where it contends.
  bool is_rekeyed = false;    ///< Key already corrected for a slower model, or given up in overload; happens once.
  std::uint8_t requeues = 0;
};
static_assert(sizeof(Slot) <= 176,
              "with two heap nodes, its place in the free list and its ending, below 256 bytes; see docs/limits.md");

/// Slots and tickets. Any thread may take a slot; all else is the owner's. Reused in LIFO order, so that a small
/// working set stays in cache.
class Slab {
 public:
  explicit Slab(std::uint32_t capacity) : slots_(capacity), free_{capacity} {
    for (std::uint32_t i = capacity; i-- > 0;) free_.push(i);
  }

  [[nodiscard]] std::uint32_t capacity() const noexcept { return static_cast<std::uint32_t>(slots_.size()); }

  /// A free slot, or kNull when all are taken. Lock-free, from any thread.
  [[nodiscard]] SlotIndex take() noexcept { return free_.pop(); }

  void release(SlotIndex slot) noexcept {
    slots_[slot].ticket = Ticket{};
    slots_[slot].phase = Phase::free;
    if (recycles_) free_.push(slot);
  }

  /// The live slot of a ticket, or kNull where the request has ended.
  [[nodiscard]] SlotIndex find(Ticket ticket) const noexcept {
    const SlotIndex slot = ticket.slot();
    return slot < slots_.size() && slots_[slot].ticket == ticket && ticket != Ticket{} ? slot : kNull;
  }

  /// For doing a recorded run again: slots come with the recorded tickets and are not handed out here.
  void stop_recycling() noexcept { recycles_ = false; }

  /// Fetches what releasing this slot will touch.
  [[gnu::always_inline]] void expect_release(SlotIndex slot) const noexcept { free_.expect(slot); }

  /// Fetches a slot that will be needed soon. (Always inline, as whatever else only fetches: g++ 12 drops calls of such
  /// functions, as if they did nothing.)
  [[gnu::always_inline]] void prefetch(SlotIndex slot) const noexcept {
    if (slot >= slots_.size()) return;
    const auto* bytes = reinterpret_cast<const char*>(&slots_[slot]);
    for (std::size_t at = 0; at < sizeof(Slot); at += 64) __builtin_prefetch(bytes + at);
    __builtin_prefetch(bytes + sizeof(Slot) - 1);
  }

  [[gnu::always_inline]] void prefetch_links(SlotIndex slot) const noexcept {
    if (slot < slots_.size()) __builtin_prefetch(&slots_[slot].next);
  }

  Slot& operator[](SlotIndex slot) noexcept { return slots_[slot]; }
  const Slot& operator[](SlotIndex slot) const noexcept { return slots_[slot]; }

 private:
  LargeVector<Slot> slots_;
  sync::IndexStack<> free_;
  bool recycles_ = true;
};

}  // namespace zeta::sched
