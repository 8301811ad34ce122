// The p90 of an estimated wait.

#include <doctest/doctest.h>

#include <deque>

#include "sched_config.hpp"

using namespace zeta;
using namespace zeta::test;
using sched::EtaRecord;
using sched::Scheduler;
using sched::Ticket;

TEST_CASE("the p90 follows what waits came to, once enough have been seen") {
  EtaRecord record;
  CHECK(record.p90_over_mean(1.5) == 1.5);
  for (std::uint64_t i = 0; i < 100; ++i) {
    const Ticket ticket{(i + 1) * EtaRecord::kEvery, 7};
    REQUIRE(EtaRecord::follows(ticket));
    record.expect(ticket, 1_s);
    record.note_start(ticket, i % 5 == 0 ? 4_s : 1_s);  // one in five takes four times as long
    record.note_start(ticket, 50_s);                    // a second start of a request is none
    CHECK((record.p90_over_mean(1.5) == 1.5) == (i + 1 < EtaRecord::kEnough));
  }
  CHECK(record.p90_over_mean(1.5) == doctest::Approx(4.0).epsilon(0.07));
}

TEST_CASE("short waits, forgotten ones and strangers say nothing") {
  EtaRecord record;
  for (std::uint64_t i = 1; i <= 1'000; ++i) {
    const Ticket ticket{i * EtaRecord::kEvery, 0};
    record.expect(ticket, 1_ms);
    record.note_start(ticket, 1_s);
    record.note_start(Ticket{i * EtaRecord::kEvery, 1}, 9_s);
  }
  const Ticket old{EtaRecord::kEvery, 3};
  record.expect(old, 1_s);
  record.expect(Ticket{EtaRecord::kEvery * (EtaRecord::kFollowed + 1), 3}, 1_s);  // takes its place
  record.note_start(old, 9_s);
  CHECK(record.p90_over_mean(1.5) == 1.5);
}

TEST_CASE("a router whose waits are longer than it thought says so, and decides as before") {
  auto slow = one_model(1);
  slow.learns_service = false;
  auto patient = slow;
  patient.eta_quantile_factor = 5.0;
  Scheduler scheduler{slow};
  Scheduler other{patient};
  Instant now = kStart;
  std::deque<Ticket> running;
  for (int i = 0; i < 4'000; ++i) {
    // Each answer takes four times what the prior says, and three requests wait on average.
    for (Scheduler* each : {&scheduler, &other}) (void)each->submit(request(1'000), now);
    while (const auto placement = scheduler.next_placement()) running.push_back(placement->ticket);
    while (other.next_placement()) {
    }
    if (running.empty() || scheduler.waiting() < 3) continue;
    now += 400_ms;
    for (Scheduler* each : {&scheduler, &other}) (void)each->complete(running.front(), 256, now);
    running.pop_front();
  }
  const double measured = scheduler.eta_p90_over_mean();
  CHECK(measured > 1.5);
  CHECK(measured == other.eta_p90_over_mean());
  CHECK(scheduler.hash().value() == other.hash().value());
}
