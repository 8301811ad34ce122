#include "bindings.hpp"

namespace py = pybind11;

namespace zeta::bindings {

void bind_build_info(py::module_& module) {
  module.def(
      "build_info",
      [] {
        py::dict info;
        info["version"] = ZETA_VERSION;
        info["compiler"] = __VERSION__;
        return info;
      },
      "What this extension was built from: version and compiler.");
}

}  // namespace zeta::bindings
