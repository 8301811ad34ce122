#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>

#include "zeta/queue/calendar_buckets.hpp"
#include "zeta/queue/calendar_window.hpp"
#include "zeta/queue/cell_pool.hpp"
#include "zeta/queue/entry.hpp"
#include "zeta/queue/index_ring.hpp"
#include "zeta/queue/lower_bound_word.hpp"
#include "zeta/queue/quantiser.hpp"
#include "zeta/queue/tally.hpp"
#include "zeta/queue/ticket_state.hpp"
#include "zeta/sync/thread_lane.hpp"

namespace zeta::queue {

/// The sizes that are fixed at compile time. Tests take smaller ones, so that rare paths become common.
struct CalendarShape {
  static constexpr unsigned fan_bits = 5;       ///< 2^(3·5) = 32,768 buckets a chunk.
  static constexpr unsigned bucket_stacks = 2;  ///< Stacks a bucket; a power of two.
  static constexpr unsigned fewest_chunks = 8;  ///< A power of two.
  static constexpr unsigned most_chunks = 64;   ///< A power of two.
  static constexpr unsigned lanes = 64;         ///< Threads with free cells and counters of their own.
  static constexpr unsigned generation_bits = 28;
  static constexpr std::size_t extra_spares = 256;  ///< Threads that may be stopped in the middle of `update`.
};

/// A bounded priority queue whose keys are instants, ordered to one quantum; inside a quantum the order is free.
/// **Lock-free in every operation**: a thread stopped at any instruction stops no other, and hides no item but the one
/// that its own unfinished pop has taken.
///
/// When to use: many threads push and take by deadline, and a difference below the quantum does not matter. When not:
/// keys that are no times, or an exact order (PriorityQueue); fewer keys than one a quantum over the horizon make each
/// push announce and each take retire a bucket (choose a coarser quantum).
///
/// A calendar (Brown, "Calendar queues", CACM 1988) of buckets one quantum wide, used in a circle over a window of time
/// that follows `now` and never leaves a waiting item behind. A pop takes from the first bucket that held an item when
/// it began. Around the window:
///  * An item whose key lies before the window goes to a first-in first-out ring that is served before all buckets, so
///    a stream of overdue items starves none of them. An item that becomes overdue while it waits keeps its place.
///  * An item whose key lies beyond the window stands aside in a second ring. Before a pop takes anything not earlier
///    than the earliest of those, it moves those that the window has reached into their buckets. The move *adds* the
///    item to its bucket before it removes it from the ring; so a thread stopped in between hides nothing.
///  * The window's first chunk moves to the one before `now`'s, over empty chunks only, however far; never further, so
///    that a key is before the window only if it was overdue by a chunk or more when it was pushed. A pop that finds
///    nothing but items aside looks through all of them for the earliest.
///
/// `cancel` and `update` decide by one exchange of the ticket's word and are lazy: what they leave in a bucket is
/// dropped at once when it is on top, else when a pop meets it, or by a sweep: a call that finds more left behind than
/// `capacity`, or the queue full, drops about a thousand, which takes it some ten microseconds (amortised O(1)). In a
/// full queue whose items share few quanta, a push after a cancel may have to move the items of a quantum to find it.
///
/// A pop may pass over an item that another thread is moving by `update`, or that an unfinished pop has just taken.
///
/// "Full": `capacity` items wait, those of unfinished operations included. "Empty": no item whose push had returned
/// before the pop began was left when it ended.
template <template <class> class Atomic = std::atomic, class Shape = CalendarShape>
class DeadlineQueue {
  using State = TicketState<Shape::generation_bits>;
  using Buckets = CalendarBuckets<Atomic, Shape::fan_bits, Shape::bucket_stacks>;
  using Bound = LowerBoundWord<Atomic>;
  using Ring = IndexRing<Atomic>;

 public:
  /// What a node's number can name: a home and two spares for each item, and the cells of unfinished operations.
  static constexpr std::size_t kMostCapacity =
      (State::kMostNodes - Shape::extra_spares - Shape::lanes * CellPool<Atomic, Shape::lanes>::kMostAtHand) / 3;

  /// Throws std::invalid_argument unless 1 <= capacity <= kMostCapacity and 1 <= quantum <= horizon. Memory is taken
  /// from the kernel as it is used: at most 96 bytes an item of capacity, 192 more where keys before or beyond the
  /// window fill the rings, and 16 a quantum of the horizon.
  DeadlineQueue(std::size_t capacity, Key quantum_ns, Key horizon_ns)
      : capacity_{checked(capacity, quantum_ns, horizon_ns)},
        quantise_{quantum_ns},
        chunks_{chunks_for(quantum_ns, horizon_ns)},
        at_hand_{std::min(CellPool<Atomic, Shape::lanes>::kMostAtHand, capacity_ / 256)},
        last_home_{capacity_ + Shape::lanes * at_hand_},
        cells_{1 + last_home_ + 2 * capacity + Shape::extra_spares},
        homes_{cells_, 1, last_home_, at_hand_},
        spares_{cells_, 1 + last_home_, 2 * capacity_ + static_cast<Index>(Shape::extra_spares), at_hand_},
        buckets_{cells_, chunks_},
        late_{2 * cells_.size()},
        aside_{2 * cells_.size()} {}

  /// Any thread, lock-free. kNoTicket when full. `now` is the caller's clock; it moves the window, never the order.
  Ticket push(Key key, Item item, Key now, std::uint32_t lane = sync::thread_lane()) noexcept {
    const Index home = take_home(lane);
    if (home == 0) return kNoTicket;
    Cell<Atomic>& cell = cells_[home];
    // Relaxed: published by the cell's link; a stale ticket's exchange fails against the word before and after.
    const State state = State{cell.state.load(std::memory_order_relaxed)}.reborn(home);
    cell.key.store(key, std::memory_order_relaxed);
    cell.item.store(item, std::memory_order_relaxed);
    // E11: who still looks at the cell for its last item sees this one's key with its state.
    cell.state.store(state.word(), std::memory_order_release);
    tally_.came(lane);
    if (!place<true>(home, number_of(key), now, lane, lane)) rehome(home, state, key, now, lane);
    return state.ticket(home);
  }

  /// Any thread, lock-free. Nothing when empty. With `feasible_first`, items due at `now` or later go before overdue
  /// ones, unless one is overdue by more than half the horizon.
  std::optional<Entry> pop(Key now, bool feasible_first = false, std::uint32_t lane = sync::thread_lane()) noexcept {
    Entry entry;
    if (Found found; !feasible_first && find_at_once(found)) [[likely]] {
      if (take_from_bucket(found, lane, entry)) [[likely]]
        return entry;
    }
    return pop_after_search(now, feasible_first, lane);
  }

  /// The key of an item that a pop at `now` might take. Any thread, lock-free.
  [[nodiscard]] std::optional<Key> peek_key(Key now, bool feasible_first = false,
                                            std::uint32_t lane = sync::thread_lane()) noexcept {
    Found found;
    while (find(now, feasible_first, lane, found)) {
      if (const auto key = look(found, lane)) return key;
    }
    return std::nullopt;
  }

  /// Takes the item away for good; false when its ticket is gone. Any thread, lock-free.
  bool cancel(Ticket ticket, std::uint32_t lane = sync::thread_lane()) noexcept {
    const Index home = State::home_of(ticket);
    if (home == 0 || home > last_home_) return false;
    Atomic<std::uint64_t>& at = cells_[home].state;
    std::uint64_t word = at.load(std::memory_order_relaxed);  // checked by the exchange
    for (;;) {
      const State state{word};
      if (!state.is_named_by(ticket)) return false;
      const Index node = state.node();
      const Key key = cells_[node].key.load(std::memory_order_relaxed);  // a hint where to drop the node
      // E11: all that was done with an own cell that hangs nowhere is seen, before it is given back below.
      if (!at.compare_exchange_weak(word, state.ended().word(), std::memory_order_acquire,
                                    std::memory_order_relaxed)) {  // relaxed on failure: only retried
        continue;
      }
      tally_.went(lane);
      if (!state.is_linked()) homes_.give_back(home, lane);
      leave_behind(node, number_of(key), lane);
      sweep_if_due(0, lane, false);
      return true;
    }
  }

  /// Gives the item another key under the same ticket; false when the ticket is gone. A pop that overlaps may still
  /// take it by the old key, or already by the new one even where `update` then finds the ticket gone. Any thread,
  /// lock-free.
  bool update(Ticket ticket, Key key, Key now, std::uint32_t lane = sync::thread_lane()) noexcept {
    const Index home = State::home_of(ticket);
    if (home == 0 || home > last_home_) return false;
    buckets_.prefetch(number_of(key), lane);
    for (;;) {
      // E11: the node that stands for the item is seen.
      const State state{cells_[home].state.load(std::memory_order_acquire)};
      if (!state.is_named_by(ticket)) return false;
      rotate_aside(now, lane);
      const Hop outcome = hop(home, state, key, now, lane, lane);
      sweep_if_due(now, lane, outcome == Hop::kNoSpare);
      if (outcome == Hop::kDone) return true;
    }
  }

  /// As many pushes as rows; the tickets of refused rows are kNoTicket. Returns how many were accepted. The spans are
  /// equally long.
  std::size_t push_many(std::span<const Key> keys, std::span<const Item> items, std::span<Ticket> tickets, Key now,
                        std::uint32_t lane = sync::thread_lane()) noexcept {
    std::size_t accepted = 0;
    for (std::size_t i = 0; i < keys.size(); ++i) {
      tickets[i] = push(keys[i], items[i], now, lane);
      accepted += tickets[i] != kNoTicket ? 1 : 0;
    }
    return accepted;
  }

  /// As many pops as fit the spans, which are equally long; returns how many there were.
  std::size_t pop_many(std::span<Key> keys, std::span<Item> items, Key now, bool feasible_first = false,
                       std::uint32_t lane = sync::thread_lane()) noexcept {
    std::size_t n = 0;
    for (; n < keys.size(); ++n) {
      const auto entry = pop(now, feasible_first, lane);
      if (!entry) break;
      keys[n] = entry->key;
      items[n] = entry->item;
    }
    return n;
  }

  /// Items that wait; exact when no operation is under way.
  [[nodiscard]] std::size_t size() const noexcept { return static_cast<std::size_t>(tally_.left()); }
  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }
  [[nodiscard]] Key quantum_ns() const noexcept { return quantise_.quantum(); }
  /// How far ahead of `now` keys are placed at once; later ones stand aside first.
  [[nodiscard]] Key horizon_ns() const noexcept { return ((chunks_ - 2) << kChunkBits) * quantise_.quantum(); }

  /// Buckets a chunk, the step by which the window moves.
  static constexpr std::uint64_t kChunk = std::uint64_t{1} << Buckets::kChunkBits;

 private:
  static constexpr unsigned kChunkBits = Buckets::kChunkBits;
  static constexpr std::uint64_t kLastNumber = (std::uint64_t{1} << 62U) - 1;

  enum class Where { kNowhere, kBucket, kLate, kAside };

  /// Where the first item was found, and what must still hold when it is taken.
  struct Found {
    Where where;
    typename Ring::Place place;   ///< In a ring.
    typename Buckets::Spot spot;  ///< In a bucket.
    std::uint64_t first_chunk;
    typename Bound::Look aside;
    std::uint64_t moves;  ///< When aside.
  };

  enum class Hop { kDone, kLost, kNoSpare };

  /// What a node is to its home.
  enum class Standing { kStale, kCurrent, kPending };

  // --- numbers of quanta and chunks ----------------------------------------------------------------------------------

  static Index checked(std::size_t capacity, Key quantum_ns, Key horizon_ns) {
    if (capacity == 0 || capacity > kMostCapacity) {
      throw std::invalid_argument("capacity is " + std::to_string(capacity) + "; expected 1 to " +
                                  std::to_string(kMostCapacity) + " items");
    }
    if (quantum_ns == 0 || quantum_ns > horizon_ns) {
      throw std::invalid_argument("quantum_ns is " + std::to_string(quantum_ns) + " and horizon_ns " +
                                  std::to_string(horizon_ns) + "; expected 1 <= quantum_ns <= horizon_ns");
    }
    return static_cast<Index>(capacity);
  }

  /// The horizon, and room for the chunk that `now` is in and the one before it.
  static std::uint64_t chunks_for(Key quantum_ns, Key horizon_ns) noexcept {
    const std::uint64_t wanted = ((horizon_ns / quantum_ns) >> kChunkBits) + 3;
    return std::bit_ceil(
        std::clamp<std::uint64_t>(wanted, Shape::fewest_chunks, static_cast<std::uint64_t>(Shape::most_chunks)));
  }

  [[nodiscard]] std::uint64_t number_of(Key key) const noexcept { return std::min(quantise_(key), kLastNumber); }
  static constexpr std::uint64_t chunk_of(std::uint64_t number) noexcept { return number >> kChunkBits; }

  // --- homes and nodes -----------------------------------------------------------------------------------------------

  [[nodiscard]] bool is_own(Index node) const noexcept { return node <= last_home_; }
  [[nodiscard]] Index home_of(Index node) const noexcept {
    // Relaxed: whoever found the node in a bucket or ring has seen what its maker wrote.
    return is_own(node) ? node : cells_[node].home.load(std::memory_order_relaxed);
  }

  [[nodiscard]] Standing standing(Index node, State state) const noexcept {
    if (!state.is_waiting()) return Standing::kStale;
    if (state.node() == node) return Standing::kCurrent;
    if (is_own(node)) return Standing::kStale;
    // Relaxed: as in home_of. A spare node remembers the state for which it was made.
    const State made_for{cells_[node].item.load(std::memory_order_relaxed)};
    return state.is_still(made_for) ? Standing::kPending : Standing::kStale;
  }

  /// A free cell for a new item; 0 when full.
  [[nodiscard]] Index take_home(std::uint32_t lane) noexcept {
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

  /// Whether fewer items than `capacity` wait, where the pool does not say: it holds more cells, because threads keep
  /// some. Every so many pushes of a thread come here, and all once fewer places are left than threads may keep.
  [[nodiscard]] [[gnu::noinline]] bool has_room() noexcept {
    if (at_hand_ == 0) return true;  // the pool says
    const std::uint64_t waiting = tally_.left();
    const std::uint64_t tight = Shape::lanes * at_hand_ * 2;
    is_tight_.store(waiting + tight >= capacity_ ? 1 : 0, std::memory_order_relaxed);  // a hint, as above
    return waiting < capacity_;
  }

  /// Drops stale nodes until one of them was a home.
  [[nodiscard]] [[gnu::noinline]] Index take_swept_home(std::uint32_t lane) noexcept {
    while (sweep(0, lane, 1) > 0) {
      if (const Index home = homes_.take(lane); home != 0) return home;
    }
    return 0;
  }

  /// Ends the item for which `node`, unlinked by this thread, stands: the item is this thread's then. False when the
  /// node is stale; it is given back in either case.
  [[nodiscard]] [[gnu::always_inline]] bool claim(Index node, std::uint32_t lane, Entry& entry) noexcept {
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

  /// As claim, for a node that stands for a home elsewhere.
  [[nodiscard]] [[gnu::noinline]] bool claim_spare(Index node, std::uint32_t lane, Entry& entry) noexcept {
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

  /// Gives back a stale node that this thread has unlinked.
  [[gnu::noinline]] void release(Index node, std::uint32_t lane) noexcept {
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

  /// Counts a node that has become stale where it stands, and drops it if it is on top of its bucket.
  void leave_behind(Index node, std::uint64_t number, std::uint32_t lane) noexcept {
    const std::uint64_t before = note_left_behind(1);
    if (chunk_of(number) - window_.first() >= chunks_) return;  // it is in a ring
    // Only this thread's stack: a look at another costs more than it finds.
    if (buckets_.top(number, lane).cell() == node && drop_stale(number, lane, lane)) return;
    left_at_[before % left_at_.size()].store(number + 1, std::memory_order_relaxed);  // a hint for sweeps
  }

  /// Drops the top of a stack if it is stale.
  bool drop_stale(std::uint64_t number, unsigned stack, std::uint32_t lane) noexcept {
    const auto top = buckets_.top(number, stack);
    const Index node = top.cell();
    if (node == 0) return false;
    // Relaxed: a node that is stale where it stands stays so, and the exchange says whether it still stands there.
    const State state{cells_[home_of(node)].state.load(std::memory_order_relaxed)};
    if (standing(node, state) != Standing::kStale || !buckets_.drop(number, stack, top)) return false;
    release(node, lane);
    return true;
  }

  // --- placing -------------------------------------------------------------------------------------------------------

  /// Puts a node where its number belongs. False when the window left that place behind meanwhile: the node is linked
  /// then, but not where every search finds it. A hop must not rotate the ring, which hops.
  template <bool kMayRotate>
  [[nodiscard]] [[gnu::always_inline]] bool place(Index node, std::uint64_t number, Key now, std::uint32_t lane,
                                                  unsigned stack) noexcept {
    const std::uint64_t chunk = chunk_of(number);
    std::uint64_t first = window_.first();
    if (chunk - first >= chunks_ && chunk > first) {
      follow(now);
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

  /// Makes a new node with `key` stand for the item, whose home was seen in `state`.
  [[nodiscard]] Hop hop(Index home, State state, Key key, Key now, std::uint32_t lane, unsigned stack) noexcept {
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

  /// Places an item again that `place` has linked where not every search finds it, unless somebody has found it.
  [[gnu::noinline]] void rehome(Index home, State state, Key key, Key now, std::uint32_t lane) noexcept {
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

  // --- the window ----------------------------------------------------------------------------------------------------

  /// Moves the window's start to the chunk before that of `now`, as far as chunks are empty.
  void follow(Key now) noexcept {
    const std::uint64_t chunk = chunk_of(number_of(now));
    const std::uint64_t first = window_.first();
    if (chunk > first + 1) advance(first, chunk - 1);
  }

  [[gnu::noinline]] void advance(std::uint64_t first, std::uint64_t target) noexcept {
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

  // --- the ring aside ------------------------------------------------------------------------------------------------

  /// Moves the items aside that the window has reached into their buckets, and raises the bound to the rest.
  [[gnu::noinline]] void bring_in(Key now, std::uint32_t lane) noexcept {
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

  /// Moves the first item aside to the end of its ring when the ring grows long, so that the emptied places behind it
  /// can be passed.
  void rotate_aside(Key now, std::uint32_t lane) noexcept {
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

  /// Carries out, for a thread that may be stopped, the last step of its `hop` to `node`.
  void help(Index home, State state, Index node) noexcept {
    std::uint64_t word = state.word();
    // E12: as in hop.
    moves_.fetch_add(1, std::memory_order_release);
    // E11: as in hop.
    (void)cells_[home].state.compare_exchange_strong(word, state.moved_to(node).word(), std::memory_order_release,
                                                     std::memory_order_relaxed);  // relaxed on failure: looked at again
  }

  // --- finding -------------------------------------------------------------------------------------------------------

  enum class Search { kFound, kNone, kAgain };

  /// The common case of `find`: nothing stands late or within reach aside, and one of the window's first chunks, the
  /// one before `now`'s and `now`'s own, holds an item.
  [[nodiscard]] [[gnu::always_inline]] bool find_at_once(Found& found) noexcept {
    found.first_chunk = window_.first();
    found.aside = aside_bound_.look();
    return late_.is_empty() && found.first_chunk + 1 < found.aside.bound() &&
           buckets_.find_in_two(found.first_chunk, found.spot);
  }

  [[nodiscard]] [[gnu::noinline]] std::optional<Entry> pop_after_search(Key now, bool feasible_first,
                                                                        std::uint32_t lane) noexcept {
    Entry entry;
    for (Found found; find(now, feasible_first, lane, found);) {
      if (take(found, lane, entry)) return entry;
    }
    return std::nullopt;
  }

  /// The first item that a pop may take; false when the queue is empty.
  [[nodiscard]] bool find(Key now, bool feasible_first, std::uint32_t lane, Found& found) noexcept {
    std::uint64_t moves = 0;
    for (bool was_empty = false;;) {
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

  /// Overdue items in the order of their keys, those from before the window first.
  [[nodiscard]] Search search_in_order(Key now, std::uint32_t lane, Found& found) noexcept {
    if (!late_.is_empty() && find_late(lane, found)) [[unlikely]]
      return Search::kFound;
    const std::uint64_t first = found.first_chunk;
    return search(first << kChunkBits, (first + chunks_) << kChunkBits, now, lane, found);
  }

  [[nodiscard]] [[gnu::noinline]] Search search_feasible_first(Key now, std::uint32_t lane, Found& found) noexcept {
    follow(now);
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

  /// The first occupied bucket in [from, end).
  [[nodiscard]] [[gnu::noinline]] Search search(std::uint64_t from, std::uint64_t end, Key now, std::uint32_t lane,
                                                Found& found) noexcept {
    found.where = Where::kBucket;
    if (!buckets_.find(from, end, found.spot)) return Search::kNone;
    const std::uint64_t chunk = chunk_of(found.spot.number);
    if (chunk > found.first_chunk) {
      follow(now);
      if (window_.first() != found.first_chunk) return Search::kAgain;
    }
    if (chunk < found.aside.bound()) [[likely]]
      return Search::kFound;
    bring_in(now, lane);
    return Search::kAgain;
  }

  /// The first item of the ring of overdue items that still waits.
  [[nodiscard]] [[gnu::noinline]] bool find_late(std::uint32_t lane, Found& found) noexcept {
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

  /// Nothing is left but what stands aside, if anything: the earliest of it, or false to search again.
  [[nodiscard]] [[gnu::noinline]] bool find_aside(Key now, std::uint32_t lane, Found& found) noexcept {
    follow(now);
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

  [[nodiscard]] bool still_holds(const Found& found) const noexcept {
    return window_.first() == found.first_chunk && aside_bound_.look() == found.aside;
  }

  [[nodiscard]] Key key_of(Index node) const noexcept {
    return cells_[node].key.load(std::memory_order_relaxed);  // whoever found the node has seen what its maker wrote
  }

  /// Takes what was found; false if it has gone or has changed meanwhile.
  [[nodiscard]] [[gnu::noinline]] bool take(const Found& found, std::uint32_t lane, Entry& entry) noexcept {
    if (found.where != Where::kBucket) [[unlikely]] {
      // Relaxed: a hop that ended before the search began was seen by it.
      if (found.where == Where::kAside && moves_.load(std::memory_order_relaxed) != found.moves) return false;
      if (!(found.where == Where::kLate ? late_ : aside_).remove(found.place)) return false;
      return claim(found.place.index(), lane, entry);
    }
    return take_from_bucket(found, lane, entry);
  }

  [[nodiscard]] [[gnu::always_inline]] bool take_from_bucket(const Found& found, std::uint32_t lane,
                                                             Entry& entry) noexcept {
    const Index node = buckets_.unlink(found.spot, lane, [&]() noexcept { return still_holds(found); });
    return node != 0 && node != Buckets::kRefused && claim(node, lane, entry);
  }

  /// The key of what was found; nothing if it has gone or has changed meanwhile.
  [[nodiscard]] std::optional<Key> look(const Found& found, std::uint32_t lane) noexcept {
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

  // --- sweeping ------------------------------------------------------------------------------------------------------

  /// Counts nodes that have become stale where they stand, or have been dropped; the count before, a signed number.
  std::uint64_t note_left_behind(std::int64_t n) noexcept {
    // Relaxed: a hint; nothing is read by it.
    return left_behind_.fetch_add(static_cast<std::uint64_t>(n), std::memory_order_relaxed);
  }

  /// Sweeps while more stale nodes than items could wait stand about. So spare nodes never run out: of 2 × capacity,
  /// at most `capacity` stand for items and as many are stale, but for those of unfinished operations.
  void sweep_if_due(Key now, std::uint32_t lane, bool must) noexcept {
    // Relaxed: a hint, as above.
    const auto stale = static_cast<std::int64_t>(left_behind_.load(std::memory_order_relaxed));
    if (must || stale > std::int64_t{capacity_}) [[unlikely]]
      (void)sweep(now, lane, kSweptAtOnce);
  }

  /// Drops about `enough` of what cancels and updates have left behind, fewer only if there are no more; how many:
  /// first where that happened lately, then bucket by bucket from where the last sweep ended. Several threads may sweep
  /// at once; one that stops leaves nothing behind that another sweep would not find.
  [[gnu::noinline]] std::size_t sweep(Key now, std::uint32_t lane, std::size_t enough) noexcept {
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

  /// Sweeps from where the last sweep ended, at most to the window's end.
  [[nodiscard]] std::size_t sweep_on(Key now, std::uint32_t lane, std::size_t enough) noexcept {
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

  void end_epoch(std::uint64_t epoch) noexcept {
    // Relaxed: as in sweep; when it fails, another has ended it.
    (void)sweeps_.compare_exchange_strong(epoch, epoch + 1, std::memory_order_relaxed, std::memory_order_relaxed);
  }

  [[nodiscard]] std::size_t sweep_ring(Ring& ring, std::uint32_t lane) noexcept {
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

  /// Drops the stale nodes on top of a bucket's stacks, and all of the stack that this epoch empties.
  [[nodiscard]] std::size_t clean(std::uint64_t number, std::uint64_t epoch, Key now, std::uint32_t lane) noexcept {
    std::size_t dropped = 0;
    for (unsigned stack = 0; stack < Shape::bucket_stacks; ++stack) {
      while (drop_stale(number, stack, lane)) ++dropped;
    }
    const auto stack = static_cast<unsigned>(epoch) & (Shape::bucket_stacks - 1);
    return dropped + (holds_stale(number, stack) ? empty_into_next(number, stack, epoch, now, lane) : 0);
  }

  /// Whether a stale node hangs below the top of a stack. A look without a promise: others move nodes meanwhile.
  [[nodiscard]] bool holds_stale(std::uint64_t number, unsigned stack) const noexcept {
    Index node = buckets_.top(number, stack).cell();
    for (Index steps = 0; node != 0 && steps < capacity_; ++steps) {
      // Relaxed: as all of this look.
      const State state{cells_[home_of(node)].state.load(std::memory_order_relaxed)};
      if (standing(node, state) == Standing::kStale) return true;
      node = cells_[node].next.load(std::memory_order_relaxed);  // a look without a promise
    }
    return false;
  }

  /// Drops the stale nodes of a stack by moving those above them to the bucket's next stack; how many there were. All
  /// sweeps of one epoch move the same way, so that they end.
  [[nodiscard]] std::size_t empty_into_next(std::uint64_t number, unsigned stack, std::uint64_t epoch, Key now,
                                            std::uint32_t lane) noexcept {
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

  static constexpr std::size_t kSweptAtOnce = 1024;

  const Index capacity_;
  const Quantiser quantise_;
  const std::uint64_t chunks_;
  const Index at_hand_;    ///< Free cells that each thread may keep.
  const Index last_home_;  ///< Homes are the cells 1 to this: the capacity, and what threads may keep.
  Cells<Atomic> cells_;    ///< 0: none; then the homes, then the spare nodes.
  CellPool<Atomic, Shape::lanes> homes_;
  CellPool<Atomic, Shape::lanes> spares_;
  CalendarWindow<Atomic> window_;
  Bound aside_bound_;
  Buckets buckets_;
  Ring late_;   ///< Keys before the window, first in first out.
  Ring aside_;  ///< Keys beyond the window, in no order.
  Tally<Atomic, Shape::lanes> tally_;
  alignas(kNoFalseSharing) Atomic<std::uint64_t> moves_{0};
  alignas(kNoFalseSharing) Atomic<std::uint64_t> left_behind_{0};  ///< Stale nodes not yet dropped; a signed number.
  Atomic<std::uint32_t> is_tight_{0};                              ///< Whether pushes count the items.
  Atomic<std::uint64_t> sweeps_{0};
  Atomic<std::uint64_t> swept_to_{0};                ///< The bucket at which the next sweep begins.
  std::array<Atomic<std::uint64_t>, 64> left_at_{};  ///< Buckets where nodes were left behind lately, + 1.
};

}  // namespace zeta::queue
