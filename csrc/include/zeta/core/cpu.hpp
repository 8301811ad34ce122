#pragma once
// Which vector units this processor offers and this operating system saves. Read at run time, so that one portable
// build serves every machine and a kernel can pick its widest form.

#include <cstdint>

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

/// How wide a kernel's vectors are. Every level gives the same bits; a wider one only gives them sooner.
enum class SimdLevel : std::uint8_t {
  baseline,  ///< What every processor of the platform has: SSE2 on x86-64, NEON on aarch64.
  avx2,
  avx512,  ///< AVX-512 F.
};

/// The widest level that a processor offers.
[[nodiscard]] constexpr SimdLevel widest_level(const CpuFeatures& cpu) noexcept {
  if (cpu.avx512f) return SimdLevel::avx512;
  return cpu.avx2 ? SimdLevel::avx2 : SimdLevel::baseline;
}

/// The widest level here; asked once per process. Any thread.
[[nodiscard]] inline SimdLevel simd_level() noexcept {
  static const SimdLevel level = widest_level(detect_cpu_features());
  return level;
}

}  // namespace zeta

// A kernel is one always-inlined body, compiled once per level: the function that names a level inlines all of the body
// and so compiles it for that level. Only their order of operations decides what the bodies compute, and it is one.
#if defined(__x86_64__)
#define ZETA_TARGET_AVX2 [[gnu::flatten, gnu::target("avx2")]]
#if defined(__clang__)
#define ZETA_TARGET_AVX512 [[gnu::flatten, gnu::target("avx512f")]]
#else
#define ZETA_TARGET_AVX512 [[gnu::flatten, gnu::target("avx512f,prefer-vector-width=512")]]
#endif
#endif
