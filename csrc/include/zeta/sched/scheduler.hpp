#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "zeta/core/event_hash.hpp"
#include "zeta/queue/timer_queue.hpp"
#include "zeta/sched/admission.hpp"
#include "zeta/sched/config.hpp"
#include "zeta/sched/decisions.hpp"
#include "zeta/sched/finals.hpp"
#include "zeta/sched/fleet.hpp"
#include "zeta/sched/ledger.hpp"
#include "zeta/sched/slab.hpp"
#include "zeta/sched/waiting_room.hpp"

namespace zeta::sched {

/// Decides which waiting request goes to which replica next.
///
/// A state machine: events in, placements out, time passed in. It reads no clock, starts no thread, and does the same
/// for the same events, bit for bit. One owner at a time (SharedScheduler lets many threads use one). Every event
/// settles all placements that it makes possible, so no eligible request waits while a replica that could serve it has
/// room; placements are then drained with `next_placement`. Nothing allocates after construction except add_replica.
class Scheduler {
 public:
  static constexpr std::size_t kChannels = 2;
  static constexpr std::size_t kKeptFinals = 65'536;
  static constexpr std::size_t kKeptDecisions = 4'096;
  static constexpr std::uint8_t kMostRequeues = 3;

  explicit Scheduler(const SchedulerConfig& config)
      : config_{config},
        slab_{slab_capacity(config)},
        fleet_{config},
        waiting_{config, slab_},
        timers_{slab_.capacity()},
        finals_{kKeptFinals},
        decisions_{kKeptDecisions} {}

  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // --- events
  // ----------------------------------------------------------------------------------------------------------

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

  /// Parts of `submit` and `complete` for batches: many events, then one settle.
  void admit(Ticket ticket, const Request& given, Instant now) noexcept {
    ledger_.on_submitted();
    Request request = given;
    request.priority = static_cast<std::uint8_t>(std::min<std::uint32_t>(request.priority, waiting_.bands() - 1));
    request.tenant =
        TenantId{static_cast<std::uint16_t>(std::min<std::size_t>(index_of(request.tenant), waiting_.tenants() - 1))};
    request.channel = static_cast<std::uint8_t>(std::min<std::size_t>(request.channel, kChannels - 1));
    note_tenant(request.tenant);
    if (ticket.slot() == Ticket::kNoSlot || waiting() >= config_.max_queued || crowds_out(request.tenant)) {
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
    choose_set(s, eligible, now);
    if (config_.admission != AdmissionRule::queue) {
      if (const auto refused = check_promise(s, served, now)) {
        reject(ticket, request, Outcome::rejected_infeasible, refused->start_mean, now);
        return;
      }
    }
    log(Event::submit, ticket, now, s.waits_for.bits());
    fleet_.device_of(s.demand_model).arriving.add(s.work, now);
    enter_waiting(slot, now, true);
  }

  /// Places until no waiting request that may be taken fits any open model.
  void settle(Instant now) noexcept {
    settled_at_ = now;
    held_ = ModelMask{};
    stuck_sets_ = 0;
    while (waiting_.size() > 0 && !open().empty() && place_one(now)) {
    }
  }

  /// As `complete` without settling.
  bool finish(Ticket ticket, std::uint32_t output_tokens, Instant now) noexcept {
    const SlotIndex slot = running_slot(ticket);
    if (slot == kNull) return false;
    finals_.expect(ticket);
    log(Event::complete, ticket, now, output_tokens);
    if (output_tokens != kUnknownTokens) {
      Model& model = fleet_[slab_[slot].model];
      model.mean_output_tokens += kOutputRate * (static_cast<double>(output_tokens) - model.mean_output_tokens);
    }
    vacate(slot);
    end_running(slot, Outcome::completed);
    return true;
  }

  /// The first token has come. False where the request no longer runs there.
  bool first_token(Ticket ticket, Instant now) noexcept {
    const SlotIndex slot = running_slot(ticket);
    if (slot == kNull || slab_[slot].phase == Phase::decoding) return false;
    log(Event::first_token, ticket, now);
    start_decoding(slot, now);
    settle(now);
    return true;
  }

  /// The answer is complete. False where the request no longer runs.
  bool complete(Ticket ticket, std::uint32_t output_tokens, Instant now) noexcept {
    const bool was_running = finish(ticket, output_tokens, now);
    settle(now);
    return was_running;
  }

  /// The replica failed it. With `requeue` it goes back to the front of its queue under the same ticket, at most three
  /// times; otherwise it ends as `outcome`. False where the request no longer runs.
  bool fail(Ticket ticket, bool requeue, Outcome outcome, Instant now) noexcept {
    const SlotIndex slot = running_slot(ticket);
    if (slot == kNull) return false;
    log(Event::fail, ticket, now);
    give_back(slot, requeue, outcome, now);
    settle(now);
    return true;
  }

  /// Withdraws a request wherever it is. False where it has already ended.
  bool cancel(Ticket ticket, Instant now) noexcept {
    const SlotIndex slot = slab_.find(ticket);
    if (slot == kNull) return false;
    log(Event::cancel, ticket, now);
    Slot& s = slab_[slot];
    if (s.phase == Phase::waiting) {
      leave_waiting(slot, now);
      end_waiting(slot, Outcome::cancelled, Duration{0});
    } else {
      const bool was_handed_out = s.phase != Phase::ready;
      if (!was_handed_out) unlink_ready(slot);
      vacate(slot);
      end_running(slot, was_handed_out ? Outcome::cancelled_running : Outcome::cancelled);
    }
    settle(now);
    return true;
  }

  /// The next placement of a channel, in the order in which they were decided.
  [[nodiscard]] std::optional<Placement> next_placement(std::uint8_t channel = 0) noexcept {
    ReadyList& list = ready_[channel];
    if (list.first == kNull) return std::nullopt;
    const SlotIndex slot = list.first;
    unlink_ready(slot);
    Slot& s = slab_[slot];
    s.phase = Phase::running;
    return Placement{s.ticket, s.model, s.replica, s.placed_at - s.arrival};
  }

  /// The next request of channel 1 that ended otherwise than by completing, for callers that await each ticket.
  [[nodiscard]] std::optional<Ticket> next_ended() noexcept {
    if (ended_taken_ == ended_added_) return std::nullopt;
    return ended_[ended_taken_++ % ended_.size()];
  }

  [[nodiscard]] bool has_ended() const noexcept { return ended_taken_ != ended_added_; }
  [[nodiscard]] bool has_ready(std::uint8_t channel) const noexcept { return ready_[channel].first != kNull; }

  /// The earliest instant at which `advance` has something to do.
  [[nodiscard]] Instant next_timer() const noexcept {
    return timers_.first() == kNull ? kNever : instant_from_ns(timers_.key(timers_.first()));
  }

  /// Lets everything happen that is due by `now`: expiries and ends of holds.
  void advance(Instant now) noexcept {
    while (timers_.first() != kNull && next_timer() <= now) {
      const SlotIndex slot = timers_.first();
      timers_.erase(slot);
      on_timer(slot, now);
    }
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

  /// Decides up to which size requests are served in time while feasible work exceeds what a device can do.
  void note_overload(Instant now) noexcept {
    bool is_overloaded = false;
    for (std::size_t d = 0; d < fleet_.device_count(); ++d) {
      Device& device = fleet_.device(d);
      if (config_.order == Order::fifo) continue;
      const std::size_t copies = device.config.is_shared ? 1 : fleet_[device.models.front()].replicas.size();
      is_overloaded |= device.arriving.utilisation(now) > kLongOverload * static_cast<double>(copies);
      if (!device.config.is_shared) continue;
      double need = 0.0;
      double pace = 0.0;
      for (const ModelId id : device.models) {
        need += fleet_[id].demand.feasible_need(now);
        pace += fleet_[id].decode_pace();
      }
      const double room = kOverloadRoom * std::max(1.0 - 0.75 * pace, 0.05);
      device.give_up_above = need <= room ? Duration::max() : device.waiting_sizes.largest_within(room / need);
    }
    waiting_.lift_promise_cap(!is_overloaded);
  }

  /// What `tick` would put into force on a shared device now. Changes nothing.
  [[nodiscard]] share::Plan plan(std::size_t device_index, const share::Plan& previous, Instant now) const noexcept {
    std::array<share::ModelDemand, kMaxModels> demands;
    const std::vector<ModelId>& models = fleet_.device(device_index).models;
    for (std::size_t i = 0; i < models.size(); ++i) demands[i] = demand_of(fleet_[models[i]], now);
    return share::tick(config_.share, std::span{demands}.first(models.size()), previous, now);
  }

  /// What the pure tick reads for one model.
  [[nodiscard]] share::ModelDemand demand_of(const Model& model, Instant now) const noexcept {
    share::ModelDemand demand;
    demand.decode_pace = model.decode_pace();
    demand.due_pressure = model.demand.need(now);
    demand.backlog_work_s = to_seconds(model.demand.backlog());
    demand.waiting = model.waiting;
    demand.running = model.running;
    demand.service_rate_rps =
        model.waiting == 0 ? 0.0 : static_cast<double>(model.waiting) / std::max(demand.backlog_work_s, 1e-9);
    return demand;
  }

  /// Puts a plan of the allocation loop into force on a device.
  void set_plan(std::size_t device_index, const share::Plan& plan) noexcept {
    Device& device = fleet_.device(device_index);
    device.plan = plan;
    // Who uses less than an even part is never kept from it by another's boost: weights only act where all have work.
    std::array<double, kMaxModels> weights{};
    const double even = 1.0 / static_cast<double>(plan.count);
    for (std::size_t i = 0; i < plan.count; ++i) weights[i] = std::max(plan.share[i], even);
    device.shares.set_shares(std::span<const double>{weights.data(), plan.count});
    for (const double share : plan.shares()) hash_.add(static_cast<std::uint64_t>(share * 1e9));
  }

  // --- replicas
  // --------------------------------------------------------------------------------------------------------

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

  /// It is gone: what ran there is requeued, or fails where it has been requeued too often.
  void remove_replica(ReplicaId id, Instant now) noexcept {
    for (SlotIndex slot = 0; slot < slab_.capacity(); ++slot) {
      const Slot& s = slab_[slot];
      if (s.replica != id || (s.phase != Phase::ready && s.phase != Phase::running && s.phase != Phase::decoding))
        continue;
      if (s.phase == Phase::ready) unlink_ready(slot);
      give_back(slot, true, Outcome::failed_replica, now);
    }
    fleet_.remove_replica(id);
    mend_waiting(now);
    settle(now);
  }

  /// For doing a recorded run again: submissions bring their recorded tickets.
  void stop_recycling_tickets() noexcept { slab_.stop_recycling(); }

  // --- questions
  // -------------------------------------------------------------------------------------------------------

  [[nodiscard]] std::optional<Outcome> outcome(Ticket ticket) const noexcept {
    if (const SlotIndex slot = slab_.find(ticket); slot != kNull) {
      const Phase phase = slab_[slot].phase;
      return phase == Phase::waiting ? Outcome::queued : Outcome::placed;
    }
    const Final* final = finals_.find(ticket);
    return final == nullptr ? std::nullopt : std::optional{final->outcome};
  }

  [[nodiscard]] const Final* final_of(Ticket ticket) const noexcept { return finals_.find(ticket); }
  [[nodiscard]] const Decision* decision_of(Ticket ticket) const noexcept { return decisions_.find(ticket); }
  [[nodiscard]] const Slot* live(Ticket ticket) const noexcept {
    const SlotIndex slot = slab_.find(ticket);
    return slot == kNull ? nullptr : &slab_[slot];
  }

  /// When a waiting request can be expected to start, given what is due before it.
  [[nodiscard]] Estimate estimate(Ticket ticket) const noexcept {
    const SlotIndex slot = slab_.find(ticket);
    if (slot == kNull || slab_[slot].phase != Phase::waiting) return {};
    return estimate_start(fleet_, config_, slab_[slot].demand_model, slab_[slot].latest_start);
  }

  /// How well the answer was, in [0, 1]: moves the model's quality prior. False where the request is unknown.
  bool feedback(Ticket ticket, double quality) noexcept {
    const Final* final = finals_.find(ticket);
    if (final == nullptr || final->outcome != Outcome::completed) return false;
    score::QualityCurve& curve = fleet_[final->model].curve;
    const double complexity = final->complexity < 0.0F ? 0.5 : static_cast<double>(final->complexity);
    curve.quality_logit += kFeedbackRate * (quality - curve.p_good(complexity));  // stochastic gradient of the log loss
    return true;
  }

  [[nodiscard]] const Ledger& ledger() const noexcept { return ledger_; }
  [[nodiscard]] const Fleet& fleet() const noexcept { return fleet_; }
  [[nodiscard]] const SchedulerConfig& config() const noexcept { return config_; }
  [[nodiscard]] const EventHash& hash() const noexcept { return hash_; }
  [[nodiscard]] std::uint32_t waiting() const noexcept { return waiting_.size(); }

  /// For checks, on a settled scheduler: a waiting request that a replica could take now; kNull if there is none. Two
  /// rules may hold a request although it fits. It stands behind one that waits for tokens, and that one is overdue
  /// (the models that it may use are being emptied for it), or so many stand between that nobody looked.
  [[nodiscard]] SlotIndex find_idle_capacity() const noexcept {
    ModelMask open = fleet_.open();
    std::array<bool, WaitingRoom::kSets> is_stuck{};
    for (bool is_settled = false; !is_settled;) {  // models held for one may keep another from starting
      is_settled = true;
      for (SlotIndex slot = 0; slot < slab_.capacity(); ++slot) {
        const Slot& s = slab_[slot];
        if (s.phase != Phase::waiting || (s.waits_for & open).empty() || could_start(s, open)) continue;
        is_stuck[s.set] = config_.order == Order::fifo || waiting_.size_of(s.set) > WaitingRoom::kPassed;
        if (!waiting_.is_overdue(s, settled_at_)) continue;
        open = open & ~s.waits_for;
        is_settled = false;
      }
    }
    is_stuck[WaitingRoom::kOverflow] |= waiting_.size_of(WaitingRoom::kOverflow) > WaitingRoom::kScanned;
    for (SlotIndex slot = 0; slot < slab_.capacity(); ++slot) {
      const Slot& s = slab_[slot];
      if (s.phase == Phase::waiting && !is_stuck[s.set] && could_start(s, open)) return slot;
    }
    return kNull;
  }

  /// Models that can take a request in this settling.
  [[nodiscard]] ModelMask open() const noexcept { return fleet_.open() & ~held_; }

  [[nodiscard]] std::optional<std::uint64_t> ticket_with_idle_capacity() const noexcept {
    const SlotIndex slot = find_idle_capacity();
    return slot == kNull ? std::nullopt : std::optional{slab_[slot].ticket.value()};
  }

 private:
  enum class Event : std::uint8_t {
    submit = 1,
    reject,
    place,
    first_token,
    complete,
    fail,
    cancel,
    expire,
    widen,
    presume
  };

  struct ReadyList {
    SlotIndex first = kNull;
    SlotIndex last = kNull;
  };

  static constexpr TenantId kNoTenant{0xFFFF};
  static constexpr std::uint64_t kCrowd = 8;  ///< One tenant may fill 8/9 of the queue.
  static constexpr double kFeedbackRate = 0.05;
  static constexpr double kOutputRate = 0.02;  ///< Of the running mean of output lengths: about the last 50 answers.
  /// A caller that never reports first tokens holds a shared device's budget for this long and four predicted prefills.
  static constexpr Duration kPresumedStart{1'000'000'000};
  static constexpr double kLagRate = 0.1;
  /// Work is priced at a reference batch; in overload batches are larger and it takes less.
  static constexpr double kLongOverload = 0.95;  ///< Work arriving in five minutes ÷ what a device can do in them.
  static constexpr double kOverloadRoom = 1.3;

  static std::uint32_t slab_capacity(const SchedulerConfig& config) {
    const std::uint64_t capacity = std::uint64_t{config.max_queued} + config.max_running;
    if (config.max_queued == 0 || capacity >= Ticket::kNoSlot) {
      throw std::invalid_argument("max_queued + max_running: got " + std::to_string(capacity) +
                                  ", expected 1 to 16777214; lower max_queued");
    }
    return static_cast<std::uint32_t>(capacity);
  }

  void log(Event event, Ticket ticket, Instant now, std::uint64_t detail = 0) noexcept {
    hash_.add((ticket.value() << 4U) ^ static_cast<std::uint64_t>(event));
    hash_.add(static_cast<std::uint64_t>(to_ns(now)) ^ (detail << 40U));
  }

  // --- arriving
  // ----------------------------------------------------------------------------------------------------------

  void note_tenant(TenantId tenant) noexcept {
    if (first_tenant_ == kNoTenant) first_tenant_ = tenant;
    has_tenants_ = has_tenants_ || tenant != first_tenant_;
  }

  /// Whether a tenant has filled so much of the queue that the rest is kept for others: more than kCrowd times what is
  /// free (dynamic thresholds: Choudhury and Hahne, 1998). Alone, it may fill all of it.
  [[nodiscard]] bool crowds_out(TenantId tenant) const noexcept {
    return has_tenants_ && waiting_.size_of(tenant) > kCrowd * std::uint64_t{config_.max_queued - waiting()};
  }

  /// The models it waits for at first, and its key. A request of known complexity waits a while for the models that
  /// answer it clearly better.
  void choose_set(Slot& s, ModelMask eligible, Instant now) noexcept {
    s.hold_until = kNever;
    s.waits_for = eligible;
    if (config_.order == Order::fifo) {
      s.waits_for = ModelMask::of(cheapest(fleet_, s.request, eligible));
    } else if (s.request.complexity >= 0.0F) {
      const ModelMask good = clearly_better(fleet_, s.request, eligible, config_.hold_quality_gap);
      if (!(good == eligible)) {
        s.waits_for = good;
        price(s);
        const Duration spare = s.latest_start == kNever ? config_.max_hold : (s.latest_start - now) / 2;
        s.hold_until = now + std::clamp(spare, Duration{0}, config_.max_hold);
      }
    }
    price(s);
  }

  /// Predicted times on the cheapest model it waits for, and from them the latest start.
  void price(Slot& s) noexcept {
    const ModelId model = cheapest(fleet_, s.request, s.waits_for);
    s.demand_model = model;
    price_on(s, model);
    s.latest_start = latest_start(fleet_, config_, s.request, s.arrival, model, s.expected_output);
  }

  void price_on(Slot& s, ModelId model) noexcept {
    const ServiceModel& service = fleet_[model].config.service;
    s.expected_output = expected_output(fleet_[model], s.request);
    s.prefill = duration_from_seconds(service.prefill_s(s.request.prompt_tokens));
    s.work = duration_from_seconds(service.work_s(s.request.prompt_tokens, s.expected_output));
  }

  /// Under `reject` and `downgrade`: nothing if the promise can be kept (perhaps by a smaller model), else the
  /// estimate.
  [[nodiscard]] std::optional<Estimate> check_promise(Slot& s, ModelMask served, Instant now) noexcept {
    std::optional<Estimate> soonest;
    const auto can_keep = [&](ModelId model) {
      const Instant latest = latest_start(fleet_, config_, s.request, s.arrival, model, s.expected_output);
      const Estimate estimate = estimate_start(fleet_, config_, model, latest);
      if (!soonest || estimate.start_mean < soonest->start_mean) soonest = estimate;
      const ServiceModel& service = fleet_[model].config.service;
      const Duration work = duration_from_seconds(service.work_s(s.request.prompt_tokens, s.expected_output));
      return can_start_by(fleet_, config_, model, latest, work, now);
    };
    bool is_kept = false;
    for_each_model(s.waits_for, [&](ModelId model) { is_kept = is_kept || can_keep(model); });
    if (is_kept) return std::nullopt;
    if (config_.admission == AdmissionRule::downgrade) {
      const ModelMask smaller =
          models_that_fit(fleet_, s.request, (s.request.allowed | s.request.downgrade) & served) & ~s.waits_for;
      for_each_model(smaller, [&](ModelId model) {
        if (is_kept || !can_keep(model)) return;
        is_kept = true;
        s.waits_for = ModelMask::of(model);
        s.request.allowed = s.waits_for;
        s.hold_until = kNever;
        price(s);
      });
      if (is_kept) return std::nullopt;
    }
    return soonest;
  }

  void reject(Ticket ticket, const Request& request, Outcome outcome, Duration eta, Instant now) noexcept {
    log(Event::reject, ticket, now, static_cast<std::uint64_t>(outcome));
    ledger_.on_final_waiting(outcome);
    finals_.add({ticket, outcome, kNoModel, request.complexity, eta});
    if (request.channel != 0) announce_end(ticket);
    if (ticket.slot() != Ticket::kNoSlot) slab_.release(ticket.slot());
  }

  // --- waiting
  // -----------------------------------------------------------------------------------------------------------

  void enter_waiting(SlotIndex slot, Instant now, bool arrives_now) noexcept {
    Slot& s = slab_[slot];
    add_demand(s, now);
    waiting_.add(slot, now, arrives_now);
    set_timer(slot);
  }

  /// Out of the queues, the backlog and the timers, whatever comes next.
  void leave_waiting(SlotIndex slot, Instant now) noexcept {
    waiting_.remove(slot);
    drop_demand(slab_[slot], now);
    clear_timer(slot);
  }

  void add_demand(Slot& s, Instant now) noexcept {
    Model& model = fleet_[s.demand_model];
    fleet_.device_of(s.demand_model).waiting_sizes.add(s.work);
    s.demand_bin = model.demand.add(s.latest_start, s.arrival + config_.promise, s.work, now);
    ++model.waiting;
  }

  void drop_demand(const Slot& s, Instant now) noexcept {
    Model& model = fleet_[s.demand_model];
    fleet_.device_of(s.demand_model).waiting_sizes.remove(s.work);
    model.demand.remove(s.demand_bin, s.arrival + config_.promise, s.work, now);
    --model.waiting;
  }

  void set_timer(SlotIndex slot) noexcept {
    const Slot& s = slab_[slot];
    const Instant due = std::min(s.hold_until, s.request.expires_at);
    if (due != kNever) set_timer_at(slot, due);
  }

  void set_timer_at(SlotIndex slot, Instant due) noexcept {
    has_timer_[slot] = true;
    timers_.insert(slot, to_ns(due), slab_[slot].ticket.sequence());
  }

  void clear_timer(SlotIndex slot) noexcept {
    if (has_timer_[slot]) timers_.erase(slot);
    has_timer_[slot] = false;
  }

  void on_timer(SlotIndex slot, Instant now) noexcept {
    has_timer_[slot] = false;
    Slot& s = slab_[slot];
    if (s.phase != Phase::waiting) {  // no first token was reported: the budget is not held for ever
      log(Event::presume, s.ticket, now);
      fleet_.release_budget(s);
      return;
    }
    if (s.request.expires_at <= now) {
      log(Event::expire, s.ticket, now);
      leave_waiting(slot, now);
      end_waiting(slot, Outcome::expired_in_queue, Duration{0});
      return;
    }
    widen(slot, s.request.allowed, now);
  }

  /// Moves a waiting request to a wider (or, when replicas went, another) set under the same ticket.
  void widen(SlotIndex slot, ModelMask waits_for, Instant now) noexcept {
    Slot& s = slab_[slot];
    log(Event::widen, s.ticket, now);
    leave_waiting(slot, now);
    s.hold_until = kNever;
    s.waits_for = waits_for;
    price(s);
    enter_waiting(slot, now, false);
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
      log(Event::reject, s.ticket, now, static_cast<std::uint64_t>(Outcome::rejected_infeasible));
      leave_waiting(slot, now);
      end_waiting(slot, Outcome::rejected_infeasible, Duration{0});
    }
  }

  void end_waiting(SlotIndex slot, Outcome outcome, Duration eta) noexcept {
    ledger_.on_final_waiting(outcome);
    end(slot, outcome, eta);
  }

  void end_running(SlotIndex slot, Outcome outcome) noexcept {
    ledger_.on_final_running(outcome);
    end(slot, outcome, Duration{0});
  }

  void end(SlotIndex slot, Outcome outcome, Duration eta) noexcept {
    const Slot& s = slab_[slot];
    finals_.add({s.ticket, outcome, s.model, s.request.complexity, eta});
    if (s.request.channel != 0 && outcome != Outcome::completed) announce_end(s.ticket);
    slab_.release(slot);
  }

  void announce_end(Ticket ticket) noexcept {
    if (ended_added_ - ended_taken_ < ended_.size()) ended_[ended_added_++ % ended_.size()] = ticket;
  }

  // --- placing
  // -----------------------------------------------------------------------------------------------------------

  struct Choice {
    Offer offer;
    ModelId model = kNoModel;
  };

  /// One step: every set offers its first request to the open model that suits it best; per device the share decides
  /// which model takes, those that can still be in time before those that cannot, and of that model's offers the first
  /// in order is placed. False when nothing could be.
  bool place_one(Instant now) noexcept {
    std::array<Choice, kMaxModels> best;
    ModelMask wanted;
    for (std::size_t set = 0; set < WaitingRoom::kSets; ++set) {
      if (waiting_.size_of(set) == 0 || ((stuck_sets_ >> set) & 1U) != 0) continue;
      const ModelMask candidates = waiting_.set_mask(set) & open();
      if (candidates.empty()) continue;
      const Offer offer = waiting_.offer(set, candidates, now);
      if (offer.slot == kNull) continue;
      const Slot& s = slab_[offer.slot];
      const ModelId model = most_suitable(fleet_, config_, s, s.waits_for & candidates, now);
      Choice& choice = best[index_of(model)];
      if (!wanted.contains(model) || waiting_.goes_before(offer, choice.offer)) choice = {offer, model};
      wanted.insert(model);
    }
    if (wanted.empty()) return false;
    ModelMask in_time;
    for_each_model(wanted, [&](ModelId id) {
      if (best[index_of(id)].offer.reason != Reason::late) in_time.insert(id);
    });
    const ModelId model = model_in_turn(in_time.empty() ? wanted : in_time);
    take_offer(best[index_of(model)].offer, model, now);
    return true;
  }

  /// Of the models with an offer, the one whose device owes it most; devices in order.
  [[nodiscard]] ModelId model_in_turn(ModelMask wanted) const noexcept {
    const ModelId first{static_cast<std::uint8_t>(__builtin_ctz(wanted.bits()))};
    if ((wanted.bits() & (wanted.bits() - 1)) == 0) return first;
    const Device& device = fleet_.device_of(first);
    return device.config.is_shared ? device.shares.pick(wanted & device.shares.members()) : first;
  }

  /// Places an offered request, or puts it right first: then the next round offers anew.
  void take_offer(Offer offer, ModelId preferred, Instant now) noexcept {
    waiting_.expect_take(offer);
    if (gives_up(offer, now) || is_rekeyed_for(offer, preferred, now)) return;
    Seat seat = seat_for(slab_[offer.slot], open(), preferred);
    if (seat.replica == kNoReplica) {  // its tokens do not fit anywhere now
      const Slot& first = slab_[offer.slot];
      if (waiting_.is_overdue(first, now)) {  // nobody passes it any more: what is freed is for it
        held_ = held_ | first.waits_for;
        return;
      }
      const std::size_t set = first.set;
      offer = waiting_.passing(set, [&](SlotIndex slot) { return could_start(slab_[slot], open()); });
      if (offer.slot == kNull) {
        stuck_sets_ |= 1U << set;
        return;
      }
      seat = seat_for(slab_[offer.slot], open(), preferred);
    }
    record(offer, seat.model, seat.replica, now);
    waiting_.take(offer, now);
    drop_demand(slab_[offer.slot], now);
    clear_timer(offer.slot);
    place(offer.slot, seat.model, seat.replica, now);
  }

  struct Seat {
    ModelId model = kNoModel;
    ReplicaId replica = kNoReplica;
  };

  /// A replica with room for the request: of the preferred model, else of any other that may serve it.
  [[nodiscard]] Seat seat_for(const Slot& s, ModelMask open, ModelId preferred = kNoModel) const noexcept {
    const bool is_open = preferred != kNoModel && (s.waits_for & open).contains(preferred);
    Seat seat{preferred, is_open ? replica_for(s, preferred) : kNoReplica};
    if (seat.replica != kNoReplica) return seat;
    for_each_model(s.waits_for & open, [&](ModelId other) {
      if (seat.replica == kNoReplica && other != preferred) seat = {other, replica_for(s, other)};
    });
    return seat;
  }

  [[nodiscard]] ReplicaId replica_for(const Slot& s, ModelId model) const noexcept {
    return fleet_.choose_replica(model, tokens_to_reserve(fleet_, model, s.request), s.request.affinity_key);
  }

  [[nodiscard]] bool could_start(const Slot& s, ModelMask open) const noexcept {
    return seat_for(s, open).replica != kNoReplica;
  }

  /// In overload somebody must be late. The fewest are if the largest are (see share::SizeHistogram), so those wait
  /// with the late ones, under the same promise.
  [[nodiscard]] bool gives_up(const Offer& offer, Instant now) noexcept {
    const Slot& s = slab_[offer.slot];
    if (offer.reason != Reason::earliest_deadline || s.is_rekeyed) return false;
    if (s.work <= fleet_.device_of(s.demand_model).give_up_above) return false;
    rekey(offer.slot, now - Duration{1}, now);
    return true;
  }

  /// A request that was feasible on the model it was priced for, but is not on this one.
  [[nodiscard]] bool is_rekeyed_for(const Offer& offer, ModelId model, Instant now) noexcept {
    const Slot& s = slab_[offer.slot];
    if (offer.reason != Reason::earliest_deadline || s.is_rekeyed) return false;
    const Instant latest = latest_start_here(fleet_, config_, s, model);
    if (latest >= now) return false;
    rekey(offer.slot, latest, now);
    return true;
  }

  void rekey(SlotIndex slot, Instant latest_start, Instant now) noexcept {
    Slot& s = slab_[slot];
    s.is_rekeyed = true;
    drop_demand(s, now);
    waiting_.rekey(slot, latest_start, now);
    add_demand(s, now);
  }

  void place(SlotIndex slot, ModelId model, ReplicaId replica, Instant now) noexcept {
    Slot& s = slab_[slot];
    s.model = model;
    s.replica = replica;
    s.placed_at = now;
    price_on(s, model);
    s.reserved_tokens = tokens_to_reserve(fleet_, model, s.request);
    Device& device = fleet_.device_of(model);
    if (device.config.is_shared) device.shares.charge(model, s.work);
    const bool had_slot = fleet_.replica(replica).has_slot();
    fleet_.occupy(s);
    fleet_.refresh_replica(replica, had_slot);
    if (device.config.is_shared) set_timer_at(slot, now + kPresumedStart + 4 * s.prefill);
    if (s.request.affinity_key != 0) fleet_.remember(s.request.affinity_key, replica);
    ledger_.on_placed();
    log(Event::place, s.ticket, now, (index_of(model) << 16U) | index_of(replica));
    s.phase = Phase::ready;
    ReadyList& list = ready_[s.request.channel];
    s.next = kNull;
    s.previous = list.last;
    (list.last == kNull ? list.first : slab_[list.last].next) = slot;
    list.last = slot;
  }

  void record(const Offer& offer, ModelId model, ReplicaId replica, Instant now) noexcept {
    const Slot& s = slab_[offer.slot];
    Decision decision;
    decision.ticket = s.ticket;
    decision.at = now;
    decision.arrival = s.arrival;
    decision.latest_start = s.latest_start;
    decision.predicted_prefill = s.prefill;
    decision.predicted_work = s.work;
    decision.waited_for = s.waits_for;
    decision.model = model;
    decision.replica = replica;
    decision.reason = offer.reason;
    decision.band = offer.band;
    decision.had_affinity = fleet_.remembered(s.request.affinity_key) == replica;
    std::size_t count = 0;
    for_each_model(s.waits_for & (fleet_.open() | ModelMask::of(model)), [&](ModelId other) {
      if (count == Decision::kAlternatives) return;
      decision.alternatives[count++] = {other, static_cast<float>(suitability_of(fleet_, config_, s, other, now))};
    });
    decisions_.add(decision);
  }

  // --- running
  // -----------------------------------------------------------------------------------------------------------

  [[nodiscard]] SlotIndex running_slot(Ticket ticket) const noexcept {
    const SlotIndex slot = slab_.find(ticket);
    if (slot == kNull) return kNull;
    const Phase phase = slab_[slot].phase;
    return phase == Phase::running || phase == Phase::decoding ? slot : kNull;
  }

  void start_decoding(SlotIndex slot, Instant now) noexcept {
    Slot& s = slab_[slot];
    Model& model = fleet_[s.model];
    const Duration lag = (now - s.placed_at) - s.prefill;
    model.start_lag_s += kLagRate * (std::max(to_seconds(lag), 0.0) - model.start_lag_s);
    clear_timer(slot);
    fleet_.start_decoding(s);
    s.phase = Phase::decoding;
    route::Replica& replica = fleet_.replica(s.replica);
    const bool had_slot = replica.has_slot();
    replica.window.on_first_token(lag, replica.in_flight, now);
    fleet_.refresh_replica(s.replica, had_slot);
  }

  void vacate(SlotIndex slot) noexcept {
    const ReplicaId replica = slab_[slot].replica;
    const bool had_slot = fleet_.replica(replica).has_slot();
    clear_timer(slot);
    fleet_.vacate(slab_[slot]);
    fleet_.refresh_replica(replica, had_slot);
  }

  void give_back(SlotIndex slot, bool requeue, Outcome outcome, Instant now) noexcept {
    vacate(slot);
    Slot& s = slab_[slot];
    if (!requeue || s.requeues >= kMostRequeues) {
      end_running(slot, outcome);
      return;
    }
    ++s.requeues;
    s.model = kNoModel;
    s.replica = kNoReplica;
    s.is_rekeyed = false;
    ledger_.on_requeued();
    price(s);
    enter_waiting(slot, now, false);
  }

  void unlink_ready(SlotIndex slot) noexcept {
    Slot& s = slab_[slot];
    ReadyList& list = ready_[s.request.channel];
    (s.previous == kNull ? list.first : slab_[s.previous].next) = s.next;
    (s.next == kNull ? list.last : slab_[s.next].previous) = s.previous;
    s.next = s.previous = kNull;
  }

  SchedulerConfig config_;
  Slab slab_;
  Fleet fleet_;
  WaitingRoom waiting_;
  queue::TimerQueue timers_;
  std::vector<bool> has_timer_ = std::vector<bool>(slab_.capacity());
  TenantId first_tenant_ = kNoTenant;
  bool has_tenants_ = false;  ///< More than one has ever submitted.
  Instant settled_at_{};
  ModelMask held_;                ///< During settle: models that are being emptied for an overdue request.
  std::uint32_t stuck_sets_ = 0;  ///< During settle: sets of which nobody near the front fits.
  std::array<ReadyList, kChannels> ready_;
  Finals finals_;
  DecisionRing decisions_;
  Ledger ledger_;
  EventHash hash_;
  std::atomic<std::uint64_t> sequence_{0};
  std::vector<Ticket> ended_ = std::vector<Ticket>(slab_.capacity() + 1);  ///< Ring; see next_ended.
  std::uint64_t ended_added_ = 0;
  std::uint64_t ended_taken_ = 0;
};

}  // namespace zeta::sched
