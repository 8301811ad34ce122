#pragma once
// Many schedules of one scenario, and what to print about the first that fails.

#include <doctest/doctest.h>

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>

#include "interleave/model.hpp"

namespace zeta::interleave {

/// One schedule: makes the subject, gives its threads to `model.run`, and returns what went wrong, or "".
using Scenario = std::function<std::string(Model&)>;

struct NamedScenario {
  std::string name;
  Scenario scenario;
};

struct Failure {
  std::uint64_t seed = 0;
  std::string what;
  std::string trace;
};

struct Exploration {
  std::uint64_t schedules = 0;
  std::uint64_t steps = 0;
  std::optional<Failure> failure;
};

#if defined(__SANITIZE_ADDRESS__) || defined(ZETA_SANITIZED)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

inline std::optional<std::uint64_t> number_from_environment(const char* name) {
  const char* const text = std::getenv(name);
  if (text == nullptr) return std::nullopt;
  return std::strtoull(text, nullptr, 10);
}

/// ZETA_MODEL_SEED=S: begin there, and run this one schedule unless ZETA_MODEL_SCHEDULES says more.
inline std::uint64_t first_seed() { return number_from_environment("ZETA_MODEL_SEED").value_or(1); }
inline std::uint64_t schedules(std::uint64_t otherwise) {
  if (const auto asked = number_from_environment("ZETA_MODEL_SCHEDULES")) return *asked;
  if (number_from_environment("ZETA_MODEL_SEED")) return 1;
  return kSanitized ? otherwise / 50 + 1 : otherwise;
}

/// ZETA_MODEL_WEAK=1: every schedule under weak memory, as the mutation tests run theirs.
inline Model::Memory memory_by_environment() {
  return number_from_environment("ZETA_MODEL_WEAK") ? Model::Memory::kWeak : Model::Memory::kBySeed;
}

/// One seed: the schedule, and where it offers one, the schedule with a load reading ahead. "" when both went well.
inline std::string run_seed(Model& model, const Scenario& scenario, std::uint64_t seed, Model::Memory memory,
                            std::uint64_t* steps = nullptr) {
  const auto once = [&] {
    model.begin(seed, memory);
    std::string what = scenario(model);
    if (!model.failure().empty()) what = model.failure();
    if (steps != nullptr) *steps += model.steps();
    return what;
  };
  std::string what = once();
  if (!what.empty() || !model.offers_read_ahead()) return what;
  model.read_ahead();
  what = once();
  model.read_no_further();
  if (model.is_void()) return "";
  return what.empty() ? what : what + " (a relaxed load read ahead)";
}

/// The steps of a seed, for people: the last ZETA_MODEL_TRACE of them, 60 by default.
inline std::string trace_of(Model& model, const Scenario& scenario, std::uint64_t seed, Model::Memory memory) {
  const std::size_t shown = number_from_environment("ZETA_MODEL_TRACE").value_or(60);
  model.keep_trace(true);
  (void)run_seed(model, scenario, seed, memory);
  model.keep_trace(false);
  const auto& lines = model.trace();
  std::string text;
  for (std::size_t i = lines.size() > shown ? lines.size() - shown : 0; i < lines.size(); ++i) {
    text += "\n    " + lines[i];
  }
  return text;
}

inline Exploration explore(const Scenario& scenario, std::uint64_t count, std::uint64_t first = first_seed(),
                           Model::Memory memory = memory_by_environment()) {
  Model model;
  Exploration result;
  for (; result.schedules < count && !result.failure; ++result.schedules) {
    const std::uint64_t seed = first + result.schedules;
    std::string what = run_seed(model, scenario, seed, memory, &result.steps);
    if (!what.empty()) result.failure = Failure{seed, what, trace_of(model, scenario, seed, memory)};
  }
  return result;
}

inline constexpr std::uint64_t kSchedules = 100'000;

/// Fails the test case at the first schedule that goes wrong, and says how to see it again.
inline void expect_right(const NamedScenario& named, std::uint64_t count = kSchedules) {
  const Exploration result = explore(named.scenario, schedules(count));
  CHECK_MESSAGE(result.steps > 0, named.name << " took no step");
  if (!result.failure) return;
  FAIL_CHECK(named.name << ": " << result.failure->what << "\n  replay: ZETA_MODEL_SEED=" << result.failure->seed
                        << result.failure->trace);
}

}  // namespace zeta::interleave
