#pragma once
// Where a waiting request could start now.

#include "zeta/sched/admission.hpp"
#include "zeta/sched/fleet.hpp"

namespace zeta::sched {

struct Seat {
  ModelId model = kNoModel;
  ReplicaId replica = kNoReplica;
};

/// A replica of one model with room for the request; kNoReplica where there is none.
[[nodiscard]] inline ReplicaId replica_for(const Fleet& fleet, const Slot& s, ModelId model) noexcept {
  return fleet.choose_replica(model, tokens_to_reserve(fleet, model, s.request), s.request.affinity_key);
}

/// A replica with room for the request: of the preferred model, else of any other that it waits for.
[[nodiscard]] inline Seat seat_for(const Fleet& fleet, const Slot& s, ModelMask open,
                                   ModelId preferred = kNoModel) noexcept {
  const bool is_open = preferred != kNoModel && (s.waits_for & open).contains(preferred);
  Seat seat{preferred, is_open ? replica_for(fleet, s, preferred) : kNoReplica};
  if (seat.replica != kNoReplica) return seat;
  for_each_model(s.waits_for & open, [&](ModelId other) {
    if (seat.replica == kNoReplica && other != preferred) seat = {other, replica_for(fleet, s, other)};
  });
  return seat;
}

[[nodiscard]] inline bool could_start(const Fleet& fleet, const Slot& s, ModelMask open) noexcept {
  return seat_for(fleet, s, open).replica != kNoReplica;
}

}  // namespace zeta::sched
