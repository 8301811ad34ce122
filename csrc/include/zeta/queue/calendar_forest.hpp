#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "zeta/queue/leftist_forest.hpp"

namespace zeta::queue {

/// Any number of queues of instants over one slab of nodes, of which a few may be long.
///
/// When to use: as LeftistForest, where the keys are nanoseconds on a horizon of about a minute. A queue starts as one
/// leftist heap. Once it is long, what is added goes to a calendar: buckets of 2^20 ns (1.05 ms), each a leftist heap
/// of its own, over a window of 65,536 of them (69 s), the occupied ones shown by three levels of 64-bit words. Keys
/// outside the window, and what was there before, stay in the one heap; the first of a queue is the earlier of the two
/// fronts. So the order is that of (key, sequence) exactly, whatever lies where, nothing is ever moved in bulk, and the
/// worst case is the leftist heap's O(log n) where all keys share a bucket.
///
/// Why: a heap of n nodes walks spines of O(log n) nodes, each a cache miss in a long queue; a bucket holds few.
///
/// There are kCalendars calendars; long queues beyond that stay heaps. A calendar is lent until its buckets are empty.
/// Its memory (256 KiB) is used only where it is written. One owner at a time; allocates only at construction.
class CalendarForest : private LeftistForest {
 public:
  using LeftistForest::Index;
  using LeftistForest::kNull;

  static constexpr std::size_t kCalendars = 16;
  static constexpr std::uint32_t kLong = 4'096;   ///< A heap of so many nodes gets a calendar.
  static constexpr std::uint32_t kShort = 1'024;  ///< Below it, what is added goes to the heap again.

  /// One queue. Empty as constructed; to be changed by the forest only.
  class Queue {
   public:
    [[nodiscard]] bool is_empty() const noexcept { return first_ == kNull; }
    [[nodiscard]] Index first() const noexcept { return first_; }
    [[nodiscard]] std::uint32_t size() const noexcept { return size_; }

   private:
    friend class CalendarForest;
    Index first_ = kNull;             ///< Also the heap's root, where there is no calendar.
    std::uint32_t size_ : 24 = 0;     ///< A forest has fewer than 2^24 nodes.
    std::uint32_t calendar_ : 8 = 0;  ///< Its number from 1; 0: none.
  };
  static_assert(sizeof(Queue) == 8);

  explicit CalendarForest(std::size_t capacity)
      : LeftistForest{capacity}, calendars_(capacity < kLong ? 0 : std::min(kCalendars, capacity / kLong)) {
    for (std::size_t i = calendars_.size(); i > 0; --i) vacant_.push_back(static_cast<std::uint8_t>(i));
  }

  using LeftistForest::capacity;
  using LeftistForest::key;

  /// Adds `node`, which must be in no queue. `now` says where the keys to come will lie: from there on.
  void insert(Queue& queue, Index node, std::int64_t key, std::uint64_t sequence, std::int64_t now) noexcept {
    ++queue.size_;
    if (queue.calendar_ == 0) {
      if (queue.size_ < kLong || !lend(queue, number_of(key), number_of(now))) {
        LeftistForest::insert(queue.first_, node, key, sequence);
        return;
      }
    }
    Calendar& calendar = calendar_of(queue);
    const std::int64_t number = number_of(key);
    if (queue.size_ >= kShort && calendar.covers(number, number_of(now))) {
      Index root = calendar.root(number);
      LeftistForest::insert(root, node, key, sequence);
      calendar.set_root(number, root);
    } else {
      LeftistForest::insert(calendar.outside, node, key, sequence);
    }
    if (queue.first_ == kNull || before(node, queue.first_)) queue.first_ = node;
  }

  /// Removes `node`, which must be in the queue.
  void erase(Queue& queue, Index node) noexcept {
    --queue.size_;
    if (queue.calendar_ == 0) {
      LeftistForest::erase(queue.first_, node);
      return;
    }
    if (nodes_[node].parent != kNull) {  // no root: the queue need not know
      Index other = kNull;
      LeftistForest::erase(other, node);
      return;
    }
    Calendar& calendar = calendar_of(queue);
    if (node == calendar.outside) {
      LeftistForest::pop(calendar.outside);
    } else {
      const std::int64_t number = number_of(nodes_[node].key);
      Index root = node;
      LeftistForest::pop(root);
      if (root != kNull) {
        calendar.set_root(number, root);
      } else {
        calendar.clear(number);
        if (calendar.is_empty()) {
          take_back(queue);
          return;
        }
      }
    }
    if (node == queue.first_) queue.first_ = first_of(calendar);
  }

  /// Removes and returns the first node of a queue that is not empty.
  Index pop(Queue& queue) noexcept {
    const Index first = queue.first_;
    erase(queue, first);
    return first;
  }

  /// Calls `visit(node) -> bool` for up to `limit` nodes of a queue near its front, until it returns false. The first
  /// is the first in order; the rest come roughly in order.
  template <class Visit>
  void visit_first(const Queue& queue, std::size_t limit, Visit&& visit) const {
    if (queue.calendar_ == 0) {
      LeftistForest::visit_first(queue.first_, limit, visit);
      return;
    }
    const Calendar& calendar = calendars_[queue.calendar_ - 1U];
    bool goes_on = true;
    const auto visit_tree = [&](Index root, std::size_t most) {
      LeftistForest::visit_first(root, most, [&](Index node) {
        --limit;
        return goes_on = visit(node);
      });
    };
    const std::size_t half = limit / 2;
    if (queue.first_ == calendar.outside) visit_tree(calendar.outside, limit - half);
    const std::size_t kept = queue.first_ == calendar.outside || calendar.outside == kNull ? 0 : half;
    for (std::int64_t number = calendar.front; goes_on && limit > kept && number < calendar.end();
         number = calendar.next(number + 1)) {
      visit_tree(calendar.root(number), limit - kept);
    }
    if (goes_on && queue.first_ != calendar.outside) visit_tree(calendar.outside, limit);
  }

  /// Fetches a node that will be needed soon.
  using LeftistForest::prefetch;

 private:
  static constexpr unsigned kQuantumBits = 20;
  static constexpr unsigned kWindowBits = 16;
  static constexpr std::int64_t kBuckets = std::int64_t{1} << kWindowBits;

  static constexpr std::int64_t number_of(std::int64_t key) noexcept { return key >> kQuantumBits; }

  /// Roots of buckets, used in a circle. Not empty while it is lent.
  struct Calendar {
    static constexpr std::size_t kMask = kBuckets - 1;

    Index outside = kNull;   ///< The heap of what is not in the buckets.
    std::int64_t base = 0;   ///< First number of the window.
    std::int64_t front = 0;  ///< First occupied.
    std::unique_ptr<Index[]> roots = std::make_unique_for_overwrite<Index[]>(kBuckets);  ///< Read where a bit is set.
    std::uint64_t top = 0;
    std::uint64_t mids[kBuckets / 4096] = {};
    std::uint64_t leaves[kBuckets / 64] = {};

    [[nodiscard]] bool is_empty() const noexcept { return top == 0; }
    [[nodiscard]] std::int64_t end() const noexcept { return base + kBuckets; }

    /// Whether the window reaches `number`, after it has followed the present as far as its contents allow.
    [[nodiscard]] bool covers(std::int64_t number, std::int64_t now) noexcept {
      if (number >= end()) base = std::max(base, std::min(now, front));
      return number >= base && number < end();
    }

    [[nodiscard]] Index root(std::int64_t number) const noexcept {
      const std::size_t at = place_of(number);
      return (leaves[at / 64] >> (at % 64)) & 1U ? roots[at] : kNull;
    }

    void set_root(std::int64_t number, Index root) noexcept {
      const std::size_t at = place_of(number);
      roots[at] = root;
      if (number < front || is_empty()) front = number;
      leaves[at / 64] |= bit(at);
      mids[at / 4096] |= bit(at / 64);
      top |= bit(at / 4096);
    }

    void clear(std::int64_t number) noexcept {
      const std::size_t at = place_of(number);
      if ((leaves[at / 64] &= ~bit(at)) == 0 && (mids[at / 4096] &= ~bit(at / 64)) == 0) top &= ~bit(at / 4096);
      if (number == front && !is_empty()) front = next(number + 1);
    }

    /// The first occupied number from `number` on; end() or more where there is none.
    [[nodiscard]] std::int64_t next(std::int64_t number) const noexcept {
      if (number >= end()) return end();
      const std::size_t from = place_of(number);
      std::size_t at = next_place(from);
      if (at == kBuckets) at = next_place(0) + kBuckets;
      return number + static_cast<std::int64_t>(at - from);
    }

    /// The first occupied place from `from` on; kBuckets where there is none.
    [[nodiscard]] std::size_t next_place(std::size_t from) const noexcept {
      if (const std::uint64_t word = leaves[from / 64] >> (from % 64); word != 0) return from + low(word);
      const std::size_t leaf = from / 64 + 1;
      if (leaf % 64 != 0) {
        if (const std::uint64_t word = mids[leaf / 64] >> (leaf % 64); word != 0)
          return first_below_leaf(leaf + low(word));
      }
      const std::size_t mid = (leaf + 63) / 64;
      if (mid >= kBuckets / 4096) return kBuckets;
      const std::uint64_t word = top >> mid;
      if (word == 0) return kBuckets;
      const std::size_t found = mid + low(word);
      return first_below_leaf(found * 64 + low(mids[found]));
    }

   private:
    static std::size_t place_of(std::int64_t number) noexcept { return static_cast<std::size_t>(number) & kMask; }
    static std::uint64_t bit(std::size_t at) noexcept { return std::uint64_t{1} << (at % 64); }
    static std::size_t low(std::uint64_t word) noexcept { return static_cast<std::size_t>(std::countr_zero(word)); }
    [[nodiscard]] std::size_t first_below_leaf(std::size_t leaf) const noexcept {
      return leaf * 64 + low(leaves[leaf]);
    }
  };

  [[nodiscard]] Calendar& calendar_of(const Queue& queue) noexcept { return calendars_[queue.calendar_ - 1U]; }

  [[nodiscard]] Index first_of(const Calendar& calendar) const noexcept {
    const Index root = calendar.root(calendar.front);
    return calendar.outside != kNull && before(calendar.outside, root) ? calendar.outside : root;
  }

  /// A vacant calendar whose window holds `number`, for a queue that is a heap so far. It may begin half a window
  /// before: keys that have passed come to the late queues out of order.
  [[nodiscard]] bool lend(Queue& queue, std::int64_t number, std::int64_t now) noexcept {
    const std::int64_t base = std::min(now, number - kBuckets / 2);
    if (vacant_.empty() || number >= base + kBuckets) return false;
    queue.calendar_ = vacant_.back();
    vacant_.pop_back();
    Calendar& calendar = calendar_of(queue);
    calendar.outside = queue.first_;
    calendar.base = base;
    calendar.front = number;
    return true;
  }

  void take_back(Queue& queue) noexcept {
    queue.first_ = calendar_of(queue).outside;
    vacant_.push_back(queue.calendar_);
    queue.calendar_ = 0;
  }

  std::vector<Calendar> calendars_;
  std::vector<std::uint8_t> vacant_;
};

}  // namespace zeta::queue
