#pragma once
// One round of the allocation loop on a shared device: needs from the backlog, shares from the needs.

#include <algorithm>
#include <array>
#include <span>
#include <vector>

#include "zeta/sched/fleet.hpp"

namespace zeta::sched {

/// What the pure tick reads for one model.
[[nodiscard]] inline share::ModelDemand demand_of(const Model& model, Instant now) noexcept {
  share::ModelDemand demand;
  demand.decode_pace = model.decode_pace();
  demand.due_pressure = model.demand.need(now);
  demand.backlog_work_s = to_seconds(model.demand.backlog());
  demand.waiting = model.waiting;
  demand.running = model.running;
  demand.service_rate_rps =
      model.waiting == 0 ? 0.0 : static_cast<double>(model.waiting) / std::max(demand.backlog_work_s, 1e-9);
  return demand;
}

/// The plan that follows `previous` on a device. Changes nothing.
[[nodiscard]] inline share::Plan plan_shares(const Fleet& fleet, const share::PolicyConfig& policy,
                                             const Device& device, const share::Plan& previous, Instant now) noexcept {
  std::array<share::ModelDemand, kMaxModels> demands;
  const std::vector<ModelId>& models = device.models;
  for (std::size_t i = 0; i < models.size(); ++i) demands[i] = demand_of(fleet[models[i]], now);
  return share::tick(policy, std::span{demands}.first(models.size()), previous, now);
}

/// Puts a plan into force. Who uses less than an even part is never kept from it by another's boost: weights only act
/// where all have work.
inline void put_into_force(Device& device, const share::Plan& plan) noexcept {
  device.plan = plan;
  std::array<double, kMaxModels> weights{};
  const double even = 1.0 / static_cast<double>(plan.count);
  for (std::size_t i = 0; i < plan.count; ++i) weights[i] = std::max(plan.share[i], even);
  device.shares.set_shares(std::span<const double>{weights.data(), plan.count});
}

}  // namespace zeta::sched
