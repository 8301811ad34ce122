#pragma once
// How much of a device each of its models gets: one pure function from demand and the last plan to the next plan.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <stdexcept>
#include <string_view>

#include "zeta/core/time.hpp"
#include "zeta/core/types.hpp"

namespace zeta::share {

enum class Policy : std::uint8_t {
  water_fill,    ///< Each model its need, the rest levelled; even whenever nobody needs more than an even part.
  even,          ///< 1/n each, always.
  proportional,  ///< In proportion to waiting work.
  queue_length,  ///< In proportion to the number waiting.
  boost,         ///< A fixed extra share to the most backed-up model until it clears.
  max_weight,    ///< Everything above the floors to the largest (waiting x service rate).
};
inline constexpr std::array<std::string_view, 6> kPolicyNames{"water-fill",   "even",  "proportional",
                                                              "queue-length", "boost", "max-weight"};

/// Why a model has the share that it has.
enum class Reason : std::uint8_t {
  even,      ///< Nobody needs more than an even part.
  need,      ///< Its need, more than an even part.
  level,     ///< The level left when others had their needs; at least its own need.
  capped,    ///< Less than its need: the needs add up to more than the device, which is divided max-min fairly.
  floor,     ///< The least a model gets.
  weight,    ///< In proportion to its weight (proportional, queue-length).
  boosted,   ///< The most backed-up one (boost) or the heaviest one (max-weight).
  unboosted  ///< What the boosted or heaviest one leaves.
};
inline constexpr std::array<std::string_view, 8> kReasonNames{"even",  "need",   "level",   "capped",
                                                              "floor", "weight", "boosted", "unboosted"};

constexpr std::string_view name_of(Policy policy) noexcept { return kPolicyNames[static_cast<std::size_t>(policy)]; }
constexpr std::string_view name_of(Reason reason) noexcept { return kReasonNames[static_cast<std::size_t>(reason)]; }

/// What one model asks of the device that it shares.
struct ModelDemand {
  double decode_pace = 0.0;       ///< Fraction of the device that keeps the TPOT of what runs. NaN: unknown.
  double due_pressure = 0.0;      ///< Fraction that starts what waits in time: DemandHistogram::need. NaN: unknown.
  double backlog_work_s = 0.0;    ///< Waiting work in GPU-seconds.
  std::uint32_t waiting = 0;      ///< Requests in the queue.
  std::uint32_t running = 0;      ///< Requests on replicas. No policy reads it yet; it is shown beside the plan.
  double service_rate_rps = 0.0;  ///< Requests per second when the model has the device for itself.
  /// Fraction of the device that the model will need while the plan acts, where that is much later than now
  /// (sched::AllocationLoop foresees it); it stands in for the other two. NaN: none. Only water_fill reads it, and only
  /// where every model of the device has one.
  double expected_need = std::numeric_limits<double>::quiet_NaN();

  [[nodiscard]] constexpr double need() const noexcept { return decode_pace + due_pressure; }
};

/// The defaults and their reasons are in docs/decisions/0003-share-policies.md.
struct PolicyConfig {
  Policy policy = Policy::water_fill;
  double floor = 0.05;                  ///< Least share; min(floor, 1/2n) is used.
  double max_step = 0.25;               ///< No share moves further in one tick; at least 0.25.
  double hysteresis = 0.005;            ///< Smaller moves are not made; at most 0.005.
  double boost_share = 0.2;             ///< Policy boost: what the most backed-up model gets above 1/n.
  double boost_starts_work_s = 1.0;     ///< Policy boost: waiting GPU-seconds that start a boost.
  double boost_clears_work_s = 0.1;     ///< Policy boost: waiting GPU-seconds at which a model has cleared.
  Duration need_memory{3'000'000'000};  ///< Time constant of the mean of a need that only jitters.
  double jitter = 0.06;                 ///< Relative deviation that counts as jitter.
  double jump = 0.24;                   ///< Relative deviation beyond jitter, added up, that makes the mean start anew.
};

/// Throws std::invalid_argument naming the field, its value and what is allowed.
inline void check(const PolicyConfig& config);

/// What the next tick must know of the last one. Not for reading by others.
struct HeldNeed {
  double mean = 0.0;       ///< Mean need since the last jump, with memory bounded by need_memory.
  double rise = 0.0;       ///< Deviations above the jitter, added up.
  double fall = 0.0;       ///< Deviations below it.
  std::uint32_t seen = 0;  ///< Ticks since the last jump.
};

/// One tick's decision; index i is the i-th model of the device throughout. A value. Plan{} is "no tick yet".
struct Plan {
  std::uint32_t count = 0;
  Instant at{};
  std::array<double, kMaxModels> share{};
  std::array<double, kMaxModels> need{};  ///< Held needs: what the shares are computed from (water-fill), else raw.
  std::array<Reason, kMaxModels> reason{};
  std::array<HeldNeed, kMaxModels> held{};
  std::array<double, kMaxModels> decode_pace{};   ///< Last readable part of each raw need.
  std::array<double, kMaxModels> due_pressure{};  ///< Likewise.
  std::uint32_t calm_ticks = 0;                   ///< Ticks in a row in which every raw need was at most 1/n.
  std::int32_t boosted = -1;                      ///< Policy boost: who is boosted; -1 nobody.
  Policy policy = Policy::water_fill;
  bool is_held = false;          ///< Hysteresis kept the last shares.
  bool is_step_limited = false;  ///< max_step kept the shares from reaching their target.

  [[nodiscard]] std::span<const double> shares() const noexcept { return {share.data(), count}; }
  [[nodiscard]] std::span<const double> needs() const noexcept { return {need.data(), count}; }
};

/// The least share that a model can get when n models share the device.
constexpr double effective_floor(double floor, std::size_t n) noexcept {
  return std::min(std::max(floor, 0.0), 0.5 / static_cast<double>(n));
}

namespace detail {

using Vector = std::array<double, kMaxModels>;

/// A reading that is not a number says nothing: the last readable one stands in. Infinity and below zero are clamped.
constexpr double readable(double value, double otherwise) noexcept {
  return value != value ? otherwise : std::clamp(value, 0.0, 1e9);
}

/// Whether every model has an expected need: a number that is not negative.
inline bool is_foreseen(std::span<const ModelDemand> demand) noexcept {
  return std::all_of(demand.begin(), demand.end(),
                     [](const ModelDemand& each) { return each.expected_need >= 0.0 && each.expected_need < 1e9; });
}

constexpr double readable_weight(double value) noexcept { return readable(value, 0.0); }

/// The next mean of a need. While it jitters the mean moves slowly, so that shares stand still; when deviations beyond
/// the jitter add up to a jump, the mean starts anew at the reading, in the same tick if the jump is large. This is
/// the cumulative-sum test for a change (Page, 1954) around a mean of what was seen since the last change.
inline HeldNeed hold(const PolicyConfig& config, HeldNeed held, double raw, double even, double elapsed_s) noexcept {
  const double deviation = (raw - held.mean) / std::max(held.mean, even);
  held.rise = std::max(0.0, held.rise + deviation - config.jitter);
  held.fall = std::max(0.0, held.fall - deviation - config.jitter);
  if (held.seen == 0 || held.rise > config.jump || held.fall > config.jump) return HeldNeed{.mean = raw, .seen = 1};
  const double memory_s = std::max(to_seconds(config.need_memory), 0.0);
  const double steady_gain = elapsed_s > 0.0 ? elapsed_s / (memory_s + elapsed_s) : 0.0;
  const double gain = std::max(1.0 / (1.0 + static_cast<double>(held.seen)), steady_gain);
  held.mean += gain * (raw - held.mean);
  if (held.seen < 1'000'000) ++held.seen;
  return held;
}

/// share_i = max(need_i, level) if the needs fit the device, else min(need_i, level); the shares add up to 1.
inline void water_fill(Plan& plan, const Vector& wanted, double floor, Vector& target) noexcept {
  const std::size_t n = plan.count;
  const double even = 1.0 / static_cast<double>(n);
  Vector need{};
  double sum = 0.0;
  double largest = 0.0;
  for (std::size_t i = 0; i < n; ++i) {
    need[i] = std::max(wanted[i], floor);
    sum += need[i];
    largest = std::max(largest, need[i]);
  }
  if (largest <= even) {
    for (std::size_t i = 0; i < n; ++i) {
      target[i] = even;
      plan.reason[i] = Reason::even;
    }
    return;
  }
  Vector sorted = need;
  std::sort(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(n));
  const bool fits = sum <= 1.0;
  double left = 1.0;
  double level = even;
  // Those past the level keep their need (the largest where the needs fit, the smallest where they do not); the level
  // is what is left for each of the others.
  for (std::size_t k = 0; k < n; ++k) {
    level = left / static_cast<double>(n - k);
    const double next = fits ? sorted[n - 1 - k] : sorted[k];
    if (fits ? next <= level : next >= level) break;
    left -= next;
  }
  for (std::size_t i = 0; i < n; ++i) {
    const bool keeps_need = fits ? need[i] > level : need[i] < level;
    target[i] = keeps_need ? need[i] : level;
    plan.reason[i] =
        keeps_need ? (wanted[i] < floor ? Reason::floor : Reason::need) : (fits ? Reason::level : Reason::capped);
  }
}

/// Shares in proportion to the weights, none below the floor; even when nobody has a weight.
inline void in_proportion(Plan& plan, const Vector& weight, double floor, Vector& target) noexcept {
  const std::size_t n = plan.count;
  double sum = 0.0;
  for (std::size_t i = 0; i < n; ++i) sum += weight[i];
  if (!(sum > 0.0)) {
    for (std::size_t i = 0; i < n; ++i) {
      target[i] = 1.0 / static_cast<double>(n);
      plan.reason[i] = Reason::even;
    }
    return;
  }
  ModelMask floored;
  double left = 1.0;
  // Giving one model its floor leaves less for the others, which may put a further one below: at most n rounds.
  for (bool again = true; again;) {
    again = false;
    for (std::size_t i = 0; i < n; ++i) {
      const ModelId model{static_cast<std::uint8_t>(i)};
      if (floored.contains(model) || weight[i] * left > floor * sum) continue;
      floored.insert(model);
      left -= floor;
      sum -= weight[i];
      again = true;
    }
  }
  for (std::size_t i = 0; i < n; ++i) {
    const bool at_floor = floored.contains(ModelId{static_cast<std::uint8_t>(i)});
    target[i] = at_floor ? floor : left * (weight[i] / sum);
    plan.reason[i] = at_floor ? Reason::floor : Reason::weight;
  }
}

/// One model gets `favoured`, the others equal parts of the rest; even when nobody is chosen.
inline void favour(Plan& plan, std::int32_t chosen, double favoured, Vector& target) noexcept {
  const std::size_t n = plan.count;
  const double even = 1.0 / static_cast<double>(n);
  const double rest = n > 1 ? (1.0 - favoured) / static_cast<double>(n - 1) : 0.0;
  for (std::size_t i = 0; i < n; ++i) {
    const bool is_chosen = static_cast<std::int32_t>(i) == chosen;
    target[i] = chosen < 0 ? even : is_chosen ? favoured : rest;
    plan.reason[i] = chosen < 0 ? Reason::even : is_chosen ? Reason::boosted : Reason::unboosted;
  }
}

/// Index of the largest weight above `least`, the first of equals; -1 when there is none.
inline std::int32_t heaviest(const Vector& weight, std::size_t n, double least) noexcept {
  std::int32_t best = -1;
  for (std::size_t i = 0; i < n; ++i) {
    if (weight[i] <= least) continue;
    least = weight[i];
    best = static_cast<std::int32_t>(i);
  }
  return best;
}

/// From the last shares towards the target: not at all for less than the hysteresis, else up to max_step, along the
/// straight line between them, which keeps the sum and every floor.
inline void approach(const PolicyConfig& config, const Vector& last, const Vector& target, bool exactly,
                     Plan& plan) noexcept {
  double furthest = 0.0;
  for (std::size_t i = 0; i < plan.count; ++i) furthest = std::max(furthest, std::abs(target[i] - last[i]));
  if (!exactly && furthest <= config.hysteresis) {
    plan.is_held = furthest > 0.0;
    plan.share = last;
    return;
  }
  const double max_step = std::max(config.max_step, 0.25);
  if (furthest <= max_step) {
    for (std::size_t i = 0; i < plan.count; ++i) plan.share[i] = target[i];
    return;
  }
  plan.is_step_limited = true;
  const double part = max_step / furthest;
  for (std::size_t i = 0; i < plan.count; ++i) plan.share[i] = last[i] + part * (target[i] - last[i]);
}

}  // namespace detail

/// The next shares of one device's models. Pure: the same arguments give the same plan, bit for bit; no clock, no
/// allocation, no libm. Any thread. At most kMaxModels models are read. Below 1 us for 3 models.
///
/// Every policy promises: shares add up to 1; none is below min(floor, 1/2n), so nobody starves; none moves by more
/// than max_step in a tick (from even, when there is no last plan or the number of models changed); moves below the
/// hysteresis are not made.
///
/// water_fill: share_i = max(held need_i, level), or max-min fair when the needs exceed the device. Held needs follow
/// a jump at once and jitter slowly (detail::hold). When every raw need is back at 1/n or less the hold is let go:
/// within 0.75 points of even at the third such tick, exactly even at the tenth. Which noise this survives, and what
/// the alternatives cost, is measured in docs/decisions/0003-share-policies.md.
///
/// proportional, queue_length, boost and max_weight (Tassiulas and Ephremides, 1992) are there to compare with.
[[nodiscard]] inline Plan tick(const PolicyConfig& config, std::span<const ModelDemand> demand, const Plan& previous,
                               Instant now) noexcept {
  constexpr std::uint32_t kReleaseTicks = 3;
  constexpr std::uint32_t kEvenTicks = 10;
  constexpr double kReleased = 0.0075;
  constexpr double kFollowed = 0.018;

  Plan plan;
  const std::size_t n = std::min(demand.size(), kMaxModels);
  plan.count = static_cast<std::uint32_t>(n);
  plan.at = now;
  plan.policy = config.policy;
  if (n == 0) return plan;
  const double even = 1.0 / static_cast<double>(n);
  const double floor = effective_floor(config.floor, n);
  const bool goes_on = previous.count == n;
  const bool same_policy = goes_on && previous.policy == config.policy;

  detail::Vector last{};
  detail::Vector target{};
  for (std::size_t i = 0; i < n; ++i) last[i] = goes_on ? previous.share[i] : even;
  detail::Vector raw{};
  for (std::size_t i = 0; i < n; ++i) {
    plan.decode_pace[i] = detail::readable(demand[i].decode_pace, goes_on ? previous.decode_pace[i] : 0.0);
    plan.due_pressure[i] = detail::readable(demand[i].due_pressure, goes_on ? previous.due_pressure[i] : 0.0);
    raw[i] = plan.decode_pace[i] + plan.due_pressure[i];
  }
  if (config.policy == Policy::water_fill && detail::is_foreseen(demand.first(n))) {
    for (std::size_t i = 0; i < n; ++i) raw[i] = demand[i].expected_need;
  }
  bool exactly = false;

  if (config.policy == Policy::water_fill) {
    const double elapsed_s = same_policy ? to_seconds(now - previous.at) : 0.0;
    bool calm = true;
    for (std::size_t i = 0; i < n; ++i) {
      const HeldNeed held = same_policy ? previous.held[i] : HeldNeed{};
      calm = calm && raw[i] <= even;
      plan.held[i] = detail::hold(config, held, raw[i], even, elapsed_s);
    }
    const std::uint32_t calm_before = same_policy ? previous.calm_ticks : 0;
    plan.calm_ticks = calm ? std::min(calm_before + 1, kEvenTicks) : 0;
    const double ceiling = plan.calm_ticks >= kEvenTicks      ? even
                           : plan.calm_ticks >= kReleaseTicks ? even + kReleased
                                                              : 1e9;
    exactly = plan.calm_ticks >= kReleaseTicks;
    for (std::size_t i = 0; i < n; ++i) {
      plan.held[i].mean = std::min(plan.held[i].mean, ceiling);
      // A need that passes even by less than counts as a move is followed at once: there is nothing to calm down.
      plan.need[i] = std::max(plan.held[i].mean, std::min(raw[i], even + kFollowed));
    }
    detail::water_fill(plan, plan.need, floor, target);
  } else {
    detail::Vector weight{};
    for (std::size_t i = 0; i < n; ++i) {
      plan.need[i] = raw[i];
      weight[i] =
          detail::readable_weight(config.policy == Policy::queue_length ? demand[i].waiting
                                  : config.policy == Policy::max_weight ? demand[i].waiting * demand[i].service_rate_rps
                                                                        : demand[i].backlog_work_s);
    }
    switch (config.policy) {
      case Policy::proportional:
      case Policy::queue_length:
        detail::in_proportion(plan, weight, floor, target);
        break;
      case Policy::max_weight:
        detail::favour(plan, detail::heaviest(weight, n, 0.0), 1.0 - static_cast<double>(n - 1) * floor, target);
        break;
      case Policy::boost: {
        const std::int32_t before = same_policy ? previous.boosted : -1;
        const bool goes_on_boosting =
            before >= 0 && weight[static_cast<std::size_t>(before)] > config.boost_clears_work_s;
        plan.boosted = goes_on_boosting ? before : detail::heaviest(weight, n, config.boost_starts_work_s);
        const double most = 1.0 - static_cast<double>(n - 1) * floor;
        detail::favour(plan, plan.boosted, std::clamp(even + config.boost_share, even, most), target);
        break;
      }
      case Policy::water_fill:
      case Policy::even:
        detail::favour(plan, -1, even, target);
        break;
    }
  }
  detail::approach(config, last, target, exactly, plan);
  return plan;
}

inline void check(const PolicyConfig& config) {
  const auto require = [](bool holds, const char* sentence) {
    if (!holds) throw std::invalid_argument(sentence);
  };
  require(config.floor >= 0.0 && config.floor <= 0.5, "floor must be in [0, 0.5]; the default is 0.05");
  require(config.max_step >= 0.25 && config.max_step <= 1.0, "max_step must be in [0.25, 1]; the default is 0.25");
  require(config.hysteresis >= 0.0 && config.hysteresis <= 0.005,
          "hysteresis must be in [0, 0.005], that is at most half a point; the default is 0.005");
  require(config.boost_share >= 0.0 && config.boost_share <= 1.0, "boost_share must be in [0, 1]; the default is 0.2");
  require(config.boost_clears_work_s >= 0.0 && config.boost_clears_work_s <= config.boost_starts_work_s,
          "boost_clears_work_s must be in [0, boost_starts_work_s]; the defaults are 0.1 and 1.0");
  require(config.need_memory.count() >= 0, "need_memory must not be negative; the default is 3 s");
  require(config.jitter >= 0.0 && config.jitter < 1.0, "jitter must be in [0, 1); the default is 0.06");
  require(config.jump > 0.0 && config.jump < 10.0, "jump must be in (0, 10); the default is 0.24");
}

}  // namespace zeta::share
