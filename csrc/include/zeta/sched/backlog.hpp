#pragma once

#include <algorithm>
#include <vector>

#include "zeta/sched/admission.hpp"
#include "zeta/sched/fleet.hpp"
#include "zeta/sched/timers.hpp"
#include "zeta/sched/waiting_room.hpp"
#include "zeta/share/due_counts.hpp"

namespace zeta::sched {

/// The requests that wait, in every place that knows of them: the ordered queues, the demand of the model that each is
/// priced on, and its timer. Enters, moves and leaves all three together. One owner; allocates only at construction.
class Backlog {
 public:
  Backlog(const SchedulerConfig& config, Slab& slab, Fleet& fleet, Timers& timers)
      : config_{config},
        slab_{slab},
        fleet_{fleet},
        timers_{timers},
        room_{config, slab, collated_models(config, fleet)},
        due_(collated_models(config, fleet).empty() ? 0 : fleet.model_count()) {}

  [[nodiscard]] WaitingRoom& room() noexcept { return room_; }
  [[nodiscard]] const WaitingRoom& room() const noexcept { return room_; }

  /// Whether some device holds one model at a time, chosen here.
  [[nodiscard]] bool collates() const noexcept { return !due_.empty(); }
  /// The models that a request waits for, where each of them may have to be loaded first; else none.
  [[nodiscard]] ModelMask collated(const Slot& s) const noexcept {
    return (s.waits_for & ~fleet_.swapped()).empty() ? s.waits_for : ModelMask{};
  }
  /// When those that wait for such a model have to start.
  [[nodiscard]] const share::DueCounts& due(ModelId model) const noexcept { return due_[index_of(model)]; }

  /// Fetches where a request stands in the ordered queues and among the timers.
  [[gnu::always_inline]] void expect(SlotIndex slot) const noexcept {
    room_.expect_place(slot);
    timers_.expect(slot);
  }

  /// The request is priced; see WaitingRoom::add for `arrives_now`.
  void enter(SlotIndex slot, Instant now, bool arrives_now) noexcept {
    Slot& s = slab_[slot];
    add_demand(s, now);
    room_.add(slot, now, arrives_now);
    const Instant due = std::min(s.hold_until, s.request.expires_at);
    if (due != kNever) timers_.set(slot, s.ticket, due);
  }

  /// Whatever comes next.
  void leave(SlotIndex slot, Instant now) noexcept {
    room_.expect_neighbours(slot);
    room_.remove(slot);
    drop_demand(slab_[slot], now);
    timers_.clear(slot);
  }

  /// Leaves because its turn has come.
  void take(const Offer& offer, Instant now) noexcept {
    room_.take(offer, now);
    drop_demand(slab_[offer.slot], now);
    timers_.clear(offer.slot);
  }

  /// Moves to another place in its queue. Happens to a request once.
  void rekey(SlotIndex slot, Instant latest_start, Instant now) noexcept {
    Slot& s = slab_[slot];
    s.is_rekeyed = true;
    drop_demand(s, now);
    room_.rekey(slot, latest_start, now);
    add_demand(s, now);
  }

  /// Moves to a wider (or, when replicas went, another) set of models under the same ticket.
  void widen(SlotIndex slot, ModelMask waits_for, Instant now) noexcept {
    Slot& s = slab_[slot];
    leave(slot, now);
    s.hold_until = kNever;
    s.waits_for = waits_for;
    price(fleet_, config_, s);
    enter(slot, now, false);
  }

 private:
  static ModelMask collated_models(const SchedulerConfig& config, const Fleet& fleet) noexcept {
    return config.order == Order::fifo ? ModelMask{} : fleet.swapped();
  }

  void add_demand(Slot& s, Instant now) noexcept {
    Model& model = fleet_[s.demand_model];
    fleet_.device_of(s.demand_model).waiting_sizes.add(s.work);
    s.demand_bin = model.demand.add(s.latest_start, s.arrival + config_.promise, s.work, now);
    ++model.waiting;
    ++model.waiting_in_band[s.request.priority];
    if (!collates()) return;
    for_each_model(collated(s), [&](ModelId id) { due_[index_of(id)].add(s.latest_start, s.arrival, now); });
  }

  void drop_demand(const Slot& s, Instant now) noexcept {
    Model& model = fleet_[s.demand_model];
    fleet_.device_of(s.demand_model).waiting_sizes.remove(s.work);
    model.demand.remove(s.demand_bin, s.arrival + config_.promise, s.work, now);
    --model.waiting;
    --model.waiting_in_band[s.request.priority];
    if (!collates()) return;
    for_each_model(collated(s), [&](ModelId id) { due_[index_of(id)].remove(s.latest_start, s.arrival, now); });
  }

  const SchedulerConfig& config_;
  Slab& slab_;
  Fleet& fleet_;
  Timers& timers_;
  WaitingRoom room_;
  std::vector<share::DueCounts> due_;  ///< By model; empty where nothing is collated.
};

}  // namespace zeta::sched
