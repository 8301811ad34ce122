#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "zeta/core/rng.hpp"
#include "zeta/queue/calendar_forest.hpp"

using zeta::Rng;
using zeta::queue::CalendarForest;

namespace {

using Key = std::pair<std::int64_t, std::uint64_t>;
constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kLatest = std::numeric_limits<std::int64_t>::max();

/// Queues of a forest beside ordered maps of the same.
struct Checked {
  Checked(std::uint32_t nodes, std::size_t count)
      : forest{nodes}, queues(count), oracle(count), home(nodes, -1), keys(nodes) {}

  void insert(std::size_t queue, std::uint32_t node, std::int64_t key, std::int64_t now) {
    keys[node] = {key, sequence++};
    forest.insert(queues[queue], node, key, keys[node].second, now);
    oracle[queue][keys[node]] = node;
    home[node] = static_cast<int>(queue);
    check(queue);
  }
  void erase(std::uint32_t node) {
    const auto queue = static_cast<std::size_t>(home[node]);
    forest.erase(queues[queue], node);
    oracle[queue].erase(keys[node]);
    home[node] = -1;
    check(queue);
  }
  void pop(std::size_t queue) {
    const std::uint32_t node = forest.pop(queues[queue]);
    REQUIRE(node == oracle[queue].begin()->second);
    oracle[queue].erase(oracle[queue].begin());
    home[node] = -1;
    check(queue);
  }
  void check(std::size_t queue) {
    REQUIRE(queues[queue].size() == oracle[queue].size());
    REQUIRE(queues[queue].is_empty() == oracle[queue].empty());
    if (!oracle[queue].empty()) REQUIRE(queues[queue].first() == oracle[queue].begin()->second);
  }

  CalendarForest forest;
  std::vector<CalendarForest::Queue> queues;
  std::vector<std::map<Key, std::uint32_t>> oracle;
  std::vector<int> home;
  std::vector<Key> keys;
  std::uint64_t sequence = 0;
};

std::int64_t some_key(Rng& random, std::int64_t now) {
  const auto below = [&](std::int64_t end) {
    return static_cast<std::int64_t>(random.next_below(static_cast<std::uint64_t>(end)));
  };
  switch (random.next_below(16)) {
    case 0:
      return kLatest;
    case 1:
      return now + below(600 * kSecond);
    case 2:
      return now - below(100 * kSecond);
    case 3:
      return now + 5 * kSecond;
    case 4:
      return -below(kSecond);
    default:
      return now + below(60 * kSecond);
  }
}

}  // namespace

TEST_CASE("long and short queues of one forest agree with ordered maps while time passes") {
  constexpr std::uint32_t kNodes = 6 * CalendarForest::kLong;
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    Rng random{seed};
    Checked checked{kNodes, 3};
    std::int64_t now = 0;
    // Grows, shrinks and grows again: calendars are lent, emptied and lent anew.
    for (int round = 0; round < 6; ++round) {
      const std::uint64_t inserts = round % 2 == 0 ? 80 : 25;  // of a hundred
      for (int step = 0; step < 40'000; ++step) {
        now += static_cast<std::int64_t>(random.next_below(kSecond / 200));
        const auto node = static_cast<std::uint32_t>(random.next_below(kNodes));
        const auto queue = std::min<std::size_t>(random.next_below(8), 2);  // the last is the long one
        if (random.next_below(100) < inserts) {
          if (checked.home[node] < 0) checked.insert(queue, node, some_key(random, now), now);
        } else if (random.next_below(2) == 0) {
          if (checked.home[node] >= 0) checked.erase(node);
        } else if (!checked.oracle[queue].empty()) {
          checked.pop(queue);
        }
      }
    }
    for (std::size_t queue = 0; queue < checked.queues.size(); ++queue) {
      while (!checked.oracle[queue].empty()) checked.pop(queue);
    }
  }
}

TEST_CASE("in a long queue equal keys leave in order of their sequence") {
  constexpr std::uint32_t kNodes = 3 * CalendarForest::kLong;
  CalendarForest forest{kNodes};
  CalendarForest::Queue queue;
  for (std::uint32_t node = 0; node < kNodes; ++node) forest.insert(queue, node, 7 * kSecond, node, 0);
  for (std::uint32_t node = 0; node < kNodes; ++node) REQUIRE(forest.pop(queue) == node);
  CHECK(queue.is_empty());
}

TEST_CASE("more long queues than calendars stay exact") {
  constexpr std::size_t kQueues = CalendarForest::kCalendars + 2;
  constexpr std::uint32_t kEach = CalendarForest::kLong + 500;
  Checked checked{static_cast<std::uint32_t>(kQueues) * kEach, kQueues};
  Rng random{5};
  for (std::uint32_t node = 0; node < kQueues * kEach; ++node) {
    checked.insert(node % kQueues, node, some_key(random, 0), 0);
  }
  for (std::size_t queue = 0; queue < kQueues; ++queue) {
    while (!checked.oracle[queue].empty()) checked.pop(queue);
  }
}

TEST_CASE("looking behind the front begins with the first and sees nobody twice, nor more than asked for") {
  constexpr std::uint32_t kNodes = 2 * CalendarForest::kLong;
  for (const std::uint32_t size : {10U, 40U, kNodes}) {
    Checked checked{kNodes, 1};
    Rng random{size};
    for (std::uint32_t node = 0; node < size; ++node) checked.insert(0, node, some_key(random, 0), 0);
    for (const std::size_t limit : {1U, 2U, 32U, 64U}) {
      std::vector<std::uint32_t> seen;
      checked.forest.visit_first(checked.queues[0], limit, [&](std::uint32_t node) {
        seen.push_back(node);
        return true;
      });
      CHECK(seen.size() == std::min<std::size_t>(limit, size));
      CHECK(seen.front() == checked.queues[0].first());
      CHECK(std::set<std::uint32_t>(seen.begin(), seen.end()).size() == seen.size());
    }
    std::size_t visits = 0;
    checked.forest.visit_first(checked.queues[0], 32, [&](std::uint32_t) { return ++visits < 3; });
    CHECK(visits == 3);
  }
}
