#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "columns.hpp"
#include "engine_spec.hpp"
#include "zeta/sim/outlooks.hpp"
#include "zeta/sim/replay.hpp"

namespace py = pybind11;

namespace zeta::bindings {
namespace {

sim::Device make_device(const std::string& colocation, const std::vector<EngineSpec>& engines) {
  const auto how = sim::colocation_from(colocation);
  if (!how) {
    throw py::value_error("colocation is \"" + colocation +
                          "\"; expected \"timeslice\", \"mps\", \"exclusive\" or \"swap\".");
  }
  sim::DeviceConfig config;
  config.colocation = *how;
  sim::Device device{config};
  for (const EngineSpec& spec : engines) device.add_engine(sim::Engine{spec.table, spec.config}, spec.setup);
  return device;
}

std::unique_ptr<sim::Replay> make_replay(const sched::SchedulerConfig& scheduler,
                                         const std::vector<std::pair<std::string, std::vector<EngineSpec>>>& devices,
                                         const std::vector<std::pair<std::uint32_t, std::uint32_t>>& places,
                                         std::int64_t tick_interval_ns, std::int64_t actuation_delay_ns,
                                         bool keeps_ticks, std::uint32_t checks_every, const std::string& forecast,
                                         const py::object& future) {
  sim::ReplayConfig config;
  config.tick_interval = Duration{tick_interval_ns};
  config.actuation_delay = Duration{actuation_delay_ns};
  config.keeps_ticks = keeps_ticks;
  config.checks_every = checks_every;
  std::vector<sim::Device> simulated;
  for (const auto& [colocation, engines] : devices) simulated.push_back(make_device(colocation, engines));
  std::vector<sim::ReplicaPlace> replica_places;
  for (const auto& [device, engine] : places) replica_places.push_back({device, engine});
  const std::size_t models = scheduler.models.size();
  const auto rows = future.is_none() ? std::size_t{0} : static_cast<std::size_t>(py::len(future));
  auto outlook = sim::outlook_named(forecast, models, optional_column<double>(future, "future", rows, "float64"));
  if (!outlook) throw py::value_error("forecast is \"" + forecast + "\"; expected one of FORECASTS.");
  if (rows % models != 0) throw py::value_error("future must have a number for each model in each second.");
  return std::make_unique<sim::Replay>(scheduler, config, std::move(simulated), std::move(replica_places),
                                       std::move(*outlook));
}

void feed(sim::Replay& self, const py::object& arrival_ns, const py::object& prompt_tokens,
          const py::object& output_tokens, const py::object& allowed_mask, const py::object& downgrade_mask,
          const py::object& deadline_ns, const py::object& end_deadline_ns, const py::object& tenant,
          const py::object& affinity_key) {
  const auto rows = static_cast<std::size_t>(py::len(arrival_ns));
  sim::ReplayArrivals arrivals;
  arrivals.arrival_ns = column<std::int64_t>(arrival_ns, "arrival_ns", rows, "int64");
  arrivals.prompt_tokens = column<std::uint32_t>(prompt_tokens, "prompt_tokens", rows, "uint32");
  arrivals.output_tokens = column<std::uint32_t>(output_tokens, "output_tokens", rows, "uint32");
  arrivals.allowed_mask = column<std::uint32_t>(allowed_mask, "allowed_mask", rows, "uint32");
  arrivals.downgrade_mask = column<std::uint32_t>(downgrade_mask, "downgrade_mask", rows, "uint32");
  arrivals.deadline_ns = column<std::int64_t>(deadline_ns, "deadline_ns", rows, "int64");
  arrivals.end_deadline_ns = optional_column<std::int64_t>(end_deadline_ns, "end_deadline_ns", rows, "int64");
  arrivals.tenant = optional_column<std::uint16_t>(tenant, "tenant", rows, "uint16");
  arrivals.affinity_key = optional_column<std::uint64_t>(affinity_key, "affinity_key", rows, "uint64");
  for (std::size_t i = 1; i < rows; ++i) {
    if (arrivals.arrival_ns[i] >= arrivals.arrival_ns[i - 1]) continue;
    throw py::value_error("arrival_ns must not decrease; entry " + std::to_string(i) + " does. Sort the arrivals.");
  }
  const py::gil_scoped_release released;
  self.feed(arrivals);
}

template <class T>
py::array_t<T> copied(const std::vector<T>& values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::dict times(const sim::Replay& self) {
  const sim::ReplayTimes& times = self.times();
  py::dict answer;
  answer["placed_ns"] = copied(times.placed_ns);
  answer["first_token_ns"] = copied(times.first_token_ns);
  answer["last_token_ns"] = copied(times.last_token_ns);
  answer["model"] = copied(times.model);
  answer["outcome"] = copied(times.outcome);
  return answer;
}

/// Ticks as arrays: at_ns (ticks,), and share, need, waiting, running (ticks, models).
py::dict ticks(const sim::Replay& self) {
  const auto rows = static_cast<py::ssize_t>(self.ticks().size());
  const auto models = static_cast<py::ssize_t>(self.scheduler().fleet().model_count());
  py::array_t<std::int64_t> at(rows);
  py::array_t<double> share({rows, models});
  py::array_t<double> need({rows, models});
  py::array_t<std::uint32_t> waiting({rows, models});
  py::array_t<std::uint32_t> running({rows, models});
  for (py::ssize_t i = 0; i < rows; ++i) {
    const sim::ReplayTick& tick = self.ticks()[static_cast<std::size_t>(i)];
    at.mutable_data()[i] = tick.at_ns;
    for (py::ssize_t m = 0; m < models; ++m) {
      const sim::ReplayTick::Model& model = tick.models[static_cast<std::size_t>(m)];
      share.mutable_at(i, m) = model.share;
      need.mutable_at(i, m) = model.need;
      waiting.mutable_at(i, m) = model.waiting;
      running.mutable_at(i, m) = model.running;
    }
  }
  py::dict answer;
  answer["at_ns"] = at;
  answer["share"] = share;
  answer["need"] = need;
  answer["waiting"] = waiting;
  answer["running"] = running;
  return answer;
}

ReplicaId replica_of(const sim::Replay& self, std::uint32_t number) {
  if (number >= self.scheduler().fleet().replica_slots()) {
    throw py::value_error("replica " + std::to_string(number) + " does not exist; expected a number below " +
                          std::to_string(self.scheduler().fleet().replica_slots()) + ".");
  }
  return ReplicaId{static_cast<std::uint16_t>(number)};
}

std::optional<std::uint32_t> add_replica(sim::Replay& self, std::uint32_t like) {
  const std::vector<sched::ReplicaConfig>& configured = self.scheduler().config().replicas;
  if (like >= configured.size()) {
    throw py::value_error("replica " + std::to_string(like) + " is not configured; expected a number below " +
                          std::to_string(configured.size()) + ".");
  }
  const ReplicaId id = self.add_replica(configured[like]);
  return id == kNoReplica ? std::nullopt : std::optional{static_cast<std::uint32_t>(index_of(id))};
}

py::dict load(const sim::Replay& self) {
  const sched::Fleet& fleet = self.scheduler().fleet();
  const auto models = static_cast<py::ssize_t>(fleet.model_count());
  py::array_t<std::uint64_t> arrivals(models);
  py::array_t<double> work_s(models);
  py::array_t<double> backlog_work_s(models);
  for (py::ssize_t m = 0; m < models; ++m) {
    const sched::Model& model = fleet[ModelId{static_cast<std::uint8_t>(m)}];
    arrivals.mutable_data()[m] = model.arrivals;
    work_s.mutable_data()[m] = to_seconds(model.arrived_work);
    backlog_work_s.mutable_data()[m] = to_seconds(model.demand.backlog());
  }
  py::dict answer;
  answer["arrivals"] = arrivals;
  answer["work_s"] = work_s;
  answer["backlog_work_s"] = backlog_work_s;
  return answer;
}

/// What was learned of each model's engine times: (prefill, decode) factors, latest and in force.
py::list corrections(const sim::Replay& self) {
  py::list rows;
  for (std::size_t m = 0; m < self.scheduler().fleet().model_count(); ++m) {
    const sched::Model& model = self.scheduler().fleet()[ModelId{static_cast<std::uint8_t>(m)}];
    rows.append(py::make_tuple(model.prefill.estimate(), model.prefill.in_force(), model.decode.estimate(),
                               model.decode.in_force()));
  }
  return rows;
}

}  // namespace

void bind_replay(py::module_& module) {
  py::class_<sim::Replay>(module, "Replay", "Arrivals through the real scheduler into simulated devices.")
      .def(py::init(&make_replay), py::kw_only(), py::arg("scheduler"), py::arg("devices"), py::arg("places"),
           py::arg("tick_interval_ns"), py::arg("actuation_delay_ns") = 0, py::arg("keeps_ticks") = false,
           py::arg("checks_every") = 0, py::arg("forecast") = "off", py::arg("future") = py::none(),
           "devices: (colocation, engines) each; places: (device, engine) of each replica of the scheduler. forecast: "
           "one "
           "of FORECASTS; perfect reads future, the work that arrives by second and model (float64, flat).")
      .def("feed", &feed, py::kw_only(), py::arg("arrival_ns"), py::arg("prompt_tokens"), py::arg("output_tokens"),
           py::arg("allowed_mask"), py::arg("downgrade_mask"), py::arg("deadline_ns"),
           py::arg("end_deadline_ns") = py::none(), py::arg("tenant") = py::none(),
           py::arg("affinity_key") = py::none(), "Runs until the last of these arrivals has been submitted.")
      .def(
          "drain", [](sim::Replay& self, std::int64_t limit_ns) { self.drain(Duration{limit_ns}); },
          py::arg("limit_ns"), py::call_guard<py::gil_scoped_release>(),
          "Runs until every request has ended, for at most this long.")
      .def(
          "run_to", [](sim::Replay& self, std::int64_t until_ns) { self.run_to(instant_from_ns(until_ns)); },
          py::arg("until_ns"), py::call_guard<py::gil_scoped_release>(), "Runs to this instant without arrivals.")
      .def(
          "add_replica", &add_replica, py::arg("like"),
          "One like the configured replica of that number joins now, in the lowest free number, which it returns; None "
          "where all are in use.")
      .def(
          "drain_replica",
          [](sim::Replay& self, std::uint32_t number) { self.drain_replica(replica_of(self, number)); },
          py::arg("number"), "It takes no new requests.")
      .def(
          "remove_replica",
          [](sim::Replay& self, std::uint32_t number) { self.remove_replica(replica_of(self, number)); },
          py::arg("number"), "Its number becomes free; ValueError while it has requests.")
      .def(
          "in_flight",
          [](const sim::Replay& self, std::uint32_t number) {
            return self.scheduler().fleet().replica(replica_of(self, number)).in_flight;
          },
          py::arg("number"), "Requests that a replica has.")
      .def("load", &load,
           "Arrays by model: arrivals and work_s let in so far, backlog_work_s waiting now (predicted GPU-seconds).")
      .def("times", &times, "Arrays by request: placed_ns, first_token_ns, last_token_ns, model (-1), outcome.")
      .def("corrections", &corrections,
           "By model: factor on its predicted prefill as learned and as in force, and the same of its decode steps.")
      .def("ticks", &ticks, "Arrays by tick: at_ns, and share, need, waiting, running by model.")
      .def_property_readonly("now_ns", [](const sim::Replay& self) { return to_ns(self.now()); })
      .def_property_readonly("share_changes", &sim::Replay::share_changes)
      .def_property_readonly(
          "foreseen_ticks", [](const sim::Replay& self) { return self.loop().foreseen_ticks(); },
          "Ticks whose plans looked ahead.")
      .def_property_readonly("violations", &sim::Replay::violations)
      .def_property_readonly("swaps", &sim::Replay::swaps)
      .def_property_readonly("event_hash", &sim::Replay::event_hash);
  py::list forecasts;
  for (const std::string_view name : sim::kForecastNames) forecasts.append(py::str(name.data(), name.size()));
  module.attr("FORECASTS") = py::tuple(forecasts);
  py::list names;
  for (const std::string_view name : kOutcomeNames) names.append(py::str(name.data(), name.size()));
  module.attr("OUTCOME_NAMES") = py::tuple(names);
}

}  // namespace zeta::bindings
