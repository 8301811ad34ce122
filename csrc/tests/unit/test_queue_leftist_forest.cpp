#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "zeta/core/rng.hpp"
#include "zeta/queue/leftist_forest.hpp"

using zeta::Rng;
using zeta::queue::LeftistForest;

TEST_CASE("queues of one forest agree with ordered sets under random inserts, pops and erases") {
  constexpr std::uint32_t kNodes = 300;
  constexpr std::uint32_t kQueues = 5;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Rng rng{seed};
    LeftistForest forest{kNodes};
    std::vector<LeftistForest::Index> roots(kQueues, LeftistForest::kNull);
    using Key = std::pair<std::int64_t, std::uint64_t>;
    std::vector<std::map<Key, LeftistForest::Index>> oracle(kQueues);
    std::vector<int> where(kNodes, -1);
    std::vector<Key> keys(kNodes);
    std::uint64_t sequence = 0;
    for (int step = 0; step < 4000; ++step) {
      const auto node = static_cast<std::uint32_t>(rng.next_below(kNodes));
      const auto queue = static_cast<std::size_t>(rng.next_below(kQueues));
      if (where[node] < 0) {
        const Key key{static_cast<std::int64_t>(rng.next_below(50)), sequence++};
        forest.insert(roots[queue], node, key.first, key.second);
        oracle[queue][key] = node;
        where[node] = static_cast<int>(queue);
        keys[node] = key;
      } else if (rng.next_below(2) == 0) {
        const auto home = static_cast<std::size_t>(where[node]);
        forest.erase(roots[home], node);
        oracle[home].erase(keys[node]);
        where[node] = -1;
      } else if (!oracle[queue].empty()) {
        REQUIRE(roots[queue] != LeftistForest::kNull);
        const auto popped = forest.pop(roots[queue]);
        REQUIRE(popped == oracle[queue].begin()->second);
        where[popped] = -1;
        oracle[queue].erase(oracle[queue].begin());
      }
      REQUIRE((roots[queue] == LeftistForest::kNull) == oracle[queue].empty());
      if (!oracle[queue].empty()) REQUIRE(roots[queue] == oracle[queue].begin()->second);
    }
  }
}

TEST_CASE("equal keys leave in order of their sequence") {
  LeftistForest forest{8};
  LeftistForest::Index root = LeftistForest::kNull;
  for (std::uint32_t node = 0; node < 8; ++node) forest.insert(root, node, 7, node);
  for (std::uint32_t node = 0; node < 8; ++node) CHECK(forest.pop(root) == node);
  CHECK(root == LeftistForest::kNull);
}
