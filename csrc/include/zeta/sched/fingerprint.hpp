#pragma once

#include <cstdint>

#include "zeta/core/event_hash.hpp"
#include "zeta/sched/request.hpp"
#include "zeta/share/policy.hpp"

namespace zeta::sched {

/// What a scheduler did with a request. The numbers are part of every recorded hash: they stay.
enum class Step : std::uint8_t {
  submit = 1,
  reject,
  place,
  first_token,
  complete,
  fail,
  cancel,
  expire,
  widen,
  presume,
  swap,
  loaded,
  external_load
};

/// One number for everything that a scheduler did, in order: two runs are equal, bit for bit, if theirs are. One owner.
class Fingerprint {
 public:
  void add(Step step, Ticket ticket, Instant now, std::uint64_t detail = 0) noexcept {
    hash_.add((ticket.value() << 4U) ^ static_cast<std::uint64_t>(step));
    hash_.add(static_cast<std::uint64_t>(to_ns(now)) ^ (detail << 40U));
  }

  void add(const share::Plan& plan) noexcept {
    for (const double share : plan.shares()) hash_.add(static_cast<std::uint64_t>(share * 1e9));
  }

  [[nodiscard]] const EventHash& hash() const noexcept { return hash_; }

 private:
  EventHash hash_;
};

}  // namespace zeta::sched
