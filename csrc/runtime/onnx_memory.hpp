#pragma once
// The memory that ONNX Runtime gets for tensors: ours, so that it can be counted, kept at hand and bounded.

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "zeta/sync/try_lock.hpp"

namespace zeta::runtime {

/// Calls of one thread to an OnnxMemory.
struct OnnxAllocations {
  std::uint64_t calls = 0;
  std::uint64_t bytes = 0;
  std::uint64_t from_heap = 0;  ///< Calls that nothing kept at hand could serve.
};

/// An allocator as ONNX Runtime's C interface describes one: a version and a table of functions, then our own state.
///
/// Any thread may call it. What is given back is kept, in size classes, and given out again, so that a session that
/// runs again and again takes nothing from the heap. All sessions of the process together get at most `kBytesMax`; a
/// net that asks for more fails instead of the host. Lives as long as the process.
class OnnxMemory {
 public:
  static constexpr std::size_t kBytesMax = std::size_t{256} << 20;

  /// `info` is the runtime's own description of CPU memory, which has to outlive this.
  explicit OnnxMemory(const void* info) noexcept : info_{info} {}
  OnnxMemory(const OnnxMemory&) = delete;
  OnnxMemory& operator=(const OnnxMemory&) = delete;

  /// What the C interface takes for an OrtAllocator*.
  [[nodiscard]] void* as_allocator() noexcept { return this; }

  /// Of the calling thread, over all its sessions.
  [[nodiscard]] static OnnxAllocations& of_this_thread() noexcept {
    thread_local OnnxAllocations counts;
    return counts;
  }

  /// Given out and not yet given back, headers included, over all threads.
  [[nodiscard]] std::size_t bytes_in_use() const noexcept {
    return in_use_.load(std::memory_order_relaxed);  // a figure to report
  }

  [[nodiscard]] void* allocate(std::size_t bytes) noexcept {
    if (bytes > kBytesMax) return nullptr;
    const std::size_t size = std::bit_ceil(bytes + kAlignment < kSmallest ? kSmallest : bytes + kAlignment);
    OnnxAllocations& counts = of_this_thread();
    ++counts.calls;
    counts.bytes += bytes;
    // Only a sum; nothing is published with it.
    if (in_use_.fetch_add(size, std::memory_order_relaxed) + size > kBytesMax) {
      in_use_.fetch_sub(size, std::memory_order_relaxed);  // as above
      return nullptr;
    }
    Block* block = take(size);
    if (block == nullptr) {
      ++counts.from_heap;
      block = static_cast<Block*>(std::aligned_alloc(kAlignment, size));
      if (block == nullptr) {
        in_use_.fetch_sub(size, std::memory_order_relaxed);  // as above
        return nullptr;
      }
      block->size = size;
    }
    return reinterpret_cast<std::byte*>(block) + kAlignment;
  }

  void free(void* given) noexcept {
    if (given == nullptr) return;
    auto* const block = reinterpret_cast<Block*>(static_cast<std::byte*>(given) - kAlignment);
    in_use_.fetch_sub(block->size, std::memory_order_relaxed);  // only a sum
    if (!keep(block)) std::free(block);
  }

 private:
  static constexpr std::size_t kAlignment = 64;  // also the room of the header
  static constexpr std::size_t kSmallest = 256;
  static constexpr std::size_t kLargestKept = std::size_t{1} << 20;
  static constexpr std::uint32_t kKeptPerSize = 64;
  static constexpr std::size_t kSizes = std::bit_width(kLargestKept) - std::bit_width(kSmallest) + 1;

  struct Block {
    std::size_t size;
    Block* next;
  };
  static_assert(sizeof(Block) <= kAlignment, "the header must fit before the data");

  struct Kept {
    Block* first = nullptr;
    std::uint32_t count = 0;
  };

  [[nodiscard]] static std::size_t index_of(std::size_t size) noexcept {
    return static_cast<std::size_t>(std::bit_width(size) - std::bit_width(kSmallest));
  }

  /// A block kept at hand; nullptr also while another thread is here.
  [[nodiscard]] Block* take(std::size_t size) noexcept {
    if (size > kLargestKept || !lock_.try_lock()) return nullptr;
    Kept& kept = kept_[index_of(size)];
    Block* const block = kept.first;
    if (block != nullptr) {
      kept.first = block->next;
      --kept.count;
    }
    lock_.unlock();
    return block;
  }

  [[nodiscard]] bool keep(Block* block) noexcept {
    if (block->size > kLargestKept || !lock_.try_lock()) return false;
    Kept& kept = kept_[index_of(block->size)];
    const bool has_room = kept.count < kKeptPerSize;
    if (has_room) {
      block->next = kept.first;
      kept.first = block;
      ++kept.count;
    }
    lock_.unlock();
    return has_room;
  }

  /// As the runtime's own allocator does, this throws when there is no memory: a null pointer would be written to.
  static void* allocate_for(OnnxMemory* self, std::size_t bytes) {
    void* const given = self->allocate(bytes);
    if (given == nullptr) throw std::bad_alloc{};
    return given;
  }
  static void free_for(OnnxMemory* self, void* given) noexcept { self->free(given); }
  static const void* info_of(const OnnxMemory* self) noexcept { return self->info_; }

  // The runtime reads these in this order; it asks for no more of them than version 20 has.
  std::uint32_t version_ = 20;
  void* (*allocate_)(OnnxMemory*, std::size_t) = &allocate_for;
  void (*free_)(OnnxMemory*, void*) noexcept = &free_for;
  const void* (*get_info_)(const OnnxMemory*) noexcept = &info_of;
  void* (*reserve_)(OnnxMemory*, std::size_t) = &allocate_for;

  const void* info_;
  std::atomic<std::size_t> in_use_{0};
  sync::TryLock<> lock_;
  std::array<Kept, kSizes> kept_{};
};

}  // namespace zeta::runtime
