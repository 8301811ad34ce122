#pragma once
// Time is integer nanoseconds on one monotonic clock, passed in by the caller. Nothing under csrc/include reads a
// clock.

#include <chrono>
#include <cstdint>
#include <limits>

namespace zeta {

/// The clock that instants belong to. It has no now(): whoever owns a real or virtual clock passes instants in.
struct MonotonicClock {
  using rep = std::int64_t;
  using period = std::nano;
  using duration = std::chrono::nanoseconds;
  using time_point = std::chrono::time_point<MonotonicClock>;
  static constexpr bool is_steady = true;
};

using Duration = MonotonicClock::duration;
using Instant = MonotonicClock::time_point;

/// Later than every real instant; the value of "no deadline", "no timer".
inline constexpr Instant kNever{Duration{std::numeric_limits<std::int64_t>::max()}};

constexpr Instant instant_from_ns(std::int64_t ns) noexcept { return Instant{Duration{ns}}; }
constexpr std::int64_t to_ns(Instant at) noexcept { return at.time_since_epoch().count(); }

constexpr double to_seconds(Duration span) noexcept { return static_cast<double>(span.count()) * 1e-9; }

/// Rounds to the nearest nanosecond; saturates instead of overflowing, so that a huge span stays "very long".
constexpr Duration duration_from_seconds(double seconds) noexcept {
  constexpr double kMaxSeconds = 4e9;  // 126 years, well inside int64 nanoseconds
  if (!(seconds > -kMaxSeconds)) return Duration{static_cast<std::int64_t>(-kMaxSeconds * 1e9)};
  if (seconds > kMaxSeconds) return Duration{static_cast<std::int64_t>(kMaxSeconds * 1e9)};
  return Duration{static_cast<std::int64_t>(seconds * 1e9 + (seconds < 0 ? -0.5 : 0.5))};
}

/// `at + span` that stays at kNever instead of wrapping.
constexpr Instant saturating_add(Instant at, Duration span) noexcept {
  return span.count() > 0 && at > kNever - span ? kNever : at + span;
}

}  // namespace zeta
