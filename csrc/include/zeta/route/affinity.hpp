#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "zeta/core/types.hpp"

namespace zeta::route {

/// Remembers which replica last served a prefix or session. A hint only: a direct-mapped cache that forgets on
/// collision and never grows.
class AffinityMap {
 public:
  explicit AffinityMap(std::size_t capacity = 1U << 14U) : entries_(std::bit_ceil(capacity)) {}

  void remember(std::uint64_t key, ReplicaId replica) noexcept { entries_[home(key)] = {key, replica}; }

  [[nodiscard]] ReplicaId find(std::uint64_t key) const noexcept {
    const Entry& entry = entries_[home(key)];
    return key != 0 && entry.key == key ? entry.replica : kNoReplica;
  }

 private:
  struct Entry {
    std::uint64_t key = 0;
    ReplicaId replica = kNoReplica;
  };

  [[nodiscard]] std::size_t home(std::uint64_t key) const noexcept {
    return static_cast<std::size_t>((key * 0x9E3779B97F4A7C15ULL) >> 40U) & (entries_.size() - 1);
  }

  std::vector<Entry> entries_;
};

}  // namespace zeta::route
