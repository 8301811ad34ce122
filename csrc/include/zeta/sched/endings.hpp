#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "zeta/sched/finals.hpp"
#include "zeta/sched/ledger.hpp"
#include "zeta/sched/slab.hpp"

namespace zeta::sched {

/// How requests end: each once. The ending is counted in the ledger, kept for those who ask later, told to callers that
/// await each ticket, and the slot is free again. One owner; allocates only at construction.
class Endings {
 public:
  static constexpr std::size_t kKept = 65'536;

  Endings(Slab& slab, Ledger& ledger) : slab_{slab}, ledger_{ledger}, finals_{kKept}, told_(slab.capacity() + 1) {}

  /// Fetches what the ending of this request will touch.
  [[gnu::always_inline]] void expect(Ticket ticket) const noexcept { finals_.expect(ticket); }

  /// A submission that was never let in; `eta` is the predicted start where that is the reason.
  void reject(Ticket ticket, const Request& request, Outcome outcome, Duration eta) noexcept {
    ledger_.on_final_waiting(outcome);
    finals_.add({ticket, outcome, kNoModel, request.complexity, eta});
    if (request.channel != 0) tell(ticket);
    if (ticket.slot() != Ticket::kNoSlot) slab_.release(ticket.slot());
  }

  /// A request that has left the queues without a placement.
  void end_waiting(SlotIndex slot, Outcome outcome) noexcept {
    ledger_.on_final_waiting(outcome);
    end(slot, outcome);
  }

  /// A request that has left its replica.
  void end_placed(SlotIndex slot, Outcome outcome) noexcept {
    ledger_.on_final_running(outcome);
    end(slot, outcome);
  }

  /// The ending of a ticket, or nullptr where it has not ended or is forgotten.
  [[nodiscard]] const Final* find(Ticket ticket) const noexcept { return finals_.find(ticket); }

  /// The next request of channel 1 that ended otherwise than by completing.
  [[nodiscard]] std::optional<Ticket> next() noexcept {
    if (!has_next()) return std::nullopt;
    return told_[taken_++ % told_.size()];
  }
  [[nodiscard]] bool has_next() const noexcept { return taken_ != added_; }

 private:
  void end(SlotIndex slot, Outcome outcome) noexcept {
    const Slot& s = slab_[slot];
    finals_.add({s.ticket, outcome, s.model, s.request.complexity, Duration{0}});
    if (s.request.channel != 0 && outcome != Outcome::completed) tell(s.ticket);
    slab_.release(slot);
  }

  void tell(Ticket ticket) noexcept {
    if (added_ - taken_ < told_.size()) told_[added_++ % told_.size()] = ticket;
  }

  Slab& slab_;
  Ledger& ledger_;
  Finals finals_;
  std::vector<Ticket> told_;  ///< Ring.
  std::uint64_t added_ = 0;
  std::uint64_t taken_ = 0;
};

}  // namespace zeta::sched
