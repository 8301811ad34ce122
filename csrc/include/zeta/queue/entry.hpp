#pragma once

#include <cstdint>

namespace zeta::queue {

using Key = std::uint64_t;   ///< Smaller leaves first. In a DeadlineQueue: an instant in nanoseconds.
using Item = std::uint64_t;  ///< The caller's; the queue never looks at it.

/// Names one push for the life of the queue: generation in the upper half, slot in the lower. Never 0.
using Ticket = std::uint64_t;
inline constexpr Ticket kNoTicket = 0;

/// What a pop hands out.
struct Entry {
  Key key;
  Item item;
  Ticket ticket;
};

}  // namespace zeta::queue
