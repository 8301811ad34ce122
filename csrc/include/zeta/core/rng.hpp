#pragma once
// Random numbers that are the same on every machine: no std:: distribution, whose output is not specified.

#include <cstdint>

namespace zeta {

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
class Rng {
 public:
  constexpr explicit Rng(std::uint64_t seed) noexcept : state_{seed} {}

  constexpr std::uint64_t next_u64() noexcept {
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15ULL);
    z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27U)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31U);
  }

  /// Uniform in [0, 1) with 53 random bits.
  constexpr double next_unit() noexcept { return static_cast<double>(next_u64() >> 11U) * 0x1.0p-53; }

  /// Uniform in [0, bound), bound > 0; bias below 2^-64 * bound (Lemire's multiply-shift).
  constexpr std::uint64_t next_below(std::uint64_t bound) noexcept {
    return static_cast<std::uint64_t>((static_cast<unsigned __int128>(next_u64()) * bound) >> 64U);
  }

 private:
  std::uint64_t state_;
};

}  // namespace zeta
