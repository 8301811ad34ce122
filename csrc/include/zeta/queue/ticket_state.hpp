#pragma once

#include <cstdint>

#include "zeta/queue/cell_pool.hpp"

namespace zeta::queue {

/// The word by which a home decides, once for each event, what becomes of its item. A value; every change is one
/// compare-exchange of the whole word.
///
///   generation | hops : 7 | is_linked : 1 | is_waiting : 1 | node : 27
///
/// `node` is the node that stands for the item: the home's own cell, or a spare one after a change of key or place.
/// `hops` counts those changes, so that a word never returns while somebody may still remember it (it wraps after 128).
/// `is_linked` says that the home's own cell still hangs in a bucket; the cell is free when neither flag is set.
template <unsigned kGenerationBits>
class TicketState {
  static_assert(kGenerationBits >= 1 && kGenerationBits <= 28);

 public:
  static constexpr unsigned kNodeBits = 27;
  static constexpr Index kMostNodes = (Index{1} << kNodeBits) - 1;

  constexpr explicit TicketState(std::uint64_t word) noexcept : word_{word} {}

  [[nodiscard]] constexpr std::uint64_t word() const noexcept { return word_; }
  [[nodiscard]] constexpr Index node() const noexcept { return static_cast<Index>(word_) & kMostNodes; }
  [[nodiscard]] constexpr bool is_waiting() const noexcept { return (word_ & kWaiting) != 0; }
  [[nodiscard]] constexpr bool is_linked() const noexcept { return (word_ & kLinked) != 0; }
  [[nodiscard]] constexpr std::uint32_t generation() const noexcept {
    return static_cast<std::uint32_t>(word_ >> kGenerationShift);
  }

  /// The next life of a free cell: it waits, and stands for itself.
  [[nodiscard]] constexpr TicketState reborn(Index own) const noexcept {
    const std::uint64_t generation = (word_ >> kGenerationShift) + 1;
    constexpr std::uint64_t kMask = (std::uint64_t{1} << kGenerationBits) - 1;
    return TicketState{(generation & kMask) << kGenerationShift | kLinked | kWaiting | own};
  }
  [[nodiscard]] constexpr TicketState ended() const noexcept { return TicketState{word_ & ~kWaiting}; }
  [[nodiscard]] constexpr TicketState unlinked() const noexcept { return TicketState{word_ & ~kLinked}; }
  [[nodiscard]] constexpr TicketState moved_to(Index node) const noexcept {
    const std::uint64_t hops = (word_ + kHop) & kHopMask;
    return TicketState{(word_ & ~(kHopMask | kMostNodes)) | hops | node};
  }

  /// Whether only the link of the own cell may have changed since.
  [[nodiscard]] constexpr bool is_still(TicketState earlier) const noexcept {
    return ((word_ ^ earlier.word_) & ~kLinked) == 0;
  }

  [[nodiscard]] constexpr Ticket ticket(Index home) const noexcept { return Ticket{generation()} << 32U | home; }
  [[nodiscard]] static constexpr Index home_of(Ticket ticket) noexcept { return static_cast<Index>(ticket); }
  [[nodiscard]] constexpr bool is_named_by(Ticket ticket) const noexcept {
    return is_waiting() && generation() == ticket >> 32U;
  }

 private:
  static constexpr std::uint64_t kWaiting = std::uint64_t{1} << kNodeBits;
  static constexpr std::uint64_t kLinked = kWaiting << 1U;
  static constexpr std::uint64_t kHop = kLinked << 1U;
  static constexpr unsigned kGenerationShift = kNodeBits + 2 + 7;
  static constexpr std::uint64_t kHopMask = std::uint64_t{0x7F} << (kNodeBits + 2);
  static_assert(kGenerationShift + 28 == 64);

  std::uint64_t word_;
};

}  // namespace zeta::queue
