#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "zeta/core/rng.hpp"
#include "zeta/queue/entry_heap.hpp"

namespace {

using zeta::Rng;
using zeta::queue::EntryHeap;
using zeta::queue::HeapEntry;

/// An EntryHeap beside a sorted set. References are distinct, as the queue's are.
class Pair {
 public:
  explicit Pair(std::size_t limit) : heap_{limit} {}

  void push(std::uint64_t key) {
    const std::uint64_t reference = next_++;
    heap_.push({key, reference}, ignore);
    sorted_.insert({key, reference});
  }
  void pop() {
    REQUIRE(same_top());
    heap_.pop();
    sorted_.erase(sorted_.begin());
  }
  [[nodiscard]] bool same_top() {
    if (heap_.size() != sorted_.size()) return false;
    if (sorted_.empty()) return true;
    const HeapEntry top = heap_.top(ignore);
    return std::pair{top.key, top.reference} == *sorted_.begin();
  }
  void keep_even() {
    heap_.filter([](HeapEntry entry) { return entry.reference % 2 == 0; });
    std::erase_if(sorted_, [](const auto& entry) { return entry.second % 2 != 0; });
  }
  [[nodiscard]] EntryHeap<>& heap() { return heap_; }
  [[nodiscard]] const std::set<std::pair<std::uint64_t, std::uint64_t>>& sorted() const { return sorted_; }

 private:
  static void ignore(HeapEntry) {}

  EntryHeap<> heap_;
  std::set<std::pair<std::uint64_t, std::uint64_t>> sorted_;
  std::uint64_t next_ = 0;
};

}  // namespace

TEST_CASE("the heap gives what a sorted set gives, whatever follows a pop") {
  for (const std::uint64_t keys : {std::uint64_t{3}, std::uint64_t{1000}, ~std::uint64_t{0}}) {
    Rng random{keys};
    Pair pair{700};
    for (int step = 0; step < 60'000; ++step) {
      const std::uint64_t what = random.next_below(1000);
      // Waves: mostly pushes, then mostly pops.
      const std::uint64_t pushes = step / 2'000 % 2 == 0 ? 600 : 400;
      if (what < pushes) {
        if (!pair.heap().is_full()) pair.push(random.next_below(keys));
      } else if (what < 990) {
        if (!pair.sorted().empty()) pair.pop();
      } else if (what < 995) {
        REQUIRE(pair.same_top());
      } else if (what == 995) {
        pair.keep_even();
      } else if (what == 996) {
        pair.heap().sort();
      }
    }
    while (!pair.sorted().empty()) pair.pop();
    REQUIRE(pair.heap().size() == 0);
  }
}

TEST_CASE("a hole left by a pop is neither in the size nor among the sorted entries") {
  Pair pair{100};
  for (std::uint64_t key = 40; key-- > 0;) pair.push(key);
  pair.pop();
  CHECK(pair.heap().size() == 39);
  pair.heap().sort();
  for (std::size_t at = 0; at < 39; ++at) CHECK(pair.heap()[at].key == at + 1);
}

TEST_CASE("a full heap from which one is popped takes one more") {
  Pair pair{64};
  while (!pair.heap().is_full()) pair.push(pair.sorted().size());
  pair.pop();
  CHECK_FALSE(pair.heap().is_full());
  pair.push(7);
  CHECK(pair.heap().is_full());
  CHECK(pair.same_top());
}

TEST_CASE("a push into the hole asks for what came near the top") {
  EntryHeap<> heap{1000};
  for (std::uint64_t i = 0; i < 600; ++i) heap.push({i, i}, [](HeapEntry) {});
  (void)heap.top([](HeapEntry) {});
  heap.pop();
  std::vector<std::uint64_t> near;
  heap.push({599, 1000}, [&near](HeapEntry entry) { near.push_back(entry.key); });
  REQUIRE(near.size() >= 1);
  CHECK(near.front() == 1);
}
