#pragma once
// "A thread stopped anywhere cannot stop the others", tried at every atomic step.

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include "interleave/explore.hpp"

namespace zeta::interleave {

struct FreezeReport {
  std::uint64_t steps = 0;  ///< how many steps of the frozen thread were tried
  std::uint64_t schedules = 0;
  std::optional<Failure> failure;
};

/// Runs the scenario with its thread 0 stopped for ever before its k-th atomic step, for each k that some schedule
/// reaches, `seeds` schedules each. In every second one the thread runs to that step before the others begin; in the
/// rest they run beside it. The others must return within `step_limit` steps in all, and the scenario must find their
/// answers right, the frozen operation being pending.
inline FreezeReport freeze_every_step(const Scenario& scenario, std::uint64_t seeds = 300,
                                      std::uint64_t step_limit = 4'000) {
  FreezeReport report;
  Model model;
  model.limit_steps(step_limit);
  const std::uint64_t first = first_seed();
  const std::uint64_t count = std::max(kSanitized ? seeds / 50 + 1 : seeds, schedules(0) / 100);
  for (bool is_reached = true; is_reached; ++report.steps) {
    is_reached = false;
    for (std::uint64_t seed = first; seed < first + count; ++seed, ++report.schedules) {
      model.freeze(0, report.steps, (seed & 1U) != 0);
      const std::string what = run_seed(model, scenario, seed, Model::Memory::kBySeed);
      is_reached |= model.has_frozen();
      if (what.empty()) continue;
      std::string where = model.has_frozen() ? std::string(" before ") + model.frozen_at().file_name() + ":" +
                                                   std::to_string(model.frozen_at().line())
                                             : std::string(" nowhere: the operation has fewer steps here");
      report.failure =
          Failure{seed, what + "\n  with thread 0 frozen at its step " + std::to_string(report.steps) + where,
                  trace_of(model, scenario, seed, Model::Memory::kBySeed)};
      return report;
    }
  }
  return report;
}

/// Fails the test case where a frozen thread stops the others or hides what they did.
inline void expect_unstoppable(const NamedScenario& named, std::uint64_t seeds = 300) {
  const FreezeReport report = freeze_every_step(named.scenario, seeds);
  CHECK_MESSAGE(report.steps > 1, named.name << ": thread 0 was never frozen");
  if (!report.failure) return;
  FAIL_CHECK(named.name << ": " << report.failure->what << "\n  seed " << report.failure->seed
                        << report.failure->trace);
}

}  // namespace zeta::interleave
