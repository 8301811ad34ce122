#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "zeta/core/huge_pages.hpp"

namespace zeta::queue {

/// Any number of priority queues over one slab of nodes.
///
/// When to use: many small ordered queues whose total size is bounded but whose split is not (one per tenant, band and
/// model set). A queue is one root index, so an empty one costs four bytes and nothing is ever allocated after
/// construction. When not to use: one large queue alone; an array heap touches fewer cache lines. Where keys are
/// instants and some queues are long: CalendarForest.
///
/// Leftist heaps (Crane, 1972; Knuth, TAOCP 3, 5.2.3): insert, pop, erase and meld are O(log n) in the worst case, not
/// amortised, so that a burst of submissions leaves no bill for the next pop. Ties pop in order of insertion: the
/// caller's sequence is part of the key.
///
/// One owner at a time; no synchronisation inside.
class LeftistForest {
 public:
  using Index = std::uint32_t;
  static constexpr Index kNull = 0xFFFFFFFFU;

  explicit LeftistForest(std::size_t capacity) : nodes_(capacity) {}

  [[nodiscard]] std::size_t capacity() const noexcept { return nodes_.size(); }
  [[nodiscard]] std::int64_t key(Index node) const noexcept { return nodes_[node].key; }

  /// Adds `node`, which must be in no queue, to the queue at `root`. Equal keys leave in ascending `sequence`.
  void insert(Index& root, Index node, std::int64_t key, std::uint64_t sequence) noexcept {
    nodes_[node] = Node{key, sequence, kNull, kNull, kNull, 1, 0};
    root = merge(root, node);
    nodes_[root].parent = kNull;
  }

  /// Removes and returns the first node of a queue that is not empty.
  Index pop(Index& root) noexcept {
    const Index first = root;
    root = merge(nodes_[first].left, nodes_[first].right);
    if (root != kNull) {
      nodes_[root].parent = kNull;
      prefetch(nodes_[root].left);  // the next pop begins there
      prefetch(nodes_[root].right);
    }
    return first;
  }

  /// Removes `node`, which must be in the queue at `root`.
  void erase(Index& root, Index node) noexcept {
    if (node == root) {
      pop(root);
      return;
    }
    const Index parent = nodes_[node].parent;
    const Index rest = merge(nodes_[node].left, nodes_[node].right);
    if (rest != kNull) nodes_[rest].parent = parent;
    replace_child(parent, node, rest);
  }

  /// Calls `visit(node) -> bool` for up to `limit` nodes of a queue near its front, until it returns false. The first
  /// is the first in order; the rest come roughly in order (breadth first: a parent before its children).
  template <class Visit>
  void visit_first(Index root, std::size_t limit, Visit&& visit) const {
    constexpr std::size_t kFrontier = 64;
    Index frontier[kFrontier];
    std::size_t size = 0;
    if (root != kNull) frontier[size++] = root;
    for (std::size_t at = 0; at < size && at < limit; ++at) {
      const Index node = frontier[at];
      if (!visit(node)) return;
      for (const Index child : {nodes_[node].left, nodes_[node].right}) {
        if (child != kNull && size < kFrontier) frontier[size++] = child;
      }
    }
  }

 protected:
  struct Node {
    std::int64_t key = 0;
    std::uint64_t sequence = 0;
    Index left = kNull;
    Index right = kNull;
    Index parent = kNull;
    std::uint16_t rank = 1;       ///< Length of the right spine; the left child's is never shorter.
    std::uint16_t left_rank = 0;  ///< The left child's rank, kept here so that merging need not touch that child.
  };
  static_assert(sizeof(Node) == 32, "two nodes share a cache line");

  [[nodiscard]] std::uint16_t rank(Index node) const noexcept { return node == kNull ? 0 : nodes_[node].rank; }

  [[gnu::always_inline]] void prefetch(Index node) const noexcept {
    if (node != kNull) __builtin_prefetch(&nodes_[node]);
  }

  [[nodiscard]] bool before(Index a, Index b) const noexcept {
    const Node& x = nodes_[a];
    const Node& y = nodes_[b];
    return x.key != y.key ? x.key < y.key : x.sequence < y.sequence;
  }

  LargeVector<Node> nodes_;

 private:
  /// Melds two queues along their right spines, both at most log2(n + 1) long, then walks back up. Touches the nodes of
  /// the two spines and no others: each is a cache miss in a long queue.
  Index merge(Index a, Index b) noexcept {
    if (a == kNull) return b;
    if (b == kNull) return a;
    if (before(b, a)) std::swap(a, b);
    const Index root = a;
    Index spine = a;  // last node of the merged spine so far
    Index rest = b;   // what still has to be melded below it
    while (nodes_[spine].right != kNull) {
      Index next = nodes_[spine].right;
      if (before(rest, next)) std::swap(rest, next);
      nodes_[spine].right = next;
      nodes_[next].parent = spine;
      prefetch(nodes_[rest].right);  // one of the two comes next, whichever way the comparison goes
      spine = next;
    }
    nodes_[spine].right = rest;
    nodes_[rest].parent = spine;
    std::uint16_t right_rank = nodes_[rest].rank;
    for (Index node = spine;; node = nodes_[node].parent) {
      right_rank = order_children(nodes_[node], right_rank);
      if (node == root) break;
    }
    return root;
  }

  /// Puts the child of higher rank to the left; the node's new rank.
  static std::uint16_t order_children(Node& n, std::uint16_t right_rank) noexcept {
    if (n.left_rank < right_rank) {
      std::swap(n.left, n.right);
      std::swap(n.left_rank, right_rank);
    }
    n.rank = static_cast<std::uint16_t>(right_rank + 1);
    return n.rank;
  }

  /// `rest` takes the place of `gone` below `parent`. Ranks can only have changed on the way up while they keep
  /// changing.
  void replace_child(Index parent, Index gone, Index rest) noexcept {
    std::uint16_t child_rank = rank(rest);
    for (Index child = rest; parent != kNull; gone = child = parent, parent = nodes_[parent].parent) {
      Node& n = nodes_[parent];
      auto right_rank = static_cast<std::uint16_t>(n.rank - 1);
      if (n.left == gone) {
        n.left = child;
        n.left_rank = child_rank;
      } else {
        n.right = child;
        right_rank = child_rank;
      }
      const std::uint16_t rank_before = n.rank;
      child_rank = order_children(n, right_rank);
      if (child_rank == rank_before) return;
    }
  }
};

}  // namespace zeta::queue
