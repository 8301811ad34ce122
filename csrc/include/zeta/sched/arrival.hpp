#pragma once
// How an arriving request comes in: brought within bounds, kept out by a crowd, sent to a set of models, promised.

#include <algorithm>
#include <optional>

#include "zeta/sched/admission.hpp"
#include "zeta/sched/config.hpp"
#include "zeta/sched/in_flight.hpp"
#include "zeta/sched/waiting_room.hpp"

namespace zeta::sched {

/// Bands, tenants and channels beyond the last count as the last.
inline void keep_within_bounds(Request& request, const WaitingRoom& waiting) noexcept {
  request.priority = static_cast<std::uint8_t>(std::min<std::uint32_t>(request.priority, waiting.bands() - 1));
  request.tenant =
      TenantId{static_cast<std::uint16_t>(std::min<std::size_t>(index_of(request.tenant), waiting.tenants() - 1))};
  request.channel = static_cast<std::uint8_t>(std::min<std::size_t>(request.channel, InFlight::kChannels - 1));
}

/// Whether a tenant has filled so much of the queue that the rest is kept for others: more than kCrowd times what is
/// free (dynamic thresholds: Choudhury and Hahne, 1998). Alone, it may fill all of it. One owner.
class Crowd {
 public:
  static constexpr std::uint64_t kCrowd = 8;  ///< One tenant may fill 8/9 of the queue.

  void note(TenantId tenant) noexcept {
    if (first_ == kNobody) first_ = tenant;
    has_others_ = has_others_ || tenant != first_;
  }

  [[nodiscard]] bool keeps_out(TenantId tenant, const WaitingRoom& waiting, std::uint32_t max_queued) const noexcept {
    return has_others_ && waiting.size_of(tenant) > kCrowd * std::uint64_t{max_queued - waiting.size()};
  }

 private:
  static constexpr TenantId kNobody{0xFFFF};

  TenantId first_ = kNobody;
  bool has_others_ = false;
};

/// The models it waits for at first, and its key. A request of known complexity waits a while for the models that
/// answer it clearly better.
inline void choose_set(const Fleet& fleet, const SchedulerConfig& config, Slot& s, ModelMask eligible,
                       Instant now) noexcept {
  s.hold_until = kNever;
  s.waits_for = eligible;
  if (config.order == Order::fifo) {
    s.waits_for = ModelMask::of(cheapest(fleet, s.request, eligible));
  } else if (s.request.complexity >= 0.0F) {
    const ModelMask good = clearly_better(fleet, s.request, eligible, config.hold_quality_gap);
    if (!(good == eligible)) {
      s.waits_for = good;
      price(fleet, config, s);
      const Duration spare = s.latest_start == kNever ? config.max_hold : (s.latest_start - now) / 2;
      s.hold_until = now + std::clamp(spare, Duration{0}, config.max_hold);
    }
  }
  price(fleet, config, s);
}

/// Under `reject` and `downgrade`: nothing if the promise can be kept (perhaps by a smaller model, which it then waits
/// for), else the estimate.
[[nodiscard]] inline std::optional<Estimate> check_promise(const Fleet& fleet, const SchedulerConfig& config, Slot& s,
                                                           Instant now) noexcept {
  std::optional<Estimate> soonest;
  const auto can_keep = [&](ModelId model) {
    const Instant latest = latest_start(fleet, config, s.request, s.arrival, model, s.expected_output);
    const Estimate estimate = estimate_start(fleet, config, model, latest);
    if (!soonest || estimate.start_mean < soonest->start_mean) soonest = estimate;
    const ServiceModel& service = fleet[model].service;
    const Duration work = duration_from_seconds(service.work_s(s.request.prompt_tokens, s.expected_output));
    return can_start_by(fleet, config, model, latest, work, now);
  };
  bool is_kept = false;
  for_each_model(s.waits_for, [&](ModelId model) { is_kept = is_kept || can_keep(model); });
  if (is_kept) return std::nullopt;
  if (config.admission == AdmissionRule::downgrade) {
    const ModelMask wanted = (s.request.allowed | s.request.downgrade) & fleet.served();
    for_each_model(models_that_fit(fleet, s.request, wanted) & ~s.waits_for, [&](ModelId model) {
      if (is_kept || !can_keep(model)) return;
      is_kept = true;
      s.waits_for = ModelMask::of(model);
      s.request.allowed = s.waits_for;
      s.hold_until = kNever;
      price(fleet, config, s);
    });
    if (is_kept) return std::nullopt;
  }
  return soonest;
}

}  // namespace zeta::sched
