#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace zeta::queue {

/// Any number of priority queues over one slab of nodes.
///
/// When to use: many small ordered queues whose total size is bounded but whose split is not (one per tenant, band and
/// model set). A queue is one root index, so an empty one costs four bytes and nothing is ever allocated after
/// construction. When not to use: one large queue alone; an array heap touches fewer cache lines.
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
    nodes_[node] = Node{key, sequence, kNull, kNull, kNull, 1};
    root = merge(root, node);
    nodes_[root].parent = kNull;
  }

  /// Removes and returns the first node of a queue that is not empty.
  Index pop(Index& root) noexcept {
    const Index first = root;
    root = merge(nodes_[first].left, nodes_[first].right);
    if (root != kNull) nodes_[root].parent = kNull;
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
    (nodes_[parent].left == node ? nodes_[parent].left : nodes_[parent].right) = rest;
    restore_ranks(parent);
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

 private:
  struct Node {
    std::int64_t key = 0;
    std::uint64_t sequence = 0;
    Index left = kNull;
    Index right = kNull;
    Index parent = kNull;
    std::uint32_t rank = 1;  ///< Length of the right spine; the left child's is never shorter.
  };
  static_assert(sizeof(Node) == 32, "two nodes share a cache line");

  [[nodiscard]] std::uint32_t rank(Index node) const noexcept { return node == kNull ? 0 : nodes_[node].rank; }

  [[nodiscard]] bool before(Index a, Index b) const noexcept {
    const Node& x = nodes_[a];
    const Node& y = nodes_[b];
    return x.key != y.key ? x.key < y.key : x.sequence < y.sequence;
  }

  /// Melds two queues along their right spines, both at most log2(n + 1) long, then walks back up.
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
      spine = next;
    }
    nodes_[spine].right = rest;
    nodes_[rest].parent = spine;
    for (Index node = spine;; node = nodes_[node].parent) {
      order_children(node);
      if (node == root) break;
    }
    return root;
  }

  void order_children(Index node) noexcept {
    Node& n = nodes_[node];
    if (rank(n.left) < rank(n.right)) std::swap(n.left, n.right);
    n.rank = rank(n.right) + 1;
  }

  /// After an erase below `node`: ranks can only have changed on the way up while they keep changing.
  void restore_ranks(Index node) noexcept {
    while (node != kNull) {
      const std::uint32_t before_rank = nodes_[node].rank;
      order_children(node);
      if (nodes_[node].rank == before_rank) break;
      node = nodes_[node].parent;
    }
  }

  std::vector<Node> nodes_;
};

}  // namespace zeta::queue
