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
#include "zeta/queue/deferred_links.hpp"
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
  static constexpr unsigned deferred = 8;               ///< Far pushes of a thread not linked yet; a power of 2.
  static constexpr std::size_t least_to_defer = 8'192;  ///< In smaller queues every push is linked at once.
  static constexpr std::size_t extra_spares = 256;      ///< Threads that may be stopped in the middle of `update`.
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
///  * In a queue of some size, a key far ahead is not linked into its bucket at once, which the memory would have to
///    fetch first, but by one of its thread's next pushes (DeferredLinks). Until then it stands where every thread
///    sees it: whoever takes an item that is not before the *reach* first brings in what stands there.
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
      (State::kMostNodes - Shape::extra_spares -
       Shape::lanes * (CellPool<Atomic, Shape::lanes>::kMostAtHand + Shape::deferred)) /
      3;

  /// Throws std::invalid_argument unless 1 <= capacity <= kMostCapacity and 1 <= quantum <= horizon. Memory is taken
  /// from the kernel as it is used: at most 96 bytes an item of capacity, 192 more where keys before or beyond the
  /// window fill the rings, and 16 a quantum of the horizon.
  DeadlineQueue(std::size_t capacity, Key quantum_ns, Key horizon_ns)
      : capacity_{checked(capacity, quantum_ns, horizon_ns)},
        quantise_{quantum_ns},
        chunks_{chunks_for(quantum_ns, horizon_ns)},
        at_hand_{std::min(CellPool<Atomic, Shape::lanes>::kMostAtHand, capacity_ / 256)},
        deferring_lanes_{capacity_ >= Shape::least_to_defer ? Shape::lanes - 1 : 0},
        last_home_{capacity_ + Shape::lanes * at_hand_ + deferring_lanes_ * Shape::deferred},
        cells_{1 + last_home_ + 2 * capacity + Shape::extra_spares},
        homes_{cells_, 1, last_home_, at_hand_},
        spares_{cells_, 1 + last_home_, 2 * capacity_ + static_cast<Index>(Shape::extra_spares), at_hand_},
        buckets_{cells_, chunks_},
        deferred_{deferring_lanes_ != 0},
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
    const std::uint64_t number = number_of(key);
    const bool is_placed =
        may_defer(number, lane) ? defer(home, number, lane) : place<true>(home, number, now, lane, lane);
    if (!is_placed) rehome(home, state, key, now, lane);
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
  static constexpr unsigned kBlockBits = kChunkBits - 3;
  static constexpr std::uint64_t kLastNumber = (std::uint64_t{1} << 62U) - 1;

  enum class Where { kNowhere, kBucket, kLate, kAside };

  /// Where the first item was found, and what must still hold when it is taken.
  struct Found {
    Where where;
    typename Ring::Place place;   ///< In a ring.
    typename Buckets::Spot spot;  ///< In a bucket.
    std::uint64_t reach;          ///< As it was before the search: of what is deferred, nothing is earlier.
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

  /// Buckets are pushed to at once, or deferred, by blocks: an eighth of a chunk each.
  static constexpr std::uint64_t block_of(std::uint64_t number) noexcept { return number >> kBlockBits; }

  // --- homes and nodes -----------------------------------------------------------------------------------------------

  [[nodiscard]] bool is_own(Index node) const noexcept { return node <= last_home_; }
  [[nodiscard]] Index home_of(Index node) const noexcept {
    // Relaxed: whoever found the node in a bucket or ring has seen what its maker wrote.
    return is_own(node) ? node : cells_[node].home.load(std::memory_order_relaxed);
  }

  [[nodiscard]] inline Standing standing(Index node, State state) const noexcept;

  /// A free cell for a new item; 0 when full.
  [[nodiscard]] inline Index take_home(std::uint32_t lane) noexcept;

  /// Whether fewer items than `capacity` wait, where the pool does not say: it holds more cells, because threads keep
  /// some. Every so many pushes of a thread come here, and all once fewer places are left than threads may keep.
  [[nodiscard]] [[gnu::noinline]] bool has_room() noexcept;

  /// Drops stale nodes until one of them was a home.
  [[nodiscard]] [[gnu::noinline]] Index take_swept_home(std::uint32_t lane) noexcept;

  /// Ends the item for which `node`, unlinked by this thread, stands: the item is this thread's then. False when the
  /// node is stale; it is given back in either case.
  [[nodiscard]] [[gnu::always_inline]] inline bool claim(Index node, std::uint32_t lane, Entry& entry) noexcept;

  /// As claim, for a node that stands for a home elsewhere.
  [[nodiscard]] [[gnu::noinline]] bool claim_spare(Index node, std::uint32_t lane, Entry& entry) noexcept;

  /// Gives back a stale node that this thread has unlinked.
  [[gnu::noinline]] void release(Index node, std::uint32_t lane) noexcept;

  /// Counts a node that has become stale where it stands, and drops it if it is on top of its bucket.
  inline void leave_behind(Index node, std::uint64_t number, std::uint32_t lane) noexcept;

  /// Drops the top of a stack if it is stale.
  inline bool drop_stale(std::uint64_t number, unsigned stack, std::uint32_t lane) noexcept;

  // --- placing -------------------------------------------------------------------------------------------------------

  /// Puts a node where its number belongs. False when the window left that place behind meanwhile: the node is linked
  /// then, but not where every search finds it. A hop must not rotate the ring, which hops.
  template <bool kMayRotate>
  [[nodiscard]] [[gnu::always_inline]] inline bool place(Index node, std::uint64_t number, Key now, std::uint32_t lane,
                                                         unsigned stack) noexcept;

  /// Makes a new node with `key` stand for the item, whose home was seen in `state`.
  [[nodiscard]] inline Hop hop(Index home, State state, Key key, Key now, std::uint32_t lane, unsigned stack) noexcept;

  /// Places an item again that `place` has linked where not every search finds it, unless somebody has found it.
  [[gnu::noinline]] void rehome(Index home, State state, Key key, Key now, std::uint32_t lane) noexcept;

  // --- what is not linked yet ----------------------------------------------------------------------------------------

  /// Whether the link of a new item may be left to one of this thread's next pushes: it is far ahead, in the window.
  [[nodiscard]] inline bool may_defer(std::uint64_t number, std::uint32_t lane) const noexcept;

  /// Leaves the link to one of this thread's next pushes. False as for `place`.
  [[nodiscard]] [[gnu::noinline]] bool defer(Index home, std::uint64_t number, std::uint32_t lane) noexcept;

  /// Has every bucket before a block pushed to at once from now on, and brings in what was deferred there. Whoever
  /// calls this looks again how far the reach goes: it may have been stopped by a new push, or moved by another thread.
  [[gnu::noinline]] void reach_to(std::uint64_t block, std::uint32_t lane) noexcept;

  // --- the window ----------------------------------------------------------------------------------------------------

  /// Moves the window's start to the chunk before that of `now`, as far as chunks are empty.
  inline void follow(Key now, std::uint32_t lane) noexcept;

  [[gnu::noinline]] void advance(std::uint64_t first, std::uint64_t target, std::uint32_t lane) noexcept;

  // --- the ring aside ------------------------------------------------------------------------------------------------

  /// Moves the items aside that the window has reached into their buckets, and raises the bound to the rest.
  [[gnu::noinline]] void bring_in(Key now, std::uint32_t lane) noexcept;

  /// Moves the first item aside to the end of its ring when the ring grows long, so that the emptied places behind it
  /// can be passed.
  inline void rotate_aside(Key now, std::uint32_t lane) noexcept;

  /// Carries out, for a thread that may be stopped, the last step of its `hop` to `node`.
  inline void help(Index home, State state, Index node) noexcept;

  // --- finding -------------------------------------------------------------------------------------------------------

  enum class Search { kFound, kNone, kAgain };

  /// The common case of `find`: nothing stands late or within reach aside, and one of the window's first chunks, the
  /// one before `now`'s and `now`'s own, holds an item.
  [[nodiscard]] [[gnu::always_inline]] inline bool find_at_once(Found& found) noexcept;

  [[nodiscard]] [[gnu::noinline]] std::optional<Entry> pop_after_search(Key now, bool feasible_first,
                                                                        std::uint32_t lane) noexcept;

  /// The first item that a pop may take; false when the queue is empty.
  [[nodiscard]] inline bool find(Key now, bool feasible_first, std::uint32_t lane, Found& found) noexcept;

  /// Overdue items in the order of their keys, those from before the window first.
  [[nodiscard]] inline Search search_in_order(Key now, std::uint32_t lane, Found& found) noexcept;

  [[nodiscard]] [[gnu::noinline]] Search search_feasible_first(Key now, std::uint32_t lane, Found& found) noexcept;

  /// The first occupied bucket in [from, end).
  [[nodiscard]] [[gnu::noinline]] Search search(std::uint64_t from, std::uint64_t end, Key now, std::uint32_t lane,
                                                Found& found) noexcept;

  /// The first item of the ring of overdue items that still waits.
  [[nodiscard]] [[gnu::noinline]] bool find_late(std::uint32_t lane, Found& found) noexcept;

  /// Nothing is left but what stands aside, if anything: the earliest of it, or false to search again.
  [[nodiscard]] [[gnu::noinline]] bool find_aside(Key now, std::uint32_t lane, Found& found) noexcept;

  [[nodiscard]] bool still_holds(const Found& found) const noexcept {
    return window_.first() == found.first_chunk && aside_bound_.look() == found.aside;
  }

  [[nodiscard]] Key key_of(Index node) const noexcept {
    return cells_[node].key.load(std::memory_order_relaxed);  // whoever found the node has seen what its maker wrote
  }

  /// Takes what was found; false if it has gone or has changed meanwhile.
  [[nodiscard]] [[gnu::noinline]] bool take(const Found& found, std::uint32_t lane, Entry& entry) noexcept;

  [[nodiscard]] [[gnu::always_inline]] bool take_from_bucket(const Found& found, std::uint32_t lane,
                                                             Entry& entry) noexcept {
    const Index node = buckets_.unlink(found.spot, lane, [&]() noexcept { return still_holds(found); });
    return node != 0 && node != Buckets::kRefused && claim(node, lane, entry);
  }

  /// The key of what was found; nothing if it has gone or has changed meanwhile.
  [[nodiscard]] inline std::optional<Key> look(const Found& found, std::uint32_t lane) noexcept;

  // --- sweeping ------------------------------------------------------------------------------------------------------

  /// Counts nodes that have become stale where they stand, or have been dropped; the count before, a signed number.
  inline std::uint64_t note_left_behind(std::int64_t n) noexcept;

  /// Sweeps while more stale nodes than items could wait stand about. So spare nodes never run out: of 2 × capacity,
  /// at most `capacity` stand for items and as many are stale, but for those of unfinished operations.
  inline void sweep_if_due(Key now, std::uint32_t lane, bool must) noexcept;

  /// Drops about `enough` of what cancels and updates have left behind, fewer only if there are no more; how many:
  /// first where that happened lately, then bucket by bucket from where the last sweep ended. Several threads may sweep
  /// at once; one that stops leaves nothing behind that another sweep would not find.
  [[gnu::noinline]] std::size_t sweep(Key now, std::uint32_t lane, std::size_t enough) noexcept;

  /// Sweeps from where the last sweep ended, at most to the window's end.
  [[nodiscard]] inline std::size_t sweep_on(Key now, std::uint32_t lane, std::size_t enough) noexcept;

  void end_epoch(std::uint64_t epoch) noexcept {
    // Relaxed: as in sweep; when it fails, another has ended it.
    (void)sweeps_.compare_exchange_strong(epoch, epoch + 1, std::memory_order_relaxed, std::memory_order_relaxed);
  }

  [[nodiscard]] inline std::size_t sweep_ring(Ring& ring, std::uint32_t lane) noexcept;

  /// Drops the stale nodes on top of a bucket's stacks, and all of the stack that this epoch empties.
  [[nodiscard]] inline std::size_t clean(std::uint64_t number, std::uint64_t epoch, Key now,
                                         std::uint32_t lane) noexcept;

  /// Whether a stale node hangs below the top of a stack. A look without a promise: others move nodes meanwhile.
  [[nodiscard]] inline bool holds_stale(std::uint64_t number, unsigned stack) const noexcept;

  /// Drops the stale nodes of a stack by moving those above them to the bucket's next stack; how many there were. All
  /// sweeps of one epoch move the same way, so that they end.
  [[nodiscard]] inline std::size_t empty_into_next(std::uint64_t number, unsigned stack, std::uint64_t epoch, Key now,
                                                   std::uint32_t lane) noexcept;

  static constexpr std::size_t kSweptAtOnce = 1024;

  const Index capacity_;
  const Quantiser quantise_;
  const std::uint64_t chunks_;
  const Index at_hand_;  ///< Free cells that each thread may keep.
  const Index deferring_lanes_;
  const Index last_home_;  ///< Homes are the cells 1 to this: the capacity, and what threads may keep.
  Cells<Atomic> cells_;    ///< 0: none; then the homes, then the spare nodes.
  CellPool<Atomic, Shape::lanes> homes_;
  CellPool<Atomic, Shape::lanes> spares_;
  CalendarWindow<Atomic> window_;
  Bound aside_bound_;
  Buckets buckets_;
  DeferredLinks<Atomic, Shape::lanes, Shape::deferred> deferred_;
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

#include "zeta/queue/deadline_queue_finding.hpp"
#include "zeta/queue/deadline_queue_nodes.hpp"
#include "zeta/queue/deadline_queue_placing.hpp"
#include "zeta/queue/deadline_queue_reach.hpp"
#include "zeta/queue/deadline_queue_sweeping.hpp"
#include "zeta/queue/deadline_queue_window.hpp"
