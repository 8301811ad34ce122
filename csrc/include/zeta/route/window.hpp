#pragma once

#include <algorithm>
#include <cstdint>

#include "zeta/core/time.hpp"

namespace zeta::route {

/// How many requests one replica may have in flight: enough to keep it busy, few enough that its own queue stays short.
///
/// Additive increase, multiplicative decrease (Chiu and Jain, 1989) on *queue wait*: the time from placement to first
/// token beyond the predicted prefill. Never on total latency, which in a language model is dominated by the length of
/// the answer. A decrease counts once per `kRecovery`, so that one congested moment is punished once.
class Window {
 public:
  static constexpr std::uint32_t kSmallest = 2;

  Window() noexcept = default;
  explicit Window(std::uint32_t upper) noexcept : upper_{std::max<std::uint32_t>(upper, 1)}, limit_{upper_} {}

  [[nodiscard]] std::uint32_t limit() const noexcept { return limit_; }
  [[nodiscard]] std::uint32_t upper() const noexcept { return upper_; }

  void on_first_token(Duration queue_wait, std::uint32_t in_flight, Instant now) noexcept {
    if (queue_wait > kCongested) {
      if (now - last_decrease_ < kRecovery) return;
      last_decrease_ = now;
      limit_ = std::max(std::min(kSmallest, upper_), std::min(limit_, in_flight) * 9 / 10);
      grown_ = 0;
    } else if (in_flight + 1 >= limit_ && limit_ < upper_ && ++grown_ >= limit_ / 4) {
      ++limit_;  // a quarter of a window of good first tokens earns one more place
      grown_ = 0;
    }
  }

 private:
  static constexpr Duration kCongested{2'000'000'000};
  static constexpr Duration kRecovery{2'000'000'000};

  std::uint32_t upper_ = 1;
  std::uint32_t limit_ = 1;
  std::uint32_t grown_ = 0;
  Instant last_decrease_{Duration{-kRecovery.count()}};
};

}  // namespace zeta::route
