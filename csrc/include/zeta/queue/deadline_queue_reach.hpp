#pragma once
// What a DeadlineQueue has not linked yet, and how far its reach goes. Part of deadline_queue.hpp, which declares all
// this and says what it promises.

#include "zeta/queue/deadline_queue.hpp"

namespace zeta::queue {

template <template <class> class Atomic, class Shape>
bool DeadlineQueue<Atomic, Shape>::may_defer(std::uint64_t number, std::uint32_t lane) const noexcept {
  return block_of(number) >= deferred_.reach() && lane < deferring_lanes_ &&
         chunk_of(number) - window_.first() < chunks_;
}

template <template <class> class Atomic, class Shape>
bool DeadlineQueue<Atomic, Shape>::defer(Index home, std::uint64_t number, std::uint32_t lane) noexcept {
  buckets_.prefetch(number, lane);
  const auto link = [&](std::uint64_t to, Index cell) noexcept { buckets_.link(to, lane, cell); };
  if (deferred_.put(lane, home, number, block_of(number), link)) return true;
  link(number, home);
  deferred_.withdraw(lane);
  return chunk_of(number) - window_.settled_first() < chunks_;
}

template <template <class> class Atomic, class Shape>
void DeadlineQueue<Atomic, Shape>::reach_to(std::uint64_t block, std::uint32_t lane) noexcept {
  const std::uint64_t from = deferred_.reach();
  if (from >= block) return;
  deferred_.link_own(lane, [&](std::uint64_t to, Index cell) noexcept { buckets_.link(to, lane, cell); });
  const auto is_settled = [&](Index home, State state) noexcept {
    return standing(home, state) != Standing::kCurrent || block_of(number_of(key_of(home))) >= block;
  };
  (void)deferred_.all_of([&](Index home) noexcept {
    // E11: what came before the last change is seen.
    const State state{cells_[home].state.load(std::memory_order_acquire)};
    // `now` is unknown: the window must not move from in here, as it waits for the reach.
    if (!is_settled(home, state)) sweep_if_due(0, lane, hop(home, state, key_of(home), 0, lane, lane) == Hop::kNoSpare);
    return true;
  });
  deferred_.move(from, block, [&]() noexcept {
    return deferred_.all_of([&](Index home) noexcept {
      // E11: as above.
      return is_settled(home, State{cells_[home].state.load(std::memory_order_acquire)});
    });
  });
}

}  // namespace zeta::queue
