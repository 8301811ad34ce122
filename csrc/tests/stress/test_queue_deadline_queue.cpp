// Many threads on one calendar: each item that went in comes out once, and none is lost. Time moves on, keys lie
// before, in and beyond the window, and the queues are small, so that the threads keep meeting at every edge.

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <memory>
#include <optional>

#include "team.hpp"
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
using test::items_in_all;
using test::run_threads;

namespace {

struct TinyShape : CalendarShape {
  static constexpr unsigned fan_bits = 1;
  static constexpr unsigned fewest_chunks = 2;
  static constexpr unsigned most_chunks = 4;
  static constexpr unsigned lanes = 6;
  static constexpr unsigned deferred = 2;
  static constexpr std::size_t least_to_defer = 5;
};

/// Who has which item: a number per place, and the life in which it is queued. Memory does not grow with the run.
class Ledger {
 public:
  static constexpr std::uint32_t kPlaces = 1U << 14U;

  /// A new item of the calling thread, which owns the places me, me + threads, ...; nothing when its next is taken.
  std::optional<Item> begin(std::uint32_t place) {
    if (lives_[place].load(std::memory_order_acquire) != 0) return std::nullopt;
    const std::uint64_t life = ++serial_[place];
    lives_[place].store(life, std::memory_order_release);
    return life << 32U | place;
  }
  /// The item was refused: it was never queued.
  void undo(Item item) { lives_[static_cast<std::uint32_t>(item)].store(0, std::memory_order_release); }
  /// The item has left the queue. False if it had left before.
  bool end(Item item) {
    std::uint64_t life = item >> 32U;
    return lives_[static_cast<std::uint32_t>(item)].compare_exchange_strong(life, 0, std::memory_order_acq_rel);
  }

 private:
  std::array<std::atomic<std::uint64_t>, kPlaces> lives_{};
  std::array<std::uint64_t, kPlaces> serial_{};  ///< Each written by the place's owner only.
};

struct Counts {
  std::atomic<std::size_t> pushed{0};
  std::atomic<std::size_t> ended{0};
  std::atomic<std::size_t> twice{0};
};

/// What threads tell each other besides the queue: tickets with their items, and the time.
struct Board {
  std::array<std::atomic<Ticket>, 16> tickets{};
  std::array<std::atomic<Item>, 16> items{};
  std::atomic<Key> now{1'000'000};
};

template <class Queue>
void mix(Queue& queue, Ledger& ledger, Counts& counts, Board& board, std::size_t me, std::size_t threads,
         std::size_t rounds, Key span) {
  Rng random{me + 1};
  std::size_t pushed = 0;
  std::size_t ended = 0;
  auto place = static_cast<std::uint32_t>(me);
  std::array<std::pair<Ticket, Item>, 16> recent{};
  const auto out = [&](Item item) {
    ++ended;
    if (!ledger.end(item)) counts.twice.fetch_add(1);
  };
  for (std::size_t i = 0; i < rounds; ++i) {
    // Relaxed: any recent time will do.
    const Key now = board.now.load(std::memory_order_relaxed);
    if (random.next_below(8) == 0) board.now.store(now + random.next_below(span), std::memory_order_relaxed);
    const auto some_key = [&] {
      switch (random.next_below(16)) {
        case 0:
          return now + 20 * span + random.next_below(span);
        case 1:
        case 2:
          return now - random.next_below(now);
        default:
          return now + random.next_below(2 * span);
      }
    };
    if (const auto item = ledger.begin(place)) {
      const Ticket ticket = queue.push(some_key(), *item, now);
      if (ticket == kNoTicket) {
        ledger.undo(*item);
      } else {
        ++pushed;
        recent[i % recent.size()] = {ticket, *item};
      }
      place += static_cast<std::uint32_t>(threads);
      if (place >= Ledger::kPlaces) place = static_cast<std::uint32_t>(me);
    }
    const auto& [ticket, item] = recent[random.next_below(recent.size())];
    switch (random.next_below(8)) {
      case 0:
        if (queue.cancel(ticket)) out(item);
        break;
      case 1:
      case 2:
        (void)queue.update(ticket, some_key(), now);
        break;
      case 3:
        (void)queue.peek_key(now);
        break;
      default:
        for (int n = 0; n < 2; ++n) {
          if (const std::optional<Entry> entry = queue.pop(now, random.next_below(4) == 0)) out(entry->item);
        }
    }
  }
  counts.pushed.fetch_add(pushed);
  counts.ended.fetch_add(ended);
}

template <class Queue>
void conserve(std::size_t capacity, Key quantum, Key horizon, Key span, std::size_t threads, std::size_t rounds) {
  CAPTURE(capacity);
  Queue queue{capacity, quantum, horizon};
  const auto ledger = std::make_unique<Ledger>();
  Counts counts;
  Board board;
  run_threads(threads,
              [&](std::size_t me) { mix(queue, *ledger, counts, board, me, threads, rounds / threads, span); });
  CHECK(counts.twice.load() == 0);
  CHECK(queue.size() == counts.pushed.load() - counts.ended.load());
  std::size_t left = 0;
  while (const std::optional<Entry> entry = queue.pop(board.now.load())) {
    CHECK(ledger->end(entry->item));
    ++left;
  }
  CHECK(counts.pushed.load() == counts.ended.load() + left);
  CHECK(counts.pushed.load() > rounds / 32);

  std::size_t room = 0;  // no cell was lost or doubled on the way
  while (queue.push(room * quantum, room, 0) != kNoTicket) ++room;
  CHECK(room == capacity);
}

}  // namespace

TEST_CASE("whatever threads push, pop, cancel and re-key at once, every item leaves once") {
  for (const std::size_t capacity : {1U, 7U, 100U, 5'000U}) {
    conserve<DeadlineQueue<>>(capacity, 1'000, 1'000'000, 300'000, 4, items_in_all() / 8);
  }
}

TEST_CASE("the same where the window has room for no more than a few quanta") {
  for (const std::size_t capacity : {1U, 5U, 40U, 300U}) {
    conserve<DeadlineQueue<std::atomic, TinyShape>>(capacity, 10, 80, 100, 4, items_in_all() / 16);
  }
}

TEST_CASE("threads beyond the number of lanes share one and lose nothing") {
  conserve<DeadlineQueue<>>(500, 1'000, 1'000'000, 300'000, 80, items_in_all() / 16);
}

TEST_CASE("one item that several threads try to end at once is ended by one") {
  const std::size_t rounds = items_in_all() / 200;
  DeadlineQueue<> queue{4, 1'000, 1'000'000};
  std::atomic<Ticket> ticket{kNoTicket};
  std::atomic<std::size_t> round{0};
  std::atomic<std::size_t> ready{0};
  std::atomic<std::size_t> ended{0};
  run_threads(3, [&](std::size_t me) {
    for (std::size_t i = 1; i <= rounds; ++i) {
      if (me == 0) {
        while (ready.load(std::memory_order_acquire) != 2 * (i - 1)) std::this_thread::yield();
        ticket.store(queue.push(i, i, i), std::memory_order_relaxed);
        round.store(i, std::memory_order_release);
        ended.fetch_add(queue.pop(i).has_value() ? 1 : 0, std::memory_order_relaxed);  // a count
      } else {
        while (round.load(std::memory_order_acquire) != i) std::this_thread::yield();
        const Ticket mine = ticket.load(std::memory_order_relaxed);
        if (me == 2) (void)queue.update(mine, i * 7'000, i);
        ended.fetch_add(queue.cancel(mine) ? 1 : 0, std::memory_order_relaxed);  // a count
        ready.fetch_add(1, std::memory_order_release);
      }
    }
  });
  CHECK(ended.load() == rounds);
  CHECK(queue.size() == 0);
}
