#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

#include "allocation_count.hpp"
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

constexpr Key kMaxKey = std::numeric_limits<Key>::max();

/// Keys of everything left, in the order of leaving.
template <class Queue>
std::vector<Key> drain(Queue& queue) {
  std::vector<Key> keys;
  while (const std::optional<Entry> entry = queue.pop()) keys.push_back(entry->key);
  return keys;
}

template <class Queue>
std::vector<Item> drain_items(Queue& queue) {
  std::vector<Item> items;
  while (const std::optional<Entry> entry = queue.pop()) items.push_back(entry->item);
  return items;
}

/// Fills with items 0, 1, ... under the key `key_of(i)` until refused; the tickets.
template <class Queue, class KeyOf>
std::vector<Ticket> fill(Queue& queue, KeyOf&& key_of) {
  std::vector<Ticket> tickets;
  while (const Ticket ticket = queue.push(key_of(tickets.size()), tickets.size())) tickets.push_back(ticket);
  return tickets;
}

}  // namespace

TEST_CASE("a capacity of nothing, or beyond what a ticket can name, is refused with a sentence") {
  CHECK_THROWS_AS(PriorityQueue<>{0}, std::invalid_argument);
  CHECK_THROWS_AS(PriorityQueue<>{PriorityQueue<>::kMaxCapacity + 1}, std::invalid_argument);
}

TEST_CASE("one thread pushes exactly as many as the capacity says, and a full queue keeps what it has") {
  for (const std::size_t capacity : {1U, 2U, 3U, 29U, 30U, 31U, 63U, 64U, 65U, 1000U, 4097U}) {
    CAPTURE(capacity);
    PriorityQueue<> queue{capacity};
    CHECK(queue.capacity() == capacity);
    for (int round = 0; round < 3; ++round) {
      CHECK(fill(queue, [&](std::size_t i) { return capacity - i; }).size() == capacity);
      CHECK(queue.size() == capacity);
      CHECK(queue.push(0, 0) == kNoTicket);
      CHECK(queue.peek_key() == 1);
      const std::vector<Key> keys = drain(queue);
      CHECK(keys.size() == capacity);
      CHECK(std::is_sorted(keys.begin(), keys.end()));
      CHECK(queue.size() == 0);
    }
  }
}

TEST_CASE("an empty queue has no least") {
  PriorityQueue<> queue{4};
  CHECK_FALSE(queue.pop());
  CHECK_FALSE(queue.peek_key());
  CHECK(queue.push(7, 70) != kNoTicket);
  CHECK(queue.pop()->item == 70);
  CHECK_FALSE(queue.pop());
  CHECK_FALSE(queue.peek_key());
}

TEST_CASE("the smallest and the largest key are keys like others") {
  PriorityQueue<> queue{100};
  for (int i = 0; i < 20; ++i) {
    for (const Key key : {kMaxKey, Key{0}, kMaxKey - 1, Key{1}, Key{1} << 63U}) CHECK(queue.push(key, 1) != kNoTicket);
  }
  const std::vector<Key> keys = drain(queue);
  CHECK(keys.size() == 100);
  CHECK(std::is_sorted(keys.begin(), keys.end()));
  CHECK(keys.front() == 0);
  CHECK(keys.back() == kMaxKey);
}

TEST_CASE("equal keys leave in the order in which one thread pushed them") {
  PriorityQueue<> queue{5000};
  (void)fill(queue, [](std::size_t i) { return i % 7; });
  const std::vector<Item> items = drain_items(queue);
  REQUIRE(items.size() == 5000);
  for (std::size_t i = 1; i < items.size(); ++i) {
    const auto rank = [](Item item) { return std::pair{item % 7, item}; };
    REQUIRE(rank(items[i - 1]) < rank(items[i]));
  }
}

TEST_CASE("a pop names the ticket, and a ticket ends once") {
  PriorityQueue<> queue{8};
  const Ticket popped = queue.push(1, 10);
  const Ticket cancelled = queue.push(2, 20);
  const Ticket cancelled_in_heap = queue.push(3, 30);
  CHECK(queue.cancel(cancelled));
  CHECK(queue.pop()->ticket == popped);
  CHECK(queue.cancel(cancelled_in_heap));
  for (const Ticket ticket : {popped, cancelled, cancelled_in_heap, kNoTicket, ~Ticket{0}, Ticket{1} << 40U}) {
    CHECK_FALSE(queue.cancel(ticket));
    CHECK_FALSE(queue.update(ticket, 5));
  }
  CHECK(queue.size() == 0);
  CHECK_FALSE(queue.pop());
}

TEST_CASE("an update moves its item both ways, before it was filed and after, and keeps the ticket") {
  for (const bool is_filed : {false, true}) {
    CAPTURE(is_filed);
    PriorityQueue<> queue{8};
    const Ticket up = queue.push(10, 1);
    const Ticket down = queue.push(20, 2);
    const Ticket still = queue.push(30, 3);
    if (is_filed) CHECK(queue.peek_key() == 10);
    CHECK(queue.update(up, 40));
    CHECK(queue.update(down, 35));
    CHECK(queue.update(down, 0));
    CHECK(queue.size() == 3);
    CHECK(queue.peek_key() == 0);
    const Entry first = *queue.pop();
    CHECK(first.key == 0);
    CHECK(first.ticket == down);
    CHECK(queue.pop()->ticket == still);
    const Entry last = *queue.pop();
    CHECK(last.key == 40);
    CHECK(last.ticket == up);
    CHECK_FALSE(queue.pop());
  }
}

TEST_CASE("an updated item goes behind its equals") {
  PriorityQueue<> queue{8};
  const Ticket first = queue.push(5, 1);
  (void)queue.push(5, 2);
  CHECK(queue.peek_key() == 5);
  CHECK(queue.update(first, 5));
  CHECK(drain_items(queue) == std::vector<Item>{2, 1});
}

TEST_CASE("the room of cancelled items comes back without a pop") {
  for (const bool are_filed : {false, true}) {
    CAPTURE(are_filed);
    PriorityQueue<> queue{300};
    for (int round = 0; round < 5; ++round) {
      const std::vector<Ticket> tickets = fill(queue, [](std::size_t i) { return i; });
      REQUIRE(tickets.size() == 300);
      if (are_filed) CHECK(queue.peek_key() == 0);
      for (const Ticket ticket : tickets) REQUIRE(queue.cancel(ticket));
      CHECK(queue.size() == 0);
    }
    CHECK(fill(queue, [](std::size_t i) { return i; }).size() == 300);
    CHECK(drain(queue).size() == 300);
  }
}

TEST_CASE("endless cancels and updates lose nothing and need no more memory") {
  PriorityQueue<> queue{50};
  std::vector<Ticket> tickets = fill(queue, [](std::size_t i) { return i + 1000; });
  Rng random{7};
  for (int i = 0; i < 100'000; ++i) {
    Ticket& any = tickets[random.next_below(tickets.size())];
    REQUIRE(queue.update(any, 1000 + random.next_below(100)));
    if (i % 3 == 0) REQUIRE(queue.peek_key() >= Key{1000});
    if (i % 5 == 0) {
      REQUIRE(queue.cancel(any));
      any = queue.push(1000 + random.next_below(100), 1);
      REQUIRE(any != kNoTicket);
    }
  }
  CHECK(queue.size() == 50);
  const std::vector<Key> keys = drain(queue);
  CHECK(keys.size() == 50);
  CHECK(std::is_sorted(keys.begin(), keys.end()));
}

TEST_CASE("with four bits of generation a slot is used fifteen times before a ticket comes again, and never as none") {
  PriorityQueue<std::atomic, 4> queue{1};
  std::set<Ticket> seen;
  for (int i = 0; i < 15; ++i) {
    const Ticket ticket = queue.push(1, 1);
    CHECK(ticket != kNoTicket);
    CHECK(seen.insert(ticket).second);
    if (i % 3 == 0) {
      CHECK(queue.pop()->ticket == ticket);
    } else {
      if (i % 3 == 1) CHECK(queue.peek_key() == 1);
      CHECK(queue.cancel(ticket));
    }
    CHECK_FALSE(queue.cancel(ticket));
    CHECK_FALSE(queue.pop());
  }
  CHECK(seen.contains(queue.push(1, 1)));
}

TEST_CASE("rows are pushed until the queue is full, and the rest say so") {
  PriorityQueue<> queue{10};
  const std::vector<Key> keys{9, 8, 7, 6, 5, 5, 5};
  const std::vector<Item> items{0, 1, 2, 3, 4, 5, 6};
  std::vector<Ticket> tickets(7, 1);
  CHECK(queue.push_many(keys, items, tickets) == 7);
  CHECK(std::count(tickets.begin(), tickets.end(), kNoTicket) == 0);
  CHECK(queue.cancel(tickets[6]));
  CHECK(queue.push_many(keys, items, tickets) == 4);
  CHECK(std::count(tickets.begin(), tickets.end(), kNoTicket) == 3);
  CHECK(tickets[3] != kNoTicket);
  CHECK(tickets[4] == kNoTicket);
  CHECK(queue.push_many(keys, items, tickets) == 0);
  CHECK(queue.push_many({}, {}, {}) == 0);
  CHECK(queue.size() == 10);
  CHECK(drain_items(queue) == std::vector<Item>{4, 5, 3, 3, 2, 2, 1, 1, 0, 0});
}

TEST_CASE("rows leave in order, as many as there are") {
  PriorityQueue<> queue{100};
  (void)fill(queue, [](std::size_t i) { return i * 37 % 100; });
  std::array<Key, 64> keys{};
  std::array<Item, 64> items{};
  CHECK(queue.pop_many(keys, items) == 64);
  CHECK(std::is_sorted(keys.begin(), keys.end()));
  for (std::size_t i = 0; i < 64; ++i) CHECK(items[i] * 37 % 100 == keys[i]);
  CHECK(queue.pop_many(keys, items) == 36);
  CHECK(keys[35] == 99);
  CHECK(queue.pop_many(keys, items) == 0);
  CHECK(queue.size() == 0);
}

TEST_CASE("lanes that nobody used for long are found again") {
  PriorityQueue<> queue{100};
  for (int round = 0; round < 5; ++round) {
    for (std::size_t lane = 0; lane < 70; ++lane) REQUIRE(queue.push(lane, lane, lane) != kNoTicket);
    REQUIRE(drain(queue).size() == 70);
    for (int i = 0; i < 10'000; ++i) REQUIRE_FALSE(queue.pop());
  }
}

TEST_CASE_TEMPLATE("whatever is done in any order, the queue does as a sorted list would", Queue, PriorityQueue<>,
                   PriorityQueue<std::atomic, 32, 9>) {  // nine bits of serial: entries are renumbered all the time
  struct Waiting {
    Item item;
    Ticket ticket;
  };
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    CAPTURE(seed);
    Rng random{seed};
    const std::size_t capacity = 1 + random.next_below(seed % 2 == 0 ? 8 : 200);
    const std::uint64_t key_range = seed % 3 == 0 ? 5 : ~std::uint64_t{0};
    Queue queue{capacity};
    std::multimap<Key, Waiting> oracle;  // equal keys stay in the order of insertion
    std::vector<Ticket> gone;
    Item next_item = 0;
    for (int step = 0; step < 20'000; ++step) {
      const auto any = [&] {
        auto at = oracle.begin();
        std::advance(at, static_cast<std::ptrdiff_t>(random.next_below(oracle.size())));
        return at;
      };
      const Key key = random.next_below(key_range);
      switch (random.next_below(8)) {
        case 0:
        case 1:
        case 2: {
          const Ticket ticket = queue.push(key, next_item);
          REQUIRE((ticket == kNoTicket) == (oracle.size() == capacity));
          if (ticket != kNoTicket) oracle.insert({key, {next_item, ticket}});
          ++next_item;
          break;
        }
        case 3:
        case 4: {
          const std::optional<Entry> entry = queue.pop();
          REQUIRE(entry.has_value() == !oracle.empty());
          if (!entry) break;
          REQUIRE(entry->key == oracle.begin()->first);
          REQUIRE(entry->item == oracle.begin()->second.item);
          REQUIRE(entry->ticket == oracle.begin()->second.ticket);
          gone.push_back(entry->ticket);
          oracle.erase(oracle.begin());
          break;
        }
        case 5:
          if (oracle.empty()) break;
          if (const auto at = any(); true) {
            REQUIRE(queue.cancel(at->second.ticket));
            gone.push_back(at->second.ticket);
            oracle.erase(at);
          }
          break;
        case 6:
          if (oracle.empty() || step % 2 == 0) break;
          // Updates are filed in no particular order among themselves: one at a time here, for the order of equals.
          if (const auto at = any(); true) {
            (void)queue.peek_key();
            REQUIRE(queue.update(at->second.ticket, key));
            const Waiting moved = at->second;
            oracle.erase(at);
            oracle.insert({key, moved});
            REQUIRE(queue.peek_key() == oracle.begin()->first);
          }
          break;
        default:
          REQUIRE(queue.peek_key() == (oracle.empty() ? std::nullopt : std::optional{oracle.begin()->first}));
          if (gone.empty()) break;
          REQUIRE_FALSE(queue.cancel(gone[random.next_below(gone.size())]));
          REQUIRE_FALSE(queue.update(gone[random.next_below(gone.size())], key));
      }
      REQUIRE(queue.size() == oracle.size());
    }
  }
}

TEST_CASE("after construction no call allocates") {
  PriorityQueue<> queue{1000};
  Rng random{5};
  std::array<Key, 16> keys{};
  std::array<Item, 16> items{};
  std::array<Ticket, 16> tickets{};
  std::size_t popped = 0;
  const std::uint64_t before = test::allocations();
  for (int i = 0; i < 20'000; ++i) {
    const Ticket ticket = queue.push(random.next_u64(), 1);
    (void)queue.push_many(keys, items, tickets);
    (void)queue.update(ticket, random.next_u64());
    (void)queue.peek_key();
    if (i % 3 == 0) (void)queue.cancel(ticket);
    popped += queue.pop_many(keys, items) + queue.pop().has_value();
  }
  CHECK(test::allocations() == before);
  CHECK(popped > 20'000);
}
