#pragma once

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "zeta/core/cacheline.hpp"
#include "zeta/sched/apply.hpp"
#include "zeta/sched/events.hpp"
#include "zeta/sched/scheduler.hpp"
#include "zeta/sync/index_stack.hpp"

namespace zeta::sched {

/// Takes down every event as it is applied, in order. Called by the owner only.
class EventRecorder {
 public:
  virtual ~EventRecorder() = default;
  virtual void record(const EventRecord& event, std::uint64_t hash_after) noexcept = 0;
};

/// One Scheduler for many threads.
///
/// Placement has one owner at a time. `submit`, `first_token`, `complete`, `fail` and `cancel` never wait for it: where
/// another thread owns the scheduler the event is posted to an inbox, and the owner applies it before it leaves (it
/// looks again after releasing its flag, so no event is left lying). Posting is lock-free while fewer than `kInbox`
/// events are under way; beyond that the poster waits for its turn. `poll` and the questions take their turn: they
/// wait, microseconds, for an owner that runs.
///
/// Results of posted events are not yet known: they report true, and `outcome` tells the truth later.
template <template <class> class Atomic = std::atomic>
class SharedScheduler {
 public:
  static constexpr std::uint32_t kInbox = 4096;

  explicit SharedScheduler(const SchedulerConfig& config)
      : scheduler_{config}, posted_(kInbox), free_posts_{kInbox}, inbox_{kInbox} {
    for (std::uint32_t i = kInbox; i-- > 0;) free_posts_.push(i);
  }

  /// Before the first event.
  void set_recorder(EventRecorder* recorder) noexcept { recorder_ = recorder; }

  Ticket submit(const Request& request, Instant now) noexcept {
    EventRecord event = make(EventKind::submit, scheduler_.reserve(), now);
    event.request = request;
    apply_or_post(event);
    return event.ticket;
  }
  bool first_token(Ticket ticket, Instant now) noexcept {
    return apply_or_post(make(EventKind::first_token, ticket, now));
  }
  bool complete(Ticket ticket, std::uint32_t output_tokens, Instant now) noexcept {
    EventRecord event = make(EventKind::complete, ticket, now);
    event.output_tokens = output_tokens;
    return apply_or_post(event);
  }
  bool fail(Ticket ticket, bool requeue, Outcome outcome, Instant now) noexcept {
    EventRecord event = make(EventKind::fail, ticket, now);
    event.requeue = requeue;
    event.outcome = outcome;
    return apply_or_post(event);
  }
  bool cancel(Ticket ticket, Instant now) noexcept { return apply_or_post(make(EventKind::cancel, ticket, now)); }
  bool advance(Instant now) noexcept { return apply_or_post(make(EventKind::advance, {}, now)); }
  bool tick(Instant now) noexcept { return apply_or_post(make(EventKind::tick, {}, now)); }

  /// Hands out up to `most` placements of a channel, in the order of their decision: `take(Placement)` for each.
  template <class Take>
  std::size_t poll(std::uint8_t channel, std::size_t most, Take&& take, Instant now) noexcept {
    const Turn turn{*this};
    std::size_t count = 0;
    while (count < most) {
      const std::optional<Placement> placement = scheduler_.next_placement(channel);
      if (!placement) break;
      if (recorder_ != nullptr) {
        EventRecord event = make(EventKind::hand_out, placement->ticket, now);
        event.channel = channel;
        recorder_->record(event, scheduler_.hash().value());
      }
      take(*placement);
      ++count;
    }
    return count;
  }

  /// As the owner: `visit(Scheduler&)` between events. Waits for its turn. What visit does to the scheduler beyond
  /// draining placements is not recorded; use `apply` for events.
  template <class Visit>
  decltype(auto) with_owner(Visit&& visit) noexcept {
    const Turn turn{*this};
    return visit(scheduler_);
  }

  /// As with_owner, but waits only as long as an event takes, not as long as a batch. False: nothing was visited.
  template <class Visit>
  [[nodiscard]] bool try_with_owner(Visit&& visit) noexcept {
    for (int tries = 0; !try_own(); ++tries) {
      if (tries == kPatience) return false;
    }
    drain();
    visit(scheduler_);
    leave();
    return true;
  }

  /// Applies events in one turn: `feed(apply)` calls `apply(EventRecord)` for each. For batches and rare events.
  template <class Feed>
  void apply_in_turn(Feed&& feed) noexcept {
    const Turn turn{*this};
    feed(scheduler_, [this](EventRecord& event) { return apply(event); });
  }

  /// Without ownership; a hint.
  [[nodiscard]] Instant next_timer_hint() const noexcept {
    return instant_from_ns(next_timer_ns_.load(std::memory_order_relaxed));  // a hint; the loop looks again every tick
  }
  [[nodiscard]] bool has_ready_hint(std::uint8_t channel) const noexcept {
    // E82: acquire, pairs with the owner's store on leaving; what was placed before it is then found in its turn.
    return (ready_hint_.load(std::memory_order_acquire) >> channel) & 1U;
  }

  static EventRecord make(EventKind kind, Ticket ticket, Instant now) noexcept {
    EventRecord event;
    event.kind = kind;
    event.ticket = ticket;
    event.now = now;
    return event;
  }

 private:
  /// Ownership for a scope; on the way in and out everything posted is applied.
  class Turn {
   public:
    explicit Turn(SharedScheduler& shared) noexcept : shared_{shared} {
      for (int spins = 0; !shared_.try_own(); ++spins) {
        if (spins > 64) sched_yield();
      }
      shared_.drain();
    }
    ~Turn() { shared_.leave(); }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    SharedScheduler& shared_;
  };

  bool apply_or_post(EventRecord event) noexcept {
    if (try_own()) {
      drain();
      const bool result = apply(event);
      leave();
      return result;
    }
    const std::uint32_t post = free_posts_.pop();
    if (post == kNone) {
      const Turn turn{*this};
      return apply(event);
    }
    posted_[post] = event;
    inbox_.push(post);
    if (try_own()) leave();  // the owner may have looked at the inbox before the push: then it is ours to empty
    return true;
  }

  [[nodiscard]] bool try_own() noexcept {
    // E80: acquire, pairs with the release in leave: the previous owner's changes are seen. E81: seq_cst, against
    // leave.
    return !is_owned_.exchange(true, std::memory_order_seq_cst);
  }

  /// Applies what was posted meanwhile, releases, and looks once more: an event posted between the last look and the
  /// release found the flag taken, and is found here.
  void leave() noexcept {
    do {
      drain();
      publish_hints();
      // E80: release of all changes to the next owner. E81: seq_cst store before a seq_cst look at the inbox, while a
      // poster pushes before it looks at the flag; one of the two sees the other.
      is_owned_.store(false, std::memory_order_seq_cst);
    } while (!inbox_.is_empty() && try_own());
  }

  /// Applies what was posted, oldest first.
  void drain() noexcept {
    std::size_t count = 0;
    for (std::uint32_t post = inbox_.take_all(); post != kNone; post = inbox_.below(post)) order_[count++] = post;
    while (count > 0) {  // the stack holds the latest on top
      const std::uint32_t post = order_[--count];
      EventRecord event = posted_[post];
      free_posts_.push(post);
      (void)apply(event);
    }
  }

  void publish_hints() noexcept {
    next_timer_ns_.store(to_ns(scheduler_.next_timer()), std::memory_order_relaxed);  // a hint
    const unsigned ready =
        (scheduler_.has_ready(0) ? 1U : 0U) | (scheduler_.has_ready(1) || scheduler_.has_ended() ? 2U : 0U);
    // E82: release, pairs with has_ready_hint.
    ready_hint_.store(ready, std::memory_order_release);
  }

  bool apply(EventRecord& event) noexcept {
    event.now = last_now_ = std::max(last_now_, event.now);  // posted events may be older than the owner's last
    const bool result = apply_event(scheduler_, event);
    if (recorder_ != nullptr) recorder_->record(event, scheduler_.hash().value());
    return result;
  }

  static constexpr int kPatience = 1'000;  ///< Tries, some tens of microseconds.
  static constexpr std::uint32_t kNone = sync::IndexStack<Atomic>::kNull;

  Scheduler scheduler_;
  EventRecorder* recorder_ = nullptr;
  Instant last_now_{};
  std::vector<EventRecord> posted_;
  std::vector<std::uint32_t> order_ = std::vector<std::uint32_t>(kInbox);
  sync::IndexStack<Atomic> free_posts_;
  sync::IndexStack<Atomic> inbox_;
  alignas(kNoFalseSharing) Atomic<bool> is_owned_{false};
  Atomic<std::int64_t> next_timer_ns_{to_ns(kNever)};
  Atomic<unsigned> ready_hint_{0};
};

}  // namespace zeta::sched
