#pragma once
// The replica on which a prompt would be served first, from columns that the caller keeps.

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "zeta/core/cpu.hpp"

namespace zeta::route {

/// What is known of `count` replicas.
struct ReplicaColumns {
  std::size_t count = 0;
  const double* load_s = nullptr;       ///< Predicted work ahead; NaN: unknown, not chosen.
  const double* room = nullptr;         ///< Free places in the window; below 1: full.
  const double* prefix_held = nullptr;  ///< Part of the prompt that is cached there, 0 to 1; null: nowhere.
};

inline constexpr std::int64_t kNoChoice = -1;

namespace detail {

inline constexpr std::size_t kLanes = 32;

/// The best replica of each lane: those whose number leaves the same rest.
struct Lanes {
  alignas(64) std::array<double, kLanes> least;
  alignas(64) std::array<std::int64_t, kLanes> chosen;
};

template <bool has_prefix>
[[gnu::always_inline]] inline void compare(Lanes& lanes, const ReplicaColumns& columns, double prefill_s,
                                           std::size_t first, std::size_t count) noexcept {
  const double* __restrict load_s = columns.load_s + first;
  const double* __restrict room = columns.room + first;
  const double* __restrict held = has_prefix ? columns.prefix_held + first : nullptr;
  double* __restrict least = lanes.least.data();
  std::int64_t* __restrict chosen = lanes.chosen.data();
  for (std::size_t i = 0; i < count; ++i) {
    double wait_s = load_s[i] + prefill_s;
    if constexpr (has_prefix) wait_s = load_s[i] + prefill_s * (1.0 - held[i]);
    const double least_yet = least[i];
    const std::int64_t chosen_yet = chosen[i];
    const bool is_better = (wait_s < least_yet) & (room[i] >= 1.0);
    least[i] = is_better ? wait_s : least_yet;
    chosen[i] = is_better ? static_cast<std::int64_t>(first + i) : chosen_yet;
  }
}

template <bool has_prefix>
[[gnu::always_inline]] inline std::int64_t choose(const ReplicaColumns& columns, double prefill_s) noexcept {
  Lanes lanes;
  lanes.least.fill(std::numeric_limits<double>::infinity());
  lanes.chosen.fill(kNoChoice);
  std::size_t first = 0;
  for (; first + kLanes <= columns.count; first += kLanes) {
    compare<has_prefix>(lanes, columns, prefill_s, first, kLanes);
  }
  compare<has_prefix>(lanes, columns, prefill_s, first, columns.count - first);
  double least = lanes.least[0];
  std::int64_t chosen = lanes.chosen[0];
  for (std::size_t i = 1; i < kLanes; ++i) {
    const bool is_before = lanes.least[i] == least && lanes.chosen[i] < chosen;
    if (!(lanes.least[i] < least) && !is_before) continue;
    if (lanes.chosen[i] == kNoChoice) continue;
    least = lanes.least[i];
    chosen = lanes.chosen[i];
  }
  return chosen;
}

[[gnu::always_inline]] inline std::int64_t choose_replica(const ReplicaColumns& columns, double prefill_s) noexcept {
  return columns.prefix_held == nullptr ? choose<false>(columns, prefill_s) : choose<true>(columns, prefill_s);
}

#if defined(__x86_64__)
ZETA_TARGET_AVX2 inline std::int64_t choose_replica_avx2(const ReplicaColumns& columns, double prefill_s) noexcept {
  return choose_replica(columns, prefill_s);
}
ZETA_TARGET_AVX512 inline std::int64_t choose_replica_avx512(const ReplicaColumns& columns, double prefill_s) noexcept {
  return choose_replica(columns, prefill_s);
}
#endif

[[gnu::flatten]] inline std::int64_t choose_replica_baseline(const ReplicaColumns& columns, double prefill_s) noexcept {
  return choose_replica(columns, prefill_s);
}

}  // namespace detail

/// The replica with room where the first token is predicted soonest:
///
///   load_s + prefill_s · (1 − prefix held)
///
/// the work ahead of the prompt and what is left of its own prefill, both in seconds; the lowest number among equals;
/// kNoChoice where none has room or nothing is known. The cost that NVIDIA Dynamo's KV router weighs (blocks still to
/// prefill and blocks already active), in time instead of blocks. The same choice at every level.
///
/// Any thread; allocates nothing. `level` is one that this processor offers.
[[nodiscard]] inline std::int64_t choose_replica(const ReplicaColumns& columns, double prefill_s,
                                                 SimdLevel level = simd_level()) noexcept {
#if defined(__x86_64__)
  if (level == SimdLevel::avx512) return detail::choose_replica_avx512(columns, prefill_s);
  if (level == SimdLevel::avx2) return detail::choose_replica_avx2(columns, prefill_s);
#endif
  static_cast<void>(level);
  return detail::choose_replica_baseline(columns, prefill_s);
}

}  // namespace zeta::route
