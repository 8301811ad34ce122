#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "engine_spec.hpp"
#include "zeta/sim/device.hpp"

namespace py = pybind11;

namespace zeta::bindings {
namespace {

/// A simulated device whose clock the caller drives, step by step. Single-threaded, like the device.
class LiveDevice {
 public:
  LiveDevice(const std::vector<EngineSpec>& engines, const std::string& colocation)
      : device_{config_from(colocation)}, reported_(engines.size(), 0) {
    if (engines.empty()) throw py::value_error("engines is empty; give at least one EngineSpec.");
    for (const EngineSpec& spec : engines) device_.add_engine(sim::Engine{spec.table, spec.config}, spec.setup);
  }

  std::optional<std::uint64_t> enqueue(std::int64_t now_ns, std::size_t engine, std::uint64_t tag,
                                       std::uint32_t prompt_tokens, std::uint32_t output_tokens, std::int32_t priority,
                                       std::uint32_t cached_tokens) {
    const Instant now = checked(now_ns);
    const auto handle = device_.enqueue(
        checked_engine(engine), sim::EngineRequest{tag, prompt_tokens, output_tokens, cached_tokens, priority}, now);
    if (!handle) return std::nullopt;
    return std::uint64_t{handle->generation} << 32U | handle->slot;
  }

  bool abort(std::int64_t now_ns, std::uint64_t handle, std::size_t engine) {
    const Instant now = checked(now_ns);
    return device_.abort(checked_engine(engine),
                         {static_cast<std::uint32_t>(handle), static_cast<std::uint32_t>(handle >> 32U)}, now);
  }

  /// Runs every event up to now; then (first tokens, outputs, ends).
  py::tuple advance(std::int64_t now_ns) {
    struct Sink {
      py::list first_tokens{};
      py::list outputs{};
      py::list ends{};
      void first_token(std::size_t, std::uint64_t tag, Instant scheduled_at, Instant at) {
        first_tokens.append(py::make_tuple(tag, to_ns(scheduled_at), to_ns(at)));
      }
      void completed(std::size_t, std::uint64_t tag, Instant at) { ends.append(py::make_tuple(tag, to_ns(at))); }
      void output(std::uint64_t tag, std::uint64_t tokens) {
        if (tokens != 0) outputs.append(py::make_tuple(tag, tokens));
      }
    } sink;
    device_.advance_to(instant_from_ns(now_ns), sink);
    for (std::size_t i = 0; i < device_.size(); ++i) {
      const sim::Engine& engine = device_.engine(i);
      if (std::exchange(reported_[i], engine.steps()) != engine.steps()) engine.report_outputs(sink);
    }
    return py::make_tuple(std::move(sink.first_tokens), std::move(sink.outputs), std::move(sink.ends));
  }

  [[nodiscard]] std::optional<std::int64_t> next_event_ns() const {
    const Instant next = device_.next_event();
    return next == kNever ? std::nullopt : std::optional{to_ns(next)};
  }

  void stall(std::int64_t now_ns, std::int64_t until_ns, std::size_t engine) {
    const Instant now = checked(now_ns);
    device_.stall(checked_engine(engine), now, instant_from_ns(until_ns));
  }

  [[nodiscard]] const sim::Engine& engine(std::size_t index) const { return device_.engine(checked_engine(index)); }

 private:
  static sim::DeviceConfig config_from(const std::string& colocation) {
    const auto how = sim::colocation_from(colocation);
    if (!how) {
      throw py::value_error("colocation is \"" + colocation +
                            "\"; expected \"timeslice\", \"mps\", \"exclusive\" or \"swap\".");
    }
    sim::DeviceConfig config;
    config.colocation = *how;
    return config;
  }

  [[nodiscard]] std::size_t checked_engine(std::size_t index) const {
    if (index < device_.size()) return index;
    throw py::value_error("engine is " + std::to_string(index) + "; expected a number below " +
                          std::to_string(device_.size()) + ".");
  }

  [[nodiscard]] Instant checked(std::int64_t now_ns) const {
    const Instant now = instant_from_ns(now_ns);
    if (now >= device_.now() && now < device_.next_event()) return now;
    throw py::value_error("now_ns is " + std::to_string(now_ns) + ", but the device is at " +
                          std::to_string(to_ns(device_.now())) + "; call advance(now_ns) first.");
  }

  sim::Device device_;
  std::vector<std::uint64_t> reported_;  ///< By engine, steps when outputs were last reported.
};

}  // namespace

void bind_live_device(py::module_& module) {
  py::class_<LiveDevice>(module, "LiveDevice",
                         "A simulated device on a clock of the caller's. Call advance(now_ns) before anything else at "
                         "that instant, and again no later than next_event_ns. Not thread-safe.")
      .def(py::init<const std::vector<EngineSpec>&, const std::string&>(), py::arg("engines"),
           py::arg("colocation") = "exclusive")
      .def("advance", &LiveDevice::advance, py::arg("now_ns"),
           "Runs to this instant. Returns (first_tokens, outputs, ends): (tag, scheduled_ns, at_ns) of each request "
           "that gave its first token, (tag, tokens) so far of each that runs and has some, (tag, at_ns) of each that "
           "ended.")
      .def("enqueue", &LiveDevice::enqueue, py::arg("now_ns"), py::kw_only(), py::arg("engine") = 0, py::arg("tag"),
           py::arg("prompt_tokens"), py::arg("output_tokens"), py::arg("priority") = 0, py::arg("cached_tokens") = 0,
           "A handle for abort; None when the engine's queue is full or the request can never fit.")
      .def("abort", &LiveDevice::abort, py::arg("now_ns"), py::arg("handle"), py::kw_only(), py::arg("engine") = 0,
           "Withdraws a request and frees what it held. False when it has ended before.")
      .def("stall", &LiveDevice::stall, py::arg("now_ns"), py::kw_only(), py::arg("until_ns"), py::arg("engine") = 0,
           "No step of this engine ends or begins before until_ns.")
      .def_property_readonly("next_event_ns", &LiveDevice::next_event_ns, "None while nothing will happen by itself.")
      .def(
          "running", [](const LiveDevice& self, std::size_t engine) { return self.engine(engine).running(); },
          py::arg("engine") = 0, "Requests in the engine's batch.")
      .def(
          "waiting", [](const LiveDevice& self, std::size_t engine) { return self.engine(engine).waiting(); },
          py::arg("engine") = 0, "Requests in the engine's own queue.")
      .def(
          "kv_tokens_used",
          [](const LiveDevice& self, std::size_t engine) { return self.engine(engine).kv_tokens_used(); },
          py::arg("engine") = 0)
      .def(
          "kv_tokens_capacity",
          [](const LiveDevice& self, std::size_t engine) { return self.engine(engine).kv_tokens_capacity(); },
          py::arg("engine") = 0)
      .def(
          "preemptions", [](const LiveDevice& self, std::size_t engine) { return self.engine(engine).preemptions(); },
          py::arg("engine") = 0)
      .def(
          "steps", [](const LiveDevice& self, std::size_t engine) { return self.engine(engine).steps(); },
          py::arg("engine") = 0);
}

}  // namespace zeta::bindings
