#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bindings.hpp"
#include "zeta/share/demand.hpp"
#include "zeta/share/device_shares.hpp"
#include "zeta/share/policy.hpp"

namespace py = pybind11;

namespace zeta::bindings {
namespace {

using share::DemandHistogram;
using share::DeviceShares;
using share::Plan;
using share::PolicyConfig;

constexpr py::ssize_t kColumns = 6;

share::Policy policy_from(const std::string& name) {
  const auto* found = std::find(share::kPolicyNames.begin(), share::kPolicyNames.end(), name);
  if (found == share::kPolicyNames.end()) {
    std::string known;
    for (const auto each : share::kPolicyNames) known += (known.empty() ? "" : ", ") + std::string{each};
    throw py::value_error("policy is \"" + name + "\"; expected one of " + known + ".");
  }
  return static_cast<share::Policy>(found - share::kPolicyNames.begin());
}

template <class Names>
std::vector<std::string> strings(const Names& names) {
  return {names.begin(), names.end()};
}

std::uint32_t count_from(double value) { return value >= 0.0 ? static_cast<std::uint32_t>(std::min(value, 4e9)) : 0; }

Plan tick(const PolicyConfig& config, const py::array& demand, const Plan& previous, std::int64_t now_ns) {
  if (!py::isinstance<py::array_t<double>>(demand) || demand.ndim() != 2 || !(demand.flags() & py::array::c_style) ||
      demand.shape(1) != kColumns || demand.shape(0) > static_cast<py::ssize_t>(kMaxModels)) {
    throw py::value_error(
        "demand must be a contiguous float64 array with one row per model (at most 32) and the 6 columns decode_pace, "
        "due_pressure, backlog_work_s, waiting, running, service_rate_rps. Use numpy.ascontiguousarray(rows, "
        "dtype=numpy.float64).");
  }
  const auto rows = py::array_t<double, py::array::c_style>(demand).unchecked<2>();
  std::array<share::ModelDemand, kMaxModels> demands;
  for (py::ssize_t i = 0; i < rows.shape(0); ++i) {
    demands[static_cast<std::size_t>(i)] = {.decode_pace = rows(i, 0),
                                            .due_pressure = rows(i, 1),
                                            .backlog_work_s = rows(i, 2),
                                            .waiting = count_from(rows(i, 3)),
                                            .running = count_from(rows(i, 4)),
                                            .service_rate_rps = rows(i, 5)};
  }
  const std::span<const share::ModelDemand> present{demands.data(), static_cast<std::size_t>(rows.shape(0))};
  return share::tick(config, present, previous, instant_from_ns(now_ns));
}

void check_member(const DeviceShares& device, std::uint32_t model) {
  if (model >= kMaxModels || !device.members().contains(ModelId{static_cast<std::uint8_t>(model)})) {
    throw py::value_error("model " + std::to_string(model) + " is not one of this device's.");
  }
}

void bind_policy(py::module_& module) {
  module.def("share_policies", [] { return strings(share::kPolicyNames); }, "Names of the allocation policies.");
  module.def("share_reasons", [] { return strings(share::kReasonNames); }, "Names of the reasons for a share.");

  py::class_<PolicyConfig>(module, "SharePolicyConfig", "An allocation policy and its numbers, checked.")
      .def(py::init([](const std::string& policy, double floor, double max_step, double hysteresis, double boost_share,
                       double boost_starts_work_s, double boost_clears_work_s, double need_memory_s, double jitter,
                       double jump) {
             const PolicyConfig config{.policy = policy_from(policy),
                                       .floor = floor,
                                       .max_step = max_step,
                                       .hysteresis = hysteresis,
                                       .boost_share = boost_share,
                                       .boost_starts_work_s = boost_starts_work_s,
                                       .boost_clears_work_s = boost_clears_work_s,
                                       .need_memory = duration_from_seconds(need_memory_s),
                                       .jitter = jitter,
                                       .jump = jump};
             share::check(config);
             return config;
           }),
           py::kw_only(), py::arg("policy") = std::string{share::name_of(PolicyConfig{}.policy)},
           py::arg("floor") = PolicyConfig{}.floor, py::arg("max_step") = PolicyConfig{}.max_step,
           py::arg("hysteresis") = PolicyConfig{}.hysteresis, py::arg("boost_share") = PolicyConfig{}.boost_share,
           py::arg("boost_starts_work_s") = PolicyConfig{}.boost_starts_work_s,
           py::arg("boost_clears_work_s") = PolicyConfig{}.boost_clears_work_s,
           py::arg("need_memory_s") = to_seconds(PolicyConfig{}.need_memory), py::arg("jitter") = PolicyConfig{}.jitter,
           py::arg("jump") = PolicyConfig{}.jump)
      .def_property_readonly("policy", [](const PolicyConfig& config) { return share::name_of(config.policy); })
      .def_readonly("floor", &PolicyConfig::floor)
      .def_readonly("max_step", &PolicyConfig::max_step)
      .def_readonly("hysteresis", &PolicyConfig::hysteresis)
      .def_readonly("boost_share", &PolicyConfig::boost_share)
      .def_readonly("boost_starts_work_s", &PolicyConfig::boost_starts_work_s)
      .def_readonly("boost_clears_work_s", &PolicyConfig::boost_clears_work_s)
      .def_property_readonly("need_memory_s", [](const PolicyConfig& config) { return to_seconds(config.need_memory); })
      .def_readonly("jitter", &PolicyConfig::jitter)
      .def_readonly("jump", &PolicyConfig::jump);

  py::class_<Plan>(module, "SharePlan", "One tick's decision and what the next tick must know of it.")
      .def(py::init<>())
      .def_readonly("count", &Plan::count)
      .def_property_readonly("at_ns", [](const Plan& plan) { return to_ns(plan.at); })
      .def_property_readonly("policy", [](const Plan& plan) { return share::name_of(plan.policy); })
      .def_readonly("is_held", &Plan::is_held)
      .def_readonly("is_step_limited", &Plan::is_step_limited)
      .def("shares", [](const Plan& plan) { return std::vector<double>(plan.shares().begin(), plan.shares().end()); })
      .def("needs", [](const Plan& plan) { return std::vector<double>(plan.needs().begin(), plan.needs().end()); })
      .def("reasons", [](const Plan& plan) {
        std::vector<std::string> reasons;
        for (std::size_t i = 0; i < plan.count; ++i) reasons.emplace_back(share::name_of(plan.reason[i]));
        return reasons;
      });

  module.def("share_tick", &tick, py::arg("config"), py::arg("demand"), py::arg("previous").none(false),
             py::arg("now_ns").noconvert(),
             "The next shares of one device's models. demand: float64 of shape (models, 6), columns decode_pace, "
             "due_pressure, backlog_work_s, waiting, running, service_rate_rps; NaN in the first two: unknown. "
             "previous: SharePlan() where there is none.");
}

void bind_demand(py::module_& module) {
  py::class_<DemandHistogram>(module, "DemandHistogram", "Waiting work of one model by latest start, and its need.")
      .def(py::init<>())
      .def(
          "add",
          [](DemandHistogram& demand, std::int64_t latest_start_ns, std::int64_t promise_ns, std::int64_t work_ns,
             std::int64_t now_ns) {
            return demand.add(instant_from_ns(latest_start_ns), instant_from_ns(promise_ns), Duration{work_ns},
                              instant_from_ns(now_ns));
          },
          py::kw_only(), py::arg("latest_start_ns").noconvert(), py::arg("promise_ns").noconvert(),
          py::arg("work_ns").noconvert(), py::arg("now_ns").noconvert(),
          "Files work by its latest start; returns the bin number to hand back to remove.")
      .def(
          "remove",
          [](DemandHistogram& demand, std::uint32_t bin, std::int64_t promise_ns, std::int64_t work_ns,
             std::int64_t now_ns) {
            demand.remove(bin, instant_from_ns(promise_ns), Duration{work_ns}, instant_from_ns(now_ns));
          },
          py::arg("bin").noconvert(), py::kw_only(), py::arg("promise_ns").noconvert(), py::arg("work_ns").noconvert(),
          py::arg("now_ns").noconvert(), "Undoes one add.")
      .def(
          "need",
          [](const DemandHistogram& demand, std::int64_t now_ns) { return demand.need(instant_from_ns(now_ns)); },
          py::arg("now_ns").noconvert(), "Fraction of the device that keeps every waiting request on time.")
      .def_property_readonly("backlog_ns", [](const DemandHistogram& demand) { return demand.backlog().count(); })
      .def_property_readonly("overdue_ns", [](const DemandHistogram& demand) { return demand.overdue().count(); });
}

void bind_device_shares(py::module_& module) {
  py::class_<DeviceShares>(module, "DeviceShares",
                           "Whose turn it is to take on one device, by start-time fair queueing.")
      .def(py::init([](std::uint32_t members, std::int64_t credit_ns) {
             return DeviceShares{ModelMask{members}, Duration{credit_ns}};
           }),
           py::arg("members"), py::kw_only(), py::arg("credit_ns") = DeviceShares::kDefaultCredit.count(),
           "members: a bit mask, bit i = model i.")
      .def(
          "set_shares",
          [](DeviceShares& device, const std::vector<double>& shares) {
            const auto expected = static_cast<std::size_t>(__builtin_popcount(device.members().bits()));
            if (shares.size() != expected) {
              throw py::value_error("got " + std::to_string(shares.size()) + " shares, expected " +
                                    std::to_string(expected) + ": one per model of the device, by ascending model.");
            }
            device.set_shares(shares);
          },
          py::arg("shares"))
      .def(
          "pick",
          [](const DeviceShares& device, std::uint32_t with_eligible_work) -> std::optional<std::size_t> {
            const ModelId model = device.pick(ModelMask{with_eligible_work});
            return model == kNoModel ? std::nullopt : std::optional{index_of(model)};
          },
          py::arg("with_eligible_work"), "The model that takes next, or None when none of the mask's is here.")
      .def(
          "charge",
          [](DeviceShares& device, std::uint32_t model, std::int64_t work_ns) {
            check_member(device, model);
            if (work_ns < 0) throw py::value_error("work_ns is negative; use adjust to put work back.");
            device.charge(ModelId{static_cast<std::uint8_t>(model)}, Duration{work_ns});
          },
          py::arg("model"), py::arg("work_ns"), "The picked model took a request of this predicted work.")
      .def(
          "adjust",
          [](DeviceShares& device, std::uint32_t model, std::int64_t work_ns) {
            check_member(device, model);
            device.adjust(ModelId{static_cast<std::uint8_t>(model)}, Duration{work_ns});
          },
          py::arg("model"), py::arg("work_ns"), "Accounts for work outside of turns; negative puts it back.")
      .def(
          "deficit_ns",
          [](const DeviceShares& device, std::uint32_t model) {
            check_member(device, model);
            return device.deficit(ModelId{static_cast<std::uint8_t>(model)}).count();
          },
          py::arg("model"), "Device time by which a model is behind its share; negative: ahead.");
}

}  // namespace

void bind_share(py::module_& module) {
  bind_policy(module);
  bind_demand(module);
  bind_device_shares(module);
}

}  // namespace zeta::bindings
