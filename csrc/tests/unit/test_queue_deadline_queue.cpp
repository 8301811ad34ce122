#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <stdexcept>
#include <unordered_map>
#include <vector>

#include "allocation_count.hpp"
#include "zeta/core/rng.hpp"
#include "zeta/queue/deadline_queue.hpp"

using namespace zeta;
using queue::CalendarShape;
using queue::DeadlineQueue;
using queue::Entry;
using queue::Item;
using queue::Key;
using queue::kNoTicket;
using queue::Ticket;

namespace {

/// Eight buckets a chunk and two to four chunks, so that the window's edges are everywhere.
struct TinyShape : CalendarShape {
  static constexpr unsigned fan_bits = 1;
  static constexpr unsigned fewest_chunks = 2;
  static constexpr unsigned most_chunks = 4;
  static constexpr unsigned lanes = 4;
  static constexpr unsigned deferred = 2;
  static constexpr std::size_t least_to_defer = 5;
  static constexpr unsigned generation_bits = 4;
  static constexpr std::size_t extra_spares = 8;
};
using TinyQueue = DeadlineQueue<std::atomic, TinyShape>;

/// How much there is of what is repeated: less where a sanitizer makes each step dear.
#if defined(ZETA_SANITIZED)
constexpr int kLess = 20;
#else
constexpr int kLess = 1;
#endif

constexpr Key kMillisecond = 1'000'000;
constexpr Key kHorizon = 262'144 * kMillisecond;

template <class Queue>
std::vector<Item> drain(Queue& queue, Key now = 0) {
  std::vector<Item> items;
  while (const auto entry = queue.pop(now)) items.push_back(entry->item);
  return items;
}

/// What a queue should hold, in a form that is obviously right.
class Oracle {
 public:
  void add(Ticket ticket, Key key, Item item) { waiting_[ticket] = {key, item, ticket}; }
  bool remove(Ticket ticket) { return waiting_.erase(ticket) > 0; }
  bool rekey(Ticket ticket, Key key) {
    const auto found = waiting_.find(ticket);
    if (found == waiting_.end()) return false;
    found->second.key = key;
    return true;
  }
  [[nodiscard]] std::optional<Entry> get(Ticket ticket) const {
    const auto found = waiting_.find(ticket);
    return found == waiting_.end() ? std::nullopt : std::optional{found->second};
  }
  [[nodiscard]] Key least() const {
    Key least = std::numeric_limits<Key>::max();
    for (const auto& [ticket, entry] : waiting_) least = std::min(least, entry.key);
    return least;
  }
  [[nodiscard]] std::size_t size() const { return waiting_.size(); }

 private:
  std::unordered_map<Ticket, Entry> waiting_;
};

/// Random operations of one thread, each checked against the oracle.
template <class Queue>
void compare_with_oracle(std::uint64_t seed, std::size_t capacity, Key quantum, Key horizon, Key span, int steps) {
  CAPTURE(seed);
  Queue queue{capacity, quantum, horizon};
  Oracle oracle;
  Rng random{seed};
  std::vector<Ticket> tickets;
  Key now = 0;
  for (int step = 0; step < steps; ++step) {
    CAPTURE(step);
    if (random.next_u64() % 3 == 0) now += random.next_u64() % (span / 4 + 1);
    if (random.next_u64() % 997 == 0) now += span * 50;  // long idle
    const auto some_key = [&] {
      switch (random.next_u64() % 16) {
        case 0:
          return now + span * 20 + random.next_u64() % span;  // beyond the horizon
        case 1:
        case 2:
          return now > span ? now - random.next_u64() % span : 0;  // overdue
        default:
          return now + random.next_u64() % span;
      }
    };
    const auto some_ticket = [&] { return tickets.empty() ? Ticket{77} : tickets[random.next_u64() % tickets.size()]; };
    switch (random.next_u64() % 10) {
      case 0:
      case 1:
      case 2:
      case 3: {
        const Key key = some_key();
        const Ticket ticket = queue.push(key, static_cast<Item>(step), now);
        REQUIRE((ticket == kNoTicket) == (oracle.size() == capacity));
        if (ticket == kNoTicket) break;
        oracle.add(ticket, key, static_cast<Item>(step));
        tickets.push_back(ticket);
        break;
      }
      case 4:
      case 5:
      case 6: {
        const std::optional<Entry> entry = queue.pop(now);
        REQUIRE(entry.has_value() == (oracle.size() > 0));
        if (!entry) break;
        const std::optional<Entry> expected = oracle.get(entry->ticket);
        REQUIRE(expected);
        CHECK(expected->key == entry->key);
        CHECK(expected->item == entry->item);
        // Only among keys that may have been overdue by a chunk when they came is the order first in, first out.
        const Key chunk = quantum * Queue::kChunk;
        if (entry->key / chunk + 1 >= now / chunk) CHECK(oracle.least() / quantum >= entry->key / quantum);
        oracle.remove(entry->ticket);
        break;
      }
      case 7: {
        const Ticket ticket = some_ticket();
        CHECK(queue.cancel(ticket) == oracle.remove(ticket));
        break;
      }
      case 8: {
        const Ticket ticket = some_ticket();
        const Key key = some_key();
        CHECK(queue.update(ticket, key, now) == oracle.rekey(ticket, key));
        break;
      }
      default:
        CHECK(queue.peek_key(now).has_value() == (oracle.size() > 0));
    }
    REQUIRE(queue.size() == oracle.size());
  }
  while (const auto entry = queue.pop(now)) CHECK(oracle.remove(entry->ticket));
  CHECK(oracle.size() == 0);
}

}  // namespace

TEST_CASE("a capacity, quantum or horizon that cannot work is refused with a sentence") {
  CHECK_THROWS_AS(DeadlineQueue<>(0, 1, 1), std::invalid_argument);
  CHECK_THROWS_AS(DeadlineQueue<>(DeadlineQueue<>::kMostCapacity + 1, 1, 1), std::invalid_argument);
  CHECK_THROWS_AS(DeadlineQueue<>(1, 0, 1), std::invalid_argument);
  CHECK_THROWS_AS(DeadlineQueue<>(1, 2, 1), std::invalid_argument);
}

TEST_CASE("one thread pushes exactly as many as the capacity says, and cancelled capacity comes back") {
  for (const std::size_t capacity : {1, 2, 7, 64, 1'000}) {
    DeadlineQueue<> queue{capacity, kMillisecond, kHorizon};
    for (int round = 0; round < 3; ++round) {
      std::vector<Ticket> tickets;
      // All in one bucket, then all apart.
      while (const Ticket ticket = queue.push(tickets.size() * (round == 0 ? 1 : kMillisecond), 0, 0)) {
        tickets.push_back(ticket);
      }
      CHECK(tickets.size() == capacity);
      CHECK(queue.size() == capacity);
      for (const Ticket ticket : tickets) CHECK(queue.cancel(ticket));
      CHECK(queue.size() == 0);
      CHECK_FALSE(queue.pop(0));
    }
  }
}

TEST_CASE("items leave in the order of their quanta, whatever the quantum") {
  for (const Key quantum : {Key{1}, Key{3}, Key{1'000}, kMillisecond, Key{1} << 20U, Key{999'999'937}}) {
    CAPTURE(quantum);
    DeadlineQueue<> queue{2'000, quantum, quantum * 262'144};
    Rng random{7};
    const Key now = quantum * 1'000'000 + 17;
    for (Item i = 0; i < 2'000; ++i)
      REQUIRE(queue.push(now + random.next_u64() % (quantum * 100'000), i, now) != kNoTicket);
    Key before = 0;
    while (const auto entry = queue.pop(now)) {
      CHECK(entry->key / quantum >= before / quantum);
      before = entry->key;
    }
  }
}

TEST_CASE("keys beyond the horizon leave in order, early or when their time has come, and extreme keys are kept") {
  DeadlineQueue<> queue{100, kMillisecond, kHorizon};
  const std::vector<Key> keys{std::numeric_limits<Key>::max(), 5 * kHorizon, 3 * kHorizon, 4 * kHorizon + 1, 7, 0};
  for (std::size_t i = 0; i < keys.size(); ++i) REQUIRE(queue.push(keys[i], i, 0) != kNoTicket);
  CHECK(queue.peek_key(0).value() <= 7);  // 0 and 7 share a quantum
  CHECK(queue.pop(0)->key <= 7);
  CHECK(queue.pop(0)->key <= 7);
  CHECK(queue.pop(0)->item == 2);                        // early: long before its time
  REQUIRE(queue.push(kMillisecond, 9, 0) != kNoTicket);  // and the window has not run ahead
  CHECK(queue.pop(3 * kHorizon)->item == 9);
  CHECK(queue.pop(4 * kHorizon)->item == 3);
  CHECK(queue.pop(100 * kHorizon)->item == 1);
  CHECK(queue.pop(100 * kHorizon)->item == 0);
  CHECK_FALSE(queue.pop(0));
}

TEST_CASE("after a long idle time the window follows at once") {
  DeadlineQueue<> queue{10, 1'000, 1'000'000};
  Key now = 0;
  for (const Key idle : {Key{1'000'000}, Key{3'600} * 1'000'000'000, Key{400} * 86'400 * 1'000'000'000}) {
    now += idle;
    REQUIRE(queue.push(now + 5'000, 1, now) != kNoTicket);
    REQUIRE(queue.push(now + 2'000, 2, now) != kNoTicket);
    CHECK(drain(queue, now) == std::vector<Item>{2, 1});
  }
}

TEST_CASE("a stream of overdue items starves none of them") {
  DeadlineQueue<> queue{1'000, kMillisecond, kHorizon};
  const Key now = 100 * kHorizon;
  REQUIRE(queue.push(now, 4'711, now) != kNoTicket);
  CHECK(queue.pop(now)->item == 4'711);  // the window is at now
  for (Item i = 0; i < 100; ++i) REQUIRE(queue.push(i, i, now) != kNoTicket);
  for (Item i = 0; i < 10'000 / kLess; ++i) {
    REQUIRE(queue.push(now / 2 - i, 100 + i, now) != kNoTicket);
    CHECK(queue.pop(now)->item == i);  // first in, first out
  }
}

TEST_CASE("items that become overdue while they wait keep their order") {
  DeadlineQueue<> queue{1'000, kMillisecond, kHorizon};
  for (Item i = 0; i < 100; ++i) REQUIRE(queue.push((100 - i) * kMillisecond, i, 0) != kNoTicket);
  const Key later = 50 * kHorizon;
  for (Item i = 0; i < 100; ++i) CHECK(queue.pop(later)->item == 99 - i);
}

TEST_CASE(
    "feasible first takes what is still in time, then what is overdue, and never lets one wait half the horizon") {
  DeadlineQueue<> queue{1'000, kMillisecond, kHorizon};
  const Key now = 10 * kHorizon;
  REQUIRE(queue.push(now - 30 * kMillisecond, 1, now - 40 * kMillisecond) != kNoTicket);
  REQUIRE(queue.push(now - 20 * kMillisecond, 2, now) != kNoTicket);
  REQUIRE(queue.push(now + 20 * kMillisecond, 3, now) != kNoTicket);
  REQUIRE(queue.push(now + 10 * kMillisecond, 4, now) != kNoTicket);
  CHECK(queue.peek_key(now, true) == now + 10 * kMillisecond);
  CHECK(queue.pop(now, true)->item == 4);
  CHECK(queue.pop(now, true)->item == 3);
  CHECK(queue.pop(now, true)->item == 1);
  const Key later = now + kHorizon;
  REQUIRE(queue.push(later + 1, 5, later) != kNoTicket);
  CHECK(queue.pop(later, true)->item == 2);
  CHECK(queue.pop(later, true)->item == 5);
}

TEST_CASE("feasible first finds an item that the window has reached while it stood aside") {
  DeadlineQueue<> queue{10, 10, 327'680};
  const Key chunk = 10 * DeadlineQueue<>::kChunk;
  const Key now = 1'000 * chunk;
  const Key reach = queue.horizon_ns();
  REQUIRE(queue.push(now + reach + 2 * chunk, 1, now) != kNoTicket);
  REQUIRE(queue.push(now + 5 * chunk, 2, now) != kNoTicket);
  CHECK(queue.pop(now + 6 * chunk, true)->item == 1);
  CHECK(queue.pop(now + 6 * chunk, true)->item == 2);
}

TEST_CASE("one key for all: each leaves once, and churn inside one bucket stays within the capacity") {
  DeadlineQueue<> queue{100, kMillisecond, kHorizon};
  std::vector<Ticket> tickets;
  for (Item i = 0; i < 99; ++i) tickets.push_back(queue.push(5, i, 0));
  for (int i = 0; i < 100'000 / kLess; ++i) {
    const Ticket ticket = queue.push(5, 99, 0);
    REQUIRE(ticket != kNoTicket);
    REQUIRE(queue.push(5, 100, 0) == kNoTicket);
    REQUIRE(queue.cancel(tickets[static_cast<std::size_t>(i) % tickets.size()]));
    tickets[static_cast<std::size_t>(i) % tickets.size()] = ticket;
  }
  CHECK(drain(queue).size() == 99);
}

TEST_CASE("a re-keyed item keeps its ticket, leaves by its last key, and endless re-keying needs no more room") {
  DeadlineQueue<> queue{10, kMillisecond, kHorizon};
  const Ticket first = queue.push(50 * kMillisecond, 1, 0);
  const Ticket second = queue.push(60 * kMillisecond, 2, 0);
  CHECK(queue.update(first, 70 * kMillisecond, 0));
  CHECK(queue.pop(0)->item == 2);
  Rng random{3};
  for (int i = 0; i < 100'000 / kLess; ++i) REQUIRE(queue.update(first, random.next_u64() % (3 * kHorizon), 0));
  CHECK(queue.update(first, 80 * kMillisecond, 0));
  const auto entry = queue.pop(0);
  CHECK(entry->key == 80 * kMillisecond);
  CHECK(entry->ticket == first);
  CHECK_FALSE(queue.update(first, 1, 0));
  CHECK_FALSE(queue.update(second, 1, 0));
  CHECK_FALSE(queue.cancel(first));
}

TEST_CASE("tickets of an earlier life, of other queues and of nothing name nobody") {
  TinyQueue queue{1, 1, 8};
  std::vector<Ticket> seen;
  for (int life = 0; life < 64; ++life) {  // four bits of generation wrap four times
    const Ticket ticket = queue.push(5, 1, 0);
    REQUIRE(ticket != kNoTicket);
    const auto recent = seen.size() > 15 ? seen.end() - 15 : seen.begin();
    for (auto old = recent; old != seen.end(); ++old) {
      CHECK_FALSE(queue.cancel(*old));
      CHECK_FALSE(queue.update(*old, 6, 0));
    }
    CHECK(queue.pop(0)->ticket == ticket);
    seen.push_back(ticket);
  }
  for (const Ticket ticket : {Ticket{0}, Ticket{2}, ~Ticket{0}, Ticket{1} << 32U}) CHECK_FALSE(queue.cancel(ticket));
}

TEST_CASE("batches do as so many single calls") {
  DeadlineQueue<> queue{3, kMillisecond, kHorizon};
  const std::vector<Key> keys{30 * kMillisecond, 10 * kMillisecond, 20 * kMillisecond, 5};
  const std::vector<Item> items{0, 1, 2, 3};
  std::vector<Ticket> tickets(4);
  CHECK(queue.push_many(keys, items, tickets, 0) == 3);
  CHECK(tickets[3] == kNoTicket);
  std::vector<Key> out_keys(5);
  std::vector<Item> out_items(5);
  CHECK(queue.pop_many(out_keys, out_items, 0) == 3);
  CHECK(out_items[0] == 1);
  CHECK(out_keys[2] == 30 * kMillisecond);
}

TEST_CASE("random operations agree with the oracle") {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    compare_with_oracle<DeadlineQueue<>>(seed, 100, 1'000, 1'000'000, 100'000, 20'000 / kLess);
  }
}

TEST_CASE("random operations agree with the oracle where the window is small and generations wrap") {
  for (std::uint64_t seed = 1; seed <= 100 / kLess; ++seed) {
    compare_with_oracle<TinyQueue>(seed, 1 + seed % 17, 10, 80, 100, 5'000);
  }
}

TEST_CASE("nothing is allocated after construction") {
  DeadlineQueue<> queue{1'000, kMillisecond, kHorizon};
  Rng random{11};
  std::vector<Ticket> tickets(1'000);
  const std::uint64_t before = test::allocations();
  Key now = 0;
  for (int i = 0; i < 20'000; ++i) {
    now += random.next_u64() % kMillisecond;
    Ticket& ticket = tickets[random.next_u64() % tickets.size()];
    ticket = queue.push(now + random.next_u64() % (2 * kHorizon), 1, now);
    (void)queue.update(tickets[random.next_u64() % tickets.size()], now + random.next_u64() % kHorizon, now);
    (void)queue.cancel(tickets[random.next_u64() % tickets.size()]);
    (void)queue.peek_key(now);
    (void)queue.pop(now);
  }
  CHECK(test::allocations() == before);
}

TEST_CASE("what one thread frees another gets once") {
  TinyQueue queue{2, 10, 100};
  for (Item item = 1; item <= 2; ++item) CHECK(queue.push(10, item, 0, 0) != kNoTicket);
  while (queue.pop(0, false, 0)) {
  }
  CHECK(queue.push(10, 3, 0, 1) != kNoTicket);
  CHECK(queue.push(10, 4, 0, 1) != kNoTicket);
  CHECK(queue.push(10, 5, 0, 0) == kNoTicket);
}
