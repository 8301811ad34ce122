#pragma once
// Everything that a scheduler is told before the first request. Defaults live in zeta.config (Python) and here alike;
// a test compares them.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "zeta/core/service_model.hpp"
#include "zeta/core/time.hpp"
#include "zeta/core/types.hpp"
#include "zeta/score/suitability.hpp"
#include "zeta/share/policy.hpp"
#include "zeta/share/residency.hpp"

namespace zeta::sched {

enum class Order : std::uint8_t {
  edf,   ///< Latest start first, those that can still make it before those that cannot, with a hard promise.
  fifo,  ///< Arrival order within the cheapest eligible model; no spill, no promise. The baseline people run.
};

enum class AdmissionRule : std::uint8_t {
  queue,      ///< Best effort: nothing is rejected for its deadline.
  reject,     ///< Rejected at once, with the ETA, where the deadline cannot be met on any eligible model.
  downgrade,  ///< As reject, but a smaller model that can meet the deadline is tried first.
};

struct ModelConfig {
  double quality = 0.5;  ///< Prior P(good answer) on an average request.
  ServiceModel service;
  DeviceId device{0};
  std::uint32_t max_context_tokens = 131'072;
  Duration tpot_slo{100'000'000};     ///< Time per output token that decoding must keep; sets the decode pace.
  double mean_output_tokens = 256.0;  ///< Until completions teach better.
};

struct ReplicaConfig {
  ModelId model{0};
  std::uint32_t max_in_flight = 64;  ///< Upper bound of the adaptive window.
  std::uint32_t max_batch = 256;
  std::uint64_t kv_tokens = 1U << 20U;
};

struct DeviceConfig {
  /// False: the models on it do not contend (one device per replica); no share and no budget applies.
  bool is_shared = true;
  /// Predicted prefill GPU-seconds that may be in flight and not yet at their first token, as a part of the TPOT SLO
  /// that decode steps leave free. One request may always be in flight.
  double prefill_budget = 1.3;
  /// One model at a time is resident; which one is decided here (collation.hpp) unless the order is fifo.
  bool is_swapped = false;
  Duration swap_cost{10'000'000'000};  ///< Until another model has been loaded.
  /// Whether takes wait until somebody confirms that a model has been loaded. False: its first request loads it.
  bool awaits_load = false;
};

/// The most priority classes that a scheduler has.
inline constexpr std::size_t kMaxBands = 8;

struct SchedulerConfig {
  Order order = Order::edf;
  AdmissionRule admission = AdmissionRule::queue;
  share::PolicyConfig share;
  share::CollationConfig collation;
  std::uint32_t max_queued = 100'000;
  std::uint32_t max_running = 16'384;
  std::uint32_t max_tenants = 256;
  std::uint32_t max_replicas = 256;
  std::uint32_t bands = 4;
  Duration promise{20'000'000'000};  ///< A request that waited this long goes ahead.
  double promise_take_cap = 0.25;  ///< Part of the takes that may go ahead for their promise while others are feasible.
  double lower_band_share = 0.05;  ///< Part of the takes that each lower priority band is guaranteed.
  Duration max_hold{2'000'000'000};  ///< Longest wait for a stronger model while a weaker one would do.
  double hold_quality_gap = 0.10;    ///< P(good) that a weaker model may lose before the request waits for a stronger.
  score::Weights weights;            ///< Of the parts of a model's suitability.
  Duration tenant_quantum{250'000'000};  ///< GPU time that a tenant of weight 1 takes per round.
  double eta_quantile_factor = 1.5;      ///< p90 of the wait over its mean, until waits are measured.
  /// Engine times that are off by more than Correction::kTolerance are corrected from what is observed.
  bool learns_service = true;
  std::vector<double> tenant_weights;  ///< By TenantId; 1 where absent.
  std::vector<DeviceConfig> devices;
  std::vector<ModelConfig> models;
  std::vector<ReplicaConfig> replicas;
};

}  // namespace zeta::sched
