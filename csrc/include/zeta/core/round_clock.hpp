#pragma once

#include <algorithm>
#include <cstdint>

#include "zeta/core/time.hpp"

namespace zeta {

/// Counts the rounds of decode steps that a device should have done: time divided by the predicted length of a round,
/// which holds until told otherwise, less the time that prefills took. An answer that decodes meanwhile gets one token
/// a round, so the rounds between two readings over the tokens that came say how far off the predicted steps are.
/// A value; one owner.
class RoundClock {
 public:
  /// In 1/64 of a round, modulo 2^32 (a year of 2 rounds a second): only differences mean something.
  using Reading = std::uint32_t;

  /// From `now` on a round takes `round_s`; 0 while nothing decodes.
  void set_round(double round_s, Instant now) noexcept {
    rounds_ += rounds_until(now);
    since_ = std::max(since_, now);
    round_s_ = round_s;
    // Whole numbers up to here are exact; what wraps is dropped before they are not.
    if (rounds_ > kWrap) rounds_ -= kWrap;
    if (rounds_ < -kWrap) rounds_ += kWrap;
  }

  /// For `seconds` of the time since, no round went on.
  void take_off(double seconds) noexcept {
    if (round_s_ > 0.0) rounds_ -= seconds / round_s_;
  }

  [[nodiscard]] Reading read(Instant now) const noexcept {
    return static_cast<Reading>(static_cast<std::int64_t>((rounds_ + rounds_until(now)) * kParts));
  }

  /// Rounds between two readings, the later one first; negative where more was taken off than went by.
  [[nodiscard]] static double between(Reading later, Reading earlier) noexcept {
    return static_cast<double>(static_cast<std::int32_t>(later - earlier)) / kParts;
  }

  [[nodiscard]] double round_s() const noexcept { return round_s_; }

 private:
  static constexpr double kParts = 64.0;
  static constexpr double kWrap = 4294967296.0 / kParts;

  [[nodiscard]] double rounds_until(Instant now) const noexcept {
    return round_s_ > 0.0 ? std::max(to_seconds(now - since_), 0.0) / round_s_ : 0.0;
  }

  double rounds_ = 0.0;
  double round_s_ = 0.0;
  Instant since_{};
};

}  // namespace zeta
