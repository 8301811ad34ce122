#pragma once
// Stops a computation that takes too long, from another thread.

#include <sys/timerfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <system_error>
#include <thread>
#include <utility>

#include "runtime/clock.hpp"
#include "zeta/core/time.hpp"
#include "zeta/sync/try_lock.hpp"

namespace zeta::runtime {

/// Calls `expire` on a thread of its own when the time between `begin` and `end` exceeds a limit.
///
/// One thread calls `begin` and `end` in turn; each is a system call that arms or disarms a timer, and the watching
/// thread sleeps until it fires. `expire` runs at most once per turn, and never after `end` has returned: `end` waits
/// for one that is under way.
///
/// For limits of 5 ms and more. A shorter one comes before the kernel's own next tick, so that the timer chip has to be
/// set anew at each turn: on a virtual machine 15 us instead of 1.
class RunDeadline {
 public:
  /// Throws std::system_error when the process has no descriptor or no thread left.
  explicit RunDeadline(std::function<void()> expire) : expire_{std::move(expire)} {
    timer_ = ::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    if (timer_ < 0) throw std::system_error(errno, std::generic_category(), "timerfd_create");
    try {
      watcher_ = std::thread{[this] { watch(); }};
    } catch (...) {
      ::close(timer_);
      throw;
    }
  }
  RunDeadline(const RunDeadline&) = delete;
  RunDeadline& operator=(const RunDeadline&) = delete;
  ~RunDeadline() {
    // E144: release, pairs with the acquire in watch: the watcher that wakes sees that it is to leave.
    state_.store(kLeaving, std::memory_order_release);
    arm(Duration{1});
    watcher_.join();
    ::close(timer_);
  }

  void begin(Duration limit) noexcept {
    limit_.store((SteadyClock{}.now() + limit).time_since_epoch().count(), std::memory_order_relaxed);  // see E144
    turn_ += kPhases;
    // E144: release, pairs with the acquire in watch: whoever sees the turn sees its limit.
    state_.store(turn_ | kRunning, std::memory_order_release);
    arm(limit);
  }

  /// Whether `expire` was called.
  bool end() noexcept {
    std::uint64_t seen = turn_ | kRunning;
    // E145: acquire, pairs with the release in watch: `expire` has returned. (Only the failure needs it; a success with
    // a weaker order than the failure's is refused by g++ under its thread sanitizer.)
    if (state_.compare_exchange_strong(seen, turn_ | kIdle, std::memory_order_acquire, std::memory_order_acquire)) {
      arm(Duration::zero());
      return false;
    }
    for (sync::SpinWait<> wait; seen == (turn_ | kExpiring); wait.once()) {
      // E145: acquire; see above.
      seen = state_.load(std::memory_order_acquire);
    }
    return true;  // the timer has fired and rests
  }

 private:
  // Phases of a turn, in the low bits of the state; the number of the turn is above them.
  static constexpr std::uint64_t kIdle = 0;
  static constexpr std::uint64_t kRunning = 1;
  static constexpr std::uint64_t kExpiring = 2;
  static constexpr std::uint64_t kExpired = 3;
  static constexpr std::uint64_t kLeaving = 4;
  static constexpr std::uint64_t kPhases = 8;

  void arm(Duration limit) noexcept {
    itimerspec when{};
    when.it_value.tv_sec = static_cast<time_t>(limit.count() / 1'000'000'000);
    when.it_value.tv_nsec = static_cast<long>(limit.count() % 1'000'000'000);
    ::timerfd_settime(timer_, 0, &when, nullptr);
  }

  void watch() noexcept {
    for (;;) {
      std::uint64_t fired = 0;
      if (::read(timer_, &fired, sizeof fired) < 0 && errno != EINTR) return;
      // E144: acquire, pairs with the releases in begin and in the destructor.
      std::uint64_t seen = state_.load(std::memory_order_acquire);
      if (seen == kLeaving) return;
      const std::uint64_t turn = seen - seen % kPhases;
      if (seen != (turn | kRunning)) continue;
      // Fired for an earlier turn, which has ended meanwhile; this turn's timer is set.
      const std::int64_t limit = limit_.load(std::memory_order_relaxed);  // see E144
      if (SteadyClock{}.now().time_since_epoch().count() < limit) continue;
      // Relaxed: the load above has acquired this very turn.
      if (!state_.compare_exchange_strong(seen, turn | kExpiring, std::memory_order_relaxed)) {
        if (seen == kLeaving) return;
        continue;
      }
      expire_();
      // E145: release, pairs with the acquire in end: `expire` is done.
      state_.store(turn | kExpired, std::memory_order_release);
    }
  }

  std::function<void()> expire_;
  int timer_ = -1;
  std::uint64_t turn_ = 0;  // of the thread that runs
  std::atomic<std::int64_t> limit_{0};
  std::atomic<std::uint64_t> state_{kIdle};
  std::thread watcher_;
};

}  // namespace zeta::runtime
