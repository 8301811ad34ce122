#pragma once

#include <cstdint>

#include "zeta/queue/entry.hpp"

namespace zeta::queue {

/// Divides keys by a quantum that is known only at run time, by multiplication: exact for every key.
///
/// For keys below 2^63 and any divisor, floor(key / d) = floor(key · m / 2^(63 + s)) with s = ceil(log2 d) and
/// m = floor(2^(63 + s) / d) + 1, which fits 64 bits (Granlund and Montgomery, "Division by invariant integers using
/// multiplication", 1994). Larger keys take the processor's division.
class Quantiser {
 public:
  /// `quantum` at least 1.
  explicit constexpr Quantiser(Key quantum) noexcept : quantum_{quantum} {
    while (shift_ < 63 && (Key{1} << shift_) < quantum) ++shift_;
    __extension__ using Wide = unsigned __int128;
    const Wide scaled = (Wide{1} << (63U + shift_)) / quantum + 1;
    is_exact_ = quantum > 1 && quantum <= Key{1} << 63U;
    multiplier_ = static_cast<std::uint64_t>(scaled);
    shift_ = shift_ == 0 ? 0 : shift_ - 1;
  }

  [[nodiscard]] constexpr Key quantum() const noexcept { return quantum_; }

  /// The key's quantum number, floor(key / quantum).
  [[nodiscard]] constexpr std::uint64_t operator()(Key key) const noexcept {
    if (!is_exact_ || (key >> 63U) != 0) return key / quantum_;
    __extension__ using Wide = unsigned __int128;
    return static_cast<std::uint64_t>((Wide{key} * multiplier_) >> 64U) >> shift_;
  }

 private:
  Key quantum_;
  std::uint64_t multiplier_ = 0;
  unsigned shift_ = 0;
  bool is_exact_ = false;
};

}  // namespace zeta::queue
