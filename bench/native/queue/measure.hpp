#pragma once
// Time in ticks, and where the ticks of many operations are kept.

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstdint>
#include <limits>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace zeta::bench {

using Ticks = std::uint64_t;

inline std::uint64_t steady_ns() noexcept {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
          .count());
}

/// The time-stamp counter where there is one (rdtscp waits for what came before it), else nanoseconds.
inline Ticks ticks() noexcept {
#if defined(__x86_64__)
  unsigned core = 0;
  return __rdtscp(&core);
#else
  return steady_ns();
#endif
}

inline const char* tick_source() noexcept {
#if defined(__x86_64__)
  return "rdtscp";
#else
  return "steady_clock";
#endif
}

inline void relax() noexcept {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// How long a tick is and what reading the counter twice costs, measured once (50 ms).
struct TickScale {
  double ticks_per_ns = 1.0;
  Ticks overhead = 0;  // of two readings with nothing between them

  static const TickScale& get() {
    static const TickScale scale = calibrate();
    return scale;
  }

  [[nodiscard]] Ticks from_seconds(double seconds) const noexcept {
    return static_cast<Ticks>(seconds * 1e9 * ticks_per_ns);
  }
  [[nodiscard]] double to_ns(Ticks t) const noexcept { return static_cast<double>(t) / ticks_per_ns; }

 private:
  static TickScale calibrate() {
    TickScale scale;
    const std::uint64_t ns_began = steady_ns();
    const Ticks began = ticks();
    while (steady_ns() - ns_began < 50'000'000) {
    }
    const Ticks ended = ticks();
    scale.ticks_per_ns = static_cast<double>(ended - began) / static_cast<double>(steady_ns() - ns_began);
    scale.overhead = std::numeric_limits<Ticks>::max();
    for (int i = 0; i < 10'000; ++i) {
      const Ticks first = ticks();
      scale.overhead = std::min(scale.overhead, ticks() - first);
    }
    return scale;
  }
};

/// Counts by size; each power of two is cut into 32, so a quantile is at most 3 % low.
class Histogram {
 public:
  void add(Ticks value) noexcept {
    ++counts_[index_of(value)];
    ++total_;
    largest_ = std::max(largest_, value);
  }

  /// Between two readings of the counter, less what the readings cost.
  void add_between(Ticks before, Ticks after, Ticks overhead) noexcept {
    const Ticks spent = after - before;
    add(spent > overhead ? spent - overhead : 0);
  }

  void merge(const Histogram& other) noexcept {
    for (std::size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
    total_ += other.total_;
    largest_ = std::max(largest_, other.largest_);
  }

  [[nodiscard]] Ticks quantile(double q) const noexcept {
    const auto wanted = static_cast<std::uint64_t>(q * static_cast<double>(total_));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (seen > wanted) return floor_of(i);
    }
    return largest_;
  }

  [[nodiscard]] Ticks largest() const noexcept { return largest_; }
  [[nodiscard]] std::uint64_t total() const noexcept { return total_; }

 private:
  static constexpr unsigned kBits = 5;
  static constexpr std::size_t kCells = (64 - kBits + 1) << kBits;

  static std::size_t index_of(Ticks value) noexcept {
    if (value < (1U << kBits)) return static_cast<std::size_t>(value);
    const auto exponent = static_cast<unsigned>(std::bit_width(value)) - 1 - kBits;
    return static_cast<std::size_t>((static_cast<Ticks>(exponent) << kBits) + (value >> exponent));
  }
  static Ticks floor_of(std::size_t index) noexcept {
    if (index < (2U << kBits)) return index;
    const std::size_t exponent = (index >> kBits) - 1;
    return static_cast<Ticks>(index - (exponent << kBits)) << exponent;
  }

  std::array<std::uint64_t, kCells> counts_{};
  std::uint64_t total_ = 0;
  Ticks largest_ = 0;
};

}  // namespace zeta::bench
