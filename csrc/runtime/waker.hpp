#pragma once
// A file descriptor that becomes readable when there is something to do.

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <system_error>

namespace zeta::runtime {

/// Level-triggered: readable from the first `wake` until `clear`. Costs nothing until somebody asks for `fd()`.
class Waker {
 public:
  Waker() = default;
  ~Waker() { abandon(); }
  Waker(const Waker&) = delete;
  Waker& operator=(const Waker&) = delete;

  /// Opens the descriptor on first use. Throws std::system_error when the process has none left. Not concurrently.
  [[nodiscard]] int fd() {
    if (fd_ < 0) {
      fd_ = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
      if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
      // E140: release, pairs with the acquire in wake: who sees the flag sees the descriptor.
      is_open_.store(true, std::memory_order_release);
    }
    return fd_;
  }

  void wake() noexcept {
    // E140: acquire; see fd().
    if (!is_open_.load(std::memory_order_acquire)) return;
    // E141: seq_cst exchange against the one in clear: a wake after a clear always writes.
    if (is_awake_.exchange(true, std::memory_order_seq_cst)) return;  // already readable
    owed_.fetch_add(1, std::memory_order_relaxed);  // a count: seen late, it costs a clear one look more
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(fd_, &one, sizeof one);
  }

  /// Before looking for work, so that what comes after the look wakes again.
  void clear() noexcept {
    // E140: acquire; see fd().
    if (!is_open_.load(std::memory_order_acquire)) return;
    // What a wake writes may come after its clear has read; it is owed until a later clear has read it.
    if (owed_.load(std::memory_order_relaxed) != 0) {  // see wake
      std::uint64_t count = 0;
      if (::read(fd_, &count, sizeof count) == sizeof count) owed_.fetch_sub(count, std::memory_order_relaxed);
    }
    // E141: seq_cst; see wake.
    is_awake_.exchange(false, std::memory_order_seq_cst);
  }

  /// Closes the descriptor of a waker that will not be used again.
  void abandon() noexcept {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

  /// Waits until readable or for `timeout_ms`. Returns early, with false, on a signal.
  [[nodiscard]] static bool wait(int fd, int timeout_ms) noexcept {
    pollfd waited{fd, POLLIN, 0};
    return ::poll(&waited, 1, timeout_ms) > 0;
  }

 private:
  int fd_ = -1;
  std::atomic<bool> is_open_{false};
  std::atomic<bool> is_awake_{false};
  std::atomic<std::uint64_t> owed_{0};  ///< Writes that no clear has read yet.
};

}  // namespace zeta::runtime
