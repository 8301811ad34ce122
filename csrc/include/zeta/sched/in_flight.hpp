#pragma once

#include <array>
#include <optional>

#include "zeta/sched/admission.hpp"
#include "zeta/sched/fleet.hpp"
#include "zeta/sched/learning.hpp"
#include "zeta/sched/timers.hpp"

namespace zeta::sched {

/// The requests that hold a replica: ready until a caller takes the placement, running until the first token, then
/// decoding. Keeps what they hold of the fleet, the lists of ready ones and the timers of those whose first token is
/// awaited. One owner; allocates nothing.
class InFlight {
 public:
  static constexpr std::size_t kChannels = 2;

  InFlight(Slab& slab, Fleet& fleet, Timers& timers) : slab_{slab}, fleet_{fleet}, timers_{timers} {}

  /// A request that has just left the queues gets its replica and joins the ready list of its channel.
  void place(SlotIndex slot, ModelId model, ReplicaId replica, Instant now) noexcept {
    Slot& s = slab_[slot];
    s.model = model;
    s.replica = replica;
    s.stage_began = now;
    price_on(fleet_, s, model);
    s.reserved_tokens = tokens_to_reserve(fleet_, model, s.request);
    Device& device = fleet_.device_of(model);
    if (device.config.is_shared) device.shares.charge(model, s.work);
    const bool had_slot = fleet_.replica(replica).has_slot();
    fleet_.occupy(s);
    fleet_.refresh_replica(replica, had_slot);
    if (device.config.is_shared) timers_.set(slot, s.ticket, now + kPresumedStart + 4 * s.prefill);
    if (s.request.affinity_key != 0) fleet_.remember(s.request.affinity_key, replica);
    s.phase = Phase::ready;
    link_ready(slot);
  }

  /// Hands out the next placement of a channel, in the order in which they were decided.
  [[nodiscard]] std::optional<Placement> hand_out(std::uint8_t channel) noexcept {
    const SlotIndex slot = ready_[channel].first;
    if (slot == kNull) return std::nullopt;
    unlink_ready(slot);
    Slot& s = slab_[slot];
    s.phase = Phase::running;
    return Placement{s.ticket, s.model, s.replica, s.stage_began - s.arrival};
  }
  [[nodiscard]] bool has_ready(std::uint8_t channel) const noexcept { return ready_[channel].first != kNull; }

  /// The slot of a request that was handed out and has not ended; else kNull.
  [[nodiscard]] SlotIndex find(Ticket ticket) const noexcept {
    const SlotIndex slot = slab_.find(ticket);
    if (slot == kNull) return kNull;
    const Phase phase = slab_[slot].phase;
    return phase == Phase::running || phase == Phase::decoding ? slot : kNull;
  }

  /// The first token has come.
  void start_decoding(SlotIndex slot, Instant now) noexcept {
    Slot& s = slab_[slot];
    const Duration lag = (now - s.stage_began) - s.prefill;
    learn_start_lag(fleet_[s.model], lag);
    learn_prefill(fleet_, s, now);
    timers_.clear(slot);
    fleet_.start_decoding(s, now);
    s.phase = Phase::decoding;
    s.stage_began = now;
    route::Replica& replica = fleet_.replica(s.replica);
    const bool had_slot = replica.has_slot();
    replica.window.on_first_token(lag, replica.in_flight, now);
    fleet_.refresh_replica(s.replica, had_slot);
  }

  /// Its timer is due, no first token was reported: the budget is not held for ever.
  void presume_start(SlotIndex slot) noexcept { fleet_.release_budget(slab_[slot]); }

  /// Gives back what it holds, whatever comes next.
  void vacate(SlotIndex slot, Instant now) noexcept {
    Slot& s = slab_[slot];
    if (s.phase == Phase::ready) unlink_ready(slot);
    const bool had_slot = fleet_.replica(s.replica).has_slot();
    timers_.clear(slot);
    fleet_.vacate(s, now);
    fleet_.refresh_replica(s.replica, had_slot);
  }

 private:
  /// A caller that never reports first tokens holds a shared device's budget for this long and four predicted prefills.
  static constexpr Duration kPresumedStart{1'000'000'000};

  struct ReadyList {
    SlotIndex first = kNull;
    SlotIndex last = kNull;
  };

  void link_ready(SlotIndex slot) noexcept {
    Slot& s = slab_[slot];
    ReadyList& list = ready_[s.request.channel];
    s.next = kNull;
    s.previous = list.last;
    (list.last == kNull ? list.first : slab_[list.last].next) = slot;
    list.last = slot;
  }

  void unlink_ready(SlotIndex slot) noexcept {
    Slot& s = slab_[slot];
    ReadyList& list = ready_[s.request.channel];
    (s.previous == kNull ? list.first : slab_[s.previous].next) = s.next;
    (s.next == kNull ? list.last : slab_[s.next].previous) = s.previous;
    s.next = s.previous = kNull;
  }

  Slab& slab_;
  Fleet& fleet_;
  Timers& timers_;
  std::array<ReadyList, kChannels> ready_;
};

}  // namespace zeta::sched
