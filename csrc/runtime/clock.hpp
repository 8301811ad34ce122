#pragma once
// The only place that reads a clock.

#include <atomic>
#include <chrono>
#include <cstdint>

#include "zeta/core/time.hpp"

namespace zeta::runtime {

/// Where a router's time comes from.
class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual Instant now() const noexcept = 0;
};

/// CLOCK_MONOTONIC: wall-clock jumps do not exist for it.
class SteadyClock final : public Clock {
 public:
  [[nodiscard]] Instant now() const noexcept override {
    return instant_from_ns(
        std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
            .count());
  }
};

/// Time that only moves when told to. Any thread may read or move it.
class ManualClock final : public Clock {
 public:
  explicit ManualClock(std::int64_t start_ns = 0) noexcept : now_ns_{start_ns} {}
  [[nodiscard]] Instant now() const noexcept override {
    return instant_from_ns(now_ns_.load(std::memory_order_relaxed));  // one number; nothing is published with it
  }
  void advance(std::int64_t by_ns) noexcept {
    now_ns_.fetch_add(by_ns, std::memory_order_relaxed);  // as above
  }

 private:
  std::atomic<std::int64_t> now_ns_;
};

}  // namespace zeta::runtime
