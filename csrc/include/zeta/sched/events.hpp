#pragma once
// The scheduler's inputs as plain records, so that a run can be written down and done again.

#include <cstdint>
#include <type_traits>

#include "zeta/sched/request.hpp"

namespace zeta::sched {

enum class EventKind : std::uint8_t {
  submit,
  first_token,
  complete,
  fail,
  cancel,
  settle,  ///< End of a batch of submits or completions.
  advance,
  hand_out,  ///< The next placement of a channel went to the caller.
  tick,
  add_replica,
  drain_replica,
  remove_replica,
  feedback,
  loaded,         ///< A device holds another model, or nothing.
  set_share,      ///< Of `model`, in `quality`; with the last one of a device (not in_batch) they act.
  note_overload,  ///< A tick of a loop whose plans are made elsewhere or act later.
  resume_replica,
  external_load,  ///< Others hold `max_in_flight` requests and `kv_tokens` on `replica`; kUnknownLoad: not known.
};

inline constexpr std::uint32_t kUnknownLoad = 0xFFFF'FFFF;

/// One input, as it was applied.
struct EventRecord {
  EventKind kind = EventKind::settle;
  bool in_batch = false;  ///< Placements wait for the next `settle`.
  bool requeue = false;
  std::uint8_t channel = 0;
  DeviceId device{0};
  Outcome outcome = Outcome::completed;
  std::uint32_t output_tokens = 0;
  Instant now{};
  Ticket ticket;
  Request request;
  ReplicaId replica = kNoReplica;
  ModelId model = kNoModel;
  std::uint32_t max_in_flight = 0;
  std::uint32_t max_batch = 0;
  std::uint64_t kv_tokens = 0;
  double quality = 0.0;
};
static_assert(std::is_trivially_copyable_v<EventRecord>, "written to logs and posted between threads as bytes");

}  // namespace zeta::sched
