#pragma once

#include <array>
#include <cstdint>

#include "zeta/sched/admission.hpp"
#include "zeta/sched/backlog.hpp"
#include "zeta/sched/decisions.hpp"
#include "zeta/sched/eta_record.hpp"
#include "zeta/sched/fingerprint.hpp"
#include "zeta/sched/in_flight.hpp"
#include "zeta/sched/ledger.hpp"
#include "zeta/sched/overload.hpp"
#include "zeta/sched/seat.hpp"

namespace zeta::sched {

/// Who goes where next: moves requests from the backlog to replicas until nothing more fits. One owner; allocates only
/// at construction.
class Placer {
 public:
  static constexpr std::size_t kKeptDecisions = 4'096;

  Placer(const SchedulerConfig& config, Slab& slab, Fleet& fleet, Backlog& backlog, InFlight& in_flight, Ledger& ledger,
         EtaRecord& etas, Fingerprint& fingerprint)
      : config_{config},
        slab_{slab},
        fleet_{fleet},
        backlog_{backlog},
        in_flight_{in_flight},
        ledger_{ledger},
        etas_{etas},
        fingerprint_{fingerprint},
        decisions_{kKeptDecisions} {}

  /// Places until no waiting request that may be taken fits any open model.
  void settle(Instant now) noexcept {
    settled_at_ = now;
    held_ = ModelMask{};
    stuck_sets_ = 0;
    while (backlog_.room().size() > 0 && !open().empty() && place_one(now)) {
    }
  }

  [[nodiscard]] Instant settled_at() const noexcept { return settled_at_; }
  [[nodiscard]] const Decision* decision_of(Ticket ticket) const noexcept { return decisions_.find(ticket); }

 private:
  struct Choice {
    Offer offer;
    ModelId model = kNoModel;
  };

  /// Models that can take a request in this settling.
  [[nodiscard]] ModelMask open() const noexcept { return fleet_.open() & ~held_; }

  /// One step: every set offers its first request to the open model that suits it best; per device the share decides
  /// which model takes, those that can still be in time before those that cannot, and of that model's offers the first
  /// in order is placed. False when nothing could be.
  bool place_one(Instant now) noexcept {
    WaitingRoom& room = backlog_.room();
    ModelMask wanted;
    for (std::uint32_t left = room.filled_sets() & ~stuck_sets_; left != 0; left &= left - 1) {
      const auto set = static_cast<std::size_t>(__builtin_ctz(left));
      const ModelMask candidates = room.set_mask(set) & open();
      if (candidates.empty()) continue;
      const Offer offer = room.offer(set, candidates, now);
      if (offer.slot == kNull) continue;
      const Slot& s = slab_[offer.slot];
      const ModelId model = most_suitable(fleet_, config_, s, s.waits_for & candidates, now);
      Choice& choice = best_[index_of(model)];
      if (!wanted.contains(model) || room.goes_before(offer, choice.offer)) choice = {offer, model};
      wanted.insert(model);
    }
    if (wanted.empty()) return false;
    ModelMask in_time;
    for_each_model(wanted, [&](ModelId id) {
      if (best_[index_of(id)].offer.reason != Reason::late) in_time.insert(id);
    });
    const ModelId model = model_in_turn(in_time.empty() ? wanted : in_time);
    take_offer(best_[index_of(model)].offer, model, now);
    return true;
  }

  /// Of the models with an offer, the one whose device owes it most; devices in order.
  [[nodiscard]] ModelId model_in_turn(ModelMask wanted) const noexcept {
    const ModelId first{static_cast<std::uint8_t>(__builtin_ctz(wanted.bits()))};
    if ((wanted.bits() & (wanted.bits() - 1)) == 0) return first;
    const Device& device = fleet_.device_of(first);
    return device.config.is_shared ? device.shares.pick(wanted & device.shares.members()) : first;
  }

  /// Places an offered request, or puts it right first: then the next round offers anew.
  void take_offer(Offer offer, ModelId preferred, Instant now) noexcept {
    if (is_put_right(offer, preferred, now)) return;
    Seat seat = seat_for(fleet_, slab_[offer.slot], open(), preferred);
    if (seat.replica == kNoReplica) {  // its tokens do not fit anywhere now
      offer = offer_behind(slab_[offer.slot], now);
      if (offer.slot == kNull) return;
      seat = seat_for(fleet_, slab_[offer.slot], open(), preferred);
    }
    record(offer, seat, now);
    backlog_.take(offer, now);
    in_flight_.place(offer.slot, seat.model, seat.replica, now);
    ledger_.on_placed();
    if (EtaRecord::follows(slab_[offer.slot].ticket)) {
      etas_.note_start(slab_[offer.slot].ticket, now - slab_[offer.slot].arrival);
    }
    fingerprint_.add(Step::place, slab_[offer.slot].ticket, now,
                     (index_of(seat.model) << 16U) | index_of(seat.replica));
  }

  /// Moves a request that stands among the feasible ones to the late ones, once: one that is given up in overload, or
  /// that was feasible on the model it was priced for but is not on this one.
  [[nodiscard]] bool is_put_right(const Offer& offer, ModelId model, Instant now) noexcept {
    const Slot& s = slab_[offer.slot];
    if (is_given_up(fleet_, s, offer.reason)) {
      backlog_.rekey(offer.slot, now - Duration{1}, now);
      return true;
    }
    if (offer.reason != Reason::earliest_deadline || s.is_rekeyed) return false;
    const Instant latest = latest_start_here(fleet_, config_, s, model);
    if (latest >= now) return false;
    backlog_.rekey(offer.slot, latest, now);
    return true;
  }

  /// Who may pass a first in order that fits nowhere. Without anybody, its set is left alone in this settling; once it
  /// is overdue nobody passes it any more: what is freed is for it.
  [[nodiscard]] Offer offer_behind(const Slot& first, Instant now) noexcept {
    if (backlog_.room().is_overdue(first, now)) {
      held_ = held_ | first.waits_for;
      return {};
    }
    const std::size_t set = first.set;
    const Offer offer =
        backlog_.room().passing(set, [&](SlotIndex slot) { return could_start(fleet_, slab_[slot], open()); });
    if (offer.slot == kNull) stuck_sets_ |= 1U << set;
    return offer;
  }

  /// Keeps what was weighed, for `explain`.
  void record(const Offer& offer, const Seat& seat, Instant now) noexcept {
    const Slot& s = slab_[offer.slot];
    Decision decision;
    decision.ticket = s.ticket;
    decision.at = now;
    decision.arrival = s.arrival;
    decision.latest_start = s.latest_start;
    decision.predicted_prefill = s.prefill;
    decision.predicted_work = s.work;
    decision.waited_for = s.waits_for;
    decision.model = seat.model;
    decision.replica = seat.replica;
    decision.reason = offer.reason;
    decision.band = offer.band;
    decision.had_affinity = fleet_.remembered(s.request.affinity_key) == seat.replica;
    std::size_t count = 0;
    for_each_model(s.waits_for & (fleet_.open() | ModelMask::of(seat.model)), [&](ModelId other) {
      if (count == Decision::kAlternatives) return;
      decision.alternatives[count++] = {other, static_cast<float>(suitability_of(fleet_, config_, s, other, now))};
    });
    decisions_.add(decision);
  }

  const SchedulerConfig& config_;
  Slab& slab_;
  Fleet& fleet_;
  Backlog& backlog_;
  InFlight& in_flight_;
  Ledger& ledger_;
  EtaRecord& etas_;
  Fingerprint& fingerprint_;
  DecisionRing decisions_;
  std::array<Choice, kMaxModels>
      best_;  ///< During place_one, of the models that are wanted. Here, it costs no setting.
  Instant settled_at_{};
  ModelMask held_;                ///< During settle: models that are being emptied for an overdue request.
  std::uint32_t stuck_sets_ = 0;  ///< During settle: sets of which nobody near the front fits.
};

}  // namespace zeta::sched
