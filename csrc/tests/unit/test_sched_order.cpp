// Who goes next.

#include <doctest/doctest.h>

#include <algorithm>
#include <map>

#include "sched_config.hpp"
#include "zeta/core/rng.hpp"

using namespace zeta;
using namespace zeta::test;
using sched::Scheduler;
using sched::Ticket;

TEST_CASE(
    "feasible requests go by latest start, late ones follow in the same order, none for a deadline alone expires") {
  Scheduler scheduler{one_model(1)};
  const Ticket running = start(scheduler, request(10), kStart);
  const Ticket late_b = scheduler.submit(request(10, kStart, 20_ms), kStart);
  const Ticket late_a = scheduler.submit(request(10, kStart, 10_ms), kStart);
  const Ticket soon = scheduler.submit(request(10, kStart, 8_s), kStart);
  const Ticket sooner = scheduler.submit(request(100'000, kStart, 8_s), kStart);  // its prefill takes a second
  const Ticket without = scheduler.submit(request(10), kStart);                   // 20 s stand in
  const Instant now = kStart + 1_s;
  Ticket last = running;
  for (const Ticket expected : {sooner, soon, without, late_a, late_b}) {
    last = next_after(scheduler, last, now);
    CHECK(last == expected);
  }
  CHECK(scheduler.ledger().ended(Outcome::expired_in_queue) == 0);
}

TEST_CASE("max_wait ends a waiting request at its instant, not before") {
  Scheduler scheduler{one_model(1)};
  (void)start(scheduler, request(10), kStart);
  auto brief = request(10);
  brief.expires_at = kStart + 50_ms;
  const Ticket ticket = scheduler.submit(brief, kStart);
  CHECK(scheduler.next_timer() == kStart + 50_ms);
  scheduler.advance(kStart + 50_ms - Duration{1});
  CHECK(scheduler.outcome(ticket) == Outcome::queued);
  scheduler.advance(kStart + 50_ms);
  CHECK(scheduler.outcome(ticket) == Outcome::expired_in_queue);
  CHECK(scheduler.next_timer() == kNever);
}

TEST_CASE("in a long overload takes for the promise are at most a quarter while others can be on time") {
  auto config = one_model(1);
  config.promise = 1_s;
  Scheduler scheduler{config};
  Instant now = kStart;
  for (int i = 0; i < 5000; ++i) (void)scheduler.submit(request(100), kStart);  // all past their promise soon
  Ticket running;
  if (const auto first = scheduler.next_placement()) running = first->ticket;
  int promised = 0;
  int on_time = 0;
  for (int take = 0; take < 4000; ++take) {
    now += 100_ms;
    (void)scheduler.submit(request(100'000, now, 3_s), now);  // more urgent work than there is time: 1.26 s each
    (void)scheduler.submit(request(10, now, 500_ms), now);
    scheduler.tick(now);
    running = next_after(scheduler, running, now);
    if (now < kStart + 60_s) continue;  // after which the overload has been noticed
    const auto reason = scheduler.decision_of(running)->reason;
    promised += reason == sched::Reason::promise ? 1 : 0;
    on_time += reason == sched::Reason::earliest_deadline ? 1 : 0;
  }
  CHECK(promised > 500);
  CHECK(on_time > 2500);
  CHECK(promised <= (promised + on_time) / 4 + 1);
}

TEST_CASE("below a utilisation of 0.95 nobody waits longer than two promises") {
  // One replica that serves one at a time as predicted; nine in ten are urgent, one in ten has all the time there is.
  for (const std::uint64_t seed : {1, 2, 3}) {
    auto config = one_model(1);
    Scheduler scheduler{config};
    Rng random{seed};
    Instant now = kStart;
    Instant next_arrival = kStart;
    Instant free_at = kNever;
    Ticket running;
    std::map<std::uint64_t, Instant> arrivals;
    Duration longest{0};
    double work_s = 0.0;
    int submitted = 0;
    constexpr int kRequests = 20'000;
    while (submitted < kRequests || scheduler.waiting() > 0) {
      if (submitted < kRequests && next_arrival <= free_at) {
        now = next_arrival;
        const bool in_burst = to_ns(now - kStart.time_since_epoch()) / 1'000'000'000 / 60 % 5 == 0;  // a minute in five
        const double gap_s = 0.1256 / (in_burst ? 1.5 : 0.75) * 2.0 * random.next_unit();
        next_arrival = now + duration_from_seconds(std::max(gap_s, 1e-6));
        const bool is_patient = submitted % 10 == 0;
        const Ticket ticket = scheduler.submit(request(10'000, now, is_patient ? 3600_s : 400_ms), now);
        arrivals[ticket.value()] = now;
        work_s += 0.1256;
        ++submitted;
        if (submitted % 5 == 0) scheduler.tick(now);
      } else {
        now = free_at;
        free_at = kNever;
        (void)scheduler.complete(running, 256, now);
      }
      if (const auto placed = scheduler.next_placement()) {
        running = placed->ticket;
        free_at = now + scheduler.live(running)->work;
        longest = std::max(longest, now - arrivals.at(running.value()));
      }
    }
    CHECK(work_s / to_seconds(now - kStart) < 0.951);
    CHECK(work_s / to_seconds(now - kStart) > 0.85);
    CHECK(longest <= 2 * config.promise);
    CHECK(longest > config.promise);  // or the promise was not tried
    CHECK(scheduler.ledger().adds_up());
  }
}

TEST_CASE("priority 0 goes before the rest, and each lower band keeps a twentieth of the takes") {
  Scheduler scheduler{one_model(1)};
  Ticket running = start(scheduler, request(10), kStart);
  std::map<int, int> takes;
  const auto of = [](std::uint8_t band) {
    auto made = request(10, kStart, 1_s);
    made.priority = band;
    return made;
  };
  for (int i = 0; i < 2000; ++i) {
    for (const std::uint8_t band : {std::uint8_t{3}, std::uint8_t{1}, std::uint8_t{0}}) {
      (void)scheduler.submit(of(band), kStart);
    }
    running = next_after(scheduler, running, kStart);
    ++takes[scheduler.live(running)->request.priority];
  }
  CHECK(takes[0] > 1750);
  CHECK(takes[1] >= 90);
  CHECK(takes[3] >= 90);
  CHECK(takes[1] <= 110);
}

TEST_CASE("a request may run on the weaker model only after its hold, and keeps its ticket") {
  auto config = several_models(2, 1);  // 0.4 and 0.65: too far apart for a request of known complexity
  Scheduler scheduler{config};
  auto hard = request(10, kStart, 3600_s);
  hard.complexity = 0.5F;
  const Ticket first = scheduler.submit(hard, kStart);
  CHECK(scheduler.live(first)->model == ModelId{1});
  const Ticket held = scheduler.submit(hard, kStart);
  CHECK(scheduler.outcome(held) == Outcome::queued);  // although model 0 is idle
  CHECK_FALSE(scheduler.ticket_with_idle_capacity().has_value());
  CHECK(scheduler.next_timer() == kStart + config.max_hold);
  scheduler.advance(kStart + config.max_hold);
  CHECK(scheduler.outcome(held) == Outcome::placed);
  CHECK(scheduler.live(held)->model == ModelId{0});

  Scheduler hurried{config};
  (void)hurried.submit(hard, kStart);
  hard.first_token_deadline = kStart + 1_s;
  (void)hurried.submit(hard, kStart);
  CHECK(hurried.next_timer() > kStart + 490_ms);  // half of the time to spare
  CHECK(hurried.next_timer() <= kStart + 500_ms);
}

TEST_CASE("order fifo is arrival order, deadline or not") {
  auto config = one_model(1);
  config.order = sched::Order::fifo;
  Scheduler scheduler{config};
  Ticket running = start(scheduler, request(10), kStart);
  std::vector<Ticket> arrived;
  for (const Duration deadline : {9_s, 1_s, 5_s, 2_s}) {
    arrived.push_back(scheduler.submit(request(10, kStart, deadline), kStart));
  }
  for (const Ticket expected : arrived) {
    running = next_after(scheduler, running, kStart + 3_s);
    CHECK(running == expected);
  }
}
