#pragma once
// Which vector units this processor offers and this operating system saves. Read at run time, so that one portable
// build serves every machine and a kernel can pick its widest form.

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace zeta {

/// What the running CPU can execute. A value; false means "absent or unknown", and then the scalar form is right.
struct CpuFeatures {
  bool avx2 = false;
  bool avx512f = false;
  bool neon = false;
  bool sve = false;

  friend constexpr bool operator==(const CpuFeatures&, const CpuFeatures&) noexcept = default;
};

/// Asks the processor. Any thread; some dozens of nanoseconds, so keep the answer.
[[nodiscard]] inline CpuFeatures detect_cpu_features() noexcept {
  CpuFeatures found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  found.avx2 = __builtin_cpu_supports("avx2") != 0;
  found.avx512f = __builtin_cpu_supports("avx512f") != 0;
#elif defined(__aarch64__)
  constexpr unsigned long kHwcapSve = 1UL << 22U;  // HWCAP_SVE in Linux's arch/arm64/include/uapi/asm/hwcap.h
  found.neon = true;                               // part of the aarch64 baseline
  found.sve = (getauxval(AT_HWCAP) & kHwcapSve) != 0;
#endif
  return found;
}

}  // namespace zeta
