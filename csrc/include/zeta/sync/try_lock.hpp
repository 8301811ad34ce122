#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

#include "zeta/core/cacheline.hpp"

namespace zeta::sync {

/// What a thread does between two looks at something that another thread is about to change: first it lets its core
/// rest for a moment, and when that has not helped, it lets another thread run, because the one that it waits for may
/// be off its core.
class SpinWait {
 public:
  void once() noexcept {
    if (spins_ < kSpins) {
      ++spins_;
      rest();
    } else {
      spins_ = 0;
      std::this_thread::yield();
    }
  }

 private:
  static constexpr int kSpins = 64;  // about 2 us on x86, some turns of a short critical section

  static void rest() noexcept {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb" ::: "memory");
#endif
  }

  int spins_ = 0;
};

/// Mutual exclusion for short sections. `try_lock` is wait-free; `lock` waits for the holder, spinning and then
/// yielding, in no promised order.
template <template <class> class Atomic = std::atomic>
class TryLock {
 public:
  [[nodiscard]] bool try_lock() noexcept {
    // Only a guess, which spares the holder's cache line.
    if (held_.load(std::memory_order_relaxed) != 0) return false;
    // E53: the state that the lock guards, as the last holder left it.
    return held_.exchange(1, std::memory_order_acquire) == 0;
  }

  void lock() noexcept {
    for (SpinWait wait; !try_lock();) wait.once();
  }

  /// Holder only.
  void unlock() noexcept {
    held_.store(0, std::memory_order_release);  // E53: hands over what the lock guards
  }

 private:
  alignas(kNoFalseSharing) Atomic<std::uint32_t> held_{0};
};

}  // namespace zeta::sync
