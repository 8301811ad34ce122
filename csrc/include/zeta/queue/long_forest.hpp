#pragma once

#include <cstddef>
#include <cstdint>

#include "zeta/queue/leftist_forest.hpp"

namespace zeta::queue {

/// Leftist heaps of which some grow long: each queue keeps its first few hundred nodes in a heap of their own.
///
/// A long heap's nodes lie all over memory, and popping walks two spines of them, a cache miss a step. What comes and
/// goes near the front of a long queue (urgent requests, while patient ones wait behind them) stays in `near`, which
/// fits in cache; all that comes after the first of `far` joins `far`. When `near` runs empty, or has grown too large
/// and joined `far`, the next few nodes of `far` are moved over. Same order as one heap; O(log n) in the worst case,
/// times the few nodes moved. A long queue of constant deadlines gains nothing and loses one comparison.
///
/// One owner at a time; allocates at construction only.
class LongForest : private LeftistForest {
 public:
  using LeftistForest::Index;
  using LeftistForest::kNull;

  /// One queue. Empty exactly where `near` is kNull; else `near` is its first node.
  struct Queue {
    Index near = kNull;
    Index far = kNull;  ///< Every node here comes after every node of `near`.
    std::uint32_t near_size = 0;
  };

  explicit LongForest(std::size_t capacity) : LeftistForest{capacity} {}

  using LeftistForest::capacity;
  using LeftistForest::key;

  /// Adds `node`, which must be in no queue. Equal keys leave in ascending `sequence`.
  void insert(Queue& queue, Index node, std::int64_t key, std::uint64_t sequence) noexcept {
    if (queue.far != kNull && !is_before(key, sequence, queue.far)) {
      LeftistForest::insert(queue.far, node, key, sequence);
      return;
    }
    LeftistForest::insert(queue.near, node, key, sequence);
    if (++queue.near_size > kMostNear) {
      queue.far = meld(queue.far, queue.near);
      queue.near = kNull;
      queue.near_size = 0;
      bring_near(queue);
    }
  }

  /// Removes and returns the first node of a queue that is not empty.
  Index pop(Queue& queue) noexcept {
    const Index first = LeftistForest::pop(queue.near);
    if (--queue.near_size == 0) bring_near(queue);
    return first;
  }

  /// Removes `node`, which must be in the queue.
  void erase(Queue& queue, Index node) noexcept {
    if (queue.far != kNull && !before(node, queue.far)) {
      LeftistForest::erase(queue.far, node);
      return;
    }
    LeftistForest::erase(queue.near, node);
    if (--queue.near_size == 0) bring_near(queue);
  }

  /// Calls `visit(node) -> bool` for up to `limit` nodes near the front, until it returns false: the first, then
  /// roughly in order.
  template <class Visit>
  void visit_first(const Queue& queue, std::size_t limit, Visit&& visit) const {
    std::size_t seen = 0;
    bool goes_on = true;
    const auto counted = [&](Index node) {
      ++seen;
      return goes_on = visit(node);
    };
    LeftistForest::visit_first(queue.near, limit, counted);
    if (goes_on && seen < limit) LeftistForest::visit_first(queue.far, limit - seen, counted);
  }

 private:
  static constexpr std::uint32_t kMostNear = 256;
  static constexpr std::uint32_t kMoved = 8;

  [[nodiscard]] bool is_before(std::int64_t key, std::uint64_t sequence, Index node) const noexcept {
    const Node& n = nodes_[node];
    return key != n.key ? key < n.key : sequence < n.sequence;
  }

  void bring_near(Queue& queue) noexcept {
    for (; queue.near_size < kMoved && queue.far != kNull; ++queue.near_size) {
      const Index node = LeftistForest::pop(queue.far);
      LeftistForest::insert(queue.near, node, nodes_[node].key, nodes_[node].sequence);
    }
  }
};

}  // namespace zeta::queue
