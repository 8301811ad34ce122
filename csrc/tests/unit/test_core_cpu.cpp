#include <doctest/doctest.h>

#include "zeta/core/cpu.hpp"

TEST_CASE("asking the processor twice gives the same answer") {
  CHECK(zeta::detect_cpu_features() == zeta::detect_cpu_features());
}

TEST_CASE("a processor with 512-bit vectors also has 256-bit ones, and no x86 unit stands beside an Arm one") {
  const zeta::CpuFeatures found = zeta::detect_cpu_features();
  CHECK((found.avx2 || !found.avx512f));
  CHECK_FALSE(((found.avx2 || found.avx512f) && (found.neon || found.sve)));
}
