#pragma once
// One 64-bit fingerprint of a stream of integers, so that two runs can be compared without keeping their logs.

#include <cstdint>

namespace zeta {

/// FNV-1a over 64-bit words with a final avalanche. Not for adversaries; for seeing that two event logs are equal.
class EventHash {
 public:
  constexpr void add(std::uint64_t word) noexcept {
    state_ = (state_ ^ word) * 0x100000001B3ULL;
    state_ ^= state_ >> 29U;
  }

  [[nodiscard]] constexpr std::uint64_t value() const noexcept {
    std::uint64_t z = state_;
    z = (z ^ (z >> 33U)) * 0xFF51AFD7ED558CCDULL;
    return z ^ (z >> 33U);
  }

  friend constexpr bool operator==(const EventHash&, const EventHash&) noexcept = default;

 private:
  std::uint64_t state_ = 0xCBF29CE484222325ULL;
};

}  // namespace zeta
