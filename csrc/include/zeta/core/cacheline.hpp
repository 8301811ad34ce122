#pragma once

#include <cstddef>

namespace zeta {

/// Values written by different threads keep this many bytes apart. Two 64-byte lines: x86 prefetches lines in pairs.
/// Our own constant, because compilers warn that the standard's may change between translation units.
inline constexpr std::size_t kNoFalseSharing = 128;

}  // namespace zeta
