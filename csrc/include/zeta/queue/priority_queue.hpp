#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <vector>

#include "zeta/core/cacheline.hpp"
#include "zeta/core/huge_pages.hpp"
#include "zeta/queue/entry.hpp"
#include "zeta/queue/entry_heap.hpp"
#include "zeta/queue/inbox.hpp"
#include "zeta/queue/slot_pool.hpp"
#include "zeta/queue/slot_set.hpp"
#include "zeta/queue/slot_state.hpp"
#include "zeta/sync/index_stack.hpp"
#include "zeta/sync/thread_lane.hpp"
#include "zeta/sync/try_lock.hpp"

namespace zeta::queue {

/// A bounded priority queue for any number of threads, exact on any 64-bit key, with tickets to cancel and re-key by.
///
/// When to use: the order must be exact, producers must never wait, and one or a few threads take. When not to use:
/// keys are instants and many threads take at once; a DeadlineQueue lets them.
///
/// How: a push fills a slot of a slab and leaves it in its thread's lane of an inbox. Takers enter one at a time, move
/// what lies in the lanes into a heap of 16-byte entries, and take its top. Cancel and update only exchange the slot's
/// state; the heap drops entries that have gone stale when they reach the top, or all at once when it is full of them.
/// The idea is PIPQ's (DISC 2025, arXiv 2508.16023), with one heap for all.
///
/// Order: a pop returns the least key among all whose push or update returned before the pop began. Equal keys leave
/// first in, first out per producer; between producers their order is free. An update puts its item behind its equals.
///
/// Progress:
///  * push, push_many: wait-free while at most 63 threads use the queue; from there on threads share one lane, where
///    they are lock-free. A push that finds no slot tries to enter for cancelled ones, and does not wait to.
///  * cancel, update: lock-free; no thread that is stopped in any call holds them up. (Of the keys of unfinished
///  updates
///    there is room for one per slot and kSpareRekeys; beyond that many stopped updaters, an update would wait.)
///  * pop, pop_many, peek_key: exclude each other by a lock that waits. A taker stopped inside stops other takers and
///    nobody else, and while it is, slots whose items were cancelled before they were filed do not come back.
///
/// Full: one thread alone pushes exactly `capacity` items. With more, a push is refused only if, during it, every slot
/// held an item or was in the hands of another call.
///
/// `lane` is the caller's thread: two threads at once must not pass the same lane below kLanes - 1.
/// A ticket is the slot's generation and number; it is mistaken for a later one after 2^kGenerationBits - 1 reuses of
/// its slot. kSerialBits is smaller in tests only.
template <template <class> class Atomic = std::atomic, unsigned kGenerationBits = 32, unsigned kSerialBits = 64>
class PriorityQueue {
 public:
  static constexpr std::size_t kLanes = Inbox<Atomic>::kLanes;
  static constexpr std::size_t kSpareRekeys = 1024;
  static constexpr std::size_t kMaxCapacity = std::size_t{1} << 29U;

  /// Throws std::invalid_argument unless 1 <= capacity <= kMaxCapacity.
  explicit PriorityQueue(std::size_t capacity)
      : slots_(checked(capacity)),
        slot_bits_{static_cast<unsigned>(std::bit_width(capacity - 1))},
        serial_end_{(~std::uint64_t{0} >> (64U - std::min(64U - slot_bits_, kSerialBits)))},
        pool_{capacity, kLanes},
        rekeyed_{capacity},
        rekeys_(capacity + kSpareRekeys),
        free_rekeys_{static_cast<std::uint32_t>(capacity + kSpareRekeys)},
        heap_{2 * capacity + 64} {
    for (auto i = static_cast<std::uint32_t>(rekeys_.size()); i-- > 0;) free_rekeys_.push(i);
  }
  PriorityQueue(const PriorityQueue&) = delete;
  PriorityQueue& operator=(const PriorityQueue&) = delete;

  /// kNoTicket when full.
  Ticket push(Key key, Item item, std::size_t lane = sync::thread_lane()) noexcept {
    lane = own_lane(lane);
    const Index slot = claim(lane);
    if (slot == kNull) return kNoTicket;
    const Ticket ticket = fill(slot, key, item);
    post(lane, slot, slot, 1);
    return ticket;
  }

  /// Pushes rows in order until the queue is full; rows beyond have kNoTicket. How many were taken. The shortest of the
  /// three spans says how many rows there are. The rows appear all at once.
  std::size_t push_many(std::span<const Key> keys, std::span<const Item> items, std::span<Ticket> tickets,
                        std::size_t lane = sync::thread_lane()) noexcept {
    lane = own_lane(lane);
    const std::size_t rows = std::min({keys.size(), items.size(), tickets.size()});
    Index first = kNull;
    Index last = kNull;
    std::size_t taken = 0;
    for (; taken < rows; ++taken) {
      const Index slot = claim(lane);
      if (slot == kNull) break;
      tickets[taken] = fill(slot, keys[taken], items[taken]);
      slots_[slot].place.store(last, std::memory_order_relaxed);  // published by post
      if (first == kNull) first = slot;
      last = slot;
    }
    std::fill(tickets.begin() + static_cast<std::ptrdiff_t>(taken), tickets.begin() + static_cast<std::ptrdiff_t>(rows),
              kNoTicket);
    if (taken > 0) post(lane, first, last, static_cast<std::uint32_t>(taken));
    return taken;
  }

  /// The least, or nothing when empty.
  [[nodiscard]] std::optional<Entry> pop(std::size_t lane = sync::thread_lane()) noexcept {
    lane = own_lane(lane);
    lock_.lock();
    file_posted(lane);
    const Taken taken = take_least(lane);
    lock_.unlock();
    if (taken.slot == kNull) return std::nullopt;
    return end(taken, lane);
  }

  /// Fills as many rows as the shorter span has or the queue holds, least first. How many.
  [[nodiscard]] std::size_t pop_many(std::span<Key> keys, std::span<Item> items,
                                     std::size_t lane = sync::thread_lane()) noexcept {
    lane = own_lane(lane);
    const std::size_t rows = std::min(keys.size(), items.size());
    std::size_t row = 0;
    lock_.lock();
    file_posted(lane);
    for (; row < rows; ++row) {
      const Taken taken = take_least(lane);
      if (taken.slot == kNull) break;
      const Entry entry = end(taken, lane);
      keys[row] = entry.key;
      items[row] = entry.item;
    }
    lock_.unlock();
    return row;
  }

  /// The least key now. Waits for takers as a pop does.
  [[nodiscard]] std::optional<Key> peek_key(std::size_t lane = sync::thread_lane()) noexcept {
    lane = own_lane(lane);
    lock_.lock();
    file_posted(lane);
    std::optional<Key> least_key;
    if (const Found least = find_least(lane); least.slot != kNull) least_key = least.key;
    lock_.unlock();
    return least_key;
  }

  /// Withdraws what the ticket names. False when it has been taken or withdrawn already. The slot comes back at once if
  /// its item was filed, else when the next taker, or a push that finds the queue full, files it.
  bool cancel(Ticket ticket, std::size_t lane = sync::thread_lane()) noexcept {
    const Index slot = slot_of(ticket);
    if (slot >= slots_.size()) return false;
    lane = own_lane(lane);
    std::uint64_t word = slots_[slot].state.load(std::memory_order_relaxed);  // a guess; the exchange decides
    for (;;) {
      const State state = State::of(word);
      if (!is_alive(state, ticket)) return false;
      const bool is_filed = state.where == Where::filed;
      const State ended = is_filed ? state.next() : state.with(Where::cancelled);
      // E31: the slot as the taker left it, before others may claim it. E32: the waiting key is this thread's.
      // Relaxed on failure: only looked at and retried.
      if (slots_[slot].state.compare_exchange_weak(word, ended.word(), std::memory_order_acquire,
                                                   std::memory_order_relaxed)) {
        cancelled_[lane].count.fetch_add(1, std::memory_order_relaxed);  // a count
        if (state.has_rekey()) free_rekeys_.push(state.rekey);
        if (is_filed) pool_.give(slot, lane);
        return true;
      }
    }
  }

  /// Gives what the ticket names another key, behind its equals. False when it has been taken or withdrawn already.
  bool update(Ticket ticket, Key key) noexcept {
    const Index slot = slot_of(ticket);
    if (slot >= slots_.size()) return false;
    std::uint64_t word = slots_[slot].state.load(std::memory_order_relaxed);  // a guess; the exchange decides
    if (!is_alive(State::of(word), ticket)) return false;
    const std::uint32_t rekey = claim_rekey();
    rekeys_[rekey].store(key, std::memory_order_relaxed);  // published by the exchange below
    for (;;) {
      const State state = State::of(word);
      if (!is_alive(state, ticket)) {
        free_rekeys_.push(rekey);
        return false;
      }
      // E32: publishes the waiting key; the one that it replaces is this thread's. Relaxed on failure: only retried.
      if (slots_[slot].state.compare_exchange_weak(word, state.with_rekey(rekey).word(), std::memory_order_acq_rel,
                                                   std::memory_order_relaxed)) {
        if (state.has_rekey()) free_rekeys_.push(state.rekey);
        if (state.where == Where::filed) rekeyed_.add(slot);  // a posted slot will be looked at anyway
        return true;
      }
    }
  }

  /// How many items wait. Any thread, wait-free; exact when nothing else runs.
  [[nodiscard]] std::size_t size() const noexcept {
    std::uint32_t gone = taken_.load(std::memory_order_relaxed);                             // a count
    for (const auto& each : cancelled_) gone += each.count.load(std::memory_order_relaxed);  // a count
    const auto left = static_cast<std::int32_t>(inbox_.posted() - gone);
    return std::min(static_cast<std::size_t>(std::max(left, 0)), capacity());
  }

  [[nodiscard]] std::size_t capacity() const noexcept { return slots_.size(); }

 private:
  using Index = std::uint32_t;
  using State = SlotState<kGenerationBits>;
  static constexpr Index kNull = SlotPool<Atomic>::kNull;
  static_assert(kNull == Inbox<Atomic>::kNull && kNull == sync::IndexStack<Atomic>::kNull, "one word for no slot");
  static constexpr std::uint32_t kLooksBeforeForgetting = 4096;
  static_assert(kMaxCapacity + kSpareRekeys < State::kNoRekey, "a state word can name every waiting key");

  struct Slot {
    Atomic<std::uint64_t> state{State{1, State::kNoRekey, Where::free}.word()};
    Atomic<Key> key{0};  ///< Until the slot is filed; then its entry has it.
    Atomic<Item> item{0};
    /// While posted: the slot posted before it. While filed: the reference of its one entry in the heap that counts.
    Atomic<std::uint64_t> place{0};
  };
  static_assert(sizeof(Atomic<std::uint64_t>) != 8 || sizeof(Slot) == 32, "two slots share a cache line");

  struct alignas(kNoFalseSharing) Count {
    Atomic<std::uint32_t> count{0};
  };
  // Words and not structures of parts: parts that are stored one by one and loaded together make the core wait.
  struct Found {
    Key key;
    Index slot;          ///< kNull if nothing was found.
    std::uint64_t word;  ///< The slot's state when its entry was found to count.
  };
  struct Taken {
    Key key;
    Index slot;          ///< kNull if nothing was taken.
    std::uint64_t word;  ///< The slot's state before.
  };
  static constexpr std::uint64_t kNoWord = 0;  ///< No state has generation 0.

  [[nodiscard]] static std::size_t checked(std::size_t capacity) {
    if (capacity >= 1 && capacity <= kMaxCapacity) return capacity;
    throw std::invalid_argument{"PriorityQueue: capacity must be between 1 and 2^29"};
  }
  [[nodiscard]] static std::size_t own_lane(std::size_t lane) noexcept { return std::min(lane, kLanes - 1); }
  [[nodiscard]] static Index slot_of(Ticket ticket) noexcept { return static_cast<Index>(ticket); }
  [[nodiscard]] static Ticket ticket_of(State state, Index slot) noexcept {
    return (static_cast<Ticket>(state.generation) << 32U) | slot;
  }
  [[nodiscard]] static bool is_alive(State state, Ticket ticket) noexcept {
    return state.is_waiting() && state.generation == static_cast<std::uint32_t>(ticket >> 32U);
  }

  // Pushing.

  [[nodiscard]] Index claim(std::size_t lane) noexcept {
    const Index slot = pool_.claim(lane);
    return slot != kNull ? slot : claim_after_filing(lane);
  }

  /// Filing frees the slots whose items were cancelled before.
  [[nodiscard]] [[gnu::noinline]] Index claim_after_filing(std::size_t lane) noexcept {
    if (!lock_.try_lock()) return kNull;
    file_posted(lane);
    lock_.unlock();
    return pool_.claim(lane);
  }

  /// Makes a claimed slot hold an item.
  [[nodiscard]] Ticket fill(Index slot, Key key, Item item) noexcept {
    Slot& filled = slots_[slot];
    filled.key.store(key, std::memory_order_relaxed);    // published by post, as the rest
    filled.item.store(item, std::memory_order_relaxed);  // as above
    const State state = State::of(filled.state.load(std::memory_order_relaxed)).with(Where::posted);  // claimed: ours
    filled.state.store(state.word(), std::memory_order_relaxed);                                      // as above
    return ticket_of(state, slot);
  }

  void post(std::size_t lane, Index first, Index last, std::uint32_t count) noexcept {
    inbox_.post(lane, first, last, count, [this](Index from, Index below) {
      slots_[from].place.store(below, std::memory_order_relaxed);  // published by the inbox's exchange (E25)
    });
  }

  // Updating.

  [[nodiscard]] std::uint32_t claim_rekey() noexcept {
    std::uint32_t rekey = free_rekeys_.pop();
    while (rekey == sync::IndexStack<Atomic>::kNull) rekey = free_rekeys_.pop();
    return rekey;
  }

  // Filing: with the lock held.

  [[gnu::always_inline]] void file_posted(std::size_t lane) noexcept {
    heap_.prefetch();
    const auto take = [this, lane](typename Inbox<Atomic>::Chain chain) { file_chain(chain, lane); };
    const std::uint32_t looks = looks_.load(std::memory_order_relaxed) + 1;  // the taker's
    looks_.store(looks, std::memory_order_relaxed);                          // as above
    if (looks % kLooksBeforeForgetting == 0) {
      inbox_.empty_and_forget_idle(lane, take);
    } else {
      inbox_.empty(lane, take);
    }
    if (rekeyed_.has_any()) {
      refile_all(lane);
    }
  }

  [[gnu::noinline]] void refile_all(std::size_t lane) noexcept {
    rekeyed_.empty([this, lane](Index slot) { refile(slot, lane); });
  }

  /// Files from the last posted to the first, with serials that say the opposite.
  [[gnu::always_inline]] void file_chain(typename Inbox<Atomic>::Chain chain, std::size_t lane) noexcept {
    std::uint64_t serial = claim_serials(chain.count, lane) + chain.count;
    for (Index slot = chain.last; slot != kNull;) {
      // The lane was emptied by this thread (E25); once filed, the slot may be another's.
      const auto below = static_cast<Index>(slots_[slot].place.load(std::memory_order_relaxed));
      if (below != kNull) __builtin_prefetch(&slots_[below]);
      file(slot, --serial, lane);
      slot = below;
    }
  }

  /// Puts a posted slot's entry into the heap, or frees the slot if it was cancelled meanwhile.
  [[gnu::always_inline]] void file(Index slot, std::uint64_t serial, std::size_t lane) noexcept {
    Slot& filed = slots_[slot];
    Key entry_key = filed.key.load(std::memory_order_relaxed);  // posted: the taker's
    const std::uint64_t reference = reference_to(slot, serial);
    filed.place.store(reference, std::memory_order_relaxed);  // as above
    const std::uint64_t before = leave_posted(slot, lane, [](State state) { return state.with(Where::filed); });
    if (before == kNoWord) return;
    // From here on the slot may be another's; then the entry is stale.
    if (State::of(before).has_rekey()) [[unlikely]]
      entry_key = take_rekey(State::of(before));
    add_entry({entry_key, reference});
  }

  /// Gives a filed slot with a waiting key a new entry; its old one is stale from now on.
  [[gnu::noinline]] void refile(Index slot, std::size_t lane) noexcept {
    const std::uint64_t before = exchange_state(
        slot, [](State state) { return state.where == Where::filed && state.has_rekey(); },
        [](State state) { return state.with(Where::posted); });
    if (before == kNoWord) return;
    slots_[slot].key.store(take_rekey(State::of(before)), std::memory_order_relaxed);  // posted: the taker's
    file(slot, claim_serials(1, lane), lane);
  }

  /// Moves a posted slot on and says what its state was; or frees it and says kNoWord, if it was cancelled.
  template <class Next>
  [[nodiscard]] std::uint64_t leave_posted(Index slot, std::size_t lane, Next&& next) noexcept {
    const std::uint64_t before = exchange_state(slot, [](State state) { return state.where == Where::posted; }, next);
    if (before != kNoWord) [[likely]]
      return before;
    const State cancelled = State::of(state_of(slot));
    slots_[slot].state.store(cancelled.next().word(), std::memory_order_relaxed);  // nobody else changes it any more
    pool_.give(slot, lane);
    return kNoWord;
  }

  /// Changes a slot's state to `next(state)` if it is one that `may(state)` allows. What it was, or kNoWord.
  template <class May, class Next>
  [[nodiscard]] std::uint64_t exchange_state(Index slot, May&& may, Next&& next) noexcept {
    std::uint64_t word = state_of(slot);
    while (may(State::of(word))) {
      // E31: hands the slot to whoever ends it. E32: a waiting key is this thread's. Relaxed on failure: only retried.
      if (slots_[slot].state.compare_exchange_weak(word, next(State::of(word)).word(), std::memory_order_acq_rel,
                                                   std::memory_order_relaxed)) {
        return word;
      }
    }
    return kNoWord;
  }

  [[nodiscard]] Key take_rekey(State state) noexcept {
    const Key waiting = rekeys_[state.rekey].load(std::memory_order_relaxed);  // seen by the exchange that detached it
    free_rekeys_.push(state.rekey);
    return waiting;
  }

  // The heap: with the lock held.

  [[nodiscard]] std::uint64_t reference_to(Index slot, std::uint64_t serial) const noexcept {
    return (serial << slot_bits_) | slot;
  }
  [[nodiscard]] Index slot_of_entry(HeapEntry entry) const noexcept {
    return static_cast<Index>(entry.reference & ((std::uint64_t{1} << slot_bits_) - 1));
  }

  /// Whether an entry is the one that counts for its slot, whose state word is given. While the slot stays filed only
  /// the taker changes its place; when it does not, exchanging the state fails.
  [[nodiscard]] bool counts(HeapEntry entry, std::uint64_t word) const noexcept {
    return State::of(word).where == Where::filed &&
           slots_[slot_of_entry(entry)].place.load(std::memory_order_relaxed) == entry.reference;  // see above
  }

  [[nodiscard]] std::uint64_t state_of(Index slot) const noexcept {
    return slots_[slot].state.load(std::memory_order_relaxed);  // a guess; whoever acts on it exchanges it
  }

  /// What the heap does with an entry that comes near the top.
  [[nodiscard]] auto prefetch_slot() noexcept {
    return [this](HeapEntry near) { __builtin_prefetch(&slots_[slot_of_entry(near)]); };
  }

  void add_entry(HeapEntry entry) noexcept {
    if (heap_.is_full()) drop_stale();
    heap_.push(entry, prefetch_slot());
  }

  /// Leaves at most one entry per slot: fewer than half of what the heap holds.
  [[gnu::noinline]] void drop_stale() noexcept {
    heap_.filter([this](HeapEntry entry) { return counts(entry, state_of(slot_of_entry(entry))); });
  }

  /// The first of `count` new serials.
  [[nodiscard]] std::uint64_t claim_serials(std::uint32_t count, std::size_t lane) noexcept {
    if (serial_end_ - next_serial_.load(std::memory_order_relaxed) < count) renumber(lane);  // the taker's
    const std::uint64_t first = next_serial_.load(std::memory_order_relaxed);                // as above
    next_serial_.store(first + count, std::memory_order_relaxed);                            // as above
    return first;
  }

  /// Serials have run out: gives all entries new ones from 0 on in their order.
  [[gnu::noinline]] void renumber(std::size_t lane) noexcept {
    drop_stale();
    heap_.sort();
    for (std::size_t at = 0; at < heap_.size(); ++at) {
      const HeapEntry entry = heap_[at];
      const Index slot = slot_of_entry(entry);
      const std::uint64_t reference = reference_to(slot, at);
      heap_.set_reference(at, reference);
      const auto is_of_entry = [&](State state) { return counts(entry, state.word()); };
      const auto posted = [](State state) { return State{state.generation, state.rekey, Where::posted}; };
      const auto filed = [](State state) { return State{state.generation, state.rekey, Where::filed}; };
      if (exchange_state(slot, is_of_entry, posted) == kNoWord) continue;
      slots_[slot].place.store(reference, std::memory_order_relaxed);  // posted: the taker's
      const std::uint64_t before = leave_posted(slot, lane, filed);
      if (before != kNoWord && State::of(before).has_rekey())
        rekeyed_.add(slot);  // its updater may have seen it posted and left it to us
    }
    next_serial_.store(heap_.size(), std::memory_order_relaxed);  // the taker's
  }

  [[nodiscard]] [[gnu::always_inline]] Found find_least(std::size_t lane) noexcept {
    while (heap_.size() > 0) {
      const HeapEntry entry = heap_.top(prefetch_slot());
      const Index slot = slot_of_entry(entry);
      const std::uint64_t word = state_of(slot);
      if (!counts(entry, word)) {
        heap_.pop();
      } else if (State::of(word).has_rekey()) {
        refile(slot, lane);
      } else {
        return {entry.key, slot, word};
      }
    }
    return {0, kNull, kNoWord};
  }

  [[nodiscard]] [[gnu::always_inline]] Taken take_least(std::size_t lane) noexcept {
    for (;;) {
      const Found least = find_least(lane);
      if (least.slot == kNull) return {0, kNull, kNoWord};
      std::uint64_t word = least.word;
      // Who ends the item is all that this decides; the lock or the inbox (E25) has shown the slot already.
      if (slots_[least.slot].state.compare_exchange_strong(word, State::of(word).next().word(),
                                                           std::memory_order_relaxed, std::memory_order_relaxed)) {
        heap_.pop();
        taken_.store(taken_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);  // the taker's; a count
        return {least.key, least.slot, least.word};
      }
    }
  }

  /// Reads an item that this thread has taken, and frees its slot.
  [[nodiscard]] Entry end(const Taken& taken, std::size_t lane) noexcept {
    const Item taken_item = slots_[taken.slot].item.load(std::memory_order_relaxed);  // see take_least
    pool_.give(taken.slot, lane);
    return {taken.key, taken_item, ticket_of(State::of(taken.word), taken.slot)};
  }

  LargeVector<Slot> slots_;
  unsigned slot_bits_;
  std::uint64_t serial_end_;  ///< Above the last serial; with all bits set a reference would be the heap's own.
  SlotPool<Atomic> pool_;
  SlotSet<Atomic> rekeyed_;  ///< Filed slots with a key waiting.
  std::vector<Atomic<Key>> rekeys_;
  sync::IndexStack<Atomic> free_rekeys_;
  Count cancelled_[kLanes];
  Inbox<Atomic> inbox_;
  // The taker's, on the line of the lock that lets it in.
  alignas(kNoFalseSharing) sync::TryLock<Atomic> lock_;
  Atomic<std::uint32_t> looks_{0};
  EntryHeap<Atomic> heap_;
  Atomic<std::uint64_t> next_serial_{0};
  Atomic<std::uint32_t> taken_{0};
};

}  // namespace zeta::queue
