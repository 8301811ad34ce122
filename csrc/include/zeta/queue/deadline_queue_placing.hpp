#pragma once
// Where a DeadlineQueue puts its nodes, and how it moves an item. Part of deadline_queue.hpp, which declares all this
// and says what it promises.

#include "zeta/queue/deadline_queue.hpp"

namespace zeta::queue {

template <template <class> class Atomic, class Shape>
template <bool kMayRotate>
bool DeadlineQueue<Atomic, Shape>::place(Index node, std::uint64_t number, Key now, std::uint32_t lane,
                                         unsigned stack) noexcept {
  const std::uint64_t chunk = chunk_of(number);
  std::uint64_t first = window_.first();
  if (chunk - first >= chunks_ && chunk > first) {
    follow(now, lane);
    first = window_.first();
  }
  if (chunk - first < chunks_) [[likely]] {
    buckets_.link(number, stack, node);
    return chunk - window_.settled_first() < chunks_;
  }
  if (chunk > first) {
    if constexpr (kMayRotate) rotate_aside(now, lane);
    if (aside_.append(node)) {
      aside_bound_.lower_to(chunk);
      return chunk >= window_.settled_first();
    }
  }
  if (late_.append(node)) return true;
  // Both rings hold more places than there are cells; they fill only if emptied places cannot be passed because a
  // great many threads are stopped. The first bucket is found by every search, only not in turn.
  first = window_.first();
  buckets_.link(first << kChunkBits, stack, node);
  return window_.settled_first() == first;
}

template <template <class> class Atomic, class Shape>
auto DeadlineQueue<Atomic, Shape>::hop(Index home, State state, Key key, Key now, std::uint32_t lane,
                                       unsigned stack) noexcept -> Hop {
  const Index old = state.node();
  const Key old_key = cells_[old].key.load(std::memory_order_relaxed);  // valid if the exchange succeeds
  const Index node = spares_.take(lane);
  if (node == 0) return Hop::kNoSpare;
  Cell<Atomic>& cell = cells_[node];
  cell.key.store(key, std::memory_order_relaxed);  // these three are published by the node's link
  cell.item.store(state.word(), std::memory_order_relaxed);
  cell.home.store(home, std::memory_order_relaxed);
  if (!place<false>(node, number_of(key), now, lane, stack)) {
    note_left_behind(1);
    return Hop::kLost;
  }
  // E12: who misses the item at its old place because of the exchange below sees that something has moved.
  moves_.fetch_add(1, std::memory_order_release);
  Atomic<std::uint64_t>& at = cells_[home].state;
  std::uint64_t word = state.word();
  // E11: the new node is seen by who sees the home.
  while (!at.compare_exchange_weak(word, State{word}.moved_to(node).word(), std::memory_order_release,
                                   std::memory_order_relaxed)) {  // relaxed on failure: looks what became of it
    if (State{word}.is_still(state)) continue;
    const bool helped = State{word}.is_waiting() && State{word}.node() == node;
    if (!helped) note_left_behind(1);
    if (helped) leave_behind(old, number_of(old_key), lane);
    return helped ? Hop::kDone : Hop::kLost;
  }
  leave_behind(old, number_of(old_key), lane);
  return Hop::kDone;
}

template <template <class> class Atomic, class Shape>
void DeadlineQueue<Atomic, Shape>::rehome(Index home, State state, Key key, Key now, std::uint32_t lane) noexcept {
  for (;;) {
    const Hop outcome = hop(home, state, key, now, lane, lane);
    if (outcome == Hop::kDone) return;
    sweep_if_due(now, lane, outcome == Hop::kNoSpare);
    // Relaxed: checked by the exchange in hop; of the same life, what this thread wrote is all there is to see.
    const State seen{cells_[home].state.load(std::memory_order_relaxed)};
    if (seen.generation() != state.generation() || !seen.is_waiting() || seen.node() != state.node()) return;
    state = seen;
  }
}

}  // namespace zeta::queue
