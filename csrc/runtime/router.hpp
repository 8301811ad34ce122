#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "clock.hpp"
#include "event_log_file.hpp"
#include "waker.hpp"
#include "zeta/sched/shared_scheduler.hpp"

namespace zeta::runtime {

/// A shared scheduler with a clock, wake-ups, and a thread for timers and allocation ticks.
///
/// The thread runs from `start` to `stop`, never calls out, and holds nothing that anybody else waits for longer than
/// one event takes. Any thread may call anything but `start`, `stop` and the destructor.
class Router {
 public:
  Router(const sched::SchedulerConfig& config, std::shared_ptr<Clock> clock, Duration tick_interval)
      : clock_{std::move(clock)}, tick_interval_{tick_interval}, shared_{config} {}
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
  void tick() noexcept { after_event(shared_.tick(now())); }

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

  /// Wakes every waiter of a channel for good, as after `close`.
  void wake_all() noexcept {
    for (Waker& waker : wakers_) waker.wake();
  }

  // --- the thread
  // ------------------------------------------------------------------------------------------------------

  void start() {
    if (thread_.joinable()) return;
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
  bool after_event(bool result = true) noexcept {
    for (std::uint8_t channel = 0; channel < sched::Scheduler::kChannels; ++channel) {
      if (shared_.has_ready_hint(channel)) wakers_[channel].wake();
    }
    // Timers earlier than the thread's sleep are rare (a hold or an expiry within a tick): only then is it woken.
    if (to_ns(shared_.next_timer_hint()) < sleeps_until_ns_.load(std::memory_order_relaxed)) {  // a hint; see run
      condition_.notify_one();
    }
    return result;
  }

  void run() {
    Instant next_tick = now() + tick_interval_;
    std::unique_lock lock{mutex_};
    while (!is_stopping_) {
      const Instant until = std::min(next_tick, std::max(shared_.next_timer_hint(), now()));
      sleeps_until_ns_.store(to_ns(until), std::memory_order_relaxed);  // a hint: a lost one costs at most a tick
      condition_.wait_for(lock, std::max(until - now(), Duration{0}));
      sleeps_until_ns_.store(0, std::memory_order_relaxed);  // awake: needs no waking
      if (is_stopping_) return;
      lock.unlock();
      if (shared_.next_timer_hint() <= now()) advance();
      if (now() >= next_tick) {
        tick();
        ticks_.fetch_add(1, std::memory_order_relaxed);  // a count for people
        next_tick += tick_interval_;
        if (next_tick < now()) next_tick = now() + tick_interval_;  // do not catch up what was missed
      }
      lock.lock();
    }
  }

  std::shared_ptr<Clock> clock_;
  Duration tick_interval_;
  std::unique_ptr<EventLogWriter> log_;
  sched::SharedScheduler<> shared_;
  Waker wakers_[sched::Scheduler::kChannels];
  std::mutex mutex_;
  std::condition_variable condition_;
  bool is_stopping_ = false;
  std::atomic<std::int64_t> sleeps_until_ns_{0};
  std::atomic<std::uint64_t> ticks_{0};
  std::thread thread_;
};

}  // namespace zeta::runtime
