#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "bindings.hpp"
#include "columns.hpp"
#include "engine_spec.hpp"
#include "zeta/sim/device.hpp"
#include "zeta/sim/engine.hpp"
#include "zeta/sim/open_loop.hpp"
#include "zeta/sim/step_table.hpp"

namespace py = pybind11;

namespace zeta::bindings {
namespace {

std::span<const std::uint32_t> optional_column(const std::optional<py::array>& array, const char* name,
                                               std::size_t size) {
  return array ? column<std::uint32_t>(*array, name, size, "uint32") : std::span<const std::uint32_t>{};
}

sim::KnotSurface surface(const py::array_t<double, py::array::c_style>& values, const char* name) {
  if (values.ndim() != 2) {
    throw py::value_error(std::string{name} + " must have 2 dimensions, got " + std::to_string(values.ndim()) + ".");
  }
  return {static_cast<std::size_t>(values.shape(0)), static_cast<std::size_t>(values.shape(1)),
          std::vector<double>(values.data(), values.data() + values.size())};
}

using Doubles = py::array_t<double, py::array::c_style>;

std::shared_ptr<sim::StepTable> make_table(const std::vector<double>& dense_ns,
                                           const std::vector<double>& per_sequence_ns,
                                           const Doubles& decode_attention_ns, const Doubles& mixed_decode_attention_ns,
                                           const Doubles& prefill_attention_ns, double kernel_factor,
                                           double prefill_surcharge, double step_overhead_ns,
                                           double sequence_overhead_ns) {
  sim::StepTableData data;
  data.dense_ns = dense_ns;
  data.per_sequence_ns = per_sequence_ns;
  data.decode_attention = surface(decode_attention_ns, "decode_attention_ns");
  data.mixed_decode_attention = surface(mixed_decode_attention_ns, "mixed_decode_attention_ns");
  data.prefill_attention = surface(prefill_attention_ns, "prefill_attention_ns");
  data.kernel_factor = kernel_factor;
  data.prefill_surcharge = prefill_surcharge;
  data.step_overhead_ns = step_overhead_ns;
  data.sequence_overhead_ns = sequence_overhead_ns;
  return std::make_shared<sim::StepTable>(std::move(data));
}

py::dict run_open_loop(const std::vector<EngineSpec>& engines, const std::string& colocation,
                       const py::array& arrival_ns, const py::array& prompt_tokens, const py::array& output_tokens,
                       const std::optional<py::array>& cached_tokens, const std::optional<py::array>& engine) {
  const auto how = sim::colocation_from(colocation);
  if (!how) {
    throw py::value_error("colocation is \"" + colocation +
                          "\"; expected \"timeslice\", \"mps\", \"exclusive\" or \"swap\".");
  }
  if (engines.empty()) throw py::value_error("engines is empty; give at least one EngineSpec.");
  const auto size = static_cast<std::size_t>(arrival_ns.size());
  sim::OpenLoopArrivals arrivals;
  arrivals.arrival_ns = column<std::int64_t>(arrival_ns, "arrival_ns", size, "int64");
  arrivals.prompt_tokens = column<std::uint32_t>(prompt_tokens, "prompt_tokens", size, "uint32");
  arrivals.output_tokens = column<std::uint32_t>(output_tokens, "output_tokens", size, "uint32");
  arrivals.cached_tokens = optional_column(cached_tokens, "cached_tokens", size);
  arrivals.engine = optional_column(engine, "engine", size);
  for (std::size_t i = 1; i < size; ++i) {
    if (arrivals.arrival_ns[i] < arrivals.arrival_ns[i - 1]) {
      throw py::value_error("arrival_ns goes back at entry " + std::to_string(i) + "; sort the arrivals first.");
    }
  }
  for (const std::uint32_t index : arrivals.engine) {
    if (index >= engines.size()) {
      throw py::value_error("engine names index " + std::to_string(index) + ", but there are only " +
                            std::to_string(engines.size()) + " engines.");
    }
  }

  py::array_t<std::int64_t> scheduled(static_cast<py::ssize_t>(size));
  py::array_t<std::int64_t> first(static_cast<py::ssize_t>(size));
  py::array_t<std::int64_t> last(static_cast<py::ssize_t>(size));
  const sim::OpenLoopTimes times{
      {scheduled.mutable_data(), size}, {first.mutable_data(), size}, {last.mutable_data(), size}};
  sim::DeviceConfig config;
  config.colocation = *how;
  sim::Device device{config};
  for (const EngineSpec& spec : engines) device.add_engine(sim::Engine{spec.table, spec.config}, spec.setup);
  sim::OpenLoopResult result;
  {
    const py::gil_scoped_release released;
    result = sim::run_open_loop(device, arrivals, times);
  }
  std::uint64_t steps = 0;
  std::uint64_t preemptions = 0;
  for (std::size_t i = 0; i < device.size(); ++i) {
    steps += device.engine(i).steps();
    preemptions += device.engine(i).preemptions();
  }
  py::dict out;
  out["scheduled_ns"] = scheduled;
  out["first_token_ns"] = first;
  out["last_token_ns"] = last;
  out["completed"] = result.completed;
  out["refused"] = result.refused;
  out["ended_at_ns"] = to_ns(result.ended_at);
  out["steps"] = steps;
  out["preemptions"] = preemptions;
  out["swaps"] = device.swaps();
  out["event_hash"] = result.event_hash;
  return out;
}

}  // namespace

void bind_sim(py::module_& module) {
  py::class_<sim::StepTable, std::shared_ptr<sim::StepTable>>(module, "StepTable",
                                                              "Step times of one model on one kind of device.")
      .def(py::init(&make_table), py::kw_only(), py::arg("dense_ns"), py::arg("per_sequence_ns"),
           py::arg("decode_attention_ns"), py::arg("mixed_decode_attention_ns"), py::arg("prefill_attention_ns"),
           py::arg("kernel_factor") = 1.0, py::arg("prefill_surcharge") = 0.0, py::arg("step_overhead_ns") = 0.0,
           py::arg("sequence_overhead_ns") = 0.0)
      .def(
          "step_time_ns",
          [](const sim::StepTable& table, std::uint64_t prefill_tokens, std::uint64_t prefill_kv_tokens,
             std::uint64_t decode_batch, std::uint64_t decode_context_tokens) {
            return table.step_time(prefill_tokens, prefill_kv_tokens, decode_batch, decode_context_tokens).count();
          },
          py::arg("prefill_tokens"), py::arg("prefill_kv_tokens"), py::arg("decode_batch"),
          py::arg("decode_context_tokens"),
          "Nanoseconds of a step with one prefill piece behind prefill_kv_tokens, and decode_batch decodes whose "
          "contexts add up to decode_context_tokens.");

  py::class_<EngineSpec>(module, "EngineSpec", "One simulated engine: its step table and its limits.")
      .def(
          py::init([](std::shared_ptr<sim::StepTable> table, std::uint64_t kv_tokens, std::uint32_t max_batched_tokens,
                      std::uint32_t max_sequences, std::uint32_t max_waiting, bool plans_ahead, bool keeps_freed_blocks,
                      std::int64_t available_from_ns, std::int64_t load_delay_ns, std::int64_t unload_delay_ns) {
            EngineSpec spec;
            spec.table = std::move(table);
            spec.config.kv_tokens = kv_tokens;
            spec.config.max_batched_tokens = max_batched_tokens;
            spec.config.max_sequences = max_sequences;
            spec.config.max_waiting = max_waiting;
            spec.config.plans_ahead = plans_ahead;
            spec.config.keeps_freed_blocks = keeps_freed_blocks;
            spec.setup.available_from = instant_from_ns(available_from_ns);
            spec.setup.load_delay = Duration{load_delay_ns};
            spec.setup.unload_delay = Duration{unload_delay_ns};
            return spec;
          }),
          py::arg("table"), py::kw_only(), py::arg("kv_tokens"), py::arg("max_batched_tokens") = 2048,
          py::arg("max_sequences") = 128, py::arg("max_waiting") = 4096, py::arg("plans_ahead") = true,
          py::arg("keeps_freed_blocks") = true, py::arg("available_from_ns") = 0, py::arg("load_delay_ns") = 0,
          py::arg("unload_delay_ns") = 0);

  module.def("octave_knot", &sim::OctaveKnots::at, py::arg("index"),
             "The position of knot `index` on either axis of an attention table.");
  module.def("run_open_loop", &run_open_loop, py::arg("engines"), py::kw_only(), py::arg("colocation") = "exclusive",
             py::arg("arrival_ns"), py::arg("prompt_tokens"), py::arg("output_tokens"),
             py::arg("cached_tokens") = py::none(), py::arg("engine") = py::none(),
             "Replays arrivals straight into simulated engines on one device and returns when each request was "
             "scheduled and gave its first and last token (ns, -1: never).");
}

}  // namespace zeta::bindings
