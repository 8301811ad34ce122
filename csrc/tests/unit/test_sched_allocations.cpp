// The hot calls allocate nothing. Every operator new of this binary is counted.

#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <vector>

#include "allocation_count.hpp"
#include "sched_config.hpp"
#include "zeta/core/rng.hpp"
#include "zeta/sched/shared_scheduler.hpp"

namespace {

std::atomic<std::uint64_t> allocations{0};  // counted from any thread; nothing is published with it

void* counted(std::size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);  // a count
  if (void* const memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc{};
}

}  // namespace

void* operator new(std::size_t size) { return counted(size); }
void* operator new[](std::size_t size) { return counted(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

std::uint64_t zeta::test::allocations() noexcept { return ::allocations.load(std::memory_order_relaxed); }  // a count

using namespace zeta;
using namespace zeta::test;
using sched::Ticket;

TEST_CASE("after construction submit, poll, first_token, complete, fail, cancel, advance and tick allocate nothing") {
  auto config = several_models(3, 4);
  config.devices = {{.is_shared = true}, {.is_shared = false}};
  for (std::size_t m = 0; m < 3; ++m) config.models[m].device = DeviceId{static_cast<std::uint8_t>(m / 2)};
  sched::SharedScheduler<> shared{config};
  std::vector<Ticket> tickets(1'000'000);
  std::size_t count = 0;
  Rng random{3};
  Instant now = kStart;
  const std::uint64_t before = test::allocations();
  for (int i = 0; i < 100'000; ++i) {
    now += Duration{static_cast<std::int64_t>(random.next_below(20'000'000))};
    auto made = request(static_cast<std::uint32_t>(random.next_below(5000)), now, 2_s);
    made.tenant = TenantId{static_cast<std::uint16_t>(random.next_below(300))};
    made.priority = static_cast<std::uint8_t>(random.next_below(4));
    made.allowed = ModelMask{static_cast<std::uint32_t>(1 + random.next_below(7))};
    made.affinity_key = random.next_below(100);
    made.channel = static_cast<std::uint8_t>(random.next_below(2));
    if (random.next_below(2) == 0) made.complexity = static_cast<float>(random.next_unit());
    if (random.next_below(5) == 0) made.expires_at = now + 300_ms;
    tickets[count++] = shared.submit(made, now);
    shared.poll(0, 10, [](const sched::Placement&) {}, now);
    shared.poll(1, 10, [](const sched::Placement&) {}, now);
    shared.with_owner([](sched::Scheduler& s) {
      while (s.next_ended()) {
      }
    });
    for (int k = 0; k < 3; ++k) {
      const Ticket any = tickets[count - 1 - random.next_below(std::min<std::size_t>(count, 60))];
      (void)shared.first_token(any, now);
      (void)shared.complete(any, 100, now);
    }
    const Ticket any = tickets[count - 1 - random.next_below(std::min<std::size_t>(count, 60))];
    if (i % 11 == 0) (void)shared.fail(any, true, Outcome::failed_replica, now);
    if (i % 13 == 0) (void)shared.cancel(any, now);
    (void)shared.advance(now);
    if (i % 20 == 0) (void)shared.tick(now);
  }
  CHECK(test::allocations() == before);
  CHECK(shared.with_owner([](sched::Scheduler& s) { return s.ledger().adds_up(); }));
}
