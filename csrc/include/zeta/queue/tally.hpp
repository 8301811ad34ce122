#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "zeta/core/cacheline.hpp"

namespace zeta::queue {

/// Counts what came and what went, without a counter that all threads write. Wait-free.
///
/// Threads whose lane number is below kLanes − 1 have a lane of their own and count with plain stores; all others share
/// the last one.
template <template <class> class Atomic, unsigned kLanes>
class Tally {
  static_assert(kLanes >= 2);

 public:
  [[gnu::always_inline]] void came(std::uint32_t lane, std::uint64_t n = 1) noexcept { add(lane, &Lane::came, n); }
  [[gnu::always_inline]] void went(std::uint32_t lane, std::uint64_t n = 1) noexcept { add(lane, &Lane::went, n); }

  /// What came less what went; exact when nobody is in the middle of an operation, and never below zero.
  [[nodiscard]] std::uint64_t left() const noexcept {
    // What went is read first: what came before it is then read too, unless it is still under way.
    const std::uint64_t gone = sum(&Lane::went);
    const std::uint64_t come = sum(&Lane::came);
    return come > gone ? come - gone : 0;
  }

 private:
  struct alignas(kNoFalseSharing) Lane {
    Atomic<std::uint64_t> came{0};
    Atomic<std::uint64_t> went{0};
  };

  [[gnu::always_inline]] void add(std::uint32_t lane, Atomic<std::uint64_t> Lane::* count, std::uint64_t n) noexcept {
    if (lane < kLanes - 1) {
      auto& own = lanes_[lane].*count;
      // Relaxed: only this thread writes it, and readers want a number, not what it stands for.
      own.store(own.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
    } else {
      (lanes_[kLanes - 1].*count).fetch_add(n, std::memory_order_relaxed);  // a number only, as above
    }
  }
  [[nodiscard]] std::uint64_t sum(const Atomic<std::uint64_t> Lane::* count) const noexcept {
    std::uint64_t total = 0;
    for (const Lane& lane : lanes_) total += (lane.*count).load(std::memory_order_relaxed);  // a number only, as above
    return total;
  }

  std::array<Lane, kLanes> lanes_;
};

}  // namespace zeta::queue
