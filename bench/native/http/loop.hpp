#pragma once
// One thread, one epoll set, one heap of timers: everything of http_load runs on it.

#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <queue>
#include <system_error>
#include <vector>

namespace zeta::bench::http {

using Nanos = std::int64_t;

inline Nanos now() noexcept {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1'000'000'000LL + t.tv_nsec;
}

[[noreturn]] inline void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

/// Something that waits for its descriptor or for a time. Handlers outlive the loop's rounds: a connection that ends is
/// kept for reuse, never freed, so that an event or a timer that is still under way finds it.
class Handler {
 public:
  Handler() = default;
  Handler(const Handler&) = delete;
  Handler& operator=(const Handler&) = delete;
  virtual ~Handler() = default;
  virtual void on_ready(std::uint32_t events) = 0;
  /// `ticket` is what `Loop::at` was given; a handler that was reused meanwhile knows stale ones by it.
  virtual void on_time(Nanos due, std::uint64_t ticket) {
    static_cast<void>(due);
    static_cast<void>(ticket);
  }
};

class Loop {
 public:
  Loop() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    if (epoll_ < 0) fail("epoll_create1");
  }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;
  ~Loop() { close(epoll_); }

  void watch(int fd, std::uint32_t events, Handler& handler) { control(EPOLL_CTL_ADD, fd, events, handler); }
  void change(int fd, std::uint32_t events, Handler& handler) { control(EPOLL_CTL_MOD, fd, events, handler); }

  void at(Nanos due, Handler& handler, std::uint64_t ticket) { timers_.push({due, &handler, ticket}); }

  /// Runs what is due and what is ready; waits for that until `until` at most, not at all where `is_spinning`.
  void turn(Nanos until, bool is_spinning = false) {
    Nanos present = now();
    while (!timers_.empty() && timers_.top().due <= present) {
      const Timer timer = timers_.top();
      timers_.pop();
      timer.handler->on_time(timer.due, timer.ticket);
    }
    present = now();
    Nanos wait = until - present;
    if (!timers_.empty() && timers_.top().due < until) wait = timers_.top().due - present;
    if (wait < 0 || is_spinning) wait = 0;
    const timespec limit{wait / 1'000'000'000, wait % 1'000'000'000};
    // epoll_wait counts in milliseconds, which is the length of many a pace.
    const long count = syscall(SYS_epoll_pwait2, epoll_, ready_.data(), static_cast<int>(ready_.size()), &limit,
                               nullptr, std::size_t{0});
    for (long i = 0; i < count; ++i) {
      const epoll_event& event = ready_[static_cast<std::size_t>(i)];
      static_cast<Handler*>(event.data.ptr)->on_ready(event.events);
    }
    if (count < 0 && errno != EINTR) fail("epoll_pwait2 (Linux 5.11 or newer)");
  }

 private:
  struct Timer {
    Nanos due;
    Handler* handler;
    std::uint64_t ticket;
    bool operator<(const Timer& other) const { return due > other.due; }  // the least is on top
  };

  void control(int operation, int fd, std::uint32_t events, Handler& handler) {
    epoll_event event{};
    event.events = events;
    event.data.ptr = &handler;
    if (epoll_ctl(epoll_, operation, fd, &event) != 0) fail("epoll_ctl");
  }

  int epoll_;
  std::priority_queue<Timer> timers_;
  std::array<epoll_event, 256> ready_{};
};

}  // namespace zeta::bench::http
