#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "zeta/core/quantile_sketch.hpp"
#include "zeta/core/time.hpp"
#include "zeta/sched/request.hpp"

namespace zeta::sched {

/// How waits turned out, as multiples of what was expected on arrival: what an ETA's p90 is made from.
///
/// One request in kEvery is followed, by its ticket's number, and of those the last kFollowed. Waits of less than
/// kLeast by expectation say nothing about longer ones and are left out, as are requests that never started. One owner;
/// allocates only at construction. No decision depends on it.
class EtaRecord {
 public:
  static constexpr std::uint64_t kEvery = 16;
  static constexpr std::size_t kFollowed = 1'024;
  static constexpr Duration kLeast{10'000'000};
  static constexpr std::uint64_t kEnough = 50;

  EtaRecord() : expected_(kFollowed) {}

  [[nodiscard]] static bool follows(Ticket ticket) noexcept { return ticket.sequence() % kEvery == 0; }

  /// Of a request that waits now and is followed.
  void expect(Ticket ticket, Duration mean) noexcept {
    if (mean >= kLeast) at(ticket) = {ticket, mean};
  }

  /// It has been placed.
  void note_start(Ticket ticket, Duration waited) noexcept {
    Expected& expected = at(ticket);
    if (expected.ticket != ticket) return;
    ratios_.add(to_seconds(waited) / to_seconds(expected.mean));
    expected.ticket = Ticket{};
  }

  /// The wait that nine in ten do not exceed over the mean that they are told, from 1 to 10; `prior` until kEnough
  /// waits have been seen.
  [[nodiscard]] double p90_over_mean(double prior) const noexcept {
    if (ratios_.seen() < kEnough) return prior;
    return std::clamp(ratios_.quantile(0.9).value_or(prior), 1.0, 10.0);
  }

 private:
  struct Expected {
    Ticket ticket;
    Duration mean{0};
  };

  [[nodiscard]] Expected& at(Ticket ticket) noexcept { return expected_[(ticket.sequence() / kEvery) % kFollowed]; }

  std::vector<Expected> expected_;
  QuantileSketch ratios_;
};

}  // namespace zeta::sched
