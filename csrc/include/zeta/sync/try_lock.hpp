#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

#include "zeta/core/lazy_zeros.hpp"

namespace zeta::sync {

/// What a thread does between two looks at something that another thread is about to change: by turns it rests for a
/// moment, and lets another thread run, because the one that it waits for may be off its core.
///
/// It looks seldom: a look takes the cache line from the thread that works on it, and a holder that is left alone does
/// several turns in a row with everything in its cache. Two threads that push and pop get three times as much done as
/// with a look at each pause.
///
/// Over a model of atomics there is nothing to wait for: the next look is a step at which another thread may run.
template <template <class> class Atomic = std::atomic>
class SpinWait {
 public:
  void once() noexcept {
    if constexpr (!kIsStdAtomic<Atomic>) return;
    has_rested_ = !has_rested_;
    if (has_rested_) {
      for (int i = 0; i < kPauses; ++i) pause();
    } else {
      std::this_thread::yield();
    }
  }

 private:
  static constexpr int kPauses = 16;  // about 0.4 us on Zen 4, as long as some turns of a short critical section

  static void pause() noexcept {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb" ::: "memory");
#endif
  }

  bool has_rested_ = false;
};

/// Mutual exclusion for short sections. `try_lock` is wait-free; `lock` waits for the holder, spinning and then
/// yielding, in no promised order. It has no cache line of its own: what it guards may well share it.
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
    for (SpinWait<Atomic> wait; !try_lock();) wait.once();
  }

  /// Holder only.
  void unlock() noexcept {
    held_.store(0, std::memory_order_release);  // E53: hands over what the lock guards
  }

 private:
  Atomic<std::uint32_t> held_{0};
};

}  // namespace zeta::sync
