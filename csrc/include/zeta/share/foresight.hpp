#pragma once
// Where a device will stand when a plan made now acts: its backlog, what arrives, and the plans already on their way.

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <span>

#include "zeta/core/types.hpp"

namespace zeta::share {

/// Work expected to arrive for one model: its mean pace, in GPU-seconds per second, over (now, now + h] for each
/// horizon h. Not a number: unknown. A value.
struct ExpectedWork {
  static constexpr std::array<double, 5> kHorizonsS{1.0, 10.0, 60.0, 180.0, 600.0};
  using Paces = std::array<double, kHorizonsS.size()>;

  Paces pace = unknown();

  static constexpr Paces unknown() noexcept {
    Paces paces{};
    paces.fill(std::numeric_limits<double>::quiet_NaN());
    return paces;
  }

  /// Whether every number can be used.
  [[nodiscard]] bool is_known() const noexcept {
    return std::all_of(pace.begin(), pace.end(), [](double each) { return each >= 0.0 && each < 1e6; });
  }

  /// GPU-seconds that arrive within `s` seconds: straight lines between the horizons, never falling.
  [[nodiscard]] double within(double s) const noexcept {
    double from_s = 0.0;
    double work = 0.0;
    for (std::size_t k = 0; k < pace.size(); ++k) {
      const double at_horizon = std::max(work, pace[k] * kHorizonsS[k]);
      if (s <= kHorizonsS[k] || k + 1 == pace.size()) {
        return work + (at_horizon - work) * (s - from_s) / (kHorizonsS[k] - from_s);
      }
      from_s = kHorizonsS[k];
      work = at_horizon;
    }
    return work;
  }

  /// Mean pace over (from, to] seconds from now.
  [[nodiscard]] double between(double from_s, double to_s) const noexcept {
    return (within(to_s) - within(from_s)) / (to_s - from_s);
  }
};

/// One model on its way to the instant at which a plan acts.
struct Foreseen {
  double backlog_s = 0.0;  ///< Waiting work in GPU-seconds, as far as the way has been gone.
  double weight = 1.0;     ///< Of its part of the device while it has work.
  ExpectedWork arriving;
};

/// Goes on from `from_s` to `to_s` seconds after now: the device works off backlogs and arrivals as a fluid, `capacity`
/// GPU-seconds per second, divided among the models with work in proportion to their weights (generalised processor
/// sharing: Parekh and Gallager, 1993). At most kMaxModels models. Pure, allocates nothing.
inline void go_on(std::span<Foreseen> models, double capacity, double from_s, double to_s) noexcept {
  double room = capacity * (to_s - from_s);
  double weight = 0.0;
  for (Foreseen& each : models) {
    each.backlog_s += each.arriving.within(to_s) - each.arriving.within(from_s);
    weight += each.backlog_s > 0.0 ? each.weight : 0.0;
  }
  // Who needs less than its part leaves the rest to the others: at most as many rounds as models.
  for (std::size_t round = 0; round < models.size() && weight > 0.0 && room > 0.0; ++round) {
    const double part = room / weight;
    bool is_anyone_done = false;
    for (Foreseen& each : models) {
      if (each.backlog_s <= 0.0 || each.backlog_s > part * each.weight) continue;
      room -= each.backlog_s;
      weight -= each.weight;
      each.backlog_s = 0.0;
      is_anyone_done = true;
    }
    if (is_anyone_done) continue;
    for (Foreseen& each : models) each.backlog_s -= each.backlog_s > 0.0 ? part * each.weight : 0.0;
    return;
  }
}

/// How a foreseen state becomes a need. What else was tried: docs/decisions/0010-foresight.md.
struct ForesightConfig {
  /// GPU-seconds of predicted work that a device is taken to do per second: twice what it does. A share that turns out
  /// wrong when it acts costs more than an even one, so only a need that is sure to stand out moves shares.
  double capacity = 2.2;
  double clears_s = 30.0;  ///< Time over which a backlog that is left when the plan acts should go.
  double acts_s = 60.0;    ///< The plan is made for this long from when it acts.
};

/// Fraction of the device that a model needs once the plan acts, `delay_s` after now.
[[nodiscard]] inline double expected_need(const ForesightConfig& config, const Foreseen& model,
                                          double delay_s) noexcept {
  const double pace = model.arriving.between(delay_s, delay_s + config.acts_s);
  return (pace + model.backlog_s / config.clears_s) / config.capacity;
}

}  // namespace zeta::share
