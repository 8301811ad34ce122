#pragma once
// What a request brings, what is kept of it, and what its placement says.

#include <cstdint>
#include <limits>

#include "zeta/core/outcome.hpp"
#include "zeta/core/time.hpp"
#include "zeta/core/types.hpp"

namespace zeta::sched {

/// 64 bits: 40 of sequence (never reused), 24 of slot. Zero is no ticket.
class Ticket {
 public:
  static constexpr std::uint32_t kSlotBits = 24;
  static constexpr std::uint32_t kNoSlot = (1U << kSlotBits) - 1U;

  constexpr Ticket() noexcept = default;
  constexpr explicit Ticket(std::uint64_t value) noexcept : value_{value} {}
  constexpr Ticket(std::uint64_t sequence, std::uint32_t slot) noexcept : value_{(sequence << kSlotBits) | slot} {}

  [[nodiscard]] constexpr std::uint64_t value() const noexcept { return value_; }
  [[nodiscard]] constexpr std::uint64_t sequence() const noexcept { return value_ >> kSlotBits; }
  [[nodiscard]] constexpr std::uint32_t slot() const noexcept { return static_cast<std::uint32_t>(value_) & kNoSlot; }
  friend constexpr bool operator==(Ticket, Ticket) noexcept = default;

 private:
  std::uint64_t value_ = 0;
};

inline constexpr float kUnknownComplexity = -1.0F;
inline constexpr std::uint32_t kUnknownTokens = 0xFFFFFFFFU;  ///< Of an answer whose length nobody counted.

/// A submission. Instants are absolute, on the scheduler's clock.
struct Request {
  std::uint32_t prompt_tokens = 0;
  std::uint32_t max_tokens = 0;  ///< 0: not bounded by the caller.
  Instant first_token_deadline = kNever;
  Instant end_deadline = kNever;
  Instant expires_at = kNever;     ///< Leaves the queue unserved at this instant.
  std::uint64_t affinity_key = 0;  ///< Equal keys share a prefix or session; 0: none.
  ModelMask allowed{~0U};
  /// Models that only an explicit downgrade at admission may choose. Disjoint from `allowed`, or it has no effect.
  ModelMask downgrade{};
  float complexity = kUnknownComplexity;  ///< In [0, 1]; 0.5 is an average request.
  float min_quality = 0.0F;               ///< Smallest acceptable P(good answer).
  TenantId tenant{0};
  std::uint8_t priority = 1;  ///< Band; 0 goes first.
  std::uint8_t channel = 0;   ///< Which of the two ready lists its placement joins.
};
static_assert(sizeof(Request) <= 64, "one cache line, so that a contended submit copies one line");

/// A request whose turn has come.
struct Placement {
  Ticket ticket;
  ModelId model = kNoModel;
  ReplicaId replica = kNoReplica;
  Duration queued{0};
};

/// What admission says of a request; also what a rejected caller is told.
struct Estimate {
  Duration start_mean{0};  ///< Until a replica could take it.
  Duration start_p90{0};
};

}  // namespace zeta::sched
