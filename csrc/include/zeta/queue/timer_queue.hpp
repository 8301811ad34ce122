#pragma once

#include "zeta/queue/leftist_forest.hpp"

namespace zeta::queue {

/// One ordered queue of instants, most of which come in ascending order, as a constant delay from now makes them.
///
/// When to use: timers of which most are cancelled before they are due. One that is not before the last of the chain
/// joins it in O(1) and leaves it in O(1), touching its two neighbours; any other goes to a leftist heap over the same
/// nodes, O(log n). They leave in ascending order of (key, sequence), however they came.
///
/// One owner at a time; allocates at construction only.
class TimerQueue : private LeftistForest {
 public:
  using LeftistForest::Index;
  using LeftistForest::kNull;

  explicit TimerQueue(std::size_t capacity) : LeftistForest{capacity} {}

  /// The earliest node, or kNull.
  [[nodiscard]] Index first() const noexcept {
    if (oldest_ == kNull || root_ == kNull) return root_ == kNull ? oldest_ : root_;
    return before(root_, oldest_) ? root_ : oldest_;
  }

  using LeftistForest::key;
  using LeftistForest::prefetch;

  /// Adds `node`, which must not be in the queue.
  void insert(Index node, std::int64_t key, std::uint64_t sequence) noexcept {
    nodes_[node] = Node{key, sequence, newest_, kNull, kNull, kInChain, 0};
    if (newest_ != kNull && before(node, newest_)) {
      LeftistForest::insert(root_, node, key, sequence);
      return;
    }
    (newest_ == kNull ? oldest_ : nodes_[newest_].right) = node;
    newest_ = node;
  }

  /// Removes `node`, which must be in the queue.
  void erase(Index node) noexcept {
    const Node& n = nodes_[node];
    if (n.rank != kInChain) {
      LeftistForest::erase(root_, node);
      return;
    }
    (n.left == kNull ? oldest_ : nodes_[n.left].right) = n.right;
    (n.right == kNull ? newest_ : nodes_[n.right].left) = n.left;
  }

 private:
  static constexpr std::uint16_t kInChain = 0;  ///< No rank of a heap's node. Left and right are the neighbours.

  Index root_ = kNull;
  Index oldest_ = kNull;
  Index newest_ = kNull;
};

}  // namespace zeta::queue
