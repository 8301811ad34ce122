#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <vector>

#include "zeta/core/event_hash.hpp"
#include "zeta/sched/waiting_room.hpp"

namespace zeta::sched {

/// One placement with what was weighed, for `explain`.
struct Decision {
  static constexpr std::size_t kAlternatives = 4;
  struct Alternative {
    ModelId model = kNoModel;
    float score = 0.0F;
  };

  Ticket ticket;
  Instant at{};
  Instant arrival{};
  Instant latest_start = kNever;
  Duration predicted_prefill{0};
  Duration predicted_work{0};
  ModelMask waited_for;
  ModelId model = kNoModel;
  ReplicaId replica = kNoReplica;
  Reason reason = Reason::earliest_deadline;
  std::uint8_t band = 0;
  bool had_affinity = false;
  std::array<Alternative, kAlternatives> alternatives{};
};

/// The last `capacity` placements. One owner; allocates only at construction.
class DecisionRing {
 public:
  explicit DecisionRing(std::size_t capacity) : ring_(std::bit_ceil(capacity)) {}

  void add(const Decision& decision) noexcept { ring_[next_++ & (ring_.size() - 1)] = decision; }

  /// The latest kept decision about a ticket, or nullptr. Looks through the ring: for people, not for hot paths.
  [[nodiscard]] const Decision* find(Ticket ticket) const noexcept {
    const std::uint64_t kept = next_ < ring_.size() ? next_ : ring_.size();
    for (std::uint64_t back = 1; back <= kept; ++back) {
      const Decision& decision = ring_[(next_ - back) & (ring_.size() - 1)];
      if (decision.ticket == ticket) return &decision;
    }
    return nullptr;
  }

 private:
  std::vector<Decision> ring_;
  std::uint64_t next_ = 0;
};

}  // namespace zeta::sched
