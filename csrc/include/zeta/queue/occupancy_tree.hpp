#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "zeta/core/cacheline.hpp"
#include "zeta/core/lazy_zeros.hpp"

namespace zeta::queue {

/// Says which of many buckets are occupied: three levels of words with 2^kFanBits bits each, the topmost an array of
/// roots, over buckets that are used in a circle. Lock-free.
///
/// A bit is cleared only by an exchange of the whole word as it was *before* what the bit stands for was seen empty,
/// and every announcement changes the word (its version). So a late clear can never hide a bucket that was filled in
/// between, and nobody has to look again after clearing, where a stopped thread would leave a bucket hidden.
///
/// A word's `told` flag says that the level above was announced to after this word last became non-empty: who fills
/// another bucket below a told word need not touch the levels above.
template <template <class> class Atomic, unsigned kFanBits>
class OccupancyTree {
  static_assert(kFanBits >= 1 && kFanBits <= 5);
  static constexpr std::uint64_t kBits = (std::uint64_t{1} << (1U << kFanBits)) - 1;
  static constexpr std::uint64_t kTold = std::uint64_t{1} << 32U;
  static constexpr std::uint64_t kVersion = std::uint64_t{1} << 33U;
  static constexpr unsigned kFanMask = (1U << kFanBits) - 1;

 public:
  /// Buckets below one root.
  static constexpr unsigned kRootBits = 3 * kFanBits;

  /// An occupied bucket by its number before the circle closes, and the word that said so.
  struct Spot {
    std::uint64_t number;
    std::uint64_t leaf_word;
  };

  explicit OccupancyTree(std::size_t roots)
      : mask_{(roots << kRootBits) - 1},
        mid_mask_{mask_ >> (2 * kFanBits)},
        leaf_mask_{mask_ >> kFanBits},
        leaves_{roots << (2 * kFanBits)},
        mids_{roots << kFanBits},
        roots_{std::make_unique<Root[]>(roots)},
        root_mask_{roots - 1} {}

  /// The first bucket below a root or the next that is shown as occupied, or false: `find` says then whether there is
  /// one.
  [[nodiscard]] [[gnu::always_inline]] bool find_below_two(std::uint64_t root, Spot& spot) const noexcept {
    auto root_bits = static_cast<std::uint32_t>(load_root(root));
    if (root_bits == 0) root_bits = static_cast<std::uint32_t>(load_root(++root));
    if (root_bits == 0) return false;
    const std::uint64_t mid_number = (root << kFanBits) | static_cast<unsigned>(std::countr_zero(root_bits));
    // Relaxed: a leaf older than its bit shows less than it might, which is for `find` to settle.
    const auto mid_bits = static_cast<std::uint32_t>(mids_[mid_number & mid_mask_].load(std::memory_order_relaxed));
    if (mid_bits == 0) return false;
    const std::uint64_t leaf_number = (mid_number << kFanBits) | static_cast<unsigned>(std::countr_zero(mid_bits));
    // E5: what is below the bits is seen.
    const std::uint64_t leaf = leaves_[leaf_number & leaf_mask_].load(std::memory_order_acquire);
    if (static_cast<std::uint32_t>(leaf) == 0) return false;
    spot = Spot{(leaf_number << kFanBits) | static_cast<unsigned>(std::countr_zero(leaf)), leaf};
    return true;
  }

  /// The first bucket in [from, end) that is shown as occupied; false when none is. Steps over words that are empty
  /// although the level above shows them.
  [[nodiscard]] bool find(std::uint64_t from, std::uint64_t end, Spot& spot) noexcept {
    std::uint64_t at = from;
    while (at < end) {
      const std::uint64_t root = load_root(at >> kRootBits);
      if (!descend(at, root, kRootBits)) continue;
      // E5: what is below the bits is seen.
      const std::uint64_t mid = mids_[(at & mask_) >> (2 * kFanBits)].load(std::memory_order_acquire);
      if ((mid & kBits) == 0) retire_in(roots_[(at >> kRootBits) & root_mask_].root_word, root, at >> (2 * kFanBits));
      if (!descend(at, mid, 2 * kFanBits)) continue;
      Atomic<std::uint64_t>& leaf_at = leaves_[(at & mask_) >> kFanBits];
      // E5: as above.
      const std::uint64_t leaf = leaf_at.load(std::memory_order_acquire);
      if ((leaf & kBits) == 0) retire_in(mids_[(at & mask_) >> (2 * kFanBits)], mid, at >> kFanBits);
      if (!descend(at, leaf, kFanBits)) continue;
      if (at >= end) return false;
      spot = Spot{at, leaf};
      return true;
    }
    return false;
  }

  /// Whether a root shows nothing. Takes part in the one total order of E7.
  [[nodiscard]] bool is_root_empty(std::uint64_t root) const noexcept { return (load_root(root) & kBits) == 0; }

  /// Shows the bucket. To be called after it was filled.
  void announce(std::uint64_t number) noexcept {
    const std::uint64_t bucket = number & mask_;
    Atomic<std::uint64_t>& leaf = leaves_[bucket >> kFanBits];
    std::uint64_t word = show(leaf, bucket);
    while ((word & kTold) == 0 && (word & kBits) != 0) {
      Atomic<std::uint64_t>& mid = mids_[bucket >> (2 * kFanBits)];
      std::uint64_t above = show(mid, bucket >> kFanBits);
      while ((above & kTold) == 0 && (above & kBits) != 0) {
        show_root(roots_[bucket >> kRootBits].root_word, bucket >> (2 * kFanBits));
        if (tell(mid, above)) break;
      }
      if (tell(leaf, word)) break;
    }
  }

  /// Clears the bucket's bit, unless anything has changed since `spot` was found. To be called by whoever has seen the
  /// bucket empty after that.
  void retire(const Spot& spot) noexcept {
    const std::uint64_t bucket = spot.number & mask_;
    // Relaxed: read before the leaf is emptied below, by the release there (E6).
    const std::uint64_t mid_word = mids_[bucket >> (2 * kFanBits)].load(std::memory_order_relaxed);
    if (!clear(leaves_[bucket >> kFanBits], spot.leaf_word, bucket)) return;
    if ((spot.leaf_word & kBits) != bit_of(bucket)) return;
    // The leaf is empty now: clear its bit above, by the word from before it became so.
    Atomic<std::uint64_t>& root = roots_[bucket >> kRootBits].root_word;
    // Relaxed: read before the mid is emptied below, by the release there (E6).
    const std::uint64_t seen_root = root.load(std::memory_order_relaxed);
    if ((mid_word & bit_of(bucket >> kFanBits)) == 0) return;
    if (!clear(mids_[bucket >> (2 * kFanBits)], mid_word, bucket >> kFanBits)) return;
    if ((mid_word & kBits) == bit_of(bucket >> kFanBits)) (void)clear(root, seen_root, bucket >> (2 * kFanBits));
  }

 private:
  struct alignas(kNoFalseSharing) Root {
    Atomic<std::uint64_t> root_word{0};
  };

  static constexpr std::uint64_t bit_of(std::uint64_t number) noexcept {
    return std::uint64_t{1} << (number & kFanMask);
  }

  [[nodiscard]] std::uint64_t load_root(std::uint64_t root) const noexcept {
    // E5: what is below the bits is seen. E7: in one order with moves of the window.
    return roots_[root & root_mask_].root_word.load(std::memory_order_seq_cst);
  }

  /// Moves `at` to the first bucket at or after it that the word shows, `span_bits` being the buckets of the whole
  /// word; or past the word, and false, when it shows none.
  [[nodiscard]] static bool descend(std::uint64_t& at, std::uint64_t word, unsigned span_bits) noexcept {
    const unsigned unit_bits = span_bits - kFanBits;
    const auto offset = static_cast<unsigned>(at >> unit_bits) & kFanMask;
    const std::uint64_t shown = (word & kBits) >> offset;
    if (shown == 0) {
      at = ((at >> span_bits) + 1) << span_bits;
      return false;
    }
    const auto skipped = static_cast<unsigned>(std::countr_zero(shown));
    if (skipped != 0) at = ((at >> unit_bits) + skipped) << unit_bits;
    return true;
  }

  /// Sets a bit and changes the version; the word as it is then.
  static std::uint64_t show(Atomic<std::uint64_t>& at, std::uint64_t number) noexcept {
    std::uint64_t word = at.load(std::memory_order_relaxed);  // a stale word only makes the exchange fail
    std::uint64_t shown = 0;
    do {
      shown = (word | bit_of(number)) + kVersion;
      // E5: publishes what is below the bit; and, by `told`, sees that the level above was announced to. E6: who
      // cleared the word has read the one above before this thread changes it.
    } while (!at.compare_exchange_weak(word, shown, std::memory_order_acq_rel,
                                       std::memory_order_relaxed));  // relaxed on failure: only retried
    return shown;
  }
  static void show_root(Atomic<std::uint64_t>& at, std::uint64_t number) noexcept {
    std::uint64_t word = at.load(std::memory_order_relaxed);  // as in show
    // E5: publishes what is below the bit. E7: in one order with moves of the window.
    while (!at.compare_exchange_weak(word, (word | bit_of(number)) + kVersion, std::memory_order_seq_cst,
                                     std::memory_order_relaxed)) {  // relaxed on failure: only retried
    }
  }

  /// Says on a word that the level above was announced to; `word` is it as last seen, and is renewed on failure.
  static bool tell(Atomic<std::uint64_t>& at, std::uint64_t& word) noexcept {
    // E5: who sees `told` sees the announcement above.
    return at.compare_exchange_strong(word, word | kTold, std::memory_order_release,
                                      std::memory_order_relaxed);  // relaxed on failure: the loop shows again
  }

  static bool clear(Atomic<std::uint64_t>& at, std::uint64_t word, std::uint64_t number) noexcept {
    std::uint64_t cleared = word & ~bit_of(number);
    if ((cleared & kBits) == 0) cleared &= ~kTold;
    // E5: who finds it cleared sees why. E6: the word above has been read before this one is cleared.
    return at.compare_exchange_strong(word, cleared, std::memory_order_release,
                                      std::memory_order_relaxed);  // relaxed on failure: left to the next who passes
  }

  /// Clears the bit of a word that was seen empty, in the word above it as it was read before.
  static void retire_in(Atomic<std::uint64_t>& at, std::uint64_t above, std::uint64_t number) noexcept {
    if ((above & bit_of(number)) != 0) (void)clear(at, above, number);
  }

  const std::uint64_t mask_;
  const std::uint64_t mid_mask_;
  const std::uint64_t leaf_mask_;
  LazyZeros<Atomic<std::uint64_t>, kIsStdAtomic<Atomic>> leaves_;
  LazyZeros<Atomic<std::uint64_t>, kIsStdAtomic<Atomic>> mids_;
  std::unique_ptr<Root[]> roots_;
  const std::uint64_t root_mask_;
};

}  // namespace zeta::queue
