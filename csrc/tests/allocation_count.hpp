#pragma once

#include <cstdint>

namespace zeta::test {

/// How often this binary has called operator new. Defined where the unit tests replace it: test_sched_allocations.cpp.
[[nodiscard]] std::uint64_t allocations() noexcept;

}  // namespace zeta::test
