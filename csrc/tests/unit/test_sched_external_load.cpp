// What others than the scheduler hold on a replica.

#include <doctest/doctest.h>

#include <vector>

#include "sched_config.hpp"

using namespace zeta;
using namespace zeta::test;
using sched::Scheduler;
using sched::Ticket;

namespace {

constexpr ReplicaId kFirst{0};
constexpr ReplicaId kSecond{1};

void tell(Scheduler& scheduler, ReplicaId replica, std::uint32_t requests, std::uint64_t kv_tokens, Instant now) {
  REQUIRE(scheduler.note_external_load(replica, requests, kv_tokens, now));
  scheduler.settle(now);
}

/// Submits `count` requests; how many were placed, by replica.
std::vector<int> placed(Scheduler& scheduler, int count, Instant now, std::uint32_t prompt = 100) {
  for (int i = 0; i < count; ++i) (void)scheduler.submit(request(prompt), now);
  std::vector<int> by_replica(2);
  while (const auto placement = scheduler.next_placement()) ++by_replica[index_of(placement->replica)];
  CHECK_FALSE(scheduler.ticket_with_idle_capacity().has_value());
  return by_replica;
}

sched::SchedulerConfig two_replicas(std::uint32_t max_in_flight, std::uint64_t kv_tokens = 1U << 20U) {
  auto config = one_model(max_in_flight, kv_tokens);
  config.replicas.push_back(config.replicas.front());
  return config;
}

}  // namespace

TEST_CASE("what others hold of a replica's window is theirs, and one place is always ours") {
  Scheduler scheduler{one_model(8)};
  tell(scheduler, kFirst, 5, 0, kStart);
  CHECK(placed(scheduler, 20, kStart)[0] == 3);
  tell(scheduler, kFirst, 2, 0, kStart);
  CHECK(placed(scheduler, 0, kStart)[0] == 3);  // three more places are free
  tell(scheduler, kFirst, 1'000, 0, kStart);
  CHECK(placed(scheduler, 0, kStart)[0] == 0);

  Scheduler crowded{one_model(8)};
  tell(crowded, kFirst, 1'000, 1U << 20U, kStart);
  CHECK(placed(crowded, 20, kStart)[0] == 1);
}

TEST_CASE("a replica that others load takes less, and what is sent meanwhile counts at once") {
  Scheduler scheduler{two_replicas(64)};
  tell(scheduler, kFirst, 20, 0, kStart);
  // No new reading comes: without its own count all thirty would go to the second, or after it fell behind, to the
  // first.
  CHECK(placed(scheduler, 30, kStart) == std::vector{5, 25});
  tell(scheduler, kFirst, 0, 0, kStart);
  tell(scheduler, kSecond, 10, 0, kStart);
  CHECK(placed(scheduler, 10, kStart) == std::vector{10, 0});
}

TEST_CASE("others' tokens count beside ours, and keep no request from an empty replica") {
  Scheduler scheduler{one_model(8, 10'000)};
  tell(scheduler, kFirst, 1, 6'000, kStart);
  CHECK(placed(scheduler, 1, kStart, 9'000)[0] == 1);  // alone, as if nobody had told
  CHECK(placed(scheduler, 1, kStart, 500)[0] == 0);
  tell(scheduler, kFirst, 1, 0, kStart);
  CHECK(placed(scheduler, 0, kStart)[0] == 1);
}

TEST_CASE("a load that is not known any more is no load, and said to be unknown") {
  Scheduler scheduler{one_model(8)};
  CHECK_FALSE(scheduler.fleet().replica(kFirst).others.is_known);
  tell(scheduler, kFirst, 8, 100, kStart);
  CHECK(scheduler.fleet().replica(kFirst).others.is_known);
  tell(scheduler, kFirst, sched::kUnknownLoad, 100, kStart);
  CHECK_FALSE(scheduler.fleet().replica(kFirst).others.is_known);
  CHECK(placed(scheduler, 20, kStart)[0] == 8);
}

TEST_CASE("loads of replicas that are not there are refused, and those of removed ones forgotten") {
  Scheduler scheduler{two_replicas(8)};
  CHECK_FALSE(scheduler.note_external_load(ReplicaId{9}, 1, 0, kStart));
  CHECK_FALSE(scheduler.note_external_load(kNoReplica, 1, 0, kStart));
  tell(scheduler, kSecond, 7, 0, kStart);
  CHECK(scheduler.fleet()[ModelId{0}].has_others);
  scheduler.remove_replica(kSecond, kStart);
  CHECK_FALSE(scheduler.fleet()[ModelId{0}].has_others);
  CHECK_FALSE(scheduler.note_external_load(kSecond, 7, 0, kStart));
  CHECK(scheduler.add_replica({.model = ModelId{0}, .max_in_flight = 8}, kStart) == kSecond);
  CHECK_FALSE(scheduler.fleet().replica(kSecond).others.is_known);
}

TEST_CASE("a run in which nothing is told has the hash that it had, and one that is told another") {
  Scheduler plain{two_replicas(8)};
  Scheduler told{two_replicas(8)};
  CHECK(placed(plain, 20, kStart) == placed(told, 20, kStart));
  CHECK(plain.hash().value() == told.hash().value());
  tell(told, kFirst, 0, 0, kStart);
  CHECK(plain.hash().value() != told.hash().value());
}
