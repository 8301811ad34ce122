#pragma once
// The check behind "work-conserving": that no replica has room for a request that waits.

#include <array>

#include "zeta/sched/config.hpp"
#include "zeta/sched/seat.hpp"
#include "zeta/sched/waiting_room.hpp"

namespace zeta::sched {

/// A waiting request that a replica could take, on a scheduler settled at `now`; kNull if there is none. Two rules may
/// hold a request although it fits. It stands behind one that waits for tokens, and that one is overdue (the models
/// that it may use are being emptied for it), or so many stand between that nobody looked.
[[nodiscard]] inline SlotIndex find_idle_capacity(const SchedulerConfig& config, const Slab& slab, const Fleet& fleet,
                                                  const WaitingRoom& waiting, Instant now) noexcept {
  ModelMask open = fleet.open();
  std::array<bool, WaitingRoom::kSets> is_stuck{};
  for (bool is_settled = false; !is_settled;) {  // models held for one may keep another from starting
    is_settled = true;
    for (SlotIndex slot = 0; slot < slab.capacity(); ++slot) {
      const Slot& s = slab[slot];
      if (s.phase != Phase::waiting || (s.waits_for & open).empty() || could_start(fleet, s, open)) continue;
      is_stuck[s.set] = config.order == Order::fifo || waiting.size_of(s.set) > WaitingRoom::kPassed;
      if (!waiting.is_overdue(s, now)) continue;
      open = open & ~s.waits_for;
      is_settled = false;
    }
  }
  is_stuck[WaitingRoom::kOverflow] |= waiting.size_of(WaitingRoom::kOverflow) > WaitingRoom::kScanned;
  for (SlotIndex slot = 0; slot < slab.capacity(); ++slot) {
    const Slot& s = slab[slot];
    if (s.phase == Phase::waiting && !is_stuck[s.set] && could_start(fleet, s, open)) return slot;
  }
  return kNull;
}

}  // namespace zeta::sched
