#pragma once
// What the monitor knows of devices, the host and replicas, as one record of numbers each: value, age, validity.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>
#include <type_traits>

#include "zeta/core/time.hpp"

namespace zeta {

enum class ReadingKind : std::uint8_t { kDevice, kHost, kReplica };

/// Columns of a device's record. Units as in the names; utilisations are fractions from 0 to 1.
enum class DeviceField : std::uint8_t {
  kUtilisation,
  kMemoryUtilisation,
  kMemoryUsedBytes,
  kMemoryTotalBytes,
  kPowerW,
  kPowerLimitW,
  kEnergyJ,
  kSmClockMhz,
  kSmClockMaxMhz,
  kMemoryClockMhz,
  kTemperatureC,
  kThrottleReasons,
  kProcessCount,
};
inline constexpr std::array<std::string_view, 13> kDeviceFieldNames{
    "utilisation",   "memory_utilisation", "memory_used_bytes", "memory_total_bytes", "power_w",
    "power_limit_w", "energy_j",           "sm_clock_mhz",      "sm_clock_max_mhz",   "memory_clock_mhz",
    "temperature_c", "throttle_reasons",   "process_count"};

/// Columns of the host's record.
enum class HostField : std::uint8_t {
  kCpuUtilisation,
  kCpuLimit,
  kCpuThrottled,
  kCpuPressure,
  kLoad1m,
  kLoad5m,
  kMemoryLimitBytes,
  kMemoryUsedBytes,
  kMemoryAvailableBytes,
  kMemoryPressure,
  kSwapUsedBytes,
  kProcessMemoryBytes,
  kProcessCpus,
};
inline constexpr std::array<std::string_view, 13> kHostFieldNames{
    "cpu_utilisation",    "cpu_limit",         "cpu_throttled",
    "cpu_pressure",       "load_1m",           "load_5m",
    "memory_limit_bytes", "memory_used_bytes", "memory_available_bytes",
    "memory_pressure",    "swap_used_bytes",   "process_memory_bytes",
    "process_cpus"};

/// Columns of a replica's record.
enum class ReplicaField : std::uint8_t {
  kRunning,
  kWaiting,
  kKvUsed,
  kKvCapacityTokens,
  kPromptTokensTotal,
  kOutputTokensTotal,
  kRequestsTotal,
  kPreemptionsTotal,
  kPrefixQueriesTotal,
  kPrefixHitsTotal,
  kTtftSumS,
  kTtftCount,
  kTpotSumS,
  kTpotCount,
  kQueueWaitSumS,
  kQueueWaitCount,
  kIsAwake,
  kMemoryUsedBytes,
};
inline constexpr std::array<std::string_view, 18> kReplicaFieldNames{"running",
                                                                     "waiting",
                                                                     "kv_used",
                                                                     "kv_capacity_tokens",
                                                                     "prompt_tokens_total",
                                                                     "output_tokens_total",
                                                                     "requests_total",
                                                                     "preemptions_total",
                                                                     "prefix_queries_total",
                                                                     "prefix_hits_total",
                                                                     "ttft_sum_s",
                                                                     "ttft_count",
                                                                     "tpot_sum_s",
                                                                     "tpot_count",
                                                                     "queue_wait_sum_s",
                                                                     "queue_wait_count",
                                                                     "is_awake",
                                                                     "memory_used_bytes"};

inline constexpr std::size_t kReadingFields =
    std::max({kDeviceFieldNames.size(), kHostFieldNames.size(), kReplicaFieldNames.size()});

/// "device", "host", "replica".
inline constexpr std::array<std::string_view, 3> kReadingKindNames{"device", "host", "replica"};

/// What a row is about, in 64 bits: FNV-1a (Fowler, Noll, Vo) of kind and key, never 0. A key is a device's UUID,
/// "host", or a replica's name.
constexpr std::uint64_t reading_identity(ReadingKind kind, std::string_view key) noexcept {
  std::uint64_t hash = 0xcbf29ce484222325U;
  const auto mix = [&hash](unsigned char byte) { hash = (hash ^ byte) * 0x100000001b3U; };
  mix(static_cast<unsigned char>(kind));
  for (const char c : key) mix(static_cast<unsigned char>(c));
  return hash != 0 ? hash : 1;
}

/// One row. A plain value; nothing in it is ever zero for want of knowledge.
///
/// A field is known while its value is a number and the record was true no longer than `stale_after` ago; otherwise
/// `get` gives nothing, and `age` still says since when. Values that are there were all true at `taken`; a field that
/// is not there keeps how long before `taken` it was last known. So ages of whole columns are a sum, without
/// conversions.
struct ReadingRecord {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  static constexpr double kNeverKnown = std::numeric_limits<double>::infinity();

  std::uint64_t identity = 0;  ///< reading_identity, 0: the row is free
  Instant taken{};             ///< when the values were true
  Duration stale_after{0};     ///< three periods of the probe that reads it
  std::array<double, kReadingFields> values;
  std::array<double, kReadingFields> lag_ns;  ///< 0 where known at `taken`; whole nanoseconds, or kNeverKnown

  constexpr ReadingRecord() noexcept {
    values.fill(kUnknown);
    lag_ns.fill(kNeverKnown);
  }

  [[nodiscard]] constexpr bool is_fresh(Instant now) const noexcept { return now - taken <= stale_after; }

  template <class Field>
  [[nodiscard]] constexpr std::optional<double> get(Field field, Instant now) const noexcept {
    const double value = values[static_cast<std::size_t>(field)];
    return value == value && is_fresh(now) ? std::optional{value} : std::nullopt;
  }
  /// Time since the field was last known; nothing when it never was. Not negative.
  template <class Field>
  [[nodiscard]] constexpr std::optional<Duration> age(Field field, Instant now) const noexcept {
    const double lag = lag_ns[static_cast<std::size_t>(field)];
    if (lag == kNeverKnown) return std::nullopt;
    return std::max(now - taken, Duration{0}) + Duration{static_cast<std::int64_t>(lag)};
  }
};
static_assert(std::is_trivially_copyable_v<ReadingRecord>, "it is published word by word");

}  // namespace zeta
