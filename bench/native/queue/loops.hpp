#pragma once
// The closed loop (throughput, time per operation, fairness) and the open loop (latency from the intended arrival).

#include <sched.h>
#include <time.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "contenders.hpp"
#include "measure.hpp"
#include "scene.hpp"
#include "team.hpp"

namespace zeta::bench {

using Threads = Team<Guest>;

inline std::uint64_t thread_cpu_ns() noexcept {
  timespec spent{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
  return static_cast<std::uint64_t>(spent.tv_sec) * 1'000'000'000U + static_cast<std::uint64_t>(spent.tv_nsec);
}

/// A contender was fast and wrong; its figures are worth nothing.
struct WrongAnswer : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A queue with the present in which it was last used.
template <class Queue>
struct Filled {
  Filled(const Scene& s, std::size_t room) : scene{s}, queue{s, s.size + room} {}
  const Scene scene;
  Queue queue;
  Key now = Scene::kStart;
  std::uint64_t seed = 1;  // another one for each loop
};

/// Calls use(clock) with the scene's clock, beginning at the queue's present.
template <class Queue, class Use>
void with_clock(Filled<Queue>& filled, Ticks began, Key& last, Use&& use) {
  const auto run = [&](auto clock) {
    use(clock);
    last = clock.last();
  };
  if (filled.scene.clock == Clock::taken) {
    run(TakenClock{filled.now});
  } else {
    run(RealClock{filled.now, began});
  }
}

/// `size` entries, items 1 … size, in the first thread of the team.
template <class Queue>
void fill(Filled<Queue>& filled, Threads& team) {
  bool is_full = false;
  team.run(1, [&](unsigned) {
    Rng random{42};
    for (std::size_t i = 1; i <= filled.scene.size && !is_full; ++i) {
      is_full = !filled.queue.push(filled.now + filled.scene.remaining_ns(random), i, filled.now);
    }
  });
  if (is_full) throw WrongAnswer{std::string{Queue::kName} + " is full too early"};
}

/// Takes everything out; each of the items 1 … size must come once.
template <class Queue>
void drain(Filled<Queue>& filled, Threads& team) {
  std::string wrong;
  team.run(1, [&](unsigned) {
    std::vector<bool> seen(filled.scene.size + 1);
    std::size_t count = 0;
    for (Held entry{}; filled.queue.pop(entry, filled.now); ++count) {
      if (entry.item == 0 || entry.item > filled.scene.size || seen[entry.item]) {
        wrong = "item " + std::to_string(entry.item) + " came twice or was never put in";
        return;
      }
      seen[entry.item] = true;
    }
    if (count != filled.scene.size) {
      wrong = std::to_string(filled.scene.size) + " were queued, " + std::to_string(count) + " came out";
    }
  });
  if (!wrong.empty()) throw WrongAnswer{std::string{Queue::kName} + ": " + wrong};
}

/// What a turn of the closed loop came to.
struct Turn {
  double mops = 0.0;         // push and pop counted apart
  double share = 1.0;        // pairs of the slowest thread ÷ those of the fastest
  double cpu = 1.0;          // processor time of the threads ÷ that of the cores they could have had
  std::uint64_t misses = 0;  // pops that found nothing, though nothing like that was possible
  Histogram push;
  Histogram pop;
};

/// `threads` threads take one and push it again, as fast as they can, for so many seconds after a warm-up. With
/// `is_timed` each operation is timed (which slows the loop; throughput is of the turns without).
template <class Queue>
Turn closed_loop(Filled<Queue>& filled, Threads& team, unsigned threads, double seconds, bool is_timed) {
  constexpr unsigned kPairs = 32;  // between two looks at the counter
  struct alignas(128) Mine {
    std::uint64_t pairs = 0;
    std::uint64_t misses = 0;
    std::uint64_t cpu_ns = 0;
    Key last = 0;
    Histogram push, pop;
  };
  const TickScale& scale = TickScale::get();
  const Ticks warm_up = scale.from_seconds(seconds / 8);
  const Ticks length = scale.from_seconds(seconds);
  std::vector<Mine> all(threads);
  StartLine line{threads};
  const std::uint64_t seed = filled.seed++;
  team.run(threads, [&](unsigned i) {
    Mine& mine = all[i];
    Slacks slacks{filled.scene, seed * 64 + i};
    Queue& queue = filled.queue;
    const Ticks began = line.wait();
    with_clock(filled, began, mine.last, [&](auto& clock) {
      const Ticks counted_from = began + warm_up;
      const Ticks until = counted_from + length;
      const auto one = [&]() {
        Held entry{};
        while (!queue.pop(entry, clock.read())) ++mine.misses;
        clock.taken(entry.key);
        const Key now = clock.read();
        while (!queue.push(now + slacks.next(), entry.item, now)) ++mine.misses;
      };
      while (ticks() < counted_from) {
        for (unsigned n = 0; n < kPairs; ++n) one();
      }
      const std::uint64_t cpu_began = thread_cpu_ns();
      if (is_timed) {
        do {
          for (unsigned n = 0; n < kPairs; ++n) {
            Held entry{};
            Key now = clock.read();
            const Ticks a = ticks();
            const bool is_taken = queue.pop(entry, now);
            const Ticks b = ticks();
            if (!is_taken) {
              ++mine.misses;
              continue;
            }
            clock.taken(entry.key);
            now = clock.read();
            const Key key = now + slacks.next();
            const Ticks c = ticks();
            const bool is_pushed = queue.push(key, entry.item, now);
            const Ticks d = ticks();
            if (!is_pushed) {
              ++mine.misses;
              while (!queue.push(key, entry.item, now)) {
              }
            }
            mine.pop.add_between(a, b, scale.overhead);
            mine.push.add_between(c, d, scale.overhead);
          }
          mine.pairs += kPairs;
        } while (ticks() < until);
      } else {
        do {
          for (unsigned n = 0; n < kPairs; ++n) one();
          mine.pairs += kPairs;
        } while (ticks() < until);
      }
      mine.cpu_ns = thread_cpu_ns() - cpu_began;
    });
  });
  Turn turn;
  std::uint64_t cpu_ns = 0;
  std::uint64_t pairs = 0;
  std::uint64_t least = ~std::uint64_t{0};
  std::uint64_t most = 0;
  for (const Mine& mine : all) {
    pairs += mine.pairs;
    least = std::min(least, mine.pairs);
    most = std::max(most, mine.pairs);
    turn.misses += mine.misses;
    cpu_ns += mine.cpu_ns;
    filled.now = std::max(filled.now, mine.last);
    if (is_timed) {
      turn.push.merge(mine.push);
      turn.pop.merge(mine.pop);
    }
  }
  turn.mops = 2e3 * static_cast<double>(pairs) / scale.to_ns(length);
  const double on = static_cast<double>(std::min<std::size_t>(threads, cores().size()));
  turn.cpu = static_cast<double>(cpu_ns) / (on * scale.to_ns(length));
  turn.share = static_cast<double>(least) / static_cast<double>(most);
  return turn;
}

/// What a turn of the open loop came to; latencies from the intended arrival.
struct OpenTurn {
  double served = 0.0;  // of the arrivals, those served before the end
  Histogram push;       // until the push returned
  Histogram pop;        // until the pop after it returned
};

/// Arrivals at a fixed rate, split evenly over the threads; each is a push, followed by a pop. Who comes late does not
/// move the later arrivals: their latency counts from when they were to be. Those not served by the end count with
/// what they had waited till then.
template <class Queue>
OpenTurn open_loop(Filled<Queue>& filled, Threads& team, unsigned threads, double per_second, double seconds) {
  struct alignas(128) Mine {
    std::uint64_t served = 0;
    std::uint64_t all = 0;
    Key last = 0;
    Histogram push, pop;
  };
  const TickScale& scale = TickScale::get();
  const Ticks length = scale.from_seconds(seconds);
  const double period = scale.ticks_per_ns * 1e9 * threads / per_second;
  const auto arrivals = static_cast<std::uint64_t>(static_cast<double>(length) / period);
  const bool has_own_core = threads <= cores().size();
  std::vector<Mine> all(threads);
  StartLine line{threads};
  const std::uint64_t seed = filled.seed++;
  team.run(threads, [&](unsigned i) {
    Mine& mine = all[i];
    Slacks slacks{filled.scene, seed * 64 + i};
    Queue& queue = filled.queue;
    Held spare{};  // popped before the first arrival, so that each arrival brings an item that is not queued
    const Ticks began = line.wait();
    with_clock(filled, began, mine.last, [&](auto& clock) {
      while (!queue.pop(spare, clock.read())) {
      }
      const Ticks first = began + scale.from_seconds(20e-6) + static_cast<Ticks>(period * i / threads);
      const Ticks end = first + length;
      mine.all = arrivals;
      std::uint64_t n = 0;
      for (; n < arrivals; ++n) {
        const Ticks intended = first + static_cast<Ticks>(period * static_cast<double>(n));
        Ticks t = ticks();
        for (; t < intended; t = ticks()) {
          if (!has_own_core) sched_yield();
        }
        if (t >= end) break;
        const Key now = clock.read();
        while (!queue.push(now + slacks.next(), spare.item, now)) {
        }
        const Ticks pushed = ticks();
        while (!queue.pop(spare, clock.read())) {
        }
        const Ticks popped = ticks();
        clock.taken(spare.key);
        mine.push.add(pushed - intended);
        mine.pop.add(popped - intended);
        ++mine.served;
      }
      for (; n < arrivals; ++n) {
        const Ticks waited = end - std::min(end, first + static_cast<Ticks>(period * static_cast<double>(n)));
        mine.push.add(waited);
        mine.pop.add(waited);
      }
      const Key now = clock.read();
      while (!queue.push(now + slacks.next(), spare.item, now)) {
      }
    });
  });
  OpenTurn turn;
  double served = 0;
  for (const Mine& mine : all) {
    served += static_cast<double>(mine.served) / static_cast<double>(mine.all) / threads;
    turn.push.merge(mine.push);
    turn.pop.merge(mine.pop);
    filled.now = std::max(filled.now, mine.last);
  }
  turn.served = served;
  return turn;
}

}  // namespace zeta::bench
