#include <doctest/doctest.h>

#include <deque>

#include "zeta/core/rng.hpp"
#include "zeta/sched/finals.hpp"

using zeta::sched::Final;
using zeta::sched::Finals;
using zeta::sched::Ticket;

TEST_CASE("the last finals are found and earlier ones forgotten") {
  constexpr std::size_t kKept = 64;
  zeta::Rng rng{1};
  Finals finals{kKept};
  std::deque<Ticket> kept;
  std::deque<Ticket> forgotten;
  for (std::uint64_t sequence = 1; sequence < 20'000; ++sequence) {
    const Ticket ticket{sequence, static_cast<std::uint32_t>(rng.next_below(1'000))};
    if (sequence % 3 == 0) finals.expect(ticket);
    finals.add({ticket, zeta::Outcome::completed, zeta::kNoModel, static_cast<float>(sequence % 7), {}});
    kept.push_back(ticket);
    if (kept.size() > kKept) {
      forgotten.push_back(kept.front());
      kept.pop_front();
    }
    if (forgotten.size() > kKept) forgotten.pop_front();
    for (const Ticket each : kept) {
      const Final* found = finals.find(each);
      REQUIRE(found != nullptr);
      REQUIRE(found->ticket == each);
      REQUIRE(found->complexity == static_cast<float>(each.sequence() % 7));
    }
    for (const Ticket each : forgotten) REQUIRE(finals.find(each) == nullptr);
  }
}
