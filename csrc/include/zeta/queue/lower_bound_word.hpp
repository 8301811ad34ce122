#pragma once

#include <atomic>
#include <cstdint>

namespace zeta::queue {

/// A lower bound on the numbers in a set that threads fill and search at once, with a version. Lock-free.
///
/// Who adds a number lowers the bound afterwards, which always changes the version; who has searched the whole set
/// raises it by exchanging the word as it was before the search. So the bound never passes a number that was added.
template <template <class> class Atomic>
class LowerBoundWord {
 public:
  static constexpr std::uint64_t kNone = (std::uint64_t{1} << 49U) - 1;

  /// One look. Two looks are equal only if nobody changed the bound in between.
  struct Look {
    std::uint64_t word;
    [[nodiscard]] std::uint64_t bound() const noexcept { return word >> kShift; }
    friend bool operator==(const Look&, const Look&) noexcept = default;
  };

  [[nodiscard]] Look look() const noexcept {
    return Look{word_.load(std::memory_order_acquire)};  // E9: what was added before it was lowered is seen
  }

  void lower_to(std::uint64_t number) noexcept {
    const std::uint64_t bound = number < kNone ? number : kNone - 1;
    std::uint64_t word = word_.load(std::memory_order_relaxed);  // a stale word only makes the exchange fail
    std::uint64_t lowered = 0;
    do {
      lowered = next(word, bound < word >> kShift ? bound : word >> kShift);
      // E9: what was added is seen by who sees the bound.
    } while (!word_.compare_exchange_weak(word, lowered, std::memory_order_release,
                                          std::memory_order_relaxed));  // relaxed on failure: only retried
  }

  /// Sets the bound after a search that began with `before`; nothing if anybody changed it since.
  void raise_to(Look before, std::uint64_t bound) noexcept {
    std::uint64_t word = before.word;
    // E9: who sees it raised sees where the lower numbers went.
    (void)word_.compare_exchange_strong(word, next(word, bound), std::memory_order_release,
                                        std::memory_order_relaxed);  // relaxed on failure: the lower bound stays
  }

 private:
  static constexpr unsigned kShift = 15;
  static constexpr std::uint64_t kVersion = (std::uint64_t{1} << kShift) - 1;

  static constexpr std::uint64_t next(std::uint64_t word, std::uint64_t bound) noexcept {
    return bound << kShift | ((word + 1) & kVersion);
  }

  Atomic<std::uint64_t> word_{kNone << kShift};
};

}  // namespace zeta::queue
