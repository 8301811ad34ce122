#pragma once

#include <array>
#include <cstdint>

#include "zeta/core/outcome.hpp"

namespace zeta::sched {

/// Where every submitted request is. The counts always add up: submitted = finals + waiting + running.
class Ledger {
 public:
  void on_submitted() noexcept {
    ++submitted_;
    ++waiting_;
  }
  void on_placed() noexcept {
    --waiting_;
    ++running_;
  }
  void on_requeued() noexcept {
    ++waiting_;
    --running_;
  }
  void on_final_waiting(Outcome outcome) noexcept {
    --waiting_;
    ++finals_[static_cast<std::size_t>(outcome)];
  }
  void on_final_running(Outcome outcome) noexcept {
    --running_;
    ++finals_[static_cast<std::size_t>(outcome)];
  }

  [[nodiscard]] std::uint64_t submitted() const noexcept { return submitted_; }
  [[nodiscard]] std::uint64_t waiting() const noexcept { return waiting_; }
  [[nodiscard]] std::uint64_t running() const noexcept { return running_; }
  [[nodiscard]] std::uint64_t ended(Outcome outcome) const noexcept {
    return finals_[static_cast<std::size_t>(outcome)];
  }

  [[nodiscard]] bool adds_up() const noexcept {
    std::uint64_t sum = waiting_ + running_;
    for (const std::uint64_t count : finals_) sum += count;
    return sum == submitted_;
  }

 private:
  std::uint64_t submitted_ = 0;
  std::uint64_t waiting_ = 0;
  std::uint64_t running_ = 0;
  std::array<std::uint64_t, kOutcomeCount> finals_{};
};

}  // namespace zeta::sched
