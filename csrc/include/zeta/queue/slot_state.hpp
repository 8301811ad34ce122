#pragma once

#include <cstdint>

namespace zeta::queue {

/// Where a slot of a PriorityQueue is. One exchange of the whole state decides who ends what it holds.
enum class Where : std::uint8_t {
  free,       ///< In the pool, or in the hands of whoever has just claimed or ended it.
  posted,     ///< In an inbox, or being filed: only the taker moves it on.
  filed,      ///< In the heap: whoever ends it frees it.
  cancelled,  ///< Ended while posted: the taker frees it.
};

/// A slot's state word: generation | a key waiting to replace the slot's own | where it is.
template <unsigned kGenerationBits>
struct SlotState {
  static_assert(kGenerationBits >= 2 && kGenerationBits <= 32, "a ticket's upper half holds the generation");
  static constexpr std::uint32_t kNoRekey = 0x3FFFFFFFU;  ///< Also one more than the largest index of a waiting key.

  std::uint32_t generation;
  std::uint32_t rekey;
  Where where;

  [[nodiscard]] static constexpr SlotState of(std::uint64_t word) noexcept {
    return {static_cast<std::uint32_t>(word >> 32U), static_cast<std::uint32_t>(word) >> 2U,
            static_cast<Where>(word & 3U)};
  }
  [[nodiscard]] constexpr std::uint64_t word() const noexcept {
    return (static_cast<std::uint64_t>(generation) << 32U) | (static_cast<std::uint64_t>(rekey) << 2U) |
           static_cast<std::uint64_t>(where);
  }

  [[nodiscard]] constexpr bool has_rekey() const noexcept { return rekey != kNoRekey; }
  [[nodiscard]] constexpr bool is_waiting() const noexcept { return where == Where::posted || where == Where::filed; }

  [[nodiscard]] constexpr SlotState with(Where now) const noexcept { return {generation, kNoRekey, now}; }
  [[nodiscard]] constexpr SlotState with_rekey(std::uint32_t index) const noexcept {
    return {generation, index, where};
  }
  /// Free, and of the generation after this one. Generation 0 is left out, so that no ticket is kNoTicket.
  [[nodiscard]] constexpr SlotState next() const noexcept {
    constexpr std::uint32_t kLast = 0xFFFFFFFFU >> (32U - kGenerationBits);
    return {generation == kLast ? 1U : generation + 1U, kNoRekey, Where::free};
  }
};

}  // namespace zeta::queue
