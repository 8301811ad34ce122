#pragma once
// What can become of a request. Few names, so that they serve as metric labels.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace zeta {

enum class Outcome : std::uint8_t {
  // Passing.
  queued,
  placed,
  // Final: every request ends in exactly one of these.
  completed,
  rejected_capacity,
  rejected_infeasible,
  rejected_no_replica,
  expired_in_queue,
  cancelled,
  cancelled_running,
  failed_replica,
  failed_timeout,
};

inline constexpr std::array<std::string_view, 11> kOutcomeNames{
    "queued",
    "placed",
    "completed",
    "rejected_capacity",
    "rejected_infeasible",
    "rejected_no_replica",
    "expired_in_queue",
    "cancelled",
    "cancelled_running",
    "failed_replica",
    "failed_timeout",
};

inline constexpr std::size_t kOutcomeCount = kOutcomeNames.size();

constexpr bool is_final(Outcome outcome) noexcept { return outcome >= Outcome::completed; }
constexpr std::string_view name_of(Outcome outcome) noexcept {
  return kOutcomeNames[static_cast<std::size_t>(outcome)];
}

}  // namespace zeta
