#pragma once
// How the window of a DeadlineQueue follows time, and what stands beyond it comes in. Part of deadline_queue.hpp, which
// declares all this and says what it promises.

#include "zeta/queue/deadline_queue.hpp"

namespace zeta::queue {

template <template <class> class Atomic, class Shape>
void DeadlineQueue<Atomic, Shape>::follow(Key now, std::uint32_t lane) noexcept {
  const std::uint64_t chunk = chunk_of(number_of(now));
  const std::uint64_t first = window_.first();
  if (chunk > first + 1) advance(first, chunk - 1, lane);
}

template <template <class> class Atomic, class Shape>
void DeadlineQueue<Atomic, Shape>::advance(std::uint64_t first, std::uint64_t target, std::uint32_t lane) noexcept {
  reach_to(block_of(target << kChunkBits), lane);
  // What is deferred stands at the reach or behind it; so it is not left before the window either.
  target = std::min(target, chunk_of(deferred_.reach() << kBlockBits));
  std::uint64_t to = std::min(target, aside_bound_.look().bound());
  const std::uint64_t end = std::min(to, first + chunks_);
  for (std::uint64_t chunk = first; chunk < end; ++chunk) {
    if (!buckets_.is_chunk_empty(chunk)) to = chunk;
    if (to == chunk) break;
  }
  if (to <= first) return;
  (void)window_.move(first, to, [&](std::uint64_t next) noexcept {
    const std::uint64_t last = std::min(next, first + chunks_);
    for (std::uint64_t chunk = first; chunk < last; ++chunk) {
      if (!buckets_.is_chunk_empty(chunk)) return false;
    }
    return aside_bound_.look().bound() >= next;
  });
}

template <template <class> class Atomic, class Shape>
void DeadlineQueue<Atomic, Shape>::bring_in(Key now, std::uint32_t lane) noexcept {
  const auto before = aside_bound_.look();
  std::uint64_t lowest = Bound::kNone;
  typename Ring::Place found;
  std::uint64_t at = aside_.begin();
  while (aside_.find(at, found)) {
    const Index node = found.index();
    const Index home = home_of(node);
    // E11: what came before the last change is seen.
    const State state{cells_[home].state.load(std::memory_order_acquire)};
    const Key key = cells_[node].key.load(std::memory_order_relaxed);  // checked by the exchange in hop
    at = found.position + 1;
    switch (standing(node, state)) {
      case Standing::kStale:
        if (aside_.remove(found)) release(node, lane);
        break;
      case Standing::kPending:
        help(home, state, node);
        at = found.position;  // look again
        break;
      case Standing::kCurrent: {
        const std::uint64_t chunk = chunk_of(number_of(key));
        if (chunk >= window_.first() + chunks_) {
          lowest = std::min(lowest, chunk);
        } else if (hop(home, state, key, now, lane, lane) == Hop::kDone) {
          if (aside_.remove(found)) release(node, lane);
        } else {
          lowest = std::min(lowest, chunk);  // taken, changed or not yet to be moved: the next search decides
        }
      }
    }
  }
  aside_bound_.raise_to(before, lowest);
}

template <template <class> class Atomic, class Shape>
void DeadlineQueue<Atomic, Shape>::rotate_aside(Key now, std::uint32_t lane) noexcept {
  typename Ring::Place found;
  if (aside_.span() <= aside_.places() / 2 || !aside_.find(aside_.begin(), found)) [[likely]]
    return;
  const Index node = found.index();
  const Index home = home_of(node);
  for (int step = 0; step < 2; ++step) {
    // E11: what came before the last change is seen.
    const State state{cells_[home].state.load(std::memory_order_acquire)};
    switch (standing(node, state)) {
      case Standing::kStale:
        if (aside_.remove(found)) release(node, lane);
        return;
      case Standing::kPending:
        help(home, state, node);
        break;
      case Standing::kCurrent: {
        const Key key = cells_[node].key.load(std::memory_order_relaxed);  // checked by the exchange in hop
        (void)hop(home, state, key, now, lane, lane);
      }
    }
  }
}

template <template <class> class Atomic, class Shape>
void DeadlineQueue<Atomic, Shape>::help(Index home, State state, Index node) noexcept {
  std::uint64_t word = state.word();
  // E12: as in hop.
  moves_.fetch_add(1, std::memory_order_release);
  // E11: as in hop.
  (void)cells_[home].state.compare_exchange_strong(word, state.moved_to(node).word(), std::memory_order_release,
                                                   std::memory_order_relaxed);  // relaxed on failure: looked at again
}

}  // namespace zeta::queue
