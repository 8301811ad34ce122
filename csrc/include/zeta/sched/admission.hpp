#pragma once
// Pure questions about one request and the fleet: what fits, what it would cost, when it could start, what suits it.

#include <algorithm>
#include <array>
#include <cstdint>

#include "zeta/sched/fleet.hpp"

namespace zeta::sched {

/// Output tokens to plan for: the model's running mean, within what the caller allows.
[[nodiscard]] inline std::uint32_t expected_output(const Model& model, const Request& request) noexcept {
  const auto mean = static_cast<std::uint32_t>(std::max(model.mean_output_tokens, 1.0));
  return request.max_tokens == 0 ? mean : std::min(mean, request.max_tokens);
}

/// Of a request; an unknown complexity counts as average.
[[nodiscard]] inline double hardness(const Request& request) noexcept {
  return request.complexity < 0.0F ? 1.0 : score::hardness(static_cast<double>(request.complexity));
}

/// P(good answer).
[[nodiscard]] inline double p_good(const Model& model, const Request& request) noexcept {
  return model.curve.p_good_at(hardness(request));
}

/// Those of `wanted` that are good enough for the request and could hold it when empty.
[[nodiscard]] inline ModelMask models_that_fit(const Fleet& fleet, const Request& request, ModelMask wanted) noexcept {
  ModelMask fitting;
  for_each_model(wanted, [&](ModelId id) {
    const Model& model = fleet[id];
    const std::uint64_t tokens = std::uint64_t{request.prompt_tokens} + expected_output(model, request);
    if (std::uint64_t{request.prompt_tokens} + std::max(request.max_tokens, 1U) > model.config.max_context_tokens)
      return;
    if (fleet.served().contains(id) && tokens > fleet.largest_kv_tokens(id)) return;
    if (request.min_quality > 0.0F && p_good(model, request) < static_cast<double>(request.min_quality)) return;
    fitting.insert(id);
  });
  return fitting;
}

/// The model of a set that is not empty on which the request takes the least GPU time.
[[nodiscard]] inline ModelId cheapest(const Fleet& fleet, const Request& request, ModelMask set) noexcept {
  ModelId best = kNoModel;
  double best_s = 0.0;
  for_each_model(set, [&](ModelId id) {
    const Model& model = fleet[id];
    const double work_s = model.service.work_s(request.prompt_tokens, expected_output(model, request));
    if (best != kNoModel && work_s >= best_s) return;
    best = id;
    best_s = work_s;
  });
  return best;
}

/// The models whose P(good answer) is within `gap` of the best one's.
[[nodiscard]] inline ModelMask clearly_better(const Fleet& fleet, const Request& request, ModelMask set,
                                              double gap) noexcept {
  std::array<double, kMaxModels> p;  // of the models in the set
  double best = 0.0;
  const double hard = hardness(request);
  for_each_model(set, [&](ModelId id) {
    p[index_of(id)] = fleet[id].curve.p_good_at(hard);
    best = std::max(best, p[index_of(id)]);
  });
  ModelMask good;
  for_each_model(set, [&](ModelId id) {
    if (p[index_of(id)] >= best - gap) good.insert(id);
  });
  return good;
}

/// The instant by which the request must be placed on `model`. From the first-token deadline by the predicted prefill,
/// from the end deadline also by the answer at the TPOT SLO; without a deadline the hard promise stands in, so that
/// waiting ages by itself.
[[nodiscard]] inline Instant latest_start(const Fleet& fleet, const SchedulerConfig& config, const Request& request,
                                          Instant arrival, ModelId id, std::uint32_t output_tokens) noexcept {
  const Model& model = fleet[id];
  const Duration prefill = duration_from_seconds(model.service.prefill_s(request.prompt_tokens));
  Instant deadline = request.first_token_deadline;
  if (request.end_deadline != kNever) {
    deadline = std::min(deadline, request.end_deadline - model.config.tpot_slo * output_tokens);
  }
  if (deadline == kNever) deadline = saturating_add(arrival, config.promise);
  return score::latest_start(deadline, prefill);
}

/// Predicted times on one model.
inline void price_on(const Fleet& fleet, Slot& s, ModelId model) noexcept {
  const ServiceModel& service = fleet[model].service;
  s.expected_output = expected_output(fleet[model], s.request);
  s.prefill = duration_from_seconds(service.prefill_s(s.request.prompt_tokens));
  s.work = duration_from_seconds(service.work_s(s.request.prompt_tokens, s.expected_output));
}

/// Predicted times on the cheapest model it waits for, and from them the latest start.
inline void price(const Fleet& fleet, const SchedulerConfig& config, Slot& s) noexcept {
  const ModelId model = cheapest(fleet, s.request, s.waits_for);
  s.demand_model = model;
  price_on(fleet, s, model);
  s.latest_start = latest_start(fleet, config, s.request, s.arrival, model, s.expected_output);
}

/// As latest_start, re-checked for the model at hand with what starting there takes at the moment.
[[nodiscard]] inline Instant latest_start_here(const Fleet& fleet, const SchedulerConfig& config, const Slot& s,
                                               ModelId id) noexcept {
  return latest_start(fleet, config, s.request, s.arrival, id, s.expected_output) -
         duration_from_seconds(fleet[id].start_lag_s);
}

/// When a request with this latest start could begin on `id`: the backlog that goes before it on the device, at the
/// part of the device that decoding leaves free, and loading the model where another is resident. Without contention,
/// the model's own backlog over its replicas.
[[nodiscard]] inline Estimate estimate_start(const Fleet& fleet, const SchedulerConfig& config, ModelId id,
                                             Instant latest_start) noexcept {
  const Device& device = fleet.device_of(id);
  const bool is_ordered = config.order == Order::edf;
  const auto ahead = [&](const Model& model) {
    return to_seconds(is_ordered ? model.demand.due_by(latest_start) : model.demand.backlog());
  };
  double wait_s = 0.0;
  if (device.config.is_shared) {
    for (const ModelId other : device.models) wait_s += ahead(fleet[other]);
    wait_s += to_seconds(device.prefill_in_flight);
    if (device.config.is_swapped && !fleet.granted().contains(id)) wait_s += to_seconds(device.config.swap_cost);
  } else {
    const Model& model = fleet[id];
    wait_s = model.replicas.empty() ? 0.0 : ahead(model) / static_cast<double>(model.replicas.size());
  }
  const Duration mean = duration_from_seconds(wait_s);
  return {mean, duration_from_seconds(wait_s * config.eta_quantile_factor)};
}

/// Whether to let a request in whose promise should be kept. Where models share a device, overload is met by giving up
/// the largest (overload.hpp): such a request would not start in time, and it is not in the way of others.
/// So late work does not count as ahead, and of the rest a third does; with all of it small requests are refused for
/// large ones that are then given up, with a tenth of it as many promises are kept as with a third
/// (docs/scheduling.md).
[[nodiscard]] inline bool can_start_by(const Fleet& fleet, const SchedulerConfig& config, ModelId id,
                                       Instant latest_start, Duration work, Instant now) noexcept {
  constexpr double kCounted = 1.0 / 3.0;
  const Duration all = estimate_start(fleet, config, id, latest_start).start_mean;
  const Device& device = fleet.device_of(id);
  if (config.order == Order::fifo || !device.config.is_shared) return now + all <= latest_start;
  double late_s = 0.0;
  for (const ModelId other : device.models) late_s += to_seconds(fleet[other].demand.overdue());
  const Duration ahead = duration_from_seconds(kCounted * std::max(to_seconds(all) - late_s, 0.0));
  return work <= device.give_up_above && now + ahead <= latest_start;
}

/// KV tokens to set aside: of many requests in flight each is, on average, half way through its answer. Never more than
/// an empty replica has, however long answers have become since the request was let in.
[[nodiscard]] inline std::uint64_t tokens_to_reserve(const Fleet& fleet, ModelId id, const Request& request) noexcept {
  const std::uint64_t prompt = request.prompt_tokens;
  const std::uint64_t wanted = prompt + expected_output(fleet[id], request) / 2;
  return std::min(wanted, std::max(prompt, fleet.largest_kv_tokens(id)));
}

/// GPU-seconds that a request would add to a model now. Where models share a device, a decode step costs nearly the
/// same for one sequence as for many: a model that decodes already is cheaper than an idle one, and work gathers on
/// few.
[[nodiscard]] inline double work_now_s(const Fleet& fleet, const Slot& s, ModelId id) noexcept {
  ServiceModel service = fleet[id].service;
  if (fleet.device_of(id).config.is_shared) service.reference_batch = static_cast<double>(fleet[id].running + 1);
  return service.work_s(s.request.prompt_tokens, s.expected_output);
}

/// The score of one model for one waiting request (score::suitability), at the moment's load.
[[nodiscard]] inline double suitability_of(const Fleet& fleet, const SchedulerConfig& config, const Slot& s, ModelId id,
                                           Instant now) noexcept {
  const Model& model = fleet[id];
  const ServiceModel& service = model.service;
  double dearest_s = 1e-12;
  for_each_model(s.waits_for, [&](ModelId other) { dearest_s = std::max(dearest_s, work_now_s(fleet, s, other)); });
  const Instant deadline = s.request.first_token_deadline;
  score::Features features;
  features.p_good = s.request.complexity < 0.0F ? 0.0 : p_good(model, s.request);
  features.relative_cost = work_now_s(fleet, s, id) / dearest_s;
  features.first_token_s = service.prefill_s(s.request.prompt_tokens) + model.start_lag_s;
  features.time_left_s = deadline == kNever ? 1e9 : to_seconds(deadline - now);
  const ReplicaId remembered = fleet.remembered(s.request.affinity_key);
  const bool is_held = remembered != kNoReplica && fleet.replica(remembered).model == id;
  features.prefix_held = is_held ? 1.0 : 0.0;
  return score::suitability(config.weights, features);
}

/// The open model that suits a waiting request best; `open` is not empty.
[[nodiscard]] inline ModelId most_suitable(const Fleet& fleet, const SchedulerConfig& config, const Slot& s,
                                           ModelMask open, Instant now) noexcept {
  ModelId best{static_cast<std::uint8_t>(__builtin_ctz(open.bits()))};
  if ((open.bits() & (open.bits() - 1)) == 0) return best;
  double best_score = -1e300;
  for_each_model(open, [&](ModelId id) {
    const double score = suitability_of(fleet, config, s, id, now);
    if (score <= best_score) return;
    best = id;
    best_score = score;
  });
  return best;
}

}  // namespace zeta::sched
