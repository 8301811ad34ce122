#include <doctest/doctest.h>

#include <map>
#include <utility>
#include <vector>

#include "zeta/core/rng.hpp"
#include "zeta/queue/long_forest.hpp"

using zeta::Rng;
using zeta::queue::LongForest;

TEST_CASE("long queues agree with ordered sets under random inserts, pops and erases") {
  constexpr std::uint32_t kNodes = 4'000;  // many times what a queue keeps near its front
  constexpr std::uint32_t kQueues = 3;
  using Key = std::pair<std::int64_t, std::uint64_t>;
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    Rng rng{seed};
    const std::uint64_t spread = seed % 2 == 0 ? 20 : 100'000;  // many ties, or hardly any
    const std::uint64_t insert_percent = 40 + 10 * (seed % 3);
    LongForest forest{kNodes};
    std::vector<LongForest::Queue> queues(kQueues);
    std::vector<std::map<Key, LongForest::Index>> oracle(kQueues);
    std::vector<int> where(kNodes, -1);
    std::vector<Key> keys(kNodes);
    std::uint64_t sequence = 0;
    for (int step = 0; step < 60'000; ++step) {
      const auto node = static_cast<std::uint32_t>(rng.next_below(kNodes));
      const auto queue = static_cast<std::size_t>(rng.next_below(kQueues));
      if (where[node] < 0 && rng.next_below(100) < insert_percent) {
        const Key key{static_cast<std::int64_t>(rng.next_below(spread)), sequence++};
        forest.insert(queues[queue], node, key.first, key.second);
        oracle[queue][key] = node;
        where[node] = static_cast<int>(queue);
        keys[node] = key;
      } else if (where[node] >= 0 && rng.next_below(2) == 0) {
        const auto home = static_cast<std::size_t>(where[node]);
        forest.erase(queues[home], node);
        oracle[home].erase(keys[node]);
        where[node] = -1;
      } else if (!oracle[queue].empty()) {
        const auto popped = forest.pop(queues[queue]);
        REQUIRE(popped == oracle[queue].begin()->second);
        where[popped] = -1;
        oracle[queue].erase(oracle[queue].begin());
      }
      for (std::size_t q = 0; q < kQueues; ++q) {
        REQUIRE((queues[q].near == LongForest::kNull) == oracle[q].empty());
        if (!oracle[q].empty()) REQUIRE(queues[q].near == oracle[q].begin()->second);
      }
    }
  }
}

TEST_CASE("visiting a long queue sees the first node first and goes on where the near part ends") {
  constexpr std::uint32_t kNodes = 2'000;
  LongForest forest{kNodes};
  LongForest::Queue queue;
  for (std::uint32_t node = 0; node < kNodes; ++node) forest.insert(queue, node, kNodes - node, node);
  std::vector<LongForest::Index> seen;
  forest.visit_first(queue, 20, [&](LongForest::Index node) {
    seen.push_back(node);
    return true;
  });
  REQUIRE(seen.size() == 20);
  CHECK(seen.front() == kNodes - 1);
  seen.clear();
  forest.visit_first(queue, 20, [&](LongForest::Index node) {
    seen.push_back(node);
    return seen.size() < 3;
  });
  CHECK(seen.size() == 3);
}
