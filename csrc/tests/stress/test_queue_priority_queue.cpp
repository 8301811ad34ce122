// Many threads on one queue: what is pushed is popped, cancelled or left, each ticket once. The queues are small, so
// that the threads keep meeting at full and at empty.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <optional>
#include <thread>
#include <vector>

#include "zeta/core/rng.hpp"
#include "zeta/queue/priority_queue.hpp"

using namespace zeta;
using queue::Entry;
using queue::Item;
using queue::Key;
using queue::kNoTicket;
using queue::PriorityQueue;
using queue::Ticket;

namespace {

/// Items in all: what ZETA_STRESS names (nightly: 10^7 and more); without it a million, fewer under the thread
/// sanitizer.
std::size_t items_in_all() {
  const char* const asked = std::getenv("ZETA_STRESS");
  if (asked != nullptr) return std::strtoul(asked, nullptr, 10);
#if defined(__SANITIZE_THREAD__)
  return 100'000;
#else
  return 1'000'000;
#endif
}

struct Done {
  std::vector<Ticket> pushed;
  std::vector<Ticket> ended;  ///< Popped, or cancelled by a call that returned true.
};

template <class Body>
void run_threads(std::size_t count, Body&& body) {
  std::vector<std::jthread> threads;
  for (std::size_t i = 0; i < count; ++i) threads.emplace_back([&, i] { body(i); });
}

/// Each ticket pushed ended once, after the queue has been emptied.
void check_conservation(PriorityQueue<>& queue, std::vector<Done>& all) {
  std::vector<Ticket> pushed;
  std::vector<Ticket> ended;
  for (const Done& done : all) {
    pushed.insert(pushed.end(), done.pushed.begin(), done.pushed.end());
    ended.insert(ended.end(), done.ended.begin(), done.ended.end());
  }
  CHECK(queue.size() == pushed.size() - ended.size());
  std::optional<Key> before;
  while (const std::optional<Entry> entry = queue.pop()) {
    ended.push_back(entry->ticket);
    CHECK(before.value_or(0) <= entry->key);
    before = entry->key;
  }
  CHECK(queue.size() == 0);
  std::sort(pushed.begin(), pushed.end());
  std::sort(ended.begin(), ended.end());
  CHECK(std::adjacent_find(pushed.begin(), pushed.end()) == pushed.end());
  CHECK(pushed == ended);

  std::size_t room = 0;  // no slot was lost or doubled on the way
  while (queue.push(room, room) != kNoTicket) ++room;
  CHECK(room == queue.capacity());
}

/// One thread's mix of every call. Remembers the last tickets of this thread, and now and then of another.
void mix(PriorityQueue<>& queue, Done& done, std::size_t rounds, std::uint64_t seed, std::atomic<Ticket>& shared) {
  Rng random{seed};
  std::array<Ticket, 16> recent{};
  for (std::size_t i = 0; i < rounds; ++i) {
    const Key key = random.next_below(1000);
    if (const Ticket ticket = queue.push(key, key); ticket != kNoTicket) {
      done.pushed.push_back(ticket);
      recent[i % recent.size()] = ticket;
      if (i % 4 == 0) shared.store(ticket, std::memory_order_release);
    }
    const Ticket other = shared.load(std::memory_order_acquire);
    const Ticket any = i % 3 == 0 ? other : recent[random.next_below(recent.size())];
    switch (random.next_below(6)) {
      case 0:
        if (queue.cancel(any)) done.ended.push_back(any);
        break;
      case 1:
      case 2:
        (void)queue.update(any, random.next_below(1000));
        break;
      case 3:
        (void)queue.peek_key();
        break;
      default:
        if (const std::optional<Entry> entry = queue.pop()) done.ended.push_back(entry->ticket);
    }
  }
}

}  // namespace

TEST_CASE("whatever threads push, pop, cancel and update at once, every ticket ends once") {
  for (const std::size_t capacity : {1U, 7U, 100U, 5000U}) {
    CAPTURE(capacity);
    constexpr std::size_t kThreads = 4;
    PriorityQueue<> queue{capacity};
    std::vector<Done> done(kThreads);
    std::atomic<Ticket> shared{kNoTicket};
    run_threads(kThreads, [&](std::size_t me) { mix(queue, done[me], items_in_all() / kThreads / 4, me + 1, shared); });
    check_conservation(queue, done);
  }
}

TEST_CASE("threads beyond the number of lanes share one and lose nothing") {
  constexpr std::size_t kThreads = 80;
  PriorityQueue<> queue{500};
  std::vector<Done> done(kThreads);
  std::atomic<Ticket> shared{kNoTicket};
  std::atomic<std::size_t> running{0};
  run_threads(kThreads, [&](std::size_t me) {
    (void)sync::thread_lane();
    running.fetch_add(1, std::memory_order_relaxed);  // a count
    while (running.load(std::memory_order_relaxed) < kThreads) std::this_thread::yield();
    mix(queue, done[me], items_in_all() / kThreads / 2, me + 1, shared);
  });
  check_conservation(queue, done);
}

TEST_CASE("what one producer pushed in order, a taker takes in order") {
  constexpr std::size_t kProducers = 3;
  const std::size_t each = items_in_all() / kProducers;
  PriorityQueue<> queue{1000};
  std::array<Item, kProducers> expected{};
  bool in_order = true;
  run_threads(kProducers + 1, [&](std::size_t me) {
    if (me < kProducers) {
      for (std::size_t i = 0; i < each;) {
        if (queue.push(5, (me << 32U) | i) != kNoTicket) {
          ++i;
        } else {
          std::this_thread::yield();
        }
      }
      return;
    }
    for (std::size_t taken = 0; taken < each * kProducers;) {
      const std::optional<Entry> entry = queue.pop();
      if (!entry) {
        std::this_thread::yield();
        continue;
      }
      ++taken;
      in_order &= (entry->item & 0xFFFFFFFFU) == expected[entry->item >> 32U]++;
    }
  });
  CHECK(in_order);
  CHECK(queue.size() == 0);
}

TEST_CASE("one ticket that several threads try to end at once is ended by one") {
  const std::size_t rounds = items_in_all() / 40;
  PriorityQueue<> queue{4};
  std::atomic<Ticket> ticket{kNoTicket};
  std::atomic<std::size_t> round{0};
  std::atomic<std::size_t> ended{0};
  std::atomic<std::size_t> ready{0};
  run_threads(3, [&](std::size_t me) {
    for (std::size_t i = 1; i <= rounds; ++i) {
      if (me == 0) {
        while (ready.load(std::memory_order_acquire) != 2 * (i - 1)) std::this_thread::yield();
        ticket.store(queue.push(i, i), std::memory_order_relaxed);
        if (i % 2 == 0) (void)queue.peek_key();
        round.store(i, std::memory_order_release);
        ended.fetch_add(queue.pop().has_value() ? 1 : 0, std::memory_order_relaxed);  // a count
      } else {
        while (round.load(std::memory_order_acquire) != i) std::this_thread::yield();
        const Ticket mine = ticket.load(std::memory_order_relaxed);
        if (me == 2) (void)queue.update(mine, i + 1);
        ended.fetch_add(queue.cancel(mine) ? 1 : 0, std::memory_order_relaxed);  // a count
        ready.fetch_add(1, std::memory_order_release);
      }
    }
  });
  CHECK(ended.load() == rounds);
  CHECK(queue.size() == 0);
}
