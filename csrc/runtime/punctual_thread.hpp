#pragma once

#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace zeta::runtime {

/// Asks the kernel to wake the calling thread on time, as far as one of ordinary priority may: no slack on its timers
/// (50 us by default), and slices of 0.1 ms, with which it goes before threads that compute in slices of 3 ms (EEVDF,
/// Linux 6.12 and later; earlier ones take no notice). For threads that work microseconds at a time.
inline void make_punctual() noexcept {
  (void)::prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
  struct {  // struct sched_attr of linux/sched/types.h, which not every libc can include beside its own sched.h
    std::uint32_t size, policy;
    std::uint64_t flags;
    std::int32_t nice;
    std::uint32_t priority;
    std::uint64_t runtime, deadline, period;
  } attributes{};
  constexpr std::uint32_t kOther = 0;
  if (::syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0U) != 0 || attributes.policy != kOther) return;
  attributes.size = sizeof attributes;
  attributes.runtime = 100'000;
  (void)::syscall(SYS_sched_setattr, 0, &attributes, 0U);
}

}  // namespace zeta::runtime
