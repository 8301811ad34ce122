#pragma once
// Homes and nodes: what a DeadlineQueue keeps of its items. Part of deadline_queue.hpp, which declares all this and
// says what it promises.

#include "zeta/queue/deadline_queue.hpp"

namespace zeta::queue {

template <template <class> class Atomic, class Shape>
auto DeadlineQueue<Atomic, Shape>::standing(Index node, State state) const noexcept -> Standing {
  if (!state.is_waiting()) return Standing::kStale;
  if (state.node() == node) return Standing::kCurrent;
  if (is_own(node)) return Standing::kStale;
  // Relaxed: as in home_of. A spare node remembers the state for which it was made.
  const State made_for{cells_[node].item.load(std::memory_order_relaxed)};
  return state.is_still(made_for) ? Standing::kPending : Standing::kStale;
}

template <template <class> class Atomic, class Shape>
Index DeadlineQueue<Atomic, Shape>::take_home(std::uint32_t lane) noexcept {
  // Relaxed: a hint that items must be counted. It is set long before the last place is taken.
  if (is_tight_.load(std::memory_order_relaxed) != 0 || !homes_.has_at_hand(lane)) [[unlikely]] {
    if (!has_room()) return 0;
  }
  const Index home = homes_.take(lane);
  // Relaxed: a hint.
  if (home != 0 || left_behind_.load(std::memory_order_relaxed) == 0) [[likely]]
    return home;
  return take_swept_home(lane);
}

template <template <class> class Atomic, class Shape>
bool DeadlineQueue<Atomic, Shape>::has_room() noexcept {
  if (last_home_ == capacity_) return true;  // the pool says
  const std::uint64_t waiting = tally_.left();
  const std::uint64_t tight = std::uint64_t{last_home_ - capacity_} * 2;
  is_tight_.store(waiting + tight >= capacity_ ? 1 : 0, std::memory_order_relaxed);  // a hint, as above
  return waiting < capacity_;
}

template <template <class> class Atomic, class Shape>
Index DeadlineQueue<Atomic, Shape>::take_swept_home(std::uint32_t lane) noexcept {
  while (sweep(0, lane, 1) > 0) {
    if (const Index home = homes_.take(lane); home != 0) return home;
  }
  return 0;
}

template <template <class> class Atomic, class Shape>
bool DeadlineQueue<Atomic, Shape>::claim(Index node, std::uint32_t lane, Entry& entry) noexcept {
  if (!is_own(node)) [[unlikely]]
    return claim_spare(node, lane, entry);
  Cell<Atomic>& cell = cells_[node];
  // Relaxed, here and in the exchange: while the item waits and stands for itself, its state is the one that it was
  // born with, which came with the node; and nobody else uses the cell until it is given back.
  std::uint64_t word = cell.state.load(std::memory_order_relaxed);
  while (State{word}.is_waiting() && State{word}.node() == node) {
    if (!cell.state.compare_exchange_weak(word, State{word}.ended().unlinked().word(), std::memory_order_relaxed,
                                          std::memory_order_relaxed)) {
      continue;
    }
    // Relaxed: the cell is this thread's until it is given back.
    entry = Entry{cell.key.load(std::memory_order_relaxed), cell.item.load(std::memory_order_relaxed),
                  State{word}.ticket(node)};
    tally_.went(lane);
    homes_.give_back(node, lane);
    return true;
  }
  release(node, lane);
  return false;
}

template <template <class> class Atomic, class Shape>
bool DeadlineQueue<Atomic, Shape>::claim_spare(Index node, std::uint32_t lane, Entry& entry) noexcept {
  const Index home = home_of(node);
  Atomic<std::uint64_t>& at = cells_[home].state;
  // Relaxed: stable while the node is this thread's and the item waits; used only if the exchange succeeds.
  const Key key = key_of(node);
  const Item item = cells_[home].item.load(std::memory_order_relaxed);
  std::uint64_t word = at.load(std::memory_order_relaxed);  // checked by the exchange; a stale node stays stale
  for (;;) {
    const State state{word};
    if (standing(node, state) == Standing::kStale) {
      release(node, lane);
      return false;
    }
    // E11: what was done with the own cell is seen, and who finds the item ended may use that cell again. When the
    // node was pending, the one that stood for the item is left behind; its hop, which fails now, counts it.
    if (!at.compare_exchange_weak(word, state.ended().word(), std::memory_order_acq_rel,
                                  std::memory_order_relaxed)) {  // relaxed on failure: only retried
      continue;
    }
    tally_.went(lane);
    spares_.give_back(node, lane);
    if (!state.is_linked()) homes_.give_back(home, lane);
    entry = Entry{key, item, state.ticket(home)};
    return true;
  }
}

template <template <class> class Atomic, class Shape>
void DeadlineQueue<Atomic, Shape>::release(Index node, std::uint32_t lane) noexcept {
  note_left_behind(-1);
  if (!is_own(node)) {
    spares_.give_back(node, lane);
    return;
  }
  Atomic<std::uint64_t>& at = cells_[node].state;
  std::uint64_t word = at.load(std::memory_order_relaxed);  // a stale word only makes the exchange fail
  // E11: hands the cell on with all that was done to it.
  while (!at.compare_exchange_weak(word, State{word}.unlinked().word(), std::memory_order_acq_rel,
                                   std::memory_order_relaxed)) {  // relaxed on failure: only retried
  }
  if (!State{word}.is_waiting()) homes_.give_back(node, lane);
}

template <template <class> class Atomic, class Shape>
void DeadlineQueue<Atomic, Shape>::leave_behind(Index node, std::uint64_t number, std::uint32_t lane) noexcept {
  const std::uint64_t before = note_left_behind(1);
  if (chunk_of(number) - window_.first() >= chunks_) return;  // it is in a ring
  // Only this thread's stack: a look at another costs more than it finds.
  if (buckets_.top(number, lane).cell() == node && drop_stale(number, lane, lane)) return;
  left_at_[before % left_at_.size()].store(number + 1, std::memory_order_relaxed);  // a hint for sweeps
}

template <template <class> class Atomic, class Shape>
bool DeadlineQueue<Atomic, Shape>::drop_stale(std::uint64_t number, unsigned stack, std::uint32_t lane) noexcept {
  const auto top = buckets_.top(number, stack);
  const Index node = top.cell();
  if (node == 0) return false;
  // Relaxed: a node that is stale where it stands stays so, and the exchange says whether it still stands there.
  const State state{cells_[home_of(node)].state.load(std::memory_order_relaxed)};
  if (standing(node, state) != Standing::kStale || !buckets_.drop(number, stack, top)) return false;
  release(node, lane);
  return true;
}

}  // namespace zeta::queue
