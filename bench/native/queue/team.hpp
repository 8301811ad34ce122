#pragma once
// Threads that stay for a whole comparison, pinned in turn to two cores: four of them share the two, as Python's do.

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "measure.hpp"

namespace zeta::bench {

/// The cores that threads are pinned to: the first two that this process may use.
inline std::vector<int> cores() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  sched_getaffinity(0, sizeof allowed, &allowed);
  std::vector<int> found;
  for (int cpu = 0; cpu < CPU_SETSIZE && found.size() < 2; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) found.push_back(cpu);
  }
  return found;
}

/// Lets threads begin together: the last to arrive says when.
class StartLine {
 public:
  explicit StartLine(unsigned threads) noexcept : missing_{threads} {}

  Ticks wait() noexcept {
    if (missing_.fetch_sub(1) == 1) began_.store(ticks());
    Ticks began = 0;
    for (unsigned spins = 0; (began = began_.load()) == 0; ++spins) {
      if (spins % 64 == 63) {
        sched_yield();
      } else {
        relax();
      }
    }
    return began;
  }

 private:
  std::atomic<unsigned> missing_;
  std::atomic<Ticks> began_{0};
};

/// `threads` pinned threads. `Guest` is made and destroyed in each of them: what a library wants of its threads.
template <class Guest>
class Team {
 public:
  explicit Team(unsigned threads) {
    const std::vector<int> where = cores();
    for (unsigned i = 0; i < threads; ++i) {
      threads_.emplace_back([this, i, cpu = where[i % where.size()]] { serve(i, cpu); });
    }
  }

  ~Team() {
    {
      const std::lock_guard hold{mutex_};
      is_over_ = true;
    }
    changed_.notify_all();
    for (std::thread& each : threads_) each.join();
  }

  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  [[nodiscard]] unsigned size() const noexcept { return static_cast<unsigned>(threads_.size()); }

  /// Calls job(0) … job(active - 1), each in its own thread; returns when all are done.
  void run(unsigned active, const std::function<void(unsigned)>& job) {
    std::unique_lock hold{mutex_};
    job_ = &job;
    active_ = active;
    unfinished_ = active;
    ++turn_;
    changed_.notify_all();
    finished_.wait(hold, [this] { return unfinished_ == 0; });
  }

 private:
  void serve(unsigned i, int cpu) {
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(static_cast<unsigned>(cpu), &only);
    pthread_setaffinity_np(pthread_self(), sizeof only, &only);
    const Guest guest;
    std::unique_lock hold{mutex_};
    for (std::uint64_t served = 0;;) {
      changed_.wait(hold, [&] { return is_over_ || turn_ != served; });
      if (is_over_) return;
      served = turn_;
      if (i >= active_) continue;
      const std::function<void(unsigned)>& job = *job_;
      hold.unlock();
      job(i);
      hold.lock();
      if (--unfinished_ == 0) finished_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::condition_variable finished_;
  const std::function<void(unsigned)>* job_ = nullptr;
  unsigned active_ = 0;
  unsigned unfinished_ = 0;
  std::uint64_t turn_ = 0;
  bool is_over_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace zeta::bench
