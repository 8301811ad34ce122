#pragma once

#include <memory>

#include "zeta/sim/device.hpp"

namespace zeta::bindings {

/// One simulated engine, as Python describes it.
struct EngineSpec {
  std::shared_ptr<const sim::StepTable> table;
  sim::EngineConfig config;
  sim::EngineSetup setup;
};

}  // namespace zeta::bindings
