#pragma once

#include <bit>
#include <cstdint>
#include <optional>

#include "zeta/core/huge_pages.hpp"
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
      : ring_(std::bit_ceil(capacity)), table_(2 * std::bit_ceil(capacity)), mask_{2 * std::bit_ceil(capacity) - 1} {}

  /// Fetches what `add` of this ticket will touch.
  [[gnu::always_inline]] void expect(Ticket ticket) const noexcept {
    __builtin_prefetch(&table_[hash_of(ticket) & mask_], 1);
  }

  void add(const Final& final) noexcept {
    const auto at = static_cast<std::uint32_t>(next_ & (ring_.size() - 1));
    if (next_ >= ring_.size()) forget(hash_of(ring_[at].ticket), at);
    ring_[at] = final;
    const std::uint32_t hash = hash_of(final.ticket);
    std::size_t bucket = hash & mask_;
    while (table_[bucket].at != kEmpty) bucket = (bucket + 1) & mask_;
    table_[bucket] = {at, hash};
    ++next_;
    expect(ring_[next_ & (ring_.size() - 1)].ticket);  // the next to be forgotten
  }

  [[nodiscard]] const Final* find(Ticket ticket) const noexcept {
    const std::uint32_t hash = hash_of(ticket);
    for (std::size_t bucket = hash & mask_; table_[bucket].at != kEmpty; bucket = (bucket + 1) & mask_) {
      const Entry& entry = table_[bucket];
      if (entry.hash == hash && ring_[entry.at].ticket == ticket) return &ring_[entry.at];
    }
    return nullptr;
  }

 private:
  static constexpr std::uint32_t kEmpty = 0xFFFFFFFFU;

  /// The hash stands beside the position, so that probing touches the ring for a match only.
  struct Entry {
    std::uint32_t at = kEmpty;
    std::uint32_t hash = 0;
  };

  static std::uint32_t hash_of(Ticket ticket) noexcept {
    return static_cast<std::uint32_t>((ticket.value() * 0x9E3779B97F4A7C15ULL) >> 32U);
  }

  void forget(std::uint32_t hash, std::uint32_t at) noexcept {
    std::size_t hole = hash & mask_;
    while (table_[hole].at != at) hole = (hole + 1) & mask_;
    for (std::size_t next = (hole + 1) & mask_; table_[next].at != kEmpty; next = (next + 1) & mask_) {
      const std::size_t wanted = table_[next].hash & mask_;
      if (((next - wanted) & mask_) < ((next - hole) & mask_)) continue;  // already between its home and here
      table_[hole] = table_[next];
      hole = next;
    }
    table_[hole] = Entry{};
  }

  LargeVector<Final> ring_;
  LargeVector<Entry> table_;
  std::size_t mask_;
  std::uint64_t next_ = 0;
};

}  // namespace zeta::sched
