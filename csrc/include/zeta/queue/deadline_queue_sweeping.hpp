#pragma once
// How a DeadlineQueue drops what cancels and updates have left behind. Part of deadline_queue.hpp, which declares all
// this and says what it promises.

#include "zeta/queue/deadline_queue.hpp"

namespace zeta::queue {

template <template <class> class Atomic, class Shape>
std::uint64_t DeadlineQueue<Atomic, Shape>::note_left_behind(std::int64_t n) noexcept {
  // Relaxed: a hint; nothing is read by it.
  return left_behind_.fetch_add(static_cast<std::uint64_t>(n), std::memory_order_relaxed);
}

template <template <class> class Atomic, class Shape>
void DeadlineQueue<Atomic, Shape>::sweep_if_due(Key now, std::uint32_t lane, bool must) noexcept {
  // Relaxed: a hint, as above.
  const auto stale = static_cast<std::int64_t>(left_behind_.load(std::memory_order_relaxed));
  if (must || stale > std::int64_t{capacity_}) [[unlikely]]
    (void)sweep(now, lane, kSweptAtOnce);
}

template <template <class> class Atomic, class Shape>
std::size_t DeadlineQueue<Atomic, Shape>::sweep(Key now, std::uint32_t lane, std::size_t enough) noexcept {
  std::size_t dropped = 0;
  for (Atomic<std::uint64_t>& hint : left_at_) {
    // Relaxed: a hint, used once.
    const std::uint64_t number = hint.exchange(0, std::memory_order_relaxed);
    if (number == 0) continue;
    for (unsigned turn = 0; turn < Shape::bucket_stacks; ++turn) {
      // Relaxed: only the direction in which to move; the nodes are seen by their stacks.
      const std::uint64_t epoch = sweeps_.load(std::memory_order_relaxed);
      dropped += clean(number - 1, epoch, now, lane);
      end_epoch(epoch);
    }
    if (dropped >= enough) return dropped;
  }
  for (unsigned round = 0; round <= Shape::bucket_stacks && dropped < enough; ++round) {
    dropped += sweep_on(now, lane, enough - dropped);
  }
  return dropped;
}

template <template <class> class Atomic, class Shape>
std::size_t DeadlineQueue<Atomic, Shape>::sweep_on(Key now, std::uint32_t lane, std::size_t enough) noexcept {
  const std::uint64_t epoch = sweeps_.load(std::memory_order_relaxed);  // as in sweep
  const std::uint64_t start = window_.first() << kChunkBits;
  const std::uint64_t end = start + (chunks_ << kChunkBits);
  std::uint64_t from = swept_to_.load(std::memory_order_relaxed);  // a hint: a sweep may begin anywhere
  if (from <= start || from >= end) from = start;
  std::size_t dropped = from == start ? sweep_ring(late_, lane) + sweep_ring(aside_, lane) : 0;
  typename Buckets::Spot spot;
  for (; buckets_.find(from, end, spot); from = spot.number + 1) {
    dropped += clean(spot.number, epoch, now, lane);
    if (dropped >= enough) {
      swept_to_.store(spot.number + 1, std::memory_order_relaxed);  // a hint, as above
      return dropped;
    }
  }
  swept_to_.store(0, std::memory_order_relaxed);  // a hint, as above
  end_epoch(epoch);
  return dropped;
}

template <template <class> class Atomic, class Shape>
std::size_t DeadlineQueue<Atomic, Shape>::sweep_ring(Ring& ring, std::uint32_t lane) noexcept {
  std::size_t dropped = 0;
  typename Ring::Place found;
  for (std::uint64_t at = ring.begin(); ring.find(at, found); at = found.position + 1) {
    const Index node = found.index();
    // Relaxed: as in drop_stale.
    const State state{cells_[home_of(node)].state.load(std::memory_order_relaxed)};
    if (standing(node, state) != Standing::kStale || !ring.remove(found)) continue;
    release(node, lane);
    ++dropped;
  }
  return dropped;
}

template <template <class> class Atomic, class Shape>
std::size_t DeadlineQueue<Atomic, Shape>::clean(std::uint64_t number, std::uint64_t epoch, Key now,
                                                std::uint32_t lane) noexcept {
  std::size_t dropped = 0;
  for (unsigned stack = 0; stack < Shape::bucket_stacks; ++stack) {
    while (drop_stale(number, stack, lane)) ++dropped;
  }
  const auto stack = static_cast<unsigned>(epoch) & (Shape::bucket_stacks - 1);
  return dropped + (holds_stale(number, stack) ? empty_into_next(number, stack, epoch, now, lane) : 0);
}

template <template <class> class Atomic, class Shape>
bool DeadlineQueue<Atomic, Shape>::holds_stale(std::uint64_t number, unsigned stack) const noexcept {
  Index node = buckets_.top(number, stack).cell();
  for (Index steps = 0; node != 0 && steps < capacity_; ++steps) {
    // Relaxed: as all of this look.
    const State state{cells_[home_of(node)].state.load(std::memory_order_relaxed)};
    if (standing(node, state) == Standing::kStale) return true;
    node = cells_[node].next.load(std::memory_order_relaxed);  // a look without a promise
  }
  return false;
}

template <template <class> class Atomic, class Shape>
std::size_t DeadlineQueue<Atomic, Shape>::empty_into_next(std::uint64_t number, unsigned stack, std::uint64_t epoch,
                                                          Key now, std::uint32_t lane) noexcept {
  std::size_t dropped = 0;
  while (sweeps_.load(std::memory_order_relaxed) == epoch) {  // as in sweep
    const Index node = buckets_.top(number, stack).cell();
    if (node == 0) break;
    if (drop_stale(number, stack, lane)) {
      ++dropped;
      continue;
    }
    const Index home = home_of(node);
    // E11: what came before the last change is seen.
    const State state{cells_[home].state.load(std::memory_order_acquire)};
    const Standing is = standing(node, state);
    if (is == Standing::kPending) help(home, state, node);
    if (is != Standing::kCurrent) continue;
    // The hop drops the node that it leaves on top here.
    if (hop(home, state, key_of(node), now, lane, stack + 1) == Hop::kNoSpare) break;
  }
  return dropped;
}

}  // namespace zeta::queue
