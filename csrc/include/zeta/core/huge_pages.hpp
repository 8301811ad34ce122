#pragma once
// Memory for large arrays that are walked at random.

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <new>
#include <vector>

namespace zeta {

/// Allocates like std::allocator, and asks the kernel for huge pages where an array fills at least half of one: a
/// slab of 100,000 requests then needs 10 entries of the address cache instead of 5,000, and a random access one miss
/// instead of two. Only advice: where the kernel has none to give, ordinary pages serve.
template <class T>
struct HugePageAllocator {
  using value_type = T;

  HugePageAllocator() noexcept = default;
  template <class Other>
  HugePageAllocator(const HugePageAllocator<Other>& /*other*/) noexcept {}  // NOLINT(google-explicit-constructor)

  [[nodiscard]] T* allocate(std::size_t count) {
    std::size_t bytes = count * sizeof(T);
    if (bytes < kWorthwhile) return static_cast<T*>(::operator new(bytes, kAlignment));
    bytes = std::max(bytes, static_cast<std::size_t>(kHugePage));
    void* const memory = ::operator new(bytes, kHugePage);
    (void)::madvise(memory, bytes, MADV_HUGEPAGE);
    return static_cast<T*>(memory);
  }

  void deallocate(T* memory, std::size_t count) noexcept {
    ::operator delete(memory, count * sizeof(T) < kWorthwhile ? kAlignment : kHugePage);
  }

  friend bool operator==(const HugePageAllocator&, const HugePageAllocator&) noexcept { return true; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  static constexpr std::align_val_t kHugePage{2U << 20U};
  static constexpr std::size_t kWorthwhile = 1U << 20U;
};

template <class T>
using LargeVector = std::vector<T, HugePageAllocator<T>>;

}  // namespace zeta
