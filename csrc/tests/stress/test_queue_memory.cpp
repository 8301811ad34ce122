// A long run of one thread takes no memory beyond what its beginning took. Under sanitizers, which keep memory of their
// own, it is a short one, and only what waits is checked.

#include <doctest/doctest.h>

#include "team.hpp"
#include "zeta/core/rng.hpp"
#include "zeta/queue/deadline_queue.hpp"
#include "zeta/queue/priority_queue.hpp"

using namespace zeta;
using queue::Key;
using queue::kNoTicket;
using queue::Ticket;

namespace {

#if defined(ZETA_SANITIZED)
constexpr bool kSanitized = true;
constexpr std::size_t kLess = 100;
#else
constexpr bool kSanitized = false;
constexpr std::size_t kLess = 1;
#endif
constexpr std::size_t kQueued = 10'000;
constexpr std::size_t kFewPages = 256 * 1024;

/// Pops, pushes, and now and then re-keys and cancels; time moves by 100 ns a pair.
class Run {
 public:
  template <class Pop, class Push, class Update, class Cancel>
  void go(std::size_t pairs, Pop&& pop, Push&& push, Update&& update, Cancel&& cancel) {
    for (std::size_t i = 0; i < pairs; ++i) {
      now_ += 100;
      const Ticket ticket = push(now_ + random_.next_below(2'000'000), now_);
      if (i % 16 == 0) update(ticket, now_ + random_.next_below(2'000'000), now_);
      if (i % 64 != 0 || !cancel(ticket)) pop(now_);
    }
  }

 private:
  Rng random_{1};
  Key now_ = 1'000'000;
};

}  // namespace

TEST_CASE("a calendar takes no more memory after a long run than after its beginning") {
  queue::DeadlineQueue<> queue{2 * kQueued, 1'000, 200'000'000};
  for (std::size_t i = 0; i < kQueued; ++i) REQUIRE(queue.push(i, i, 0) != kNoTicket);
  Run run;
  const auto go = [&](std::size_t pairs) {
    run.go(
        pairs, [&](Key now) { (void)queue.pop(now); }, [&](Key key, Key now) { return queue.push(key, 1, now); },
        [&](Ticket ticket, Key key, Key now) { (void)queue.update(ticket, key, now); },
        [&](Ticket ticket) { return queue.cancel(ticket); });
  };
  go(6'000'000 / kLess);  // once round the calendar, so that every bucket has been used
  const std::size_t before = test::resident_bytes();
  go(test::items_in_all() / kLess);
  if (!kSanitized) CHECK(test::resident_bytes() <= before + kFewPages);
  CHECK(queue.size() == kQueued);
}

TEST_CASE("a heap takes no more memory after a long run than after its beginning") {
  queue::PriorityQueue<> queue{2 * kQueued};
  for (std::size_t i = 0; i < kQueued; ++i) REQUIRE(queue.push(i, i) != kNoTicket);
  Run run;
  const auto go = [&](std::size_t pairs) {
    run.go(
        pairs, [&](Key) { (void)queue.pop(); }, [&](Key key, Key) { return queue.push(key, 1); },
        [&](Ticket ticket, Key key, Key) { (void)queue.update(ticket, key); },
        [&](Ticket ticket) { return queue.cancel(ticket); });
  };
  go(1'000'000 / kLess);
  const std::size_t before = test::resident_bytes();
  go(test::items_in_all() / kLess);
  if (!kSanitized) CHECK(test::resident_bytes() <= before + kFewPages);
  CHECK(queue.size() == kQueued);
}
