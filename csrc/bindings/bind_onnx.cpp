#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "bindings.hpp"
#include "onnx_net.hpp"
#include "runtime/onnx_library.hpp"
#include "runtime/onnx_session.hpp"

namespace py = pybind11;

namespace zeta::bindings {
namespace {

[[noreturn]] void raise(const char* error, const std::string& message) {
  PyErr_SetString(py::module_::import("zeta.errors").attr(error).ptr(), message.c_str());
  throw py::error_already_set();
}

Duration microseconds(double given, const char* name) {
  if (!(given >= 0.0) || given > 1e12) {
    throw py::value_error(std::string{name} + " must be 0 (no limit) or more microseconds, at most 1e12; got " +
                          std::to_string(given));
  }
  return Duration{static_cast<std::int64_t>(given * 1e3)};
}

std::size_t positive(std::int64_t given, const char* name) {
  if (given < 1 || given > 1'000'000) {
    throw py::value_error(std::string{name} + " must be 1 to 1,000,000; got " + std::to_string(given));
  }
  return static_cast<std::size_t>(given);
}

std::unique_ptr<OnnxNet> make(const std::string& library, const py::bytes& model, std::int64_t features,
                              std::int64_t outputs, std::int64_t max_rows, const std::string& input_name,
                              const std::string& output_name, double deadline_us, double hang_limit_us) {
  runtime::OnnxSessionConfig config{.input_name = input_name,
                                    .output_name = output_name,
                                    .features = positive(features, "features"),
                                    .outputs = positive(outputs, "outputs"),
                                    .max_rows = positive(max_rows, "max_rows"),
                                    .deadline = microseconds(deadline_us, "deadline_us"),
                                    .hang_limit = microseconds(hang_limit_us, "hang_limit_us")};
  const std::string_view bytes{model};
  std::string refused;
  std::unique_ptr<OnnxNet> net;
  // Milliseconds without the GIL; `model` is held by the caller. At interpreter exit CPython (before 3.14) ends a
  // daemon thread that asks for the GIL by unwinding it, so there is no destructor that takes it.
  PyThreadState* const thread = PyEval_SaveThread();
  try {
    net.reset(new OnnxNet{std::make_unique<runtime::OnnxSession>(runtime::OnnxLibrary::at(library),
                                                                 std::as_bytes(std::span{bytes}), std::move(config))});
  } catch (const std::exception& error) {
    refused = error.what();
  }
  PyEval_RestoreThread(thread);
  if (net == nullptr) raise("ModelLoadError", refused);
  return net;
}

runtime::OnnxSession& open(const OnnxNet& self) {
  if (self.session == nullptr) {
    raise("ClosedError", "this net was handed to the allocation loop, which runs it now; make another one to call it");
  }
  return *self.session;
}

py::object run(const OnnxNet& self, const py::object& features) {
  runtime::OnnxSession& session = open(self);
  if (!session.is_of_this_process()) {
    raise("ClosedError", "this net belongs to the process that this one was forked from; make another one here");
  }
  const auto& config = session.config();
  if (!py::isinstance<py::array_t<float>>(features)) {
    throw py::type_error("features must be a numpy array of float32; got " +
                         py::str(py::type::of(features)).cast<std::string>());
  }
  const auto array = py::reinterpret_borrow<py::array_t<float>>(features);
  if (array.ndim() != 2 || !(array.flags() & py::array::c_style) ||
      static_cast<std::size_t>(array.shape(1)) != config.features || array.shape(0) < 1 ||
      static_cast<std::size_t>(array.shape(0)) > config.max_rows) {
    throw py::value_error("features must be a contiguous float32 array of shape (1 to " +
                          std::to_string(config.max_rows) + ", " + std::to_string(config.features) + ")");
  }
  const auto rows = static_cast<std::size_t>(array.shape(0));
  py::array_t<float> out(std::vector<std::size_t>{rows, config.outputs});
  // With the GIL: microseconds. To let go of it and take it back would cost 5 ms beside a busy thread.
  if (!session.run({array.data(), rows * config.features}, rows, {out.mutable_data(), rows * config.outputs})) {
    return py::none();
  }
  return out;
}

py::dict stats(const OnnxNet& self) {
  const runtime::OnnxSession& session = open(self);
  const runtime::OnnxSessionStats now = session.stats();
  py::dict found;
  found["runs"] = now.runs;
  found["failures"] = now.failures;
  found["late"] = now.late;
  found["stopped"] = now.stopped;
  found["rests"] = now.rests;
  found["rested"] = now.rested;
  found["tensor_allocations"] = now.tensor_allocations;
  found["tensor_allocations_from_heap"] = now.tensor_allocations_from_heap;
  found["last_run_us"] = static_cast<double>(now.last_run_ns) * 1e-3;
  found["longest_run_us"] = static_cast<double>(now.longest_run_ns) * 1e-3;
  const runtime::OnnxMemory* const memory = session.library().memory();
  found["tensor_bytes_in_use"] = memory == nullptr ? py::object(py::none()) : py::int_(memory->bytes_in_use());
  return found;
}

std::string library_version(const std::string& path) {
  try {
    return runtime::OnnxLibrary::at(path).version();
  } catch (const runtime::OnnxError& error) {
    raise("ModelLoadError", error.what());
  }
}

}  // namespace

void bind_onnx(py::module_& module) {
  module.def("onnx_library_version", &library_version, py::arg("path"),
             "Loads ONNX Runtime's shared library for the life of the process, and says which version it is.");
  py::class_<OnnxNet>(module, "OnnxNet", "A net in a native session of ONNX Runtime. One caller at a time.")
      .def(py::init(&make), py::arg("library"), py::arg("model"), py::kw_only(), py::arg("features"),
           py::arg("outputs"), py::arg("max_rows"), py::arg("input_name") = "features",
           py::arg("output_name") = "quantiles", py::arg("deadline_us") = 0.0, py::arg("hang_limit_us") = 0.0)
      .def("run", &run, py::arg("features"),
           "Outputs for a float32 array of shape (rows, features), or None where there is no answer in time.")
      .def("stats", &stats, "What the session did since it was made.")
      .def_property_readonly("is_handed_over", [](const OnnxNet& self) { return self.session == nullptr; })
      .def_property_readonly("is_of_this_process", [](const OnnxNet& self) { return open(self).is_of_this_process(); });
}

}  // namespace zeta::bindings
