#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

#include "zeta/sched/allocation.hpp"
#include "zeta/sched/arrival.hpp"
#include "zeta/sched/backlog.hpp"
#include "zeta/sched/collation.hpp"
#include "zeta/sched/config.hpp"
#include "zeta/sched/endings.hpp"
#include "zeta/sched/eta_record.hpp"
#include "zeta/sched/events.hpp"
#include "zeta/sched/fingerprint.hpp"
#include "zeta/sched/fleet.hpp"
#include "zeta/sched/idle_capacity.hpp"
#include "zeta/sched/in_flight.hpp"
#include "zeta/sched/learning.hpp"
#include "zeta/sched/ledger.hpp"
#include "zeta/sched/overload.hpp"
#include "zeta/sched/placer.hpp"
#include "zeta/sched/slab.hpp"
#include "zeta/sched/timers.hpp"

namespace zeta::sched {

/// Decides which waiting request goes to which replica next.
///
/// A state machine: events in, placements out, time passed in. It reads no clock, starts no thread, and does the same
/// for the same events, bit for bit. One owner at a time (SharedScheduler lets many threads use one). Every event
/// settles all placements that it makes possible, so no eligible request waits while a replica that could serve it has
/// room; placements are then drained with `next_placement`. Nothing allocates after construction except add_replica.
///
/// What an event does, in order, stands here. A request is in one of three hands: the backlog (backlog.hpp), a replica
/// (in_flight.hpp) or the endings (endings.hpp); the placer (placer.hpp) moves it from the first to the second.
class Scheduler {
 public:
  static constexpr std::size_t kChannels = InFlight::kChannels;
  static constexpr std::size_t kKeptFinals = Endings::kKept;
  static constexpr std::uint8_t kMostRequeues = 3;

  explicit Scheduler(const SchedulerConfig& config)
      : config_{config},
        slab_{slab_capacity(config)},
        fleet_{config},
        timers_{slab_.capacity()},
        backlog_{config_, slab_, fleet_, timers_},
        in_flight_{slab_, fleet_, timers_},
        endings_{slab_, ledger_},
        placer_{config_, slab_, fleet_, backlog_, in_flight_, ledger_, etas_, fingerprint_},
        collation_{config_, slab_, fleet_, backlog_, fingerprint_} {}

  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // --- arriving ------------------------------------------------------------------------------------------------------

  /// A ticket for a request about to be submitted. Lock-free, from any thread; everything else is the owner's.
  [[nodiscard]] Ticket reserve() noexcept {
    const SlotIndex slot = slab_.take();
    const std::uint64_t sequence = sequence_.fetch_add(1, std::memory_order_relaxed) + 1;  // only has to be unique
    return Ticket{sequence, slot == kNull ? Ticket::kNoSlot : slot};
  }

  /// Takes a request in under a reserved ticket; `outcome` tells what became of it.
  void submit(Ticket ticket, const Request& request, Instant now) noexcept {
    admit(ticket, request, now);
    settle(now);
  }

  Ticket submit(const Request& request, Instant now) noexcept {
    const Ticket ticket = reserve();
    submit(ticket, request, now);
    return ticket;
  }

  /// As `submit` without settling, for batches: many events, then one `settle`.
  void admit(Ticket ticket, const Request& given, Instant now) noexcept {
    ledger_.on_submitted();
    Request request = given;
    keep_within_bounds(request, backlog_.room());
    crowd_.note(request.tenant);
    if (ticket.slot() == Ticket::kNoSlot || waiting() >= config_.max_queued ||
        crowd_.keeps_out(request.tenant, backlog_.room(), config_.max_queued)) {
      reject(ticket, request, Outcome::rejected_capacity, {}, now);
      return;
    }
    const ModelMask configured = ModelMask::first(fleet_.model_count());
    const ModelMask served = fleet_.served();
    const ModelMask fitting = models_that_fit(fleet_, request, request.allowed & configured);
    ModelMask eligible = fitting & served;
    if (eligible.empty() && config_.admission == AdmissionRule::downgrade) {
      eligible = models_that_fit(fleet_, request, request.downgrade & served);
    }
    if (eligible.empty()) {
      const bool lacks_replica = !fitting.empty() || (request.allowed & served).empty();
      reject(ticket, request, lacks_replica ? Outcome::rejected_no_replica : Outcome::rejected_infeasible, {}, now);
      return;
    }

    const SlotIndex slot = ticket.slot();
    Slot& s = slab_[slot];
    s = Slot{};
    s.request = request;
    s.request.allowed = eligible;
    s.ticket = ticket;
    s.arrival = now;
    choose_set(fleet_, config_, s, eligible, now);
    if (config_.admission != AdmissionRule::queue) {
      if (const auto refused = check_promise(fleet_, config_, s, now)) {
        reject(ticket, request, Outcome::rejected_infeasible, refused->start_mean, now);
        return;
      }
    }
    fingerprint_.add(Step::submit, ticket, now, s.waits_for.bits());
    fleet_.device_of(s.demand_model).arriving.add(s.work, now);
    Model& model = fleet_[s.demand_model];
    ++model.arrivals;
    model.arrived_work += s.work;
    if (collation_.is_active()) collation_.note_arrival(s, now);
    backlog_.enter(slot, now, true);
    if (EtaRecord::follows(ticket)) etas_.expect(ticket, estimate(ticket).start_mean);
  }

  /// Places until no waiting request that may be taken fits any open model.
  void settle(Instant now) noexcept {
    if (!collation_.is_active()) return placer_.settle(now);
    collation_.review(now);
    placer_.settle(now);
    collation_.note_waiting(now);
  }

  // --- running -------------------------------------------------------------------------------------------------------

  /// The next placement of a channel, in the order in which they were decided.
  [[nodiscard]] std::optional<Placement> next_placement(std::uint8_t channel = 0) noexcept {
    return in_flight_.hand_out(channel);
  }
  [[nodiscard]] bool has_ready(std::uint8_t channel) const noexcept { return in_flight_.has_ready(channel); }

  /// The first token has come. False where the request no longer runs there.
  bool first_token(Ticket ticket, Instant now) noexcept {
    const SlotIndex slot = in_flight_.find(ticket);
    if (slot == kNull || slab_[slot].phase == Phase::decoding) return false;
    fingerprint_.add(Step::first_token, ticket, now);
    in_flight_.start_decoding(slot, now);
    settle(now);
    return true;
  }

  /// The answer is complete. False where the request no longer runs.
  bool complete(Ticket ticket, std::uint32_t output_tokens, Instant now) noexcept {
    const bool was_running = finish(ticket, output_tokens, now);
    settle(now);
    return was_running;
  }

  /// As `complete` without settling.
  bool finish(Ticket ticket, std::uint32_t output_tokens, Instant now) noexcept {
    const SlotIndex slot = in_flight_.find(ticket);
    if (slot == kNull) return false;
    endings_.expect(ticket);
    fingerprint_.add(Step::complete, ticket, now, output_tokens);
    learn_answer(fleet_, slab_[slot], output_tokens, now);
    in_flight_.vacate(slot, now);
    endings_.end_placed(slot, Outcome::completed);
    return true;
  }

  /// The replica failed it. With `requeue` it goes back to the front of its queue under the same ticket, at most three
  /// times; otherwise it ends as `outcome`. False where the request no longer runs.
  bool fail(Ticket ticket, bool requeue, Outcome outcome, Instant now) noexcept {
    const SlotIndex slot = in_flight_.find(ticket);
    if (slot == kNull) return false;
    fingerprint_.add(Step::fail, ticket, now);
    give_back(slot, requeue, outcome, now);
    settle(now);
    return true;
  }

  /// Withdraws a request wherever it is. False where it has already ended.
  bool cancel(Ticket ticket, Instant now) noexcept {
    expect_withdrawal(ticket);
    const SlotIndex slot = slab_.find(ticket);
    if (slot == kNull) return false;
    fingerprint_.add(Step::cancel, ticket, now);
    if (const Phase phase = slab_[slot].phase; phase == Phase::waiting) {
      backlog_.leave(slot, now);
      endings_.end_waiting(slot, Outcome::cancelled);
    } else {
      in_flight_.vacate(slot, now);
      endings_.end_placed(slot, phase == Phase::ready ? Outcome::cancelled : Outcome::cancelled_running);
    }
    settle(now);
    return true;
  }

  /// The next request of channel 1 that ended otherwise than by completing, for callers that await each ticket.
  [[nodiscard]] std::optional<Ticket> next_ended() noexcept { return endings_.next(); }
  [[nodiscard]] bool has_ended() const noexcept { return endings_.has_next(); }

  /// How well the answer was, in [0, 1]: moves the model's quality prior. False where the request is unknown.
  bool feedback(Ticket ticket, double quality) noexcept {
    const Final* final = endings_.find(ticket);
    if (final == nullptr || final->outcome != Outcome::completed) return false;
    learn_quality(fleet_[final->model], final->complexity, quality);
    return true;
  }

  // --- time ----------------------------------------------------------------------------------------------------------

  /// The earliest instant at which `advance` has something to do.
  [[nodiscard]] Instant next_timer() const noexcept { return std::min(timers_.next(), collation_.next_timer()); }

  /// Lets everything happen that is due by `now`: expiries, ends of holds, reviews of who is resident.
  void advance(Instant now) noexcept {
    for (SlotIndex slot = timers_.take_due(now); slot != kNull; slot = timers_.take_due(now)) on_timer(slot, now);
    settle(now);
  }

  /// One round of the allocation loop: needs from the backlog, shares from the needs.
  void tick(Instant now) noexcept {
    for (std::size_t d = 0; d < fleet_.device_count(); ++d) {
      if (fleet_.device(d).config.is_shared) set_plan(d, plan(d, fleet_.device(d).plan, now));
    }
    note_overload(now);
    settle(now);
  }

  /// Parts of `tick`, for whoever puts plans into force later. `plan` changes nothing.
  [[nodiscard]] share::Plan plan(std::size_t device_index, const share::Plan& previous, Instant now) const noexcept {
    return plan_shares(fleet_, config_.share, fleet_.device(device_index), previous, now);
  }
  void set_plan(std::size_t device_index, const share::Plan& plan) noexcept {
    put_into_force(fleet_.device(device_index), plan);
    fingerprint_.add(plan);
  }
  /// The share of one model, as an event of its own; those of a device act together, with the last of them.
  void set_share(ModelId model, double share, bool is_last, Instant now) noexcept {
    const std::size_t device = index_of(fleet_[model].config.device);
    const std::vector<ModelId>& models = fleet_.device(device).models;
    if (!fleet_.device(device).config.is_shared) return;
    for (std::size_t i = 0; i < models.size(); ++i) {
      if (models[i] == model) staged_.share[i] = share;
    }
    if (!is_last) return;
    staged_.count = static_cast<std::uint32_t>(models.size());
    staged_.at = now;
    set_plan(device, staged_);
    settle(now);
  }
  void note_overload(Instant now) noexcept { sched::note_overload(fleet_, backlog_.room(), config_, now); }

  // --- replicas ------------------------------------------------------------------------------------------------------

  [[nodiscard]] ReplicaId add_replica(const ReplicaConfig& replica, Instant now) noexcept {
    const ReplicaId id = fleet_.add_replica(replica);
    mend_waiting(now);
    settle(now);
    return id;
  }

  /// It takes no new requests; what runs there finishes.
  void drain_replica(ReplicaId id, Instant now) noexcept {
    fleet_.drain_replica(id);
    mend_waiting(now);
    settle(now);
  }

  /// It takes new requests again, after `drain_replica`.
  void resume_replica(ReplicaId id, Instant now) noexcept {
    fleet_.resume_replica(id);
    mend_waiting(now);
    settle(now);
  }

  /// It is gone: what ran there is requeued, or fails where it has been requeued too often.
  void remove_replica(ReplicaId id, Instant now) noexcept {
    for (SlotIndex slot = 0; slot < slab_.capacity(); ++slot) {
      const Slot& s = slab_[slot];
      const bool is_placed = s.phase == Phase::ready || s.phase == Phase::running || s.phase == Phase::decoding;
      if (is_placed && s.replica == id) give_back(slot, true, Outcome::failed_replica, now);
    }
    fleet_.remove_replica(id);
    mend_waiting(now);
    settle(now);
  }

  /// What others than this scheduler hold on a replica, as its engine tells; kUnknownLoad requests: that is not known,
  /// and the scheduler goes by what it has sent there itself. False where there is no such replica. Settles nothing.
  bool note_external_load(ReplicaId id, std::uint32_t requests, std::uint64_t kv_tokens, Instant now) noexcept {
    if (index_of(id) >= fleet_.replica_slots() || !fleet_.replica(id).is_present) return false;
    fingerprint_.add(Step::external_load, Ticket{}, now, (std::uint64_t{requests} << 8U) ^ index_of(id));
    const bool is_known = requests != kUnknownLoad;
    fleet_.note_others(id, is_known ? route::ExternalLoad{requests, kv_tokens, true} : route::ExternalLoad{});
    return true;
  }

  // --- devices that hold one model at a time -------------------------------------------------------------------------

  /// The next change of a resident model to carry out; nothing of the device runs, and nothing is placed there before
  /// `loaded` (where the device awaits it). Each is told once.
  [[nodiscard]] std::optional<SwapCommand> next_swap() noexcept { return collation_.next_command(); }

  /// The device now holds `resident`, as commanded or not; kNoModel: nothing, as after a load that failed.
  void loaded(DeviceId device, ModelId resident, Instant now) noexcept {
    collation_.loaded(device, resident, now);
    settle(now);
  }

  // --- questions -----------------------------------------------------------------------------------------------------

  [[nodiscard]] std::optional<Outcome> outcome(Ticket ticket) const noexcept {
    if (const Slot* s = live(ticket)) return s->phase == Phase::waiting ? Outcome::queued : Outcome::placed;
    const Final* final = endings_.find(ticket);
    return final == nullptr ? std::nullopt : std::optional{final->outcome};
  }

  [[nodiscard]] const Final* final_of(Ticket ticket) const noexcept { return endings_.find(ticket); }
  [[nodiscard]] const Decision* decision_of(Ticket ticket) const noexcept { return placer_.decision_of(ticket); }
  [[nodiscard]] const Slot* live(Ticket ticket) const noexcept {
    const SlotIndex slot = slab_.find(ticket);
    return slot == kNull ? nullptr : &slab_[slot];
  }

  /// When a waiting request can be expected to start, given what is due before it.
  [[nodiscard]] Estimate estimate(Ticket ticket) const noexcept {
    const Slot* s = live(ticket);
    if (s == nullptr || s->phase != Phase::waiting) return {};
    const Duration mean = estimate_start(fleet_, config_, s->demand_model, s->latest_start).start_mean;
    return {mean, duration_from_seconds(to_seconds(mean) * eta_p90_over_mean())};
  }
  /// Measured, once enough requests have waited and started.
  [[nodiscard]] double eta_p90_over_mean() const noexcept { return etas_.p90_over_mean(config_.eta_quantile_factor); }

  [[nodiscard]] const Ledger& ledger() const noexcept { return ledger_; }
  [[nodiscard]] const Fleet& fleet() const noexcept { return fleet_; }
  [[nodiscard]] const SchedulerConfig& config() const noexcept { return config_; }
  [[nodiscard]] const EventHash& hash() const noexcept { return fingerprint_.hash(); }
  [[nodiscard]] std::uint32_t waiting() const noexcept { return backlog_.room().size(); }

  /// For checks, on a settled scheduler: see sched::find_idle_capacity.
  [[nodiscard]] SlotIndex find_idle_capacity() const noexcept {
    return sched::find_idle_capacity(config_, slab_, fleet_, backlog_.room(), placer_.settled_at());
  }
  [[nodiscard]] std::optional<std::uint64_t> ticket_with_idle_capacity() const noexcept {
    const SlotIndex slot = find_idle_capacity();
    return slot == kNull ? std::nullopt : std::optional{slab_[slot].ticket.value()};
  }

  /// For checks: a request that is held for a model longer than collation allows.
  [[nodiscard]] SlotIndex find_overheld(Instant now) const noexcept { return collation_.find_overheld(now); }

  /// For doing a recorded run again: submissions bring their recorded tickets.
  void stop_recycling_tickets() noexcept { slab_.stop_recycling(); }

 private:
  static std::uint32_t slab_capacity(const SchedulerConfig& config) {
    const std::uint64_t capacity = std::uint64_t{config.max_queued} + config.max_running;
    if (config.max_queued == 0 || capacity >= Ticket::kNoSlot) {
      throw std::invalid_argument("max_queued + max_running: got " + std::to_string(capacity) +
                                  ", expected 1 to 16777214; lower max_queued");
    }
    return static_cast<std::uint32_t>(capacity);
  }

  /// Fetches, all at once, what withdrawing a request that waits will touch: it may have waited long.
  [[gnu::always_inline]] void expect_withdrawal(Ticket ticket) const noexcept {
    const SlotIndex slot = ticket.slot();
    if (slot >= slab_.capacity()) return;
    slab_.prefetch(slot);
    slab_.expect_release(slot);
    backlog_.expect(slot);
    endings_.expect(ticket);
  }

  void reject(Ticket ticket, const Request& request, Outcome outcome, Duration eta, Instant now) noexcept {
    fingerprint_.add(Step::reject, ticket, now, static_cast<std::uint64_t>(outcome));
    endings_.reject(ticket, request, outcome, eta);
  }

  /// Off its replica: back to the front of its queue, or ended.
  void give_back(SlotIndex slot, bool requeue, Outcome outcome, Instant now) noexcept {
    in_flight_.vacate(slot, now);
    Slot& s = slab_[slot];
    if (!requeue || s.requeues >= kMostRequeues) {
      endings_.end_placed(slot, outcome);
      return;
    }
    ++s.requeues;
    s.model = kNoModel;
    s.replica = kNoReplica;
    s.is_rekeyed = false;
    ledger_.on_requeued();
    price(fleet_, config_, s);
    backlog_.enter(slot, now, false);
  }

  void on_timer(SlotIndex slot, Instant now) noexcept {
    const Slot& s = slab_[slot];
    if (s.phase != Phase::waiting) {
      fingerprint_.add(Step::presume, s.ticket, now);
      in_flight_.presume_start(slot);
    } else if (s.request.expires_at <= now) {
      fingerprint_.add(Step::expire, s.ticket, now);
      backlog_.leave(slot, now);
      endings_.end_waiting(slot, Outcome::expired_in_queue);
    } else {
      widen(slot, s.request.allowed, now);
    }
  }

  void widen(SlotIndex slot, ModelMask waits_for, Instant now) noexcept {
    fingerprint_.add(Step::widen, slab_[slot].ticket, now);
    backlog_.widen(slot, waits_for, now);
  }

  /// After replicas changed. A request whose models have no replica left, or none that could hold its prompt, goes to
  /// others that it may use. If none of those that are served could ever hold it, it ends: it would wait for ever, in
  /// front of others. Where nothing that it may use is served it waits for the next replica.
  void mend_waiting(Instant now) noexcept {
    for (SlotIndex slot = 0; slot < slab_.capacity(); ++slot) {
      const Slot& s = slab_[slot];
      if (s.phase != Phase::waiting) continue;
      const ModelMask served = s.request.allowed & fleet_.served();
      ModelMask holding;
      for_each_model(served, [&](ModelId model) {
        if (s.request.prompt_tokens <= fleet_.largest_kv_tokens(model)) holding.insert(model);
      });
      if (served.empty() || !(s.waits_for & holding).empty()) continue;
      if (!holding.empty()) {
        const bool is_fifo = config_.order == Order::fifo;
        widen(slot, is_fifo ? ModelMask::of(cheapest(fleet_, s.request, holding)) : s.request.allowed, now);
        continue;
      }
      fingerprint_.add(Step::reject, s.ticket, now, static_cast<std::uint64_t>(Outcome::rejected_infeasible));
      backlog_.leave(slot, now);
      endings_.end_waiting(slot, Outcome::rejected_infeasible);
    }
  }

  SchedulerConfig config_;
  Slab slab_;
  Fleet fleet_;
  Timers timers_;
  Backlog backlog_;
  InFlight in_flight_;
  Ledger ledger_;
  Endings endings_;
  EtaRecord etas_;
  Fingerprint fingerprint_;
  Placer placer_;
  Collation collation_;
  Crowd crowd_;
  share::Plan staged_;  ///< What set_share has been told.
  std::atomic<std::uint64_t> sequence_{0};
};

}  // namespace zeta::sched
