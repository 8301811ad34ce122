// Many threads on one scheduler: each request ends once, and the ledger adds up whenever anybody looks.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <thread>
#include <vector>

#include "sched_config.hpp"
#include "zeta/core/rng.hpp"
#include "zeta/sched/shared_scheduler.hpp"

using namespace zeta;
using namespace zeta::test;
using sched::Ticket;

namespace {

/// Submissions per thread: a tenth of what ZETA_STRESS names, 200,000 without it.
std::size_t rounds() {
  const char* const asked = std::getenv("ZETA_STRESS");
  return asked == nullptr ? 20'000 : std::strtoul(asked, nullptr, 10) / 10;
}

struct Counts {
  std::uint64_t taken = 0;
  std::vector<Ticket> tickets;
};

}  // namespace

TEST_CASE("whatever threads submit, take, finish and withdraw at once, every request ends exactly once") {
  constexpr int kAskers = 3;
  constexpr int kServers = 3;
  auto config = several_models(3, 16);
  config.devices = {{.is_shared = true}, {.is_shared = false}};
  for (std::size_t m = 0; m < 3; ++m) config.models[m].device = DeviceId{static_cast<std::uint8_t>(m / 2)};
  config.max_queued = 2000;
  sched::SharedScheduler<> shared{config};
  std::atomic<std::int64_t> clock{to_ns(kStart)};  // one number that only rises; nothing is published with it
  const auto tell = [&](std::int64_t step) {
    return instant_from_ns(clock.fetch_add(step, std::memory_order_relaxed));  // as above
  };
  std::atomic<int> asking{kAskers};
  std::array<Counts, kAskers> asked;
  std::array<Counts, kServers> served;
  std::atomic<bool> added_up{true};

  const auto ask = [&](int me) {
    Rng random{static_cast<std::uint64_t>(me) + 1};
    Counts& mine = asked[static_cast<std::size_t>(me)];
    for (std::size_t i = 0; i < rounds(); ++i) {
      const Instant now = tell(20'000);
      auto made = request(static_cast<std::uint32_t>(random.next_below(3000)), now, 1_s);
      made.tenant = TenantId{static_cast<std::uint16_t>(me)};
      made.priority = static_cast<std::uint8_t>(random.next_below(4));
      made.allowed = ModelMask{static_cast<std::uint32_t>(1 + random.next_below(7))};
      if (random.next_below(4) == 0) made.expires_at = now + 1_ms;
      mine.tickets.push_back(shared.submit(made, now));
      if (random.next_below(8) == 0) (void)shared.cancel(mine.tickets[random.next_below(mine.tickets.size())], now);
    }
    asking.fetch_sub(1, std::memory_order_release);
  };
  const auto serve = [&](int me) {
    Rng random{static_cast<std::uint64_t>(me) + 100};
    Counts& mine = served[static_cast<std::size_t>(me)];
    std::vector<Ticket> running;
    for (int idle = 0; idle < 200;) {
      const std::size_t taken = shared.poll(
          0, 4, [&](const sched::Placement& placement) { running.push_back(placement.ticket); }, tell(1000));
      mine.taken += taken;
      while (running.size() > 3) {
        const Ticket ticket = running.back();
        running.pop_back();
        const std::uint64_t what = random.next_below(10);
        if (what < 8) (void)shared.first_token(ticket, tell(1000));
        if (what == 9) {
          (void)shared.fail(ticket, random.next_below(2) == 0, Outcome::failed_replica, tell(1000));
        } else {
          (void)shared.complete(ticket, 100, tell(1000));
        }
      }
      idle = taken == 0 && asking.load(std::memory_order_acquire) == 0 ? idle + 1 : 0;
      if (idle > 0) {
        for (const Ticket ticket : running) (void)shared.complete(ticket, 1, tell(1000));
        running.clear();
        std::this_thread::yield();
      }
    }
  };
  const auto keep_time = [&] {
    while (asking.load(std::memory_order_acquire) > 0) {
      (void)shared.advance(tell(1000));
      (void)shared.tick(tell(1000));
      if (!shared.with_owner([](sched::Scheduler& s) { return s.ledger().adds_up(); })) {
        added_up.store(false, std::memory_order_relaxed);  // read after joining
      }
      std::this_thread::yield();
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < kAskers; ++i) threads.emplace_back(ask, i);
    for (int i = 0; i < kServers; ++i) threads.emplace_back(serve, i);
    threads.emplace_back(keep_time);
  }

  std::vector<std::uint64_t> all;
  for (const Counts& mine : asked) {
    for (const Ticket ticket : mine.tickets) all.push_back(ticket.value());
  }
  std::sort(all.begin(), all.end());
  CHECK(std::adjacent_find(all.begin(), all.end()) == all.end());  // no ticket twice
  CHECK(all.size() == kAskers * rounds());
  CHECK(added_up.load());
  shared.with_owner([&](sched::Scheduler& s) {
    CHECK(s.ledger().adds_up());
    CHECK(s.ledger().submitted() == all.size());
    CHECK(s.ledger().waiting() == 0);
    CHECK(s.ledger().running() == 0);
    CHECK(s.waiting() == 0);
    CHECK(s.ledger().ended(Outcome::completed) > 0);
    CHECK(s.ledger().ended(Outcome::failed_replica) > 0);
    CHECK(s.ledger().ended(Outcome::cancelled) > 0);
    std::uint64_t known = 0;
    for (const std::uint64_t ticket : all) known += s.outcome(Ticket{ticket}).has_value() ? 1 : 0;
    CHECK(known == std::min<std::uint64_t>(all.size(), sched::Scheduler::kKeptFinals));
  });
}

TEST_CASE("no event is left lying when its poster finds the scheduler owned") {
  // Two threads post single completions at once, over and over; afterwards nothing may be left to apply.
  auto config = one_model(2);
  sched::SharedScheduler<> shared{config};
  const std::size_t count = rounds();
  for (std::size_t i = 0; i < count; ++i) {
    std::array<Ticket, 2> tickets;
    for (Ticket& ticket : tickets) ticket = shared.submit(request(1), kStart);
    REQUIRE(shared.poll(0, 2, [](const sched::Placement&) {}, kStart) == 2);
    std::atomic<int> ready{0};
    const auto finish = [&](Ticket ticket) {
      ready.fetch_add(1, std::memory_order_acq_rel);
      while (ready.load(std::memory_order_acquire) < 2) {
      }
      (void)shared.complete(ticket, 1, kStart);
    };
    if (i % 100 != 0) {  // most rounds in this thread: they vary the state that the threads meet
      for (const Ticket ticket : tickets) (void)shared.complete(ticket, 1, kStart);
    } else {
      std::jthread other{finish, tickets[0]};
      finish(tickets[1]);
    }
    if (i % 100 == 0) {
      REQUIRE(shared.with_owner([](sched::Scheduler& s) { return s.ledger().running(); }) == 0);
    }
  }
}
