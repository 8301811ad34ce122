#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "clock.hpp"
#include "event_log_file.hpp"
#include "live_loop.hpp"
#include "punctual_thread.hpp"
#include "waker.hpp"
#include "zeta/sched/shared_scheduler.hpp"

namespace zeta::runtime {

/// A shared scheduler with a clock, wake-ups, and a thread for timers and the allocation loop.
///
/// The thread runs from `start` to `stop`, never calls out, and holds nothing that anybody else waits for longer than
/// one event takes. Any thread may call anything but `start`, `stop` and the destructor. `start` and `tick` may throw
/// std::bad_alloc the first time, when the loop makes its room.
class Router {
 public:
  Router(const sched::SchedulerConfig& config, std::shared_ptr<Clock> clock, Duration tick_interval,
         ForecastMode forecast = ForecastMode::off)
      : clock_{std::move(clock)}, tick_interval_{tick_interval}, shared_{config}, loop_{forecast} {}
  ~Router() { stop(); }
  Router(const Router&) = delete;
  Router& operator=(const Router&) = delete;

  [[nodiscard]] Instant now() const noexcept { return clock_->now(); }

  /// Writes every event from now on to `path`. Before the first event.
  void log_to(const std::string& path, const std::string& header) {
    log_ = std::make_unique<EventLogWriter>(path, header);
    shared_.set_recorder(log_.get());
  }
  void flush_log() noexcept {
    shared_.with_owner([this](sched::Scheduler&) {
      if (log_) log_->flush();
    });
  }

  // --- events
  // ----------------------------------------------------------------------------------------------------------

  sched::Ticket submit(const sched::Request& request, Instant at) noexcept {
    const sched::Ticket ticket = shared_.submit(request, at);
    after_event();
    return ticket;
  }
  bool first_token(sched::Ticket ticket) noexcept { return after_event(shared_.first_token(ticket, now())); }
  bool complete(sched::Ticket ticket, std::uint32_t output_tokens) noexcept {
    return after_event(shared_.complete(ticket, output_tokens, now()));
  }
  bool fail(sched::Ticket ticket, bool requeue, Outcome outcome) noexcept {
    return after_event(shared_.fail(ticket, requeue, outcome, now()));
  }
  bool cancel(sched::Ticket ticket) noexcept { return after_event(shared_.cancel(ticket, now())); }
  void advance() noexcept { after_event(shared_.advance(now())); }
  /// One round of the allocation loop, now.
  void tick() {
    const Instant at = now();  // before the lock: a clock may call out
    const std::lock_guard lock{loop_mutex_};
    prepare_loop(at);
    do_round(at, at);
  }

  /// What the loop is told, and what it says; see LiveLoop for who may call what.
  [[nodiscard]] LiveLoop<>& loop() noexcept { return loop_; }

  /// Many events in one turn: `feed(Scheduler&, apply)`.
  template <class Feed>
  void batch(Feed&& feed) noexcept {
    shared_.apply_in_turn(feed);
    after_event();
  }

  /// Hands out placements; see SharedScheduler::poll. The waker stays readable while some are left.
  template <class Take>
  std::size_t poll(std::uint8_t channel, std::size_t most, Take&& take, Instant at) noexcept {
    Waker& waker = wakers_[channel];
    waker.clear();
    const std::size_t taken = shared_.poll(channel, most, take, at);
    if (shared_.has_ready_hint(channel)) waker.wake();  // more than `most` were ready
    return taken;
  }

  template <class Visit>
  decltype(auto) with_owner(Visit&& visit) noexcept {
    return shared_.with_owner(visit);
  }

  template <class Visit>
  [[nodiscard]] bool try_with_owner(Visit&& visit) noexcept {
    return shared_.try_with_owner(visit);
  }

  [[nodiscard]] bool has_ready(std::uint8_t channel) const noexcept { return shared_.has_ready_hint(channel); }
  [[nodiscard]] Instant next_timer() const noexcept { return shared_.next_timer_hint(); }
  [[nodiscard]] Waker& waker(std::uint8_t channel) noexcept { return wakers_[channel]; }

  /// The one collector of a channel looks for placements after each of its own calls: those wake it no more, which
  /// saves a system call each; what the thread places still does. Before the first event.
  void set_collects_itself(std::uint8_t channel) noexcept { collects_itself_[channel] = true; }

  /// Wakes every waiter of a channel for good, as after `close`.
  void wake_all() noexcept {
    for (Waker& waker : wakers_) waker.wake();
  }

  // --- the thread
  // ------------------------------------------------------------------------------------------------------

  void start() {
    if (thread_.joinable()) return;
    {
      const Instant at = now();
      const std::lock_guard lock{loop_mutex_};
      prepare_loop(at);
    }
    is_stopping_ = false;
    thread_ = std::thread{[this] { run(); }};
  }

  void stop() noexcept {
    {
      const std::lock_guard lock{mutex_};
      is_stopping_ = true;
    }
    condition_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  /// In a forked child, whose copy of the router must not be used or destroyed: closes its descriptors.
  void abandon() noexcept {
    for (Waker& waker : wakers_) waker.abandon();
  }

  [[nodiscard]] std::uint64_t ticks() const noexcept {
    return ticks_.load(std::memory_order_relaxed);  // a count for people
  }

 private:
  bool after_event(bool result = true, bool is_own_thread = false) noexcept {
    for (std::uint8_t channel = 0; channel < sched::Scheduler::kChannels; ++channel) {
      if (collects_itself_[channel] && !is_own_thread) continue;
      if (shared_.has_ready_hint(channel)) wakers_[channel].wake();
    }
    // Timers earlier than the thread's sleep are rare (a hold or an expiry within a tick): only then is it woken.
    if (to_ns(shared_.next_timer_hint()) < sleeps_until_ns_.load(std::memory_order_relaxed)) {  // a hint; see run
      condition_.notify_one();
    }
    return result;
  }

  void prepare_loop(Instant at) {
    if (loop_.is_prepared()) return;
    // How many models and devices there are stays as it is, so that nobody needs to own them.
    const sched::Fleet* const fleet =
        shared_.with_owner([](sched::Scheduler& scheduler) { return &scheduler.fleet(); });
    loop_.prepare(*fleet, at);
  }

  void do_round(Instant due, Instant at) noexcept {
    loop_.round(shared_, due, at);
    loop_.act(shared_, at);
    ticks_.fetch_add(1, std::memory_order_relaxed);  // a count for people
    after_event(true, true);
  }

  void run() {
    make_punctual();
    Instant next_tick = now() + tick_interval_;
    Instant wakes_at = next_tick;  // a little earlier where there is a net to warm up
    Instant acts_at = kNever;
    std::unique_lock lock{mutex_};
    while (!is_stopping_) {
      const Instant until = std::min({wakes_at, acts_at, std::max(shared_.next_timer_hint(), now())});
      sleeps_until_ns_.store(to_ns(until), std::memory_order_relaxed);  // a hint: a lost one costs at most a tick
      condition_.wait_for(lock, std::max(until - now(), Duration{0}));
      sleeps_until_ns_.store(0, std::memory_order_relaxed);  // awake: needs no waking
      if (is_stopping_) return;
      lock.unlock();
      if (shared_.next_timer_hint() <= now()) {
        shared_.advance(now());
        after_event(true, true);
      }
      {
        const std::lock_guard round{loop_mutex_};
        if (wakes_at < next_tick && wakes_at <= now()) {
          loop_.warm_up();
          wakes_at = next_tick;
          // Asleep, even for this short while, the core would cool down again. Once a second, where there is a net.
          while (now() < next_tick) {
          }
        }
        if (acts_at <= now()) {
          loop_.act(shared_, now());
          after_event(true, true);
        }
        if (const Instant at = now(); at >= next_tick) {
          do_round(next_tick, at);
          next_tick += tick_interval_;
          if (next_tick < now()) next_tick = now() + tick_interval_;  // do not catch up what was missed
          wakes_at = loop_.runs_net_at(next_tick) ? next_tick - kWarmUpLead : next_tick;
        }
        acts_at = loop_.next_due();
      }
      lock.lock();
    }
  }

  /// About what a late wake-up and a net's first runs after a pause take.
  static constexpr Duration kWarmUpLead{300'000};

  std::shared_ptr<Clock> clock_;
  Duration tick_interval_;
  std::unique_ptr<EventLogWriter> log_;
  sched::SharedScheduler<> shared_;
  LiveLoop<> loop_;
  std::mutex loop_mutex_;  ///< For rounds: the thread's, and those that somebody asks for.
  Waker wakers_[sched::Scheduler::kChannels];
  bool collects_itself_[sched::Scheduler::kChannels] = {};
  std::mutex mutex_;
  std::condition_variable condition_;
  bool is_stopping_ = false;
  std::atomic<std::int64_t> sleeps_until_ns_{0};
  std::atomic<std::uint64_t> ticks_{0};
  std::thread thread_;
};

}  // namespace zeta::runtime
