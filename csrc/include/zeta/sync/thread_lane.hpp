#pragma once
// A small number for each running thread, so that a structure can give threads lanes of their own.

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace zeta::sync {

namespace detail {

inline constexpr std::uint32_t kReusedLanes = 1024;
inline constexpr std::uint32_t kNoLane = 0xFFFFFFFFU;

/// Which of the first kReusedLanes numbers running threads hold, one bit each. The rest are handed out once.
struct LaneNumbers {
  std::atomic<std::uint64_t> held[kReusedLanes / 64] = {};
  std::atomic<std::uint32_t> next_beyond{kReusedLanes};

  /// The lowest number that no running thread holds. Lock-free.
  [[nodiscard]] std::uint32_t take() noexcept {
    for (std::uint32_t word = 0; word < kReusedLanes / 64; ++word) {
      std::uint64_t bits = held[word].load(std::memory_order_relaxed);  // a stale word only makes the exchange fail
      while (~bits != 0) {
        const std::uint64_t lowest = ~bits & (bits + 1);
        // E52: what the number's last holder did in its lane is seen.
        if (held[word].compare_exchange_weak(bits, bits | lowest, std::memory_order_acquire,
                                             std::memory_order_relaxed)) {  // relaxed on failure: only retried
          return word * 64 + static_cast<std::uint32_t>(std::countr_zero(lowest));
        }
      }
    }
    return next_beyond.fetch_add(1, std::memory_order_relaxed);  // only distinctness matters
  }

  void give_back(std::uint32_t lane) noexcept {
    if (lane >= kReusedLanes) return;
    // E52: hands the lane's private state to the number's next holder.
    held[lane / 64].fetch_and(~(std::uint64_t{1} << (lane % 64)), std::memory_order_release);
  }
};

inline LaneNumbers lane_numbers;
inline thread_local constinit std::uint32_t this_lane = kNoLane;

/// Takes the calling thread's number and has it handed back when the thread ends. Asked for again by a destructor that
/// runs later still, the thread gets a number that stays held.
[[nodiscard]] [[gnu::noinline, gnu::cold]] inline std::uint32_t take_lane() noexcept {
  struct Lease {
    ~Lease() {
      lane_numbers.give_back(this_lane);
      this_lane = kNoLane;
    }
  };
  this_lane = lane_numbers.take();
  static thread_local const Lease lease;
  (void)lease;
  return this_lane;
}

}  // namespace detail

/// The calling thread's number: no other running thread has it, and low numbers are used again when threads end. Any
/// thread; wait-free after the first call, which is lock-free.
///
/// Numbers are dense while threads are few, but have no upper bound: whoever has n lanes must say what lane n does.
[[nodiscard]] inline std::uint32_t thread_lane() noexcept {
  const std::uint32_t lane = detail::this_lane;
  return lane != detail::kNoLane ? lane : detail::take_lane();
}

}  // namespace zeta::sync
