#pragma once
// One function per room of csrc/include/zeta. Each converts, calls, converts back; no policy lives here.

#include <pybind11/pybind11.h>

namespace zeta::bindings {

void bind_build_info(pybind11::module_& module);
void bind_monitor(pybind11::module_& module);
void bind_queue(pybind11::module_& module);
void bind_forecast(pybind11::module_& module);
void bind_live_device(pybind11::module_& module);
void bind_onnx(pybind11::module_& module);
void bind_replay(pybind11::module_& module);
void bind_sched_config(pybind11::module_& module);
void bind_sched(pybind11::module_& module);
void bind_share(pybind11::module_& module);
void bind_score(pybind11::module_& module);
void bind_sim(pybind11::module_& module);

}  // namespace zeta::bindings
