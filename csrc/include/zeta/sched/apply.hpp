#pragma once

#include "zeta/sched/events.hpp"
#include "zeta/sched/scheduler.hpp"

namespace zeta::sched {

/// Applies one recorded input. The only translation from records to calls: live runs and replays share it.
inline bool apply_event(Scheduler& scheduler, EventRecord& event) noexcept {
  switch (event.kind) {
    case EventKind::submit:
      scheduler.admit(event.ticket, event.request, event.now);
      if (!event.in_batch) scheduler.settle(event.now);
      return true;
    case EventKind::complete: {
      const bool was_running = scheduler.finish(event.ticket, event.output_tokens, event.now);
      if (!event.in_batch) scheduler.settle(event.now);
      return was_running;
    }
    case EventKind::first_token:
      return scheduler.first_token(event.ticket, event.now);
    case EventKind::fail:
      return scheduler.fail(event.ticket, event.requeue, event.outcome, event.now);
    case EventKind::cancel:
      return scheduler.cancel(event.ticket, event.now);
    case EventKind::settle:
      scheduler.settle(event.now);
      return true;
    case EventKind::advance:
      scheduler.advance(event.now);
      return true;
    case EventKind::tick:
      scheduler.tick(event.now);
      return true;
    case EventKind::hand_out:
      return scheduler.next_placement(event.channel).has_value();
    case EventKind::add_replica:
      event.replica =
          scheduler.add_replica({event.model, event.max_in_flight, event.max_batch, event.kv_tokens}, event.now);
      return event.replica != kNoReplica;
    case EventKind::drain_replica:
      scheduler.drain_replica(event.replica, event.now);
      return true;
    case EventKind::resume_replica:
      scheduler.resume_replica(event.replica, event.now);
      return true;
    case EventKind::remove_replica:
      scheduler.remove_replica(event.replica, event.now);
      return true;
    case EventKind::loaded:
      scheduler.loaded(event.device, event.model, event.now);
      return true;
    case EventKind::feedback:
      return scheduler.feedback(event.ticket, event.quality);
    case EventKind::set_share:
      scheduler.set_share(event.model, event.quality, !event.in_batch, event.now);
      return true;
    case EventKind::note_overload:
      scheduler.note_overload(event.now);
      scheduler.settle(event.now);
      return true;
    case EventKind::external_load:
      if (!scheduler.note_external_load(event.replica, event.max_in_flight, event.kv_tokens, event.now)) return false;
      if (!event.in_batch) scheduler.settle(event.now);
      return true;
  }
  return false;
}

}  // namespace zeta::sched
