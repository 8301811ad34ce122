#pragma once
// Memory for large arrays of which only a part may ever be used.

#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace zeta {

/// A fixed array of atomics that all start at zero, in pages that the kernel provides when they are first touched: an
/// array sized for the worst case costs what is used of it.
///
/// `T` is a std::atomic of an integer, or an aggregate of such, for which zero bytes are the value zero; any other type
/// (a model of an atomic under test) is constructed instead. Throws std::bad_alloc. Not copyable.
template <class T, bool kZeroBytesAreValues>
class LazyZeros {
 public:
  explicit LazyZeros(std::size_t count) : count_{count} {
    if constexpr (kZeroBytesAreValues) {
      static_assert(std::is_trivially_destructible_v<T>);
      mapping_ = ::mmap(nullptr, mapped_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (mapping_ == MAP_FAILED) throw std::bad_alloc{};
      void* begin = mapping_;
      if (is_large()) {
        std::size_t room = mapped_bytes();
        begin = std::align(kHugePage, bytes(), begin, room);
        (void)::madvise(begin, bytes(), MADV_HUGEPAGE);  // only advice: fewer misses of the address cache
      }
      data_ = static_cast<T*>(begin);
    } else {
      data_ = new T[count]();
    }
  }
  LazyZeros(LazyZeros&& other) noexcept
      : data_{std::exchange(other.data_, nullptr)},
        mapping_{std::exchange(other.mapping_, nullptr)},
        count_{std::exchange(other.count_, 0)} {}
  LazyZeros(const LazyZeros&) = delete;
  LazyZeros& operator=(const LazyZeros&) = delete;
  LazyZeros& operator=(LazyZeros&&) = delete;
  ~LazyZeros() {
    if (data_ == nullptr) return;
    if constexpr (kZeroBytesAreValues) {
      ::munmap(mapping_, mapped_bytes());
    } else {
      delete[] data_;
    }
  }

  [[nodiscard]] T& operator[](std::size_t i) noexcept { return data_[i]; }
  [[nodiscard]] const T& operator[](std::size_t i) const noexcept { return data_[i]; }
  [[nodiscard]] std::size_t size() const noexcept { return count_; }

 private:
  static constexpr std::size_t kHugePage = 2U << 20U;

  [[nodiscard]] std::size_t bytes() const noexcept { return count_ * sizeof(T) + (count_ == 0 ? 1 : 0); }
  [[nodiscard]] bool is_large() const noexcept { return bytes() >= kHugePage; }
  [[nodiscard]] std::size_t mapped_bytes() const noexcept { return bytes() + (is_large() ? kHugePage : 0); }

  T* data_ = nullptr;
  void* mapping_ = nullptr;
  std::size_t count_ = 0;
};

/// Whether the atomic template in use is the real one, so that zero bytes are zero values.
template <template <class> class Atomic>
inline constexpr bool kIsStdAtomic = std::is_same_v<Atomic<int>, std::atomic<int>>;

}  // namespace zeta
