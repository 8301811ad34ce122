#pragma once

#include <ucontext.h>

#include <csetjmp>
#include <cstddef>
#include <memory>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace zeta::interleave {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kAddressSanitizer = true;
#else
inline constexpr bool kAddressSanitizer = false;
#endif

/// A stack and a place in its code. One operating-system thread owns all fibers and gives itself from one to another.
///
/// A fiber is entered with setcontext; every later switch is _setjmp and _longjmp, which make no system call (about
/// 5 ns, where swapcontext takes 250). The address sanitizer follows stacks by its own calls, around swapcontext.
class Fiber {
 public:
  using Entry = void (*)();

  /// The fiber that is running already: the operating-system thread's own stack.
  Fiber() = default;
  /// A fiber that has not begun; `entry` never returns.
  explicit Fiber(Entry entry) : entry_{entry}, stack_{new std::byte[kStackBytes]} { reset(); }

  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Forgets where the fiber stood; the next switch to it begins at the entry. Objects on its stack are not destroyed.
  void reset() {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(stack_.get(), kStackBytes);
#endif
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_.get();
    context_.uc_stack.ss_size = kStackBytes;
    context_.uc_link = nullptr;
    makecontext(&context_, entry_, 0);
    is_fresh_ = true;
  }

  /// Goes on in `to`; returns when something switches back to `from`, the running fiber.
  [[gnu::noinline]] static void swap(Fiber& from, Fiber& to) {
#if defined(__SANITIZE_ADDRESS__)
    to.is_fresh_ = false;
    __sanitizer_start_switch_fiber(&from.fake_stack_, to.stack_bottom(), to.stack_bytes());
    swapcontext(&from.context_, &to.context_);
    __sanitizer_finish_switch_fiber(from.fake_stack_, nullptr, nullptr);
#else
    if (_setjmp(from.jump_) != 0) return;
    if (to.is_fresh_) {
      to.is_fresh_ = false;
      setcontext(&to.context_);
    }
    _longjmp(to.jump_, 1);
#endif
  }

  /// The first statement of every entry. `main_fiber` is where the first switch came from.
  static void entered([[maybe_unused]] Fiber& main_fiber) {
#if defined(__SANITIZE_ADDRESS__)
    const void* bottom = nullptr;
    std::size_t bytes = 0;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
    if (main_fiber.main_bottom_ == nullptr) {
      main_fiber.main_bottom_ = bottom;
      main_fiber.main_bytes_ = bytes;
    }
#endif
  }

 private:
  static constexpr std::size_t kStackBytes = kAddressSanitizer ? 512 * 1024 : 128 * 1024;

#if defined(__SANITIZE_ADDRESS__)
  const void* stack_bottom() const { return stack_ ? stack_.get() : main_bottom_; }
  std::size_t stack_bytes() const { return stack_ ? kStackBytes : main_bytes_; }
  void* fake_stack_ = nullptr;
  const void* main_bottom_ = nullptr;
  std::size_t main_bytes_ = 0;
#endif

  Entry entry_ = nullptr;
  std::unique_ptr<std::byte[]> stack_;
  ucontext_t context_{};
  std::jmp_buf jump_{};
  bool is_fresh_ = false;
};

}  // namespace zeta::interleave
