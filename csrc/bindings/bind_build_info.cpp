#include <pybind11/typing.h>

#include "bindings.hpp"
#include "zeta/core/cpu.hpp"

namespace py = pybind11;

namespace zeta::bindings {

void bind_build_info(py::module_& module) {
  module.def(
      "build_info",
      []() -> py::typing::Dict<py::str, py::object> {
        const CpuFeatures cpu = detect_cpu_features();
        py::typing::Dict<py::str, py::bool_> features;
        features["avx2"] = cpu.avx2;
        features["avx512f"] = cpu.avx512f;
        features["neon"] = cpu.neon;
        features["sve"] = cpu.sve;
        py::typing::Dict<py::str, py::object> info;
        info["version"] = ZETA_VERSION;
        info["compiler"] = ZETA_COMPILER;
        info["flags"] = ZETA_BUILD_FLAGS;
        info["cpu_features"] = features;
        return info;
      },
      "What this extension was built from (version, compiler, flags), and what the running CPU offers (cpu_features).");
}

}  // namespace zeta::bindings
