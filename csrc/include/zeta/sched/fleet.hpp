#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "zeta/core/correction.hpp"
#include "zeta/core/round_clock.hpp"
#include "zeta/route/affinity.hpp"
#include "zeta/route/replica.hpp"
#include "zeta/route/response_times.hpp"
#include "zeta/sched/config.hpp"
#include "zeta/sched/slab.hpp"
#include "zeta/score/suitability.hpp"
#include "zeta/share/arriving_work.hpp"
#include "zeta/share/demand.hpp"
#include "zeta/share/device_shares.hpp"
#include "zeta/share/policy.hpp"
#include "zeta/share/size_histogram.hpp"

namespace zeta::sched {

/// A model as the scheduler sees it: what it costs, what waits for it, what runs.
struct Model {
  ModelConfig config;
  ServiceModel service;  ///< Predicted engine times: the prior, corrected by what was observed.
  score::QualityCurve curve;
  share::DemandHistogram demand;
  std::vector<ReplicaId> replicas;
  std::uint32_t open_replicas = 0;                         ///< With a free place in their window.
  bool has_others = false;                                 ///< Some replica serves others too (route::ExternalLoad).
  std::uint32_t waiting = 0;                               ///< Requests whose work stands in `demand`.
  std::array<std::uint32_t, kMaxBands> waiting_in_band{};  ///< The same by priority class.
  std::uint32_t running = 0;                               ///< Placed and not ended.
  std::uint32_t decoding = 0;                              ///< First token seen.
  std::int64_t context_tokens = 0;                         ///< Expected, of what decodes.
  double mean_output_tokens = 0.0;
  std::uint64_t arrivals = 0;  ///< Requests let in, ever; by the model that each was priced on.
  Duration arrived_work{0};    ///< Their predicted work.
  double start_lag_s = 0.0;    ///< Placement to first token beyond the predicted prefill, recent mean.
  Correction prefill;          ///< Of the prior's prefill times.
  Correction decode;           ///< Of the prior's decode steps.

  /// Seconds of one decode step with what decodes now.
  [[nodiscard]] double step_s() const noexcept {
    return decoding == 0 ? 0.0 : service.step_s(decoding, static_cast<double>(context_tokens));
  }
  /// Part of the device that keeps the TPOT SLO of what decodes, with a quarter of it in hand.
  [[nodiscard]] double decode_pace() const noexcept { return step_s() / (0.75 * to_seconds(config.tpot_slo)); }
};

/// A device and the models that share it, in ascending order.
struct Device {
  DeviceConfig config;
  std::vector<ModelId> models;
  share::DeviceShares shares;
  share::Plan plan{};
  Duration prefill_in_flight{0};  ///< Predicted, of placed requests without a first token.
  share::SizeHistogram waiting_sizes{};
  share::ArrivingWork arriving{};
  Duration give_up_above = Duration::max();  ///< In overload: larger requests wait until the others are served.
  RoundClock rounds{};                       ///< Of decode steps; of one copy where models do not contend.
  std::uint32_t placed = 0;                  ///< Requests ever placed.
};

/// Models, devices and replicas, and which of them have room. One owner.
class Fleet {
 public:
  explicit Fleet(const SchedulerConfig& config) : learns_service_{config.learns_service} {
    check(config);
    replicas_.resize(std::max<std::size_t>(config.max_replicas, config.replicas.size()));
    times_.resize(replicas_.size());
    for (std::size_t m = 0; m < config.models.size(); ++m) {
      Model model;
      model.config = config.models[m];
      model.curve = score::QualityCurve::from_quality(model.config.quality);
      model.service = model.config.service;
      model.mean_output_tokens = model.config.mean_output_tokens;
      model.replicas.reserve(replicas_.size());
      models_.push_back(std::move(model));
    }
    for (std::size_t d = 0; d < config.devices.size(); ++d) {
      devices_.push_back(make_device(config, d));
      if (config.devices[d].is_swapped) swapped_ = swapped_ | devices_.back().shares.members();
    }
    for (const ReplicaConfig& replica : config.replicas) (void)add_replica(replica);
  }

  [[nodiscard]] std::size_t model_count() const noexcept { return models_.size(); }
  [[nodiscard]] std::size_t device_count() const noexcept { return devices_.size(); }
  [[nodiscard]] std::size_t replica_slots() const noexcept { return replicas_.size(); }
  Model& operator[](ModelId model) noexcept { return models_[index_of(model)]; }
  const Model& operator[](ModelId model) const noexcept { return models_[index_of(model)]; }
  Device& device(std::size_t index) noexcept { return devices_[index]; }
  const Device& device(std::size_t index) const noexcept { return devices_[index]; }
  Device& device_of(ModelId model) noexcept { return devices_[index_of((*this)[model].config.device)]; }
  const Device& device_of(ModelId model) const noexcept { return devices_[index_of((*this)[model].config.device)]; }
  route::Replica& replica(ReplicaId replica) noexcept { return replicas_[index_of(replica)]; }
  const route::Replica& replica(ReplicaId replica) const noexcept { return replicas_[index_of(replica)]; }
  route::ResponseTimes& times(ReplicaId replica) noexcept { return times_[index_of(replica)]; }
  const route::ResponseTimes& times(ReplicaId replica) const noexcept { return times_[index_of(replica)]; }
  [[nodiscard]] ReplicaId remembered(std::uint64_t affinity_key) const noexcept { return affinity_.find(affinity_key); }
  void remember(std::uint64_t affinity_key, ReplicaId replica) noexcept { affinity_.remember(affinity_key, replica); }

  /// Every model that has a replica which is neither removed nor draining.
  [[nodiscard]] ModelMask served() const noexcept { return served_; }
  /// Every model that can take a request now: a free place in a window, budget left on its device.
  [[nodiscard]] ModelMask open() const noexcept { return open_; }
  /// Every model of a device that holds one at a time.
  [[nodiscard]] ModelMask swapped() const noexcept { return swapped_; }
  /// Every model that may take, were there room: all but those of a device that does not hold them now.
  [[nodiscard]] ModelMask granted() const noexcept { return granted_; }
  /// Of a device's models, only these may take from now on.
  void grant(std::size_t device_index, ModelMask models) noexcept {
    const Device& device = devices_[device_index];
    granted_ = (granted_ & ~device.shares.members()) | models;
    refresh_device(device.models.front());
  }
  /// A free replica number is taken; kNoReplica when all are in use.
  [[nodiscard]] ReplicaId add_replica(const ReplicaConfig& config) noexcept {
    for (std::size_t i = 0; i < replicas_.size(); ++i) {
      if (replicas_[i].is_present) continue;
      const auto id = ReplicaId{static_cast<std::uint16_t>(i)};
      replicas_[i] = route::Replica{};
      times_[i] = route::ResponseTimes{};
      replicas_[i].model = config.model;
      replicas_[i].is_present = true;
      replicas_[i].max_batch = config.max_batch;
      replicas_[i].kv_tokens = config.kv_tokens;
      replicas_[i].window = route::Window{config.max_in_flight};
      (*this)[config.model].replicas.push_back(id);
      refresh(config.model);
      return id;
    }
    return kNoReplica;
  }

  /// What others hold on a replica, from now on.
  void note_others(ReplicaId id, route::ExternalLoad others) noexcept {
    others.kv_tokens = std::min(others.kv_tokens, replica(id).kv_tokens);
    replica(id).others = others;
    refresh(replica(id).model);
  }

  void drain_replica(ReplicaId id) noexcept {
    replica(id).is_draining = true;
    refresh(replica(id).model);
  }

  void resume_replica(ReplicaId id) noexcept {
    replica(id).is_draining = false;
    refresh(replica(id).model);
  }

  /// The caller has moved its requests elsewhere.
  void remove_replica(ReplicaId id) noexcept {
    const ModelId model = replica(id).model;
    std::erase((*this)[model].replicas, id);
    replica(id) = route::Replica{};
    refresh(model);
  }

  void occupy(Slot& s) noexcept {
    route::Replica& r = replica(s.replica);
    s.is_alone = prefill_beside(s) == Duration{0};
    s.mark = ++device_of(s.model).placed;
    ++r.in_flight;
    r.kv_reserved += s.reserved_tokens;
    r.prefill_in_flight += s.prefill;
    device_of(s.model).prefill_in_flight += s.prefill;
    s.holds_budget = true;
    ++(*this)[s.model].running;
    refresh_device(s.model);
  }

  /// Its prefill is over, as far as is known: it no longer counts against its device's budget.
  void release_budget(Slot& s) noexcept {
    if (!s.holds_budget) return;
    s.holds_budget = false;
    replica(s.replica).prefill_in_flight -= s.prefill;
    device_of(s.model).prefill_in_flight -= s.prefill;
    refresh_device(s.model);
  }

  /// Predicted prefill in flight where this request's would contend: on its shared device, else on its replica.
  [[nodiscard]] Duration prefill_beside(const Slot& s) const noexcept {
    const Device& device = device_of(s.model);
    return device.config.is_shared ? device.prefill_in_flight : replica(s.replica).prefill_in_flight;
  }

  void start_decoding(Slot& s, Instant now) noexcept {
    Model& model = (*this)[s.model];
    Device& device = device_of(s.model);
    ++model.decoding;
    model.context_tokens += expected_context(s);
    release_budget(s);
    note_round(device, now);
    s.mark = device.rounds.read(now);
    refresh_device(s.model);
  }

  void vacate(Slot& s, Instant now) noexcept {
    route::Replica& r = replica(s.replica);
    Model& model = (*this)[s.model];
    --r.in_flight;
    r.kv_reserved -= s.reserved_tokens;
    if (s.phase == Phase::decoding) {
      --model.decoding;
      model.context_tokens -= expected_context(s);
      note_round(device_of(s.model), now);
    }
    --model.running;
    release_budget(s);
    refresh_device(s.model);
  }

  /// The least loaded replica of a model with room for `tokens`; one that holds the prefix, if it is not overloaded.
  /// Where replicas serve others too, by requests; else by the prefill of ours, which of theirs is unknown.
  /// Load is bounded relative to the mean as in consistent hashing with bounded loads (Mirrokni et al., 2018).
  [[nodiscard]] ReplicaId choose_replica(ModelId id, std::uint64_t tokens, std::uint64_t affinity_key) const noexcept {
    const Model& model = (*this)[id];
    const ReplicaId remembered = affinity_.find(affinity_key);
    ReplicaId best = kNoReplica;
    std::uint64_t total_load = 0;
    bool remembered_has_room = false;
    for (const ReplicaId candidate : model.replicas) {
      const route::Replica& r = replica(candidate);
      total_load += r.requests();
      if (!r.has_slot() || !r.fits(tokens)) continue;
      if (candidate == remembered) remembered_has_room = true;
      if (best == kNoReplica || is_less_loaded(r, replica(best), model.has_others)) best = candidate;
    }
    if (remembered_has_room && 4 * replica(remembered).requests() * model.replicas.size() <= 5 * total_load + 4) {
      return remembered;
    }
    return best;
  }

  /// Largest KV capacity among the replicas of a model: what a single request may hold at most.
  [[nodiscard]] std::uint64_t largest_kv_tokens(ModelId id) const noexcept { return largest_kv_[index_of(id)]; }

  /// After anything that can open or close a model: its replicas, their windows.
  void refresh(ModelId id) noexcept {
    Model& model = (*this)[id];
    model.open_replicas = 0;
    model.has_others = false;
    std::uint64_t largest = 0;
    bool is_served = false;
    for (const ReplicaId candidate : model.replicas) {
      const route::Replica& r = replica(candidate);
      model.open_replicas += r.has_slot() ? 1 : 0;
      model.has_others |= r.others.requests > 0;
      if (r.is_draining) continue;
      is_served = true;
      largest = std::max(largest, r.kv_tokens);
    }
    largest_kv_[index_of(id)] = largest;
    served_.erase(id);
    if (is_served) served_.insert(id);
    refresh_device(id);
  }

  /// As refresh, where only one replica of the model can have opened or closed.
  void refresh_replica(ReplicaId id, bool had_slot) noexcept {
    const route::Replica& r = replica(id);
    if (r.has_slot() == had_slot) return;
    Model& model = (*this)[r.model];
    model.open_replicas += r.has_slot() ? 1U : ~0U;
    refresh_device(r.model);
  }

  /// The share of a model in force: its part of the device that it shares, even before the first tick.
  [[nodiscard]] double share_of(ModelId id) const noexcept {
    const Device& device = device_of(id);
    if (!device.config.is_shared) return 1.0;
    if (device.plan.count == 0) return 1.0 / static_cast<double>(device.models.size());
    std::size_t i = 0;
    while (device.models[i] != id) ++i;
    return device.plan.share[i];
  }

  /// Seconds that one round of decode steps of all models on a device takes now.
  [[nodiscard]] double decode_round_s(const Device& device) const noexcept {
    double sum = 0.0;
    for (const ModelId id : device.models) sum += (*this)[id].step_s();
    return sum;
  }

  /// Puts what was learned of a model's engine times in force.
  void correct(Model& model) const noexcept {
    if (!learns_service_) return;
    model.service = model.config.service.scaled(model.prefill.in_force(), model.decode.in_force());
  }

  /// Seconds of a model's decode step by its prior alone, of one copy where models do not contend.
  [[nodiscard]] double prior_step_s(const Model& model, double copies) const noexcept {
    if (model.decoding == 0) return 0.0;
    return model.config.service.step_s(std::max(static_cast<double>(model.decoding) / copies, 1.0),
                                       static_cast<double>(model.context_tokens) / copies);
  }

  /// Seconds of one round of decode steps as far as they are known: by what was learned, in force or not. What is
  /// learned of prefills and of steps each needs the other, and would hold the other back.
  [[nodiscard]] double likely_round_s(const Device& device) const noexcept {
    const double copies = copies_of(device);
    double round_s = 0.0;
    for (const ModelId id : device.models) {
      round_s += prior_step_s((*this)[id], copies) * (*this)[id].decode.estimate();
    }
    return round_s;
  }

  /// Devices that this one stands for: one per replica where models do not contend.
  [[nodiscard]] double copies_of(const Device& device) const noexcept {
    if (device.config.is_shared) return 1.0;
    return std::max(static_cast<double>((*this)[device.models.front()].replicas.size()), 1.0);
  }

 private:
  /// By the priors alone: what is learned from the rounds must not change their count.
  void note_round(Device& device, Instant now) noexcept {
    const double copies = copies_of(device);
    double round_s = 0.0;
    for (const ModelId id : device.models) round_s += prior_step_s((*this)[id], copies);
    device.rounds.set_round(round_s, now);
  }

  static Device make_device(const SchedulerConfig& config, std::size_t index) {
    std::vector<ModelId> models;
    ModelMask members;
    for (std::size_t m = 0; m < config.models.size(); ++m) {
      if (index_of(config.models[m].device) != index) continue;
      models.push_back(id(m));
      members.insert(id(m));
    }
    return Device{.config = config.devices[index], .models = std::move(models), .shares = share::DeviceShares{members}};
  }

  static ModelId id(std::size_t index) noexcept { return ModelId{static_cast<std::uint8_t>(index)}; }

  static std::int64_t expected_context(const Slot& s) noexcept {
    return std::int64_t{s.request.prompt_tokens} + s.expected_output / 2;
  }

  static bool is_less_loaded(const route::Replica& a, const route::Replica& b, bool has_others) noexcept {
    if (has_others && a.requests() != b.requests()) return a.requests() < b.requests();
    if (a.prefill_in_flight != b.prefill_in_flight) return a.prefill_in_flight < b.prefill_in_flight;
    if (a.in_flight != b.in_flight) return a.in_flight < b.in_flight;
    return a.kv_reserved < b.kv_reserved;
  }

  /// A device's budget and each of its models' openness depend on one another's steps, so they are settled together.
  void refresh_device(ModelId changed) noexcept {
    const Device& device = device_of(changed);
    if (!device.config.is_shared) {
      set_open(changed, (*this)[changed].open_replicas > 0);
      return;
    }
    const bool has_budget = device_has_budget(device);
    for (const ModelId id : device.models) {
      set_open(id, has_budget && granted_.contains(id) && (*this)[id].open_replicas > 0);
    }
  }

  void set_open(ModelId id, bool is_open) noexcept {
    open_.erase(id);
    if (is_open) open_.insert(id);
  }

  [[nodiscard]] bool device_has_budget(const Device& device) const noexcept {
    if (device.prefill_in_flight.count() <= 0) return true;
    double tpot_s = 1e9;
    for (const ModelId id : device.models) tpot_s = std::min(tpot_s, to_seconds((*this)[id].config.tpot_slo));
    const double free_s = tpot_s - decode_round_s(device);
    return to_seconds(device.prefill_in_flight) < device.config.prefill_budget * free_s;
  }

  static void check(const SchedulerConfig& config) {
    const auto need = [](bool holds, const std::string& message) {
      if (!holds) throw std::invalid_argument(message);
    };
    need(!config.models.empty() && config.models.size() <= kMaxModels,
         "models: got " + std::to_string(config.models.size()) + ", expected 1 to 32; name at least one model");
    need(config.devices.size() <= kMaxDevices,
         "devices: got " + std::to_string(config.devices.size()) + ", expected at most 64");
    need(config.replicas.size() <= kMaxReplicas,
         "replicas: got " + std::to_string(config.replicas.size()) + ", expected at most 4096");
    for (const ModelConfig& model : config.models) {
      need(index_of(model.device) < config.devices.size(), "model: its device does not exist; add it to devices");
    }
    for (std::size_t d = 0; d < config.devices.size(); ++d) {
      need(std::any_of(config.models.begin(), config.models.end(),
                       [d](const ModelConfig& model) { return index_of(model.device) == d; }),
           "device " + std::to_string(d) + ": no model uses it; remove it or name it in a model");
    }
    share::check(config.share);
    for (const ReplicaConfig& replica : config.replicas) {
      need(index_of(replica.model) < config.models.size(), "replica: its model does not exist; add it to models");
    }
    for (const double weight : config.tenant_weights) {
      need(weight > 0.0, "tenant weight: got " + std::to_string(weight) + ", expected more than 0");
    }
  }

  bool learns_service_;
  std::vector<Model> models_;
  std::vector<Device> devices_;
  std::vector<route::Replica> replicas_;
  std::vector<route::ResponseTimes> times_;  ///< By replica; apart, because choosing a replica walks over the others.
  route::AffinityMap affinity_;
  std::array<std::uint64_t, kMaxModels> largest_kv_{};
  ModelMask served_;
  ModelMask open_;
  ModelMask swapped_;
  ModelMask granted_{~0U};
};

}  // namespace zeta::sched
