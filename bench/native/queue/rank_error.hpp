#pragma once
// How far from the true front the taken entries were. Operations are logged with the counter before and after, and
// replayed afterwards.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "loops.hpp"

namespace zeta::bench {

/// `rank` is how many smaller keys were queued at the moment of a take, all operations taken to happen when they
/// returned. Who is interrupted between the two appears late, so a strict queue with four threads shows some too: read
/// it beside the locked heap's.
/// `quanta` is what cannot be an artefact: by how many quanta the taken key lay behind the smallest key whose push had
/// returned before the take began and whose own take had not begun when it ended. A strict queue shows 0 quanta.
struct RankError {
  double rank_mean = 0.0;
  std::uint64_t rank_p99 = 0;
  std::uint64_t rank_most = 0;
  double quanta_mean = 0.0;
  std::uint64_t quanta_p999 = 0;
  std::uint64_t quanta_most = 0;
  double beyond_one = 0.0;  // fraction of takes more than one quantum behind
  std::uint64_t takes = 0;
};

namespace detail {

struct Take {
  Ticks began;
  Ticks ended;
  std::size_t item;
};

/// Counts by position; how many lie before one.
class Fenwick {
 public:
  explicit Fenwick(std::size_t size) : tree_(size + 1) {}
  void add(std::size_t at, int change) {
    for (++at; at < tree_.size(); at += at & (~at + 1)) tree_[at] += change;
  }
  [[nodiscard]] std::uint64_t before(std::size_t at) const {
    int sum = 0;
    for (; at > 0; at &= at - 1) sum += tree_[at];
    return static_cast<std::uint64_t>(std::max(sum, 0));
  }

 private:
  std::vector<int> tree_;
};

/// A value per position; the first position whose value is at least so much.
class FirstAtLeast {
 public:
  explicit FirstAtLeast(std::size_t size) : leaves_{std::bit_ceil(size)}, tree_(2 * leaves_) {}
  void set(std::size_t at, Ticks value) {
    at += leaves_;
    for (tree_[at] = value; at > 1; at /= 2) tree_[at / 2] = std::max(tree_[at], tree_[at ^ 1U]);
  }
  [[nodiscard]] std::size_t find(Ticks wanted) const {
    if (tree_[1] < wanted) return leaves_;
    std::size_t at = 1;
    while (at < leaves_) at = tree_[2 * at] >= wanted ? 2 * at : 2 * at + 1;
    return at - leaves_;
  }

 private:
  std::size_t leaves_;
  std::vector<Ticks> tree_;
};

}  // namespace detail

/// A fresh queue, filled; `threads` threads take and push `pairs` times each.
template <class Queue>
RankError rank_error(const Scene& scene, unsigned threads, std::size_t pairs) {
  using detail::Take;
  constexpr Ticks kNever = std::numeric_limits<Ticks>::max();
  const std::size_t items = scene.size + threads * pairs + 1;
  std::vector<Key> key(items);
  std::vector<Ticks> pushed(items);
  std::vector<std::vector<Take>> takes(threads);
  std::vector<Key> last(threads);
  {
    Filled<Queue> filled{scene, 4'096};
    Threads team{threads};
    team.run(1, [&](unsigned) {
      Rng random{42};
      for (std::size_t i = 1; i <= scene.size; ++i) {
        key[i] = filled.now + scene.remaining_ns(random);
        while (!filled.queue.push(key[i], i, filled.now)) {
        }
      }
    });
    StartLine line{threads};
    team.run(threads, [&](unsigned t) {
      takes[t].reserve(pairs);
      Slacks slacks{scene, 7'777 + t};
      std::size_t next = 1 + scene.size + t * pairs;
      const Ticks started = line.wait();
      with_clock(filled, started, last[t], [&](auto& clock) {
        for (std::size_t n = 0; n < pairs; ++n) {
          Held entry{};
          Key now = clock.read();
          Ticks began = ticks();
          while (!filled.queue.pop(entry, now)) began = ticks();
          takes[t].push_back({began, ticks(), entry.item});
          clock.taken(entry.key);
          now = clock.read();
          key[next] = now + slacks.next();
          while (!filled.queue.push(key[next], next, now)) {
          }
          pushed[next] = ticks();
          ++next;
        }
      });
    });
  }

  std::vector<Ticks> take_began(items, kNever);
  std::vector<Take> all;
  for (const auto& mine : takes) all.insert(all.end(), mine.begin(), mine.end());
  for (const Take& take : all) {
    if (take.item == 0 || take.item >= items || take_began[take.item] != kNever) {
      throw WrongAnswer{std::string{Queue::kName} + ": an item came twice or was never put in"};
    }
    take_began[take.item] = take.began;
  }
  std::vector<std::size_t> by_key(items - 1);
  std::iota(by_key.begin(), by_key.end(), std::size_t{1});
  std::sort(by_key.begin(), by_key.end(), [&](std::size_t a, std::size_t b) { return key[a] < key[b]; });
  std::vector<std::size_t> position(items);  // of the first with the same key
  std::vector<std::size_t> place(items);
  for (std::size_t p = 0; p < by_key.size(); ++p) {
    const bool is_same = p > 0 && key[by_key[p]] == key[by_key[p - 1]];
    position[by_key[p]] = is_same ? position[by_key[p - 1]] : p;
    place[by_key[p]] = p;
  }

  RankError result;
  result.takes = all.size();

  // Everything happens when it returned; what was taken before its push returned, was pushed just before.
  struct Event {
    Ticks at;
    std::size_t item;
    bool is_take;
  };
  std::vector<Event> events;
  events.reserve(2 * all.size());
  std::vector<Ticks> returned(items, kNever);
  for (const Take& take : all) {
    events.push_back({take.ended, take.item, true});
    returned[take.item] = take.ended;
  }
  detail::Fenwick queued{by_key.size()};
  for (std::size_t i = 1; i < items; ++i) {
    if (i <= scene.size) {
      queued.add(position[i], 1);
    } else {
      events.push_back({std::min(pushed[i], returned[i]), i, false});
    }
  }
  std::sort(events.begin(), events.end(),
            [](const Event& a, const Event& b) { return a.at != b.at ? a.at < b.at : !a.is_take && b.is_take; });
  Histogram ranks;
  double rank_sum = 0;
  for (const Event& event : events) {
    if (event.is_take) {
      const std::uint64_t rank = queued.before(position[event.item]);
      ranks.add(rank);
      rank_sum += static_cast<double>(rank);
    }
    queued.add(position[event.item], event.is_take ? -1 : 1);
  }

  // Each item is surely queued from when its push returned until its take began.
  std::vector<std::size_t> by_push(items - 1);
  std::iota(by_push.begin(), by_push.end(), std::size_t{1});
  std::sort(by_push.begin(), by_push.end(), [&](std::size_t a, std::size_t b) { return pushed[a] < pushed[b]; });
  std::sort(all.begin(), all.end(), [](const Take& a, const Take& b) { return a.began < b.began; });
  detail::FirstAtLeast until{by_key.size()};
  Histogram behind;
  double behind_sum = 0;
  std::uint64_t beyond = 0;
  std::size_t entered = 0;
  for (const Take& take : all) {
    for (; entered < by_push.size() && pushed[by_push[entered]] <= take.began; ++entered) {
      const std::size_t item = by_push[entered];
      until.set(place[item], take_began[item]);
    }
    const std::size_t first = until.find(take.ended);
    std::uint64_t quanta = 0;
    if (first < by_key.size()) {
      const Key best = key[by_key[first]];
      if (best < key[take.item]) quanta = key[take.item] / scene.quantum_ns - best / scene.quantum_ns;
    }
    behind.add(quanta);
    behind_sum += static_cast<double>(quanta);
    beyond += quanta > 1 ? 1 : 0;
  }
  const auto n = static_cast<double>(all.size());
  result.rank_mean = rank_sum / n;
  result.rank_p99 = ranks.quantile(0.99);
  result.rank_most = ranks.largest();
  result.quanta_mean = behind_sum / n;
  result.quanta_p999 = behind.quantile(0.999);
  result.quanta_most = behind.largest();
  result.beyond_one = static_cast<double>(beyond) / n;
  return result;
}

}  // namespace zeta::bench
