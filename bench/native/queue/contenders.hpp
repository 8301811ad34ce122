#pragma once
// The queues under one face: push(key, item, now) and pop(entry, now), smallest key first. Each peer is as its own
// documentation has it; all are compiled here with the same flags, and given room for all their entries beforehand
// where they can be.

#include <sched.h>

#include <atomic>
#include <cstddef>
#include <functional>
#include <mutex>
#include <queue>
#include <utility>
#include <vector>

#include "measure.hpp"
#include "scene.hpp"

#if __has_include("zeta/queue/deadline_queue.hpp")
#include "zeta/queue/deadline_queue.hpp"
#define ZETA_BENCH_DEADLINE_QUEUE 1
#endif
#if __has_include("zeta/queue/priority_queue.hpp")
#include "zeta/queue/priority_queue.hpp"
#define ZETA_BENCH_PRIORITY_QUEUE 1
#endif
#if ZETA_BENCH_TBB
#include <oneapi/tbb/concurrent_priority_queue.h>
#endif
#if ZETA_BENCH_BOOST
#include <boost/heap/d_ary_heap.hpp>
#endif
#if ZETA_BENCH_CDS
#include <cds/container/fcpriority_queue.h>
#include <cds/init.h>
#endif

namespace zeta::bench {

struct Held {
  Key key;
  Item item;
};

struct Later {
  bool operator()(const Held& a, const Held& b) const noexcept { return a.key > b.key; }
};

/// What the libraries want of a thread that uses them.
class Guest {
 public:
#if ZETA_BENCH_CDS
  Guest() { cds::threading::Manager::attachThread(); }
  ~Guest() { cds::threading::Manager::detachThread(); }
#else
  Guest() = default;
  ~Guest() = default;
#endif
  Guest(const Guest&) = delete;
  Guest& operator=(const Guest&) = delete;
};

/// Test and test-and-set; after 256 pauses the core is offered to others, or four threads on two cores would spin for a
/// holder that cannot run.
class SpinLock {
 public:
  void lock() noexcept {
    for (unsigned spins = 1;
         is_held_.load(std::memory_order_relaxed) || is_held_.exchange(true, std::memory_order_acquire); ++spins) {
      if (spins % 256 == 0) {
        sched_yield();
      } else {
        relax();
      }
    }
  }
  void unlock() noexcept { is_held_.store(false, std::memory_order_release); }

 private:
  alignas(64) std::atomic<bool> is_held_{false};
};

class StdHeap {
 public:
  explicit StdHeap(std::size_t capacity) : heap_{Later{}, reserved(capacity)} {}
  void push(Held entry) { heap_.push(entry); }
  bool pop(Held& out) {
    if (heap_.empty()) return false;
    out = heap_.top();
    heap_.pop();
    return true;
  }

 private:
  static std::vector<Held> reserved(std::size_t capacity) {
    std::vector<Held> made;
    made.reserve(capacity);
    return made;
  }
  std::priority_queue<Held, std::vector<Held>, Later> heap_;
};

/// A sequential heap behind one lock.
template <class Heap, class Lock>
class Locked {
 public:
  Locked(const Scene&, std::size_t capacity) : heap_{capacity} {}
  bool push(Key key, Item item, Key) {
    const std::lock_guard hold{lock_};
    heap_.push({key, item});
    return true;
  }
  bool pop(Held& out, Key) {
    const std::lock_guard hold{lock_};
    return heap_.pop(out);
  }

 private:
  alignas(128) Lock lock_;
  alignas(128) Heap heap_;
};

struct StdMutex : Locked<StdHeap, std::mutex> {
  using Locked::Locked;
  static constexpr const char* kId = "std_mutex";
  static constexpr const char* kName = "std::priority_queue + std::mutex";
};
struct StdSpin : Locked<StdHeap, SpinLock> {
  using Locked::Locked;
  static constexpr const char* kId = "std_spin";
  static constexpr const char* kName = "std::priority_queue + spinlock";
};

#if ZETA_BENCH_BOOST
class BoostHeap {
 public:
  explicit BoostHeap(std::size_t capacity) { heap_.reserve(capacity); }
  void push(Held entry) { heap_.push(entry); }
  bool pop(Held& out) {
    if (heap_.empty()) return false;
    out = heap_.top();
    heap_.pop();
    return true;
  }

 private:
  boost::heap::d_ary_heap<Held, boost::heap::arity<4>, boost::heap::compare<Later>> heap_;
};
struct BoostSpin : Locked<BoostHeap, SpinLock> {
  using Locked::Locked;
  static constexpr const char* kId = "boost_spin";
  static constexpr const char* kName = "boost::heap::d_ary_heap<4> + spinlock";
};
#endif

#if ZETA_BENCH_TBB
class Tbb {
 public:
  static constexpr const char* kId = "tbb";
  static constexpr const char* kName = "oneTBB concurrent_priority_queue";
  Tbb(const Scene&, std::size_t capacity) : queue_(capacity) {}
  bool push(Key key, Item item, Key) {
    queue_.push(Held{key, item});
    return true;
  }
  bool pop(Held& out, Key) { return queue_.try_pop(out); }

 private:
  tbb::concurrent_priority_queue<Held, Later> queue_;
};
#endif

#if ZETA_BENCH_CDS
/// Flat combining as it comes: who waits for the combiner sleeps for 2 ms.
template <class Traits>
class CdsFlatCombining {
 public:
  CdsFlatCombining(const Scene&, std::size_t) {}
  bool push(Key key, Item item, Key) { return queue_.push(Held{key, item}); }
  bool pop(Held& out, Key) { return queue_.pop(out); }

 private:
  using Heap = std::priority_queue<Held, std::vector<Held>, Later>;
  cds::container::FCPriorityQueue<Held, Heap, Traits> queue_;
};
struct CdsDefault : CdsFlatCombining<cds::container::fcpqueue::traits> {
  using CdsFlatCombining::CdsFlatCombining;
  static constexpr const char* kId = "cds_fc";
  static constexpr const char* kName = "libcds FCPriorityQueue";
};
/// The same with libcds' own back-off for locks: pauses, then yields.
struct SpinningTraits : cds::container::fcpqueue::traits {
  using wait_strategy = cds::algo::flat_combining::wait_strategy::backoff<cds::backoff::LockDefault>;
};
struct CdsSpinning : CdsFlatCombining<SpinningTraits> {
  using CdsFlatCombining::CdsFlatCombining;
  static constexpr const char* kId = "cds_fc_spin";
  static constexpr const char* kName = "libcds FCPriorityQueue, spinning";
};
#endif

#if ZETA_BENCH_DEADLINE_QUEUE
class ZetaDeadline {
 public:
  static constexpr const char* kId = "zeta_deadline";
  static constexpr const char* kName = "zeta::queue::DeadlineQueue";
  ZetaDeadline(const Scene& scene, std::size_t capacity) : queue_{capacity, scene.quantum_ns, scene.horizon_ns()} {}
  bool push(Key key, Item item, Key now) noexcept { return queue_.push(key, item, now) != queue::kNoTicket; }
  bool pop(Held& out, Key now) noexcept {
    const auto taken = queue_.pop(now);
    if (!taken) return false;
    out = {taken->key, taken->item};
    return true;
  }

 private:
  queue::DeadlineQueue<> queue_;
};
#endif

#if ZETA_BENCH_PRIORITY_QUEUE
class ZetaPriority {
 public:
  static constexpr const char* kId = "zeta_priority";
  static constexpr const char* kName = "zeta::queue::PriorityQueue";
  ZetaPriority(const Scene&, std::size_t capacity) : queue_{capacity} {}
  bool push(Key key, Item item, Key) noexcept { return queue_.push(key, item) != queue::kNoTicket; }
  bool pop(Held& out, Key) noexcept {
    const auto taken = queue_.pop();
    if (!taken) return false;
    out = {taken->key, taken->item};
    return true;
  }

 private:
  queue::PriorityQueue<> queue_;
};
#endif

/// Not a contender: two locked heaps in turn, a relaxed queue. It shows that rank error is seen.
class TwoHeaps {
 public:
  static constexpr const char* kId = "two_heaps";
  static constexpr const char* kName = "sample: two locked heaps, taken in turn";
  TwoHeaps(const Scene& scene, std::size_t capacity) : first_{scene, capacity}, second_{scene, capacity} {}
  bool push(Key key, Item item, Key now) { return (item % 2 == 0 ? first_ : second_).push(key, item, now); }
  bool pop(Held& out, Key now) {
    const bool is_first = turn_.fetch_add(1, std::memory_order_relaxed) % 3 == 0;
    return (is_first ? first_ : second_).pop(out, now) || (is_first ? second_ : first_).pop(out, now);
  }

 private:
  StdSpin first_;
  StdSpin second_;
  std::atomic<unsigned> turn_{0};
};

/// Not a contender: an operation with a thousand instructions too many. It shows that the counts are seen.
class Burning {
 public:
  static constexpr const char* kId = "burning";
  static constexpr const char* kName = "sample: a thousand instructions too many";
  Burning(const Scene& scene, std::size_t capacity) : queue_{scene, capacity} {}
  bool push(Key key, Item item, Key now) {
    burn();
    return queue_.push(key, item, now);
  }
  bool pop(Held& out, Key now) {
    burn();
    return queue_.pop(out, now);
  }

 private:
  static void burn() noexcept {
    for (int i = 0; i < 500; ++i) asm volatile("" ::: "memory");
  }
  StdSpin queue_;
};

}  // namespace zeta::bench
