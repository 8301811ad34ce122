#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "zeta/sync/thread_lane.hpp"

using zeta::sync::thread_lane;

TEST_CASE("a thread keeps its lane, and running threads never share one") {
  constexpr std::size_t kThreads = 80;
  std::vector<std::uint32_t> lanes(kThreads + 1);
  lanes[kThreads] = thread_lane();
  std::atomic<std::size_t> running{0};
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        lanes[i] = thread_lane();
        running.fetch_add(1);
        while (running.load() < kThreads) std::this_thread::yield();
        if (thread_lane() != lanes[i]) lanes[i] = lanes[kThreads];  // seen below as a lane of two threads
      });
    }
  }
  CHECK(thread_lane() == lanes[kThreads]);
  std::sort(lanes.begin(), lanes.end());
  CHECK(std::adjacent_find(lanes.begin(), lanes.end()) == lanes.end());
}

TEST_CASE("a lane is used again when its thread has ended") {
  std::uint32_t highest = 0;
  for (int i = 0; i < 2000; ++i) {
    std::jthread{[&] { highest = std::max(highest, thread_lane()); }}.join();
  }
  CHECK(highest < 64);
}
