#include <doctest/doctest.h>

#include <map>
#include <utility>
#include <vector>

#include "zeta/core/rng.hpp"
#include "zeta/queue/timer_queue.hpp"

using zeta::Rng;
using zeta::queue::TimerQueue;

TEST_CASE("a timer queue agrees with an ordered map, whatever part of its timers comes in order") {
  constexpr std::uint32_t kNodes = 300;
  using Key = std::pair<std::int64_t, std::uint64_t>;
  for (const std::uint64_t out_of_order_percent : {0U, 5U, 50U, 100U}) {
    Rng rng{out_of_order_percent};
    TimerQueue queue{kNodes};
    std::map<Key, TimerQueue::Index> oracle;
    std::vector<Key> keys(kNodes);
    std::vector<bool> is_in(kNodes);
    std::int64_t now = 0;
    std::uint64_t sequence = 0;
    for (int step = 0; step < 20'000; ++step) {
      const auto node = static_cast<std::uint32_t>(rng.next_below(kNodes));
      now += static_cast<std::int64_t>(rng.next_below(3));
      if (!is_in[node]) {
        const bool is_late = rng.next_below(100) < out_of_order_percent;
        const std::int64_t at = now + (is_late ? static_cast<std::int64_t>(rng.next_below(200)) : 200);
        keys[node] = {at, rng.next_below(20) == 0 ? sequence / 2 : sequence};  // a requeued one has an old sequence
        ++sequence;
        if (oracle.contains(keys[node])) continue;
        queue.insert(node, keys[node].first, keys[node].second);
        oracle[keys[node]] = node;
        is_in[node] = true;
      } else {
        const TimerQueue::Index gone = rng.next_below(3) == 0 ? queue.first() : node;
        REQUIRE(is_in[gone]);
        queue.erase(gone);
        oracle.erase(keys[gone]);
        is_in[gone] = false;
      }
      REQUIRE((queue.first() == TimerQueue::kNull) == oracle.empty());
      if (!oracle.empty()) {
        REQUIRE(queue.first() == oracle.begin()->second);
        REQUIRE(queue.key(queue.first()) == oracle.begin()->first.first);
      }
    }
  }
}
