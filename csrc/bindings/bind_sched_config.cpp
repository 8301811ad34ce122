#include <pybind11/stl.h>

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "zeta/sched/config.hpp"

namespace py = pybind11;

namespace zeta::bindings {
namespace {

constexpr std::array<const char*, 2> kOrderNames{"edf", "fifo"};
constexpr std::array<const char*, 3> kAdmissionNames{"queue", "reject", "downgrade"};
constexpr std::array<const char*, 2> kCollationNames{"gain", "exhaustive"};

template <class Enum>
constexpr std::size_t index(Enum value) noexcept {
  return static_cast<std::size_t>(value);
}

template <std::size_t N>
std::size_t named(const std::array<const char*, N>& names, const char* what, const std::string& given) {
  std::string known;
  for (std::size_t i = 0; i < N; ++i) {
    if (given == names[i]) return i;
    known += (i == 0 ? "" : ", ") + std::string{names[i]};
  }
  throw py::value_error(std::string{what} + ": got \"" + given + "\", expected one of " + known);
}

sched::Order order_from(const std::string& name) {
  return static_cast<sched::Order>(named(kOrderNames, "order", name));
}

sched::AdmissionRule admission_from(const std::string& name) {
  return static_cast<sched::AdmissionRule>(named(kAdmissionNames, "admission", name));
}

double to_ms(Duration duration) { return to_seconds(duration) * 1e3; }
Duration from_ms(double ms) { return duration_from_seconds(ms * 1e-3); }

}  // namespace

void bind_sched_config(py::module_& module) {
  const sched::SchedulerConfig defaults;
  const sched::DeviceConfig device_defaults;
  const sched::ModelConfig model_defaults;
  const sched::ReplicaConfig replica_defaults;

  py::class_<ServiceModel>(module, "ServiceModel", "Predicted engine times of one model; see core/service_model.hpp.")
      .def(py::init([](double prefill_base_s, double prefill_per_token_s, double prefill_per_token2_s,
                       double decode_base_s, double decode_per_sequence_s, double decode_per_context_token_s,
                       double reference_batch) {
             return ServiceModel{prefill_base_s,        prefill_per_token_s,        prefill_per_token2_s, decode_base_s,
                                 decode_per_sequence_s, decode_per_context_token_s, reference_batch};
           }),
           py::kw_only(), py::arg("prefill_base_s"), py::arg("prefill_per_token_s"), py::arg("prefill_per_token2_s"),
           py::arg("decode_base_s"), py::arg("decode_per_sequence_s"), py::arg("decode_per_context_token_s"),
           py::arg("reference_batch") = 32.0)
      .def("prefill_s", &ServiceModel::prefill_s, py::arg("prompt_tokens"))
      .def("step_s", &ServiceModel::step_s, py::arg("batch"), py::arg("context_tokens"))
      .def("work_s", &ServiceModel::work_s, py::arg("prompt_tokens"), py::arg("output_tokens"))
      .def_readonly("reference_batch", &ServiceModel::reference_batch);

  using score::Weights;
  constexpr Weights kWeights;
  py::class_<Weights>(module, "SuitabilityWeights", "Weights of the parts of a score; see score/suitability.hpp.")
      .def(py::init([](double quality, double cost, double deadline, double affinity) {
             return Weights{quality, cost, deadline, affinity};
           }),
           py::kw_only(), py::arg("quality") = kWeights.quality, py::arg("cost") = kWeights.cost,
           py::arg("deadline") = kWeights.deadline, py::arg("affinity") = kWeights.affinity)
      .def_readonly("quality", &Weights::quality)
      .def_readonly("cost", &Weights::cost)
      .def_readonly("deadline", &Weights::deadline)
      .def_readonly("affinity", &Weights::affinity);

  using sched::SchedulerConfig;
  py::class_<SchedulerConfig>(module, "SchedulerConfig", "What a core router is built from; see sched/config.hpp.")
      .def(py::init([](const std::string& order, const std::string& admission,
                       const std::optional<share::PolicyConfig>& share, std::uint32_t max_queued,
                       std::uint32_t max_running, std::uint32_t max_tenants, std::uint32_t max_replicas,
                       std::uint32_t bands, double promise_ms, double promise_take_cap, double lower_band_share,
                       double max_hold_ms, double hold_quality_gap, double tenant_quantum_ms,
                       double eta_quantile_factor, bool learns_service, std::vector<double> tenant_weights,
                       const std::optional<score::Weights>& weights, const std::string& collation,
                       double collation_max_wait_ms) {
             SchedulerConfig config;
             config.order = order_from(order);
             config.admission = admission_from(admission);
             if (share) config.share = *share;
             config.max_queued = max_queued;
             config.max_running = max_running;
             config.max_tenants = max_tenants;
             config.max_replicas = max_replicas;
             config.bands = bands;
             config.promise = from_ms(promise_ms);
             config.promise_take_cap = promise_take_cap;
             config.lower_band_share = lower_band_share;
             config.max_hold = from_ms(max_hold_ms);
             config.hold_quality_gap = hold_quality_gap;
             config.tenant_quantum = from_ms(tenant_quantum_ms);
             config.eta_quantile_factor = eta_quantile_factor;
             config.learns_service = learns_service;
             config.tenant_weights = std::move(tenant_weights);
             if (weights) config.weights = *weights;
             config.collation.rule = static_cast<share::CollationRule>(named(kCollationNames, "collation", collation));
             config.collation.max_wait = from_ms(collation_max_wait_ms);
             return config;
           }),
           py::kw_only(), py::arg("order") = "edf", py::arg("admission") = "queue", py::arg("share") = py::none(),
           py::arg("max_queued") = defaults.max_queued, py::arg("max_running") = defaults.max_running,
           py::arg("max_tenants") = defaults.max_tenants, py::arg("max_replicas") = defaults.max_replicas,
           py::arg("bands") = defaults.bands, py::arg("promise_ms") = to_ms(defaults.promise),
           py::arg("promise_take_cap") = defaults.promise_take_cap,
           py::arg("lower_band_share") = defaults.lower_band_share, py::arg("max_hold_ms") = to_ms(defaults.max_hold),
           py::arg("hold_quality_gap") = defaults.hold_quality_gap,
           py::arg("tenant_quantum_ms") = to_ms(defaults.tenant_quantum),
           py::arg("eta_quantile_factor") = defaults.eta_quantile_factor,
           py::arg("learns_service") = defaults.learns_service, py::arg("tenant_weights") = std::vector<double>{},
           py::arg("weights") = py::none(), py::arg("collation") = kCollationNames.at(index(defaults.collation.rule)),
           py::arg("collation_max_wait_ms") = to_ms(defaults.collation.max_wait))
      .def_property_readonly("order", [](const SchedulerConfig& c) { return kOrderNames.at(index(c.order)); })
      .def_property_readonly("admission",
                             [](const SchedulerConfig& c) { return kAdmissionNames.at(index(c.admission)); })
      .def_readonly("share", &SchedulerConfig::share)
      .def_readonly("max_queued", &SchedulerConfig::max_queued)
      .def_readonly("max_running", &SchedulerConfig::max_running)
      .def_readonly("max_tenants", &SchedulerConfig::max_tenants)
      .def_readonly("max_replicas", &SchedulerConfig::max_replicas)
      .def_readonly("bands", &SchedulerConfig::bands)
      .def_property_readonly("promise_ms", [](const SchedulerConfig& c) { return to_ms(c.promise); })
      .def_readonly("promise_take_cap", &SchedulerConfig::promise_take_cap)
      .def_readonly("lower_band_share", &SchedulerConfig::lower_band_share)
      .def_property_readonly("max_hold_ms", [](const SchedulerConfig& c) { return to_ms(c.max_hold); })
      .def_readonly("hold_quality_gap", &SchedulerConfig::hold_quality_gap)
      .def_property_readonly("tenant_quantum_ms", [](const SchedulerConfig& c) { return to_ms(c.tenant_quantum); })
      .def_readonly("eta_quantile_factor", &SchedulerConfig::eta_quantile_factor)
      .def_readonly("learns_service", &SchedulerConfig::learns_service)
      .def_readonly("tenant_weights", &SchedulerConfig::tenant_weights)
      .def_readonly("weights", &SchedulerConfig::weights)
      .def_property_readonly("collation",
                             [](const SchedulerConfig& c) { return kCollationNames.at(index(c.collation.rule)); })
      .def_property_readonly("collation_max_wait_ms",
                             [](const SchedulerConfig& c) { return to_ms(c.collation.max_wait); })
      .def(
          "add_device",
          [](SchedulerConfig& config, bool is_shared, double prefill_budget, bool is_swapped, double swap_s,
             bool awaits_load) {
            config.devices.push_back(
                {is_shared, prefill_budget, is_swapped, duration_from_seconds(swap_s), awaits_load});
            return config.devices.size() - 1;
          },
          py::kw_only(), py::arg("is_shared") = device_defaults.is_shared,
          py::arg("prefill_budget") = device_defaults.prefill_budget,
          py::arg("is_swapped") = device_defaults.is_swapped, py::arg("swap_s") = to_seconds(device_defaults.swap_cost),
          py::arg("awaits_load") = device_defaults.awaits_load)
      .def(
          "add_model",
          [](SchedulerConfig& config, double quality, const ServiceModel& service, std::uint8_t device,
             std::uint32_t max_context_tokens, double tpot_slo_ms, double mean_output_tokens) {
            config.models.push_back({quality, service, DeviceId{device}, max_context_tokens,
                                     duration_from_seconds(tpot_slo_ms * 1e-3), mean_output_tokens});
            return config.models.size() - 1;
          },
          py::kw_only(), py::arg("quality"), py::arg("service"), py::arg("device"),
          py::arg("max_context_tokens") = model_defaults.max_context_tokens,
          py::arg("tpot_slo_ms") = to_ms(model_defaults.tpot_slo),
          py::arg("mean_output_tokens") = model_defaults.mean_output_tokens)
      .def(
          "add_replica",
          [](SchedulerConfig& config, std::uint8_t model, std::uint32_t max_in_flight, std::uint32_t max_batch,
             std::uint64_t kv_tokens) {
            config.replicas.push_back({ModelId{model}, max_in_flight, max_batch, kv_tokens});
            return config.replicas.size() - 1;
          },
          py::kw_only(), py::arg("model"), py::arg("max_in_flight") = replica_defaults.max_in_flight,
          py::arg("max_batch") = replica_defaults.max_batch, py::arg("kv_tokens") = replica_defaults.kv_tokens)
      .def_property_readonly(
          "devices",
          [](const SchedulerConfig& c) {
            py::list rows;
            for (const sched::DeviceConfig& d : c.devices) {
              rows.append(py::dict(py::arg("is_shared") = d.is_shared, py::arg("prefill_budget") = d.prefill_budget,
                                   py::arg("is_swapped") = d.is_swapped, py::arg("swap_s") = to_seconds(d.swap_cost),
                                   py::arg("awaits_load") = d.awaits_load));
            }
            return rows;
          })
      .def_property_readonly("models",
                             [](const SchedulerConfig& c) {
                               py::list rows;
                               for (const sched::ModelConfig& m : c.models) {
                                 rows.append(py::dict(py::arg("quality") = m.quality, py::arg("service") = m.service,
                                                      py::arg("device") = index_of(m.device),
                                                      py::arg("max_context_tokens") = m.max_context_tokens,
                                                      py::arg("tpot_slo_ms") = to_ms(m.tpot_slo),
                                                      py::arg("mean_output_tokens") = m.mean_output_tokens));
                               }
                               return rows;
                             })
      .def_property_readonly("replicas", [](const SchedulerConfig& c) {
        py::list rows;
        for (const sched::ReplicaConfig& r : c.replicas) {
          rows.append(py::dict(py::arg("model") = index_of(r.model), py::arg("max_in_flight") = r.max_in_flight,
                               py::arg("max_batch") = r.max_batch, py::arg("kv_tokens") = r.kv_tokens));
        }
        return rows;
      });
}

}  // namespace zeta::bindings
