#include "bindings.hpp"

PYBIND11_MODULE(_core, module) {
  module.doc() = "zeta's C++ core. Private: import from zeta.";
  zeta::bindings::bind_build_info(module);
  zeta::bindings::bind_queue(module);
  zeta::bindings::bind_share(module);  // before sched, whose signatures name its types
  zeta::bindings::bind_onnx(module);   // likewise
  zeta::bindings::bind_sched_config(module);
  zeta::bindings::bind_sched(module);
  zeta::bindings::bind_score(module);
  zeta::bindings::bind_forecast(module);
  zeta::bindings::bind_sim(module);
  zeta::bindings::bind_live_device(module);
  zeta::bindings::bind_replay(module);
  zeta::bindings::bind_monitor(module);
}
