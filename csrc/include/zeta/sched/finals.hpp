#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <vector>

#include "zeta/sched/request.hpp"

namespace zeta::sched {

/// How a finished request ended, kept for a while for those who ask later.
struct Final {
  Ticket ticket;
  Outcome outcome = Outcome::completed;
  ModelId model = kNoModel;
  float complexity = kUnknownComplexity;
  Duration eta{0};  ///< Predicted start at rejection; zero otherwise.
};

/// The last `capacity` finals, found by ticket in O(1). The oldest is forgotten first. One owner; allocates only at
/// construction. Open addressing with linear probing and backward-shift deletion (Knuth, TAOCP 3, 6.4, algorithm R).
class Finals {
 public:
  explicit Finals(std::size_t capacity)
      : ring_(std::bit_ceil(capacity)),
        table_(2 * std::bit_ceil(capacity), kEmpty),
        mask_{2 * std::bit_ceil(capacity) - 1} {}

  void add(const Final& final) noexcept {
    const auto at = static_cast<std::uint32_t>(next_ & (ring_.size() - 1));
    if (next_ >= ring_.size()) forget(ring_[at].ticket);
    ring_[at] = final;
    std::size_t bucket = home(final.ticket);
    while (table_[bucket] != kEmpty) bucket = (bucket + 1) & mask_;
    table_[bucket] = at;
    ++next_;
  }

  [[nodiscard]] const Final* find(Ticket ticket) const noexcept {
    for (std::size_t bucket = home(ticket); table_[bucket] != kEmpty; bucket = (bucket + 1) & mask_) {
      if (ring_[table_[bucket]].ticket == ticket) return &ring_[table_[bucket]];
    }
    return nullptr;
  }

 private:
  static constexpr std::uint32_t kEmpty = 0xFFFFFFFFU;

  [[nodiscard]] std::size_t home(Ticket ticket) const noexcept {
    return static_cast<std::size_t>((ticket.value() * 0x9E3779B97F4A7C15ULL) >> 32U) & mask_;
  }

  void forget(Ticket ticket) noexcept {
    std::size_t hole = home(ticket);
    while (ring_[table_[hole]].ticket != ticket) hole = (hole + 1) & mask_;
    for (std::size_t next = (hole + 1) & mask_; table_[next] != kEmpty; next = (next + 1) & mask_) {
      const std::size_t wanted = home(ring_[table_[next]].ticket);
      if (((next - wanted) & mask_) < ((next - hole) & mask_)) continue;  // already between its home and here
      table_[hole] = table_[next];
      hole = next;
    }
    table_[hole] = kEmpty;
  }

  std::vector<Final> ring_;
  std::vector<std::uint32_t> table_;
  std::size_t mask_;
  std::uint64_t next_ = 0;
};

}  // namespace zeta::sched
