#pragma once
// A deterministic model of threads and of the C++ memory model, for small lock-free programs.

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <source_location>
#include <string>
#include <type_traits>
#include <vector>

#include "interleave/fiber.hpp"
#include "interleave/model_parts.hpp"
#include "zeta/core/rng.hpp"

namespace zeta::interleave {

/// Runs virtual threads one atomic step at a time, and answers their loads. One at a time is `current()`.
///
/// **Schedules.** Every atomic operation is a scheduling point. Half of the seeds preempt at random (mean distance 2 to
/// 17 steps); half use priorities and at most four change points (PCT: Burckhardt, Kothari, Musuvathi, Nagarakatte,
/// ASPLOS 2010), a thread that spins 400 steps giving way.
///
/// **Memory.** An operational form of C++20 release/acquire, as in Relacy (Vyukov) and CDSChecker (Norris, Demsky,
/// OOPSLA 2013). Vector clocks are happens-before. A location keeps its stores in modification order, each with the
/// clock its release sequence carries and, per thread, when that thread first saw it. A load may read any store that is
/// not older than one which something that happens before the load has read or written (the four coherence rules);
/// acquire joins the store's clock; a read-modify-write reads the newest store and continues its release sequence
/// (C++20: only read-modify-writes continue one). A failing compare-exchange is a load; weak ones also fail at random.
///
/// seq_cst: the total order S of [atomics.order] is the order of execution; a seq_cst load reads no store older than
/// the newest that a seq_cst operation on the location has written or read, which is what "coherence-ordered before
/// agrees with S" asks without fences. seq_cst operations on different locations do not synchronise with each other,
/// here as in the standard (a global view joined by all of them would hide missing acquires).
///
/// A plain store goes to the end of the modification order, or before stores of others that nothing which happens
/// before it has read or written (2+2W), though never between a read-modify-write and what that read.
///
/// **Fewer executions than the standard's, so some faults pass unseen:** at most one load of a schedule reads a store
/// that runs later (below), and no acquire does; the total order S follows execution; a read is among the newest
/// kHistory stores. There are no fences.
///
/// **Reading ahead.** A relaxed load may take its value from a store that another thread makes later, when the load
/// does not happen before it (load buffering: a compiler or an ARM core moves the load down). A schedule that offers
/// such a pair is run again, with the load giving that value; it counts only if the store is then made with the same
/// value, and nothing that the load happens before touched the location in between. This is what a missing release
/// after reads ("I am done with the slot") looks like. The value being the same in both runs rules out one made from
/// thin air.
class Model {
 public:
  /// Which stores a load may read: the newest only (interleavings of one memory), or all that C++ allows.
  enum class Memory : std::uint8_t { kInterleaving, kWeak, kBySeed };

  Model() {
    for (Thread& thread : threads_) thread.fiber = std::make_unique<Fiber>(&Model::entry);
  }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  ~Model() {
    if (current_model() == this) current_model() = nullptr;
  }

  static Model*& current_model() noexcept {
    static Model* model = nullptr;
    return model;
  }

  // --- for who drives schedules (explore.hpp, freeze.hpp, mutation.hpp) ---

  /// Begins the schedule that `seed` names. All model atomics of the schedule are made after this.
  void begin(std::uint64_t seed, Memory memory) {
    current_model() = this;
    for (const Undo& undo : journal()) {
      undo.location->ring = nullptr;
      undo.location->initial = undo.initial;
    }
    journal().clear();
    epoch_ = ++epochs();
    seed_ = seed;
    Rng seeds{seed};
    schedule_rng_ = Rng{seeds.next_u64()};
    for (Thread& thread : threads_) thread.rng = Rng{seeds.next_u64()};
    const bool is_weak_by_seed = (seeds.next_u64() & 1U) != 0;
    is_weak_ = memory == Memory::kWeak || (memory == Memory::kBySeed && is_weak_by_seed);
    is_pct_ = (seeds.next_u64() & 1U) != 0;
    stale_of_8_ = (seeds.next_u64() & 1U) != 0 ? 4 : 1;
    may_read_ahead_ = (seeds.next_u64() & 1U) != 0 && is_weak_;
    offer_rng_ = Rng{seeds.next_u64()};
    offers_ = 0;
    mean_turn_ = 2 + schedule_rng_.next_below(16);
    pct_length_ = 16ULL << schedule_rng_.next_below(5);
    pct_changes_ = 1 + schedule_rng_.next_below(4);
    for (Thread& thread : threads_) {
      thread.clock = {};
      thread.steps = 0;
    }
    known_ = {};
    arena_used_ = 0;
    locations_ = 0;
    steps_ = 0;
    stamps_ = 0;
    current_ = kMain;
    failure_.clear();
    is_frozen_ = false;
    has_run_ = false;
    trace_.clear();
    loads_.clear();
    offer_ = {};
    ahead_state_ = ahead_.is_active ? Ahead::kWaiting : Ahead::kOff;
  }

  /// In the next schedules' first `run`, thread `thread` stops for ever before its atomic step number `step` (from 0).
  /// With `is_alone` it runs until then before any other.
  void freeze(std::size_t thread, std::uint64_t step, bool is_alone) {
    freeze_ = {.is_active = true, .thread = thread, .step = step, .is_alone = is_alone};
  }
  void thaw() { freeze_ = {}; }
  [[nodiscard]] bool has_frozen() const { return is_frozen_; }
  /// Where the frozen thread stands.
  [[nodiscard]] const std::source_location& frozen_at() const { return frozen_at_; }

  void weaken(const Weakening& weakening) {
    weakening_ = weakening;
    is_weakened_ = true;
  }
  void strengthen() { is_weakened_ = false; }

  void collect_sites(bool is_on) { is_collecting_ = is_on; }
  [[nodiscard]] const std::vector<Site>& sites() const { return sites_; }

  void keep_trace(bool is_on) { is_tracing_ = is_on; }
  [[nodiscard]] const std::vector<std::string>& trace() const { return trace_; }

  void limit_steps(std::uint64_t steps) { step_limit_ = steps; }

  /// After a schedule: whether the same seed can be run again with a load reading ahead.
  [[nodiscard]] bool offers_read_ahead() const { return offer_.is_active; }
  void read_ahead() { ahead_ = offer_; }
  void read_no_further() { ahead_ = {}; }
  /// A schedule whose predicted value did not come is none of the standard's, whatever it found.
  [[nodiscard]] bool is_void() const {
    return ahead_state_ == Ahead::kWaiting || ahead_state_ == Ahead::kRead || ahead_state_ == Ahead::kBroken;
  }

  [[nodiscard]] std::uint64_t seed() const { return seed_; }
  [[nodiscard]] std::uint64_t steps() const { return steps_; }
  [[nodiscard]] bool is_weak() const { return is_weak_; }
  [[nodiscard]] const std::string& failure() const { return failure_; }

  // --- for scenarios ---

  /// Runs the callables as virtual threads 0, 1, … until all have returned (or are frozen). What ran before is known to
  /// all of them. False once the schedule has failed: the steps ran out, so some thread spins for ever.
  template <class... Callables>
  bool run(Callables&&... callables) {
    static_assert(sizeof...(Callables) >= 1 && sizeof...(Callables) <= kMaxThreads);
    std::size_t count = 0;
    ((threads_[count++].body = {[](void* self) { (*static_cast<std::remove_reference_t<Callables>*>(self))(); },
                                const_cast<void*>(static_cast<const void*>(std::addressof(callables)))}),
     ...);
    const bool is_done = run_threads(count);
    for (Thread& thread : threads_) thread.body = {};
    return is_done;
  }

  // --- for the history: a moment, and what happens before it ---

  static constexpr std::size_t kMain = kMaxThreads;
  [[nodiscard]] std::size_t current_thread() const { return current_; }
  [[nodiscard]] std::uint64_t next_stamp() { return ++stamps_; }
  [[nodiscard]] Clock clock() const { return current_ == kMain ? known_ : threads_[current_].clock; }

  // --- for ModelAtomic ---

  std::uint32_t next_location() noexcept { return is_building_ ? reused_locations()++ : locations_++; }

  /// Between the two, what is made and written belongs to a subject that outlives the schedule: `begin` puts every
  /// atomic of it that a schedule has written back to the value it had here. All that such a subject changes must be
  /// atomic. See Reused.
  void begin_building() { is_building_ = true; }
  void end_building() { is_building_ = false; }

  Order effective(Order order, Operation operation, const std::source_location& where) {
    if (is_collecting_ && order != kRelaxed) collect(order, operation, where);
    if (is_weakened_ && weakening_.operation == operation && is_same_place(weakening_.where, where)) {
      return static_cast<Order>(order & ~weakening_.dropped);
    }
    return order;
  }

  /// The scheduling point before an operation. Another thread may run meanwhile; a frozen one does not come back.
  void step(const std::source_location& where) {
    if (current_ == kMain) return;
    Thread& me = threads_[current_];
    if (freeze_.is_active && !has_run_ && freeze_.thread == current_ && me.steps == freeze_.step) stop_for_ever(where);
    if (++steps_ > step_limit_) give_up();
    ++me.steps;
    if (--countdown_ == 0) preempt();
    ++me.clock[current_];
  }

  std::uint64_t load(Location& location, Order order) {
    if (current_ == kMain) return location.ring == nullptr ? location.initial : location.at(location.count - 1).value;
    if (may_read_ahead_ && order == kRelaxed && ahead_state_ == Ahead::kWaiting && is_load_ahead(location)) {
      ahead_state_ = Ahead::kRead;
      return ahead_.value;
    }
    if (ahead_state_ == Ahead::kRead) touch_before_kept(location);
    const std::uint64_t value =
        location.ring == nullptr ? location.initial : read(location, choose(location, order), order);
    if (may_read_ahead_ && order == kRelaxed && ahead_state_ == Ahead::kOff) {
      loads_.push_back({&location, threads_[current_].clock[current_], static_cast<std::uint32_t>(current_), value,
                        location.last_load});
      location.last_load = static_cast<std::uint32_t>(loads_.size() - 1);
    }
    return value;
  }

  void store(Location& location, std::uint64_t value, Order order) {
    if (current_ == kMain) {
      touch(location);
      location.ring = nullptr;
      location.initial = value;
      return;
    }
    open(location);
    append(location, value, (order & kRelease) != 0 ? threads_[current_].clock : Clock{}, order, false);
  }

  /// Reads the newest store and puts `change(value)` after it; returns what it read.
  template <class Change>
  std::uint64_t read_modify_write(Location& location, Order order, Change change) {
    if (current_ == kMain) {
      const std::uint64_t old = load(location, order);
      store(location, change(old), order);
      return old;
    }
    open(location);
    const std::uint32_t newest = location.count - 1;
    const Clock continued = location.at(newest).released;
    const std::uint64_t old = read(location, newest, order);
    Clock released = continued;
    if ((order & kRelease) != 0) join(released, threads_[current_].clock);
    append(location, change(old), released, order, true);
    return old;
  }

  /// `expected` becomes what was read when it differs or when a weak one fails at random.
  bool compare_exchange(Location& location, std::uint64_t& expected, std::uint64_t desired, Order success,
                        Order failure, bool is_weak) {
    if (current_ == kMain) {
      const std::uint64_t old = load(location, success);
      if (old != expected) {
        expected = old;
        return false;
      }
      store(location, desired, success);
      return true;
    }
    open(location);
    const std::uint32_t newest = location.count - 1;
    const std::uint32_t chosen = choose(location, failure);
    if (location.at(chosen).value != expected) {
      expected = read(location, chosen, failure);
      return false;
    }
    if (location.at(newest).value != expected) {
      expected = read(location, newest, failure);
      return false;
    }
    if (is_weak && is_weak_ && threads_[current_].rng.next_below(32) == 0) {
      expected = read(location, newest, failure);
      return false;
    }
    read_modify_write(location, success, [&](std::uint64_t) { return desired; });
    return true;
  }

  [[nodiscard]] bool is_tracing() const { return is_tracing_; }
  void note(const std::string& line) {
    trace_.push_back((current_ == kMain ? std::string("main") : "T" + std::to_string(current_)) + "  " + line);
  }

 private:
  struct Body {
    void (*call)(void*) = nullptr;
    void* self = nullptr;
  };
  struct Thread {
    std::unique_ptr<Fiber> fiber;
    Body body;
    Clock clock{};
    std::uint64_t steps = 0;
    std::uint64_t priority = 0;
    Rng rng{0};
    bool is_running = false;
  };
  struct Freeze {
    bool is_active = false;
    std::size_t thread = 0;
    std::uint64_t step = 0;
    bool is_alone = false;
  };
  /// A load and a later store of another thread that it could have read.
  struct Offer {
    bool is_active = false;
    std::size_t loader = 0;
    std::uint32_t loader_clock = 0;
    std::uint32_t location = 0;
    std::size_t storer = 0;
    std::uint32_t storer_clock = 0;
    std::uint64_t value = 0;
  };
  struct RelaxedLoad {
    const Location* location;
    std::uint32_t clock;
    std::uint32_t thread;
    std::uint64_t value;
    std::uint32_t before;  // the location's load before this one
  };
  enum class Ahead : std::uint8_t { kOff, kWaiting, kRead, kKept, kBroken };

  // --- threads ---

  static void entry();

  bool run_threads(std::size_t count);

  bool is_runnable(std::size_t t) const {
    return threads_[t].is_running && !(is_frozen_ && t == freeze_.thread && !has_run_);
  }

  std::size_t next_thread();

  void begin_turn();

  void preempt();

  void leave();

  void finish() {
    threads_[current_].is_running = false;
    --live_;
    leave();
  }

  void stop_for_ever(const std::source_location& where);

  void give_up() {
    failure_ = "no end after " + std::to_string(step_limit_) + " steps: some thread waits for another for ever";
    Fiber::swap(*threads_[current_].fiber, main_);
  }

  // --- subjects that are reused ---

  struct Undo {
    Location* location;
    std::uint64_t initial;
  };
  static std::vector<Undo>& journal() {
    static std::vector<Undo> undos;
    return undos;
  }
  static std::uint32_t& epochs() {
    static std::uint32_t count = 0;
    return count;
  }
  static std::uint32_t& reused_locations() {
    static std::uint32_t next = kReusedIds;
    return next;
  }

  void touch(Location& location) {
    if (location.id < kReusedIds || location.epoch == epoch_ || is_building_) return;
    location.epoch = epoch_;
    journal().push_back({&location, location.initial});
  }

  // --- memory ---

  void open(Location& location);

  static bool is_seen(const Store& store, const Clock& clock) noexcept {
    bool seen = false;
    for (std::size_t t = 0; t < kMaxThreads; ++t) seen |= store.seen[t] <= clock[t];
    return seen;
  }

  /// The oldest store that the running thread may still read.
  std::uint32_t oldest_for(const Location& location, const Clock& clock) const;

  std::uint32_t choose(const Location& location, Order order);

  /// Where a store goes in the modification order: usually last, now and then before stores that nothing orders it
  /// against. Returns its index; the stores behind it have moved up by one.
  std::uint32_t make_room(Location& location, Order order, bool is_change);

  std::uint64_t read(Location& location, std::uint32_t index, Order order);

  void append(Location& location, std::uint64_t value, const Clock& released, Order order, bool is_change);

  Store* allocate();

  // --- reading ahead ---

  /// Of the pairs that a schedule holds, one is kept, each with the same chance.
  void offer_read_ahead(const Location& location, std::uint64_t value);

  bool is_load_ahead(const Location& location) const {
    return ahead_.loader == current_ && ahead_.location == location.id &&
           ahead_.loader_clock == threads_[current_].clock[current_];
  }

  /// Another access to the location between the load and the store it reads: coherence may forbid it, so it ends here.
  void touch_before_kept(const Location& location) {
    if (location.id == ahead_.location && threads_[current_].clock[ahead_.loader] >= ahead_.loader_clock) {
      ahead_state_ = Ahead::kBroken;
    }
  }

  void keep_read_ahead(const Location& location, std::uint64_t value);

  void collect(Order order, Operation operation, const std::source_location& where);

  static constexpr std::uint64_t kSpinSteps = 400;

  std::array<Thread, kMaxThreads> threads_;
  Fiber main_;
  std::size_t current_ = kMain;
  std::size_t live_ = 0;
  std::uint64_t countdown_ = 0;
  std::uint64_t steps_ = 0;
  std::uint64_t step_limit_ = 20'000;
  std::uint64_t stamps_ = 0;
  std::uint64_t seed_ = 0;
  Rng schedule_rng_{0};
  Rng offer_rng_{0};  // chooses among pairs to read ahead
  std::uint64_t mean_turn_ = 2;
  std::uint64_t pct_length_ = 0;
  std::uint64_t pct_changes_ = 0;
  std::uint64_t changes_left_ = 0;
  std::uint64_t next_low_priority_ = 0;
  std::uint64_t stale_of_8_ = 4;
  bool is_pct_ = false;
  bool is_weak_ = false;
  bool may_read_ahead_ = false;
  bool is_held_ = false;
  bool has_run_ = false;
  std::string failure_;

  Clock known_{};  // of main: what all finished threads did
  std::vector<std::unique_ptr<Store[]>> arena_;
  std::size_t arena_used_ = 0;
  std::uint32_t locations_ = 0;
  std::uint32_t epoch_ = 0;
  bool is_building_ = false;

  Freeze freeze_;
  bool is_frozen_ = false;
  std::source_location frozen_at_;

  Weakening weakening_{};
  bool is_weakened_ = false;
  bool is_collecting_ = false;
  std::vector<Site> sites_;

  std::vector<RelaxedLoad> loads_;
  Offer offer_;
  Offer ahead_;
  std::uint64_t offers_ = 0;
  Ahead ahead_state_ = Ahead::kOff;
  bool is_storing_ahead_ = false;

  bool is_tracing_ = false;
  std::vector<std::string> trace_;
};

}  // namespace zeta::interleave

#include "interleave/model_memory.hpp"
#include "interleave/model_threads.hpp"
