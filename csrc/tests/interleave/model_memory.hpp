#pragma once
// What a load of the model may read, where a store goes, and loads that read ahead. Part of model.hpp, which says what
// it promises.

#include "interleave/model.hpp"

namespace zeta::interleave {

inline void Model::open(Location& location) {
  if (location.ring != nullptr) return;
  touch(location);
  location.ring = allocate();
  location.ring[0] = {.value = location.initial, .released = {}, .seen = {}, .is_change = false};
  location.count = 1;
  location.sc_floor = 0;
}

inline std::uint32_t Model::oldest_for(const Location& location, const Clock& clock) const {
  const std::uint32_t least = location.count > kHistory ? location.count - kHistory : 0;
  std::uint32_t oldest = location.count - 1;
  while (oldest > least && !is_seen(location.at(oldest), clock)) --oldest;
  return oldest;
}

inline std::uint32_t Model::choose(const Location& location, Order order) {
  const std::uint32_t newest = location.count - 1;
  if (!is_weak_) return newest;
  Thread& me = threads_[current_];
  std::uint32_t oldest = oldest_for(location, me.clock);
  if ((order & kSeqCst) != 0) oldest = std::max(oldest, location.sc_floor);
  if (oldest == newest || me.rng.next_below(8) >= stale_of_8_) return newest;
  return oldest + static_cast<std::uint32_t>(me.rng.next_below(newest - oldest + 1));
}

inline std::uint32_t Model::make_room(Location& location, Order order, bool is_change) {
  const std::uint32_t last = location.count++;
  if (!is_weak_ || is_change || ahead_state_ == Ahead::kRead || last + 1 >= kHistory) return last;
  Thread& me = threads_[current_];
  std::uint32_t oldest = last - 1;
  while (oldest > 0 && !is_seen(location.at(oldest), me.clock)) --oldest;
  if ((order & kSeqCst) != 0) oldest = std::max(oldest, location.sc_floor);
  // Behind `oldest`, which is last - 1 when everything is seen.
  if (oldest + 1 == last || me.rng.next_below(16) >= stale_of_8_) return last;
  const std::uint32_t at = oldest + 1 + static_cast<std::uint32_t>(me.rng.next_below(last - oldest));
  if (at == last || location.at(at).is_change) return last;
  for (std::uint32_t i = last; i > at; --i) location.at(i) = location.at(i - 1);
  if (location.sc_floor >= at) ++location.sc_floor;
  return at;
}

inline std::uint64_t Model::read(Location& location, std::uint32_t index, Order order) {
  Thread& me = threads_[current_];
  Store& store = location.at(index);
  store.seen[current_] = std::min(store.seen[current_], me.clock[current_]);
  if ((order & kAcquire) != 0) join(me.clock, store.released);
  if ((order & kSeqCst) != 0) location.sc_floor = std::max(location.sc_floor, index);
  if (ahead_state_ == Ahead::kRead) touch_before_kept(location);
  return store.value;
}

inline void Model::append(Location& location, std::uint64_t value, const Clock& released, Order order, bool is_change) {
  const Thread& me = threads_[current_];
  if (may_read_ahead_) {
    if (ahead_state_ == Ahead::kOff) {
      offer_read_ahead(location, value);
    } else if (ahead_state_ == Ahead::kRead) {
      keep_read_ahead(location, value);
    }
  }
  const std::uint32_t index = make_room(location, order, is_change);
  Store& store = location.at(index);
  store.value = value;
  store.is_change = is_change;
  store.released = released;
  store.seen.fill(kNever);
  store.seen[current_] = me.clock[current_];
  if (ahead_state_ == Ahead::kKept && is_storing_ahead_) {
    store.seen[ahead_.loader] = ahead_.loader_clock;
    is_storing_ahead_ = false;
  }
  if ((order & kSeqCst) != 0) location.sc_floor = index;
}

inline Store* Model::allocate() {
  constexpr std::size_t kRingsPerBlock = 64;
  const std::size_t block = arena_used_ / kRingsPerBlock;
  if (block == arena_.size()) arena_.push_back(std::make_unique<Store[]>(kRingsPerBlock * kHistory));
  return arena_[block].get() + (arena_used_++ % kRingsPerBlock) * kHistory;
}

inline void Model::offer_read_ahead(const Location& location, std::uint64_t value) {
  const Thread& me = threads_[current_];
  // A `last_load` of another schedule names a load of another location, or none.
  for (std::uint32_t i = location.last_load; i < loads_.size() && loads_[i].location == &location;) {
    const RelaxedLoad& load = loads_[i];
    const bool is_first = load.before >= i;
    i = is_first ? kNever : load.before;
    if (load.thread == current_ || load.value == value) continue;
    if (me.clock[load.thread] >= load.clock) continue;  // it happens before this store
    if (offer_rng_.next_below(++offers_) != 0) continue;
    offer_ = {.is_active = true,
              .loader = load.thread,
              .loader_clock = load.clock,
              .location = location.id,
              .storer = current_,
              .storer_clock = me.clock[current_],
              .value = value};
  }
}

inline void Model::keep_read_ahead(const Location& location, std::uint64_t value) {
  if (location.id != ahead_.location) return;
  const Thread& me = threads_[current_];
  if (me.clock[ahead_.loader] >= ahead_.loader_clock) {
    ahead_state_ = Ahead::kBroken;
  } else if (current_ == ahead_.storer && me.clock[current_] == ahead_.storer_clock && value == ahead_.value) {
    ahead_state_ = Ahead::kKept;
    is_storing_ahead_ = true;
  }
}

inline void Model::collect(Order order, Operation operation, const std::source_location& where) {
  for (const Site& site : sites_) {
    if (site.operation == operation && is_same_place(site.where, where)) return;
  }
  sites_.push_back({where, operation, order});
}

}  // namespace zeta::interleave
