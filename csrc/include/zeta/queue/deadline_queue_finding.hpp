#pragma once
// How a DeadlineQueue finds the first item, and takes it. Part of deadline_queue.hpp, which declares all this and says
// what it promises.

#include "zeta/queue/deadline_queue.hpp"

namespace zeta::queue {

template <template <class> class Atomic, class Shape>
bool DeadlineQueue<Atomic, Shape>::find_at_once(Found& found) noexcept {
  const std::uint64_t reach = deferred_.reach();
  found.first_chunk = window_.first();
  found.aside = aside_bound_.look();
  return late_.is_empty() && found.first_chunk + 1 < found.aside.bound() &&
         buckets_.find_in_two(found.first_chunk, found.spot) && block_of(found.spot.number) < reach;
}

template <template <class> class Atomic, class Shape>
std::optional<Entry> DeadlineQueue<Atomic, Shape>::pop_after_search(Key now, bool feasible_first,
                                                                    std::uint32_t lane) noexcept {
  Entry entry;
  for (Found found; find(now, feasible_first, lane, found);) {
    if (take(found, lane, entry)) return entry;
  }
  return std::nullopt;
}

template <template <class> class Atomic, class Shape>
bool DeadlineQueue<Atomic, Shape>::find(Key now, bool feasible_first, std::uint32_t lane, Found& found) noexcept {
  std::uint64_t moves = 0;
  for (bool was_empty = false;;) {
    found.reach = deferred_.reach();
    found.first_chunk = window_.first();
    found.aside = aside_bound_.look();
    Search result = feasible_first ? search_feasible_first(now, lane, found) : search_in_order(now, lane, found);
    if (result == Search::kFound) return true;
    if (result == Search::kAgain) continue;
    if (found.aside.bound() != Bound::kNone) {
      if (find_aside(now, lane, found)) return true;
      continue;
    }
    // Nothing: believed when nothing has moved behind this search's back, so after a second search.
    // E12: what moved before is seen where it is now.
    const std::uint64_t moved = moves_.load(std::memory_order_acquire);
    if (was_empty && moved == moves && window_.first() == found.first_chunk && aside_bound_.look() == found.aside) {
      return false;
    }
    was_empty = true;
    moves = moved;
  }
}

template <template <class> class Atomic, class Shape>
auto DeadlineQueue<Atomic, Shape>::search_in_order(Key now, std::uint32_t lane, Found& found) noexcept -> Search {
  if (!late_.is_empty() && find_late(lane, found)) [[unlikely]]
    return Search::kFound;
  const std::uint64_t first = found.first_chunk;
  return search(first << kChunkBits, (first + chunks_) << kChunkBits, now, lane, found);
}

template <template <class> class Atomic, class Shape>
auto DeadlineQueue<Atomic, Shape>::search_feasible_first(Key now, std::uint32_t lane, Found& found) noexcept -> Search {
  follow(now, lane);
  if (window_.first() != found.first_chunk) return Search::kAgain;
  const std::uint64_t due = number_of(now);
  const std::uint64_t start = found.first_chunk << kChunkBits;
  const std::uint64_t end = start + (chunks_ << kChunkBits);
  const std::uint64_t patience = ((chunks_ - 2) << kChunkBits) / 2;
  const std::uint64_t overdue = due > patience ? due - patience : 0;  // what is due before it has waited enough
  if (!late_.is_empty() && find_late(lane, found) && number_of(key_of(found.place.index())) < overdue) {
    return Search::kFound;
  }
  Search result = search(start, std::min(overdue, end), now, lane, found);
  if (result == Search::kNone) result = search(std::max(start, due), end, now, lane, found);
  if (result == Search::kNone && found.aside.bound() < found.first_chunk + chunks_) {
    bring_in(now, lane);  // in time, and within the window by now
    return Search::kAgain;
  }
  return result == Search::kNone ? search_in_order(now, lane, found) : result;
}

template <template <class> class Atomic, class Shape>
auto DeadlineQueue<Atomic, Shape>::search(std::uint64_t from, std::uint64_t end, Key now, std::uint32_t lane,
                                          Found& found) noexcept -> Search {
  found.where = Where::kBucket;
  if (!buckets_.find(from, end, found.spot)) {
    const std::uint64_t reach = block_of(end + (std::uint64_t{1} << kBlockBits) - 1);
    if (found.reach >= reach) return Search::kNone;
    reach_to(reach, lane);
    return Search::kAgain;
  }
  if (const std::uint64_t block = block_of(found.spot.number); block >= found.reach) {
    reach_to(block + 1, lane);
    return Search::kAgain;
  }
  const std::uint64_t chunk = chunk_of(found.spot.number);
  if (chunk > found.first_chunk) {
    follow(now, lane);
    if (window_.first() != found.first_chunk) return Search::kAgain;
  }
  if (chunk < found.aside.bound()) [[likely]]
    return Search::kFound;
  bring_in(now, lane);
  return Search::kAgain;
}

template <template <class> class Atomic, class Shape>
bool DeadlineQueue<Atomic, Shape>::find_late(std::uint32_t lane, Found& found) noexcept {
  while (late_.find(late_.begin(), found.place)) {
    const Index node = found.place.index();
    // Relaxed: as in drop_stale.
    const State state{cells_[home_of(node)].state.load(std::memory_order_relaxed)};
    found.where = Where::kLate;
    if (standing(node, state) != Standing::kStale) return true;
    if (late_.remove(found.place)) release(node, lane);
  }
  return false;
}

template <template <class> class Atomic, class Shape>
bool DeadlineQueue<Atomic, Shape>::find_aside(Key now, std::uint32_t lane, Found& found) noexcept {
  follow(now, lane);
  if (found.aside.bound() < window_.first() + chunks_) {
    bring_in(now, lane);
    return false;
  }
  // E12: what moved before is seen where it is now.
  found.moves = moves_.load(std::memory_order_acquire);
  // What moved before may have come to a bucket that was searched already; then the window or the bound has moved.
  if (!still_holds(found)) return false;
  Key earliest = ~Key{0};
  found.where = Where::kNowhere;
  typename Ring::Place place;
  for (std::uint64_t at = aside_.begin(); aside_.find(at, place); at = place.position + 1) {
    const Index node = place.index();
    // Relaxed: as in drop_stale.
    const State state{cells_[home_of(node)].state.load(std::memory_order_relaxed)};
    if (standing(node, state) == Standing::kStale) {
      if (aside_.remove(place)) release(node, lane);
    } else if (found.where == Where::kNowhere || key_of(node) < earliest) {
      earliest = key_of(node);
      found.place = place;
      found.where = Where::kAside;
    }
  }
  const bool is_any = found.where == Where::kAside;
  aside_bound_.raise_to(found.aside, is_any ? chunk_of(number_of(earliest)) : Bound::kNone);
  return is_any;
}

template <template <class> class Atomic, class Shape>
bool DeadlineQueue<Atomic, Shape>::take(const Found& found, std::uint32_t lane, Entry& entry) noexcept {
  if (found.where != Where::kBucket) [[unlikely]] {
    // Relaxed: a hop that ended before the search began was seen by it.
    if (found.where == Where::kAside && moves_.load(std::memory_order_relaxed) != found.moves) return false;
    if (!(found.where == Where::kLate ? late_ : aside_).remove(found.place)) return false;
    return claim(found.place.index(), lane, entry);
  }
  return take_from_bucket(found, lane, entry);
}

template <template <class> class Atomic, class Shape>
std::optional<Key> DeadlineQueue<Atomic, Shape>::look(const Found& found, std::uint32_t lane) noexcept {
  if (found.where != Where::kBucket) return key_of(found.place.index());
  const std::uint64_t number = found.spot.number;
  for (unsigned stack = 0; stack < Shape::bucket_stacks; ++stack) {
    const auto top = buckets_.top(number, stack);
    if (top.cell() == 0) continue;
    if (drop_stale(number, stack, lane)) return std::nullopt;
    const Key key = key_of(top.cell());
    if (still_holds(found) && buckets_.top(number, stack).head == top.head) return key;
    return std::nullopt;
  }
  buckets_.retire(found.spot);
  return std::nullopt;
}

}  // namespace zeta::queue
