#pragma once
// Where a loop finds its net, and where anybody puts another one while it runs.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

namespace zeta::runtime {

/// A net and its number; none (`net` null) means that the loop is to do without.
template <class Net>
struct NetVersion {
  std::unique_ptr<Net> net;
  std::uint64_t number = 0;       ///< Counts what the loop took from its slot, from 1.
  NetVersion* retired = nullptr;  ///< The slot's own.
};

/// Hands nets to one loop, one at a time. A tick takes a version at its begin and uses no other until its end, so that
/// none mixes two.
///
/// Any thread may `offer` and `collect`; `take` is the loop's. `take`, `offer` and `collect` are lock-free, and in
/// `take` the loop neither allocates nor frees: a version that it has put aside is destroyed by whoever collects it, or
/// with the slot. To be destroyed after the loop has ended.
template <class Net, template <class> class Atomic = std::atomic>
class NetSlot {
 public:
  using Version = NetVersion<Net>;

  NetSlot() = default;
  NetSlot(const NetSlot&) = delete;
  NetSlot& operator=(const NetSlot&) = delete;
  ~NetSlot() {
    // The loop has ended, and what it did is seen by who destroys; the orders of these two are not needed.
    destroy(retired_.load(std::memory_order_relaxed));
    delete offered_.load(std::memory_order_relaxed);
    delete current_;
  }

  /// The next `take` finds it. Gives back what was offered before and not taken, nullptr when it was.
  std::unique_ptr<Version> offer(std::unique_ptr<Net> net) {
    auto version = std::make_unique<Version>();
    version->net = std::move(net);
    // E146: publishes the net to take. E147: what the earlier offer's thread wrote is seen by who gets it back.
    return std::unique_ptr<Version>{offered_.exchange(version.release(), std::memory_order_acq_rel)};
  }

  /// Loop only. The newest version, or nullptr before the first one; stays valid until the next take.
  [[nodiscard]] Version* take() noexcept {
    // Only a guess, which spares the exchange; a later tick finds what this one misses.
    if (offered_.load(std::memory_order_relaxed) == nullptr) return current_;
    // E146: the net is seen as it was made.
    Version* const next = offered_.exchange(nullptr, std::memory_order_acquire);
    if (next == nullptr) return current_;
    if (current_ != nullptr) retire(current_);
    next->number = ++taken_;
    current_ = next;
    return current_;
  }

  /// Destroys what the loop has put aside; how many that were.
  std::size_t collect() noexcept {
    // E148: what the loop did with them comes before their end.
    return destroy(retired_.exchange(nullptr, std::memory_order_acquire));
  }

 private:
  void retire(Version* old) noexcept {
    Version* first = retired_.load(std::memory_order_relaxed);  // a stale one only makes the exchange fail
    do {
      old->retired = first;
      // E148: publishes what the loop did with it. Others only empty the list, so that a `first` that is still there
      // still leads to the rest.
    } while (!retired_.compare_exchange_weak(first, old, std::memory_order_release,
                                             std::memory_order_relaxed));  // relaxed on failure: only retried
  }

  static std::size_t destroy(Version* first) noexcept {
    std::size_t count = 0;
    for (; first != nullptr; ++count) delete std::exchange(first, first->retired);
    return count;
  }

  Atomic<Version*> offered_{nullptr};
  Atomic<Version*> retired_{nullptr};
  Version* current_ = nullptr;  // the loop's, as what follows
  std::uint64_t taken_ = 0;
};

}  // namespace zeta::runtime
