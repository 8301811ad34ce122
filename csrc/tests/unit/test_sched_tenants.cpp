// One tenant beside another.

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <queue>
#include <vector>

#include "sched_config.hpp"
#include "zeta/core/rng.hpp"

using namespace zeta;
using namespace zeta::test;
using sched::Scheduler;
using sched::Ticket;

namespace {

constexpr TenantId kQuiet{1};
constexpr TenantId kLoud{2};

struct Tail {
  Duration p99{0};
  std::uint64_t refused = 0;
};

/// p99 of the time from submission to the end for a tenant that asks for a fifth of what eight places can do, with
/// another that asks for `loudness` times as much.
Tail latency_of_quiet(double loudness, std::uint64_t seed) {
  auto config = one_model(8);
  Scheduler scheduler{config};
  Rng random{seed};
  struct End {
    Instant at;
    Ticket ticket;
    bool operator>(const End& other) const { return at > other.at; }
  };
  std::priority_queue<End, std::vector<End>, std::greater<>> ends;
  std::vector<Duration> latencies;
  Tail tail;
  constexpr double kQuietGapS = 0.1256 / (8 * 0.2);
  Instant next_tick = kStart;
  std::array<Instant, 2> next{kStart, loudness > 0.0 ? kStart : kNever};
  while (latencies.size() < 5000) {
    const bool is_loud = next[1] < next[0];
    const Instant arrival = is_loud ? next[1] : next[0];
    if (next_tick <= arrival && (ends.empty() || next_tick <= ends.top().at)) {
      scheduler.tick(next_tick);
      next_tick += 50_ms;
    } else if (!ends.empty() && ends.top().at <= arrival) {
      const End end = ends.top();
      ends.pop();
      if (scheduler.live(end.ticket)->request.tenant == kQuiet) {
        latencies.push_back(end.at - scheduler.live(end.ticket)->arrival);
      }
      (void)scheduler.complete(end.ticket, 256, end.at);
    } else {
      auto made = request(5000 + static_cast<std::uint32_t>(random.next_below(10'000)));  // or all places free at once
      made.tenant = is_loud ? kLoud : kQuiet;
      const Ticket ticket = scheduler.submit(made, arrival);
      if (!is_loud && is_final(*scheduler.outcome(ticket))) ++tail.refused;
      const double gap_s = 2.0 * random.next_unit() * kQuietGapS / (is_loud ? loudness : 1.0);
      next[is_loud ? 1 : 0] = arrival + duration_from_seconds(std::max(gap_s, 1e-9));
    }
    while (const auto placed = scheduler.next_placement()) {
      const auto* const s = scheduler.live(placed->ticket);
      ends.push({s->stage_began + s->work, placed->ticket});
    }
  }
  auto at = latencies.begin() + static_cast<std::ptrdiff_t>(latencies.size() * 99 / 100);
  std::nth_element(latencies.begin(), at, latencies.end());
  tail.p99 = *at;
  return tail;
}

}  // namespace

TEST_CASE("a tenant at 100 times the load moves another's p99 by at most half, and refuses it nothing for long") {
  for (const std::uint64_t seed : {1, 2, 3}) {
    const Tail alone = latency_of_quiet(0.0, seed);
    const Tail beside = latency_of_quiet(100.0, seed);
    CHECK(to_seconds(beside.p99) <= 1.5 * to_seconds(alone.p99));
    CHECK(beside.refused <= 5);  // while the first flood drains
  }
}

TEST_CASE("tenants who always have work share by weight, in predicted work and not in requests") {
  auto config = one_model(1);
  config.tenant_weights = {1.0, 1.0, 3.0};
  Scheduler scheduler{config};
  const auto of = [](TenantId tenant, std::uint32_t prompt) {
    auto made = request(prompt);
    made.tenant = tenant;
    return made;
  };
  Ticket running = start(scheduler, of(kQuiet, 10), kStart);
  for (int i = 0; i < 2000; ++i) {
    (void)scheduler.submit(of(kQuiet, 1000), kStart);
    (void)scheduler.submit(of(kLoud, 20'000), kStart);
  }
  std::array<double, 3> work_s{};
  for (int i = 0; i < 1500; ++i) {
    running = next_after(scheduler, running, kStart);
    const auto* const s = scheduler.live(running);
    work_s[index_of(s->request.tenant)] += to_seconds(s->work);
  }
  CHECK(work_s[2] / work_s[1] > 2.85);
  CHECK(work_s[2] / work_s[1] < 3.15);
}

TEST_CASE("rounds are skipped at once, however long the debt, and none is skipped backwards") {
  auto config = one_model(1, 1U << 30U);
  config.models[0].max_context_tokens = 0xFFFFFFFFU;
  Scheduler scheduler{config};
  const auto of = [](std::uint16_t tenant, std::uint32_t prompt) {
    auto made = request(prompt);
    made.tenant = TenantId{tenant};
    return made;
  };
  Ticket running = start(scheduler, of(0, 10), kStart);
  for (std::uint16_t tenant = 1; tenant < 6; ++tenant) {
    for (int i = 0; i < 3; ++i)
      (void)scheduler.submit(of(tenant, i == 0 ? 500'000'000U : 10U), kStart);  // 5,000 s each
  }
  int served = 0;
  for (; running != Ticket{}; ++served) running = next_after(scheduler, running, kStart);
  CHECK(served == 16);
}
