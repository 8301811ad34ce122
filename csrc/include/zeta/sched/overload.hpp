#pragma once
// Overload: noticing it, and who is then not served in time.
//
// Somebody must be late when feasible work exceeds what a device can do. The fewest are if the largest are (see
// share::SizeHistogram), so those wait with the late ones, under the same promise.

#include <algorithm>

#include "zeta/sched/fleet.hpp"
#include "zeta/sched/waiting_room.hpp"

namespace zeta::sched {

inline constexpr double kLongOverload = 0.95;  ///< Work arriving in five minutes ÷ what a device can do in them.
/// Work is priced at a reference batch; in overload batches are larger and it takes less.
inline constexpr double kOverloadRoom = 1.3;

/// Whether for minutes more work has been arriving for a device than it can do.
[[nodiscard]] inline bool is_long_overloaded(const Fleet& fleet, Device& device, Instant now) noexcept {
  const std::size_t copies = device.config.is_shared ? 1 : fleet[device.models.front()].replicas.size();
  return device.arriving.utilisation(now) > kLongOverload * static_cast<double>(copies);
}

/// The size up to which requests that wait for a shared device can be served in time.
[[nodiscard]] inline Duration largest_in_time(const Fleet& fleet, const Device& device, Instant now) noexcept {
  double need = 0.0;
  double pace = 0.0;
  for (const ModelId id : device.models) {
    need += fleet[id].demand.feasible_need(now);
    pace += fleet[id].decode_pace();
  }
  const double room = kOverloadRoom * std::max(1.0 - 0.75 * pace, 0.05);
  return need <= room ? Duration::max() : device.waiting_sizes.largest_within(room / need);
}

/// Decides per device above which size requests are given up, and whether the promise must keep to its cap.
inline void note_overload(Fleet& fleet, WaitingRoom& waiting, const SchedulerConfig& config, Instant now) noexcept {
  bool is_overloaded = false;
  for (std::size_t d = 0; d < fleet.device_count() && config.order != Order::fifo; ++d) {
    Device& device = fleet.device(d);
    is_overloaded |= is_long_overloaded(fleet, device, now);
    if (device.config.is_shared) device.give_up_above = largest_in_time(fleet, device, now);
  }
  waiting.lift_promise_cap(!is_overloaded);
}

/// Whether an offered request is to wait with the late ones.
[[nodiscard]] inline bool is_given_up(const Fleet& fleet, const Slot& s, Reason reason) noexcept {
  if (reason != Reason::earliest_deadline || s.is_rekeyed) return false;
  return s.work > fleet.device_of(s.demand_model).give_up_above;
}

}  // namespace zeta::sched
