#pragma once
// Which model a swap-type device should hold: collation. Pure.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "zeta/core/time.hpp"
#include "zeta/core/types.hpp"

namespace zeta::share {

/// When the resident model gives way, as long as nobody's wait presses.
enum class CollationRule : std::uint8_t {
  gain,        ///< Nothing waits for it, and another promises more requests in time per second, the change included.
  exhaustive,  ///< Nothing waits for it: to the model whose request has waited longest.
};

struct CollationConfig {
  CollationRule rule = CollationRule::gain;
  Duration max_wait{300'000'000'000};  ///< A request that would wait longer brings its model in next.
};

/// One model of the device.
struct Candidate {
  ModelId model = kNoModel;
  double in_time = 0.0;      ///< Waiting requests that it may serve and that would still be in time when it is there.
  double late = 0.0;         ///< The other ones that wait for it.
  double arrival_rps = 0.0;  ///< Requests that it may serve, arriving.
  double service_rps = 0.0;  ///< Requests that it serves when there are enough.
  double slack_s = 0.0;      ///< From arrival to latest start, mean.
  double load_s = 0.0;       ///< From an empty device until it is resident.

  [[nodiscard]] double waiting() const noexcept { return in_time + late; }
};

/// Requests that wait and that the resident model may not serve.
struct Held {
  ModelMask models;
  Instant oldest = kNever;
};

/// The device now.
struct Residence {
  ModelId resident = kNoModel;
  Instant since{};             ///< When it became resident.
  double drain_s = 0.0;        ///< Until what runs has finished.
  double usual_drain_s = 0.0;  ///< What that takes at other times.
};

struct Change {
  ModelId model = kNoModel;
  bool is_forced = false;  ///< For the longest wait.
};

namespace residency {

inline constexpr double kLateValue = 0.2;  ///< Of a request that is late already, beside one in time.
inline constexpr double kLeastGain = 1.3;  ///< How many times as good another model must be.
inline constexpr double kAim = 0.8;        ///< Part of the longest wait that is planned with.
inline constexpr double kEarned = 3.0;     ///< Times its loading that a model stays where work waits for it.

inline const Candidate* find(std::span<const Candidate> candidates, ModelId model) noexcept {
  for (const Candidate& candidate : candidates) {
    if (candidate.model == model) return &candidate;
  }
  return nullptr;
}

/// Seconds until nothing waits for a model for which `waiting` wait: at least one, `most_s` at most.
inline double busy_s(const Candidate& c, double waiting, double most_s) noexcept {
  const double spare_rps = c.service_rps - c.arrival_rps;
  return spare_rps * most_s > waiting ? std::max(waiting / spare_rps, 1.0) : std::max(most_s, 1.0);
}

/// What it serves in `span_s`, late requests at their lower value. `lost` is the part of the arrivals that would be
/// late were it not there.
inline double reward(const Candidate& c, double lost, double span_s) noexcept {
  const double room = c.service_rps * span_s;
  const double good = std::min(c.in_time + lost * c.arrival_rps * span_s, room);
  return good + kLateValue * std::min(c.late, room - good);
}

/// The part of the arrivals that is late after an absence of the model.
inline double lost_part(const Candidate& c, double absence_s) noexcept {
  return absence_s <= c.slack_s ? 0.0 : 1.0 - c.slack_s / absence_s;
}

/// Reward per second, of the better of two spans: until nothing waits for it, and the longest wait.
inline double rate(const CollationConfig& config, const Candidate& c, double lost, double change_s) noexcept {
  const double long_s = to_seconds(config.max_wait);
  const double short_s = busy_s(c, c.waiting(), long_s);
  return std::max(reward(c, lost, short_s) / (change_s + short_s), reward(c, lost, long_s) / (change_s + long_s));
}

/// The one of `models` that promises most after `drain_s`; nullptr where none is a candidate.
inline const Candidate* best_of(const CollationConfig& config, std::span<const Candidate> candidates, ModelMask models,
                                double drain_s) noexcept {
  const Candidate* best = nullptr;
  double most = 0.0;
  for (const Candidate& c : candidates) {
    if (!models.contains(c.model)) continue;
    const double value = rate(config, c, 1.0, drain_s + c.load_s);
    if (best != nullptr && value <= most) continue;
    best = &c;
    most = value;
  }
  return best;
}

/// Of sets that none of `covered` serves, the one that has waited longest; nullptr where there is none.
inline const Held* oldest_of(std::span<const Held> held, ModelMask covered) noexcept {
  const Held* oldest = nullptr;
  for (const Held& set : held) {
    if (!(set.models & covered).empty()) continue;
    if (oldest == nullptr || set.oldest < oldest->oldest) oldest = &set;
  }
  return oldest;
}

/// Whose turn it is if no held request is to wait too long; no model while there is time.
struct Turn {
  ModelId model = kNoModel;
  bool is_pressing = false;  ///< It is the first in the row itself that has no time left.
};

/// Puts held sets, but for those that `present` serves, in a row by age. Each change, and serving what waits by then,
/// delays the later ones.
inline Turn turn_of(const CollationConfig& config, std::span<const Candidate> candidates, std::span<const Held> held,
                    ModelMask present, const Residence& there, Instant now) noexcept {
  const Duration aim = duration_from_seconds(kAim * to_seconds(config.max_wait));
  ModelId first = kNoModel;
  double ahead_s = there.drain_s;
  for (ModelMask covered = present;;) {
    const Held* const next = oldest_of(held, covered);
    if (next == nullptr) return {};
    const Candidate* const c = best_of(config, candidates, next->models, there.drain_s);
    if (c == nullptr) {
      covered = covered | next->models;  // none of them can be loaded
      continue;
    }
    const bool is_first = first == kNoModel;
    if (is_first) first = c->model;
    ahead_s += c->load_s;
    if (now + duration_from_seconds(ahead_s) >= saturating_add(next->oldest, aim)) return {first, is_first};
    ahead_s += busy_s(*c, c->waiting() + c->arrival_rps * ahead_s, to_seconds(config.max_wait)) + there.usual_drain_s;
    covered.insert(c->model);
  }
}

/// The one that earns enough more per second than `here` to be worth the change; nullptr where none does.
inline const Candidate* best_gain(const CollationConfig& config, std::span<const Candidate> candidates,
                                  const Candidate* here, double drain_s) noexcept {
  const Candidate* best = nullptr;
  double most = 0.0;
  for (const Candidate& c : candidates) {
    if (&c == here || c.waiting() == 0.0) continue;
    const double change_s = drain_s + c.load_s;
    const double back_s = here == nullptr ? 0.0 : here->load_s;
    const double absence_s = change_s + busy_s(c, c.waiting(), to_seconds(config.max_wait)) + back_s;
    const double staying = here == nullptr ? 0.0 : rate(config, *here, lost_part(*here, absence_s), 0.0);
    const double going = rate(config, c, lost_part(c, absence_s), change_s);
    if (going <= kLeastGain * staying || going <= most) continue;
    most = going;
    best = &c;
  }
  return best;
}

}  // namespace residency

/// Which model a device that holds one at a time should hold next; nothing while the resident one stays.
///
/// While somebody waits for the resident model it stays (exhaustive service: with equal requests nothing makes fewer
/// changes), until another's wait presses. Two rules say who comes next.
///
/// 1. *The longest wait.* Sets of held requests stand in a row by age. If the changes and the work of those before it
///    would make one wait longer than `max_wait` (planned with 0.8 of it), the first of the row is next as soon as
///    nothing waits for the resident model; at once where the first itself has no time left, but for a resident model
///    with work that has not stayed for three times its loading: in overload three quarters of the time are work.
/// 2. *The gain.* Serving is worth one per request in time and 0.2 per late one. Staying and going are compared by what
///    they earn per second, the change counted in, until nothing waits or over the longest wait, whichever is more: the
///    index of Duenyas and Van Oyen ("Heuristic scheduling of parallel heterogeneous queues with set-ups", Management
///    Science, 1996), with deadlines. Arrivals count as far as they would be late without the model. Another must be
///    1.3 times as good; and if going there would make somebody wait too long, the first of the row goes instead.
///
/// Nobody waits longer than `max_wait` while work, changes and drains fit into it; in overload the row moves on as it
/// can.
[[nodiscard]] inline std::optional<Change> next_resident(const CollationConfig& config,
                                                         std::span<const Candidate> candidates,
                                                         std::span<const Held> held, const Residence& there,
                                                         Instant now) noexcept {
  using namespace residency;
  const Candidate* const here = find(candidates, there.resident);
  const bool is_idle = here == nullptr || here->waiting() == 0.0;
  const Turn turn = turn_of(config, candidates, held, ModelMask{}, there, now);
  if (turn.model != kNoModel) {
    const bool has_earned = is_idle || now - there.since >= duration_from_seconds(kEarned * here->load_s);
    if (is_idle || (turn.is_pressing && has_earned)) return Change{turn.model, true};
  }
  if (!is_idle) return std::nullopt;
  if (config.rule == CollationRule::exhaustive) {
    const Held* const oldest = oldest_of(held, ModelMask{});
    const Candidate* const next =
        oldest == nullptr ? nullptr : best_of(config, candidates, oldest->models, there.drain_s);
    return next == nullptr ? std::nullopt : std::optional{Change{next->model, false}};
  }
  const Candidate* const best = best_gain(config, candidates, here, there.drain_s);
  if (best == nullptr) return std::nullopt;
  const Instant settled = now + duration_from_seconds(there.drain_s + 2.0 * best->load_s);
  const Residence next{best->model, settled, there.usual_drain_s, there.usual_drain_s};
  const Turn missed = turn_of(config, candidates, held, ModelMask::of(best->model), next, settled);
  return missed.model == kNoModel ? Change{best->model, false} : Change{missed.model, true};
}

}  // namespace zeta::share
