#pragma once
// Replays arrivals through the real scheduler into simulated devices, on virtual time.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "zeta/sched/allocation_loop.hpp"
#include "zeta/sched/scheduler.hpp"
#include "zeta/sim/device.hpp"

namespace zeta::sim {

/// Arrivals in time order, one entry per request in every column.
struct ReplayArrivals {
  std::span<const std::int64_t> arrival_ns;
  std::span<const std::uint32_t> prompt_tokens;
  std::span<const std::uint32_t> output_tokens;   ///< What the engine will generate; the scheduler is not told.
  std::span<const std::uint32_t> allowed_mask;    ///< Models that may serve it.
  std::span<const std::uint32_t> downgrade_mask;  ///< Models that admission may fall back to.
  std::span<const std::int64_t> deadline_ns;      ///< First token, absolute.
  std::span<const std::int64_t> end_deadline_ns;  ///< Told to the scheduler; empty unless the trace itself gives it.
  std::span<const std::uint16_t> tenant;          ///< Empty: one tenant.
  std::span<const std::uint64_t> affinity_key;    ///< Empty: none.
};

/// What became of each request; -1 where it never happened.
struct ReplayTimes {
  std::vector<std::int64_t> placed_ns;
  std::vector<std::int64_t> first_token_ns;
  std::vector<std::int64_t> last_token_ns;
  std::vector<std::int16_t> model;    ///< Where it ran.
  std::vector<std::uint8_t> outcome;  ///< zeta::Outcome; queued or placed: left when the drain ended.
};

/// Shares and queues at one tick, models of all devices in order.
struct ReplayTick {
  std::int64_t at_ns = 0;
  struct Model {
    double share = 0.0;
    double need = 0.0;
    std::uint32_t waiting = 0;
    std::uint32_t running = 0;
  };
  std::vector<Model> models;
};

struct ReplayConfig {
  Duration tick_interval{50'000'000};
  Duration actuation_delay{0};  ///< From a plan to its effect.
  bool keeps_ticks = false;
  std::uint32_t checks_every = 0;  ///< Events between two checks of the invariants; 0: none.
};

/// Where a replica of the scheduler runs.
struct ReplicaPlace {
  std::uint32_t device = 0;
  std::uint32_t engine = 0;
};

/// The outer loop: arrivals, steps of the engines, the scheduler's timers and the allocation ticks, in order of time;
/// at one instant in the order devices, timers, tick, arrivals. Single-threaded. Everything that is decided is decided
/// by sched::Scheduler and sched::AllocationLoop; nothing here chooses.
class Replay {
 public:
  Replay(const sched::SchedulerConfig& scheduler, const ReplayConfig& config, std::vector<Device> devices,
         std::vector<ReplicaPlace> places, std::unique_ptr<sched::LoadOutlook> outlook = nullptr)
      : config_{config},
        scheduler_{scheduler},
        outlook_{std::move(outlook)},
        loop_{scheduler_.fleet(), allocation_of(config)},
        devices_{std::move(devices)},
        places_{std::move(places)},
        request_of_slot_(std::size_t{scheduler.max_queued} + scheduler.max_running),
        next_tick_{Instant{} + config.tick_interval} {
    if (places_.size() != scheduler.replicas.size()) {
      throw std::invalid_argument("places: got " + std::to_string(places_.size()) +
                                  ", expected one per replica: " + std::to_string(scheduler.replicas.size()));
    }
    loop_.set_outlook(outlook_.get());
    if (config.tick_interval <= Duration{0}) throw std::invalid_argument("tick_interval: expected more than 0");
    for (const ReplicaPlace& place : places_) {
      if (place.device >= devices_.size() || place.engine >= devices_[place.device].size()) {
        throw std::invalid_argument("places: a replica names a device or an engine that does not exist");
      }
    }
    if (scheduler.order != sched::Order::fifo) take_command();
  }

  /// Runs until the last arrival has been submitted. Chunks must follow each other in time.
  void feed(const ReplayArrivals& arrivals) {
    for (std::size_t i = 0; i < arrivals.arrival_ns.size(); ++i) {
      const Instant at = instant_from_ns(arrivals.arrival_ns[i]);
      run_until(at);
      submit(arrivals, i, at);
    }
  }

  /// Runs for at most `limit` longer, or until every request has ended.
  void drain(Duration limit) {
    const Instant end = now_ + limit;
    while (scheduler_.ledger().waiting() + scheduler_.ledger().running() > 0 && next_event() <= end) {
      run_until(next_event());
    }
    for (std::size_t i = 0; i < times_.outcome.size(); ++i) {
      if (const auto outcome = scheduler_.outcome(tickets_[i])) times_.outcome[i] = static_cast<std::uint8_t>(*outcome);
    }
  }

  /// Runs to `until` without arrivals.
  void run_to(Instant until) { run_until(until); }

  /// For studies of scaling. A replica joins now, in the lowest number that is free, on the engine of that number's
  /// place; kNoReplica when all are in use.
  ReplicaId add_replica(const sched::ReplicaConfig& replica) {
    const ReplicaId id = scheduler_.add_replica(replica, now_);
    start_placed();
    return id;
  }
  /// It takes no new requests.
  void drain_replica(ReplicaId replica) {
    scheduler_.drain_replica(replica, now_);
    start_placed();
  }
  /// Its number becomes free. Only of a replica without requests: its engine goes on with what it has.
  void remove_replica(ReplicaId replica) {
    if (scheduler_.fleet().replica(replica).in_flight != 0) {
      throw std::invalid_argument("replica " + std::to_string(index_of(replica)) + " has requests in flight");
    }
    scheduler_.remove_replica(replica, now_);
    start_placed();
  }

  [[nodiscard]] const ReplayTimes& times() const noexcept { return times_; }
  [[nodiscard]] const std::vector<ReplayTick>& ticks() const noexcept { return ticks_; }
  [[nodiscard]] const sched::Scheduler& scheduler() const noexcept { return scheduler_; }
  [[nodiscard]] Instant now() const noexcept { return now_; }
  [[nodiscard]] const sched::AllocationLoop& loop() const noexcept { return loop_; }
  /// Times at which a share had moved more than 2 points from where it was counted last.
  [[nodiscard]] std::uint64_t share_changes() const noexcept { return share_changes_; }
  /// Checks that failed: idle capacity beside eligible work, a hold beyond its longest, or a ledger that does not add
  /// up.
  [[nodiscard]] std::uint64_t violations() const noexcept { return violations_; }
  [[nodiscard]] std::uint64_t swaps() const noexcept {
    std::uint64_t sum = 0;
    for (const Device& device : devices_) sum += device.swaps();
    return sum;
  }
  [[nodiscard]] std::uint64_t event_hash() const noexcept { return scheduler_.hash().value(); }

 private:
  static sched::AllocationConfig allocation_of(const ReplayConfig& config) {
    sched::AllocationConfig allocation;
    allocation.actuation_delay = config.actuation_delay;
    return allocation;
  }

  static constexpr double kCountedMove = 0.02;
  enum class Report : std::uint8_t { first_token, completed, lost };

  struct Reported {
    Report kind;
    std::uint64_t request;
  };

  struct Sink {
    std::vector<Reported>& reports;
    void first_token(std::size_t, std::uint64_t tag, Instant, Instant) {
      reports.push_back({Report::first_token, tag});
    }
    void completed(std::size_t, std::uint64_t tag, Instant) { reports.push_back({Report::completed, tag}); }
    void lost(std::size_t, std::uint64_t tag, Instant) { reports.push_back({Report::lost, tag}); }
  };

  [[nodiscard]] Instant next_event() const noexcept {
    Instant next = std::min(next_tick_, scheduler_.next_timer());
    next = std::min(next, loop_.next_due());
    for (const Device& device : devices_) next = std::min(next, device.next_event());
    return next;
  }

  void run_until(Instant until) {
    for (Instant next = next_event(); next <= until; next = next_event()) {
      now_ = next;
      step();
    }
    now_ = std::max(now_, until);
  }

  /// The scheduler decides which model is resident; under fifo the devices decide by themselves.
  void take_command() {
    const sched::Fleet& fleet = scheduler_.fleet();
    for (std::size_t d = 0; d < fleet.device_count(); ++d) {
      if (!fleet.device(d).config.is_swapped) continue;
      for (const ModelId model : fleet.device(d).models) {
        for (const ReplicaId replica : fleet[model].replicas) devices_[places_[index_of(replica)].device].obey();
      }
    }
  }

  /// Everything that happens at now_, but for arrivals.
  void step() {
    for (std::size_t d = 0; d < devices_.size(); ++d) {
      if (devices_[d].next_event() > now_) continue;
      reports_.clear();
      devices_[d].advance_to(now_, Sink{reports_});
      for (const Reported& report : reports_) pass_on(report);
      confirm_load(d);
      start_placed();
    }
    if (scheduler_.next_timer() <= now_) {
      scheduler_.advance(now_);
      start_placed();
    }
    loop_.act(scheduler_, now_);
    if (next_tick_ <= now_) {
      tick();
      next_tick_ += config_.tick_interval;
      start_placed();
    }
    if (config_.checks_every != 0 && ++events_ % config_.checks_every == 0) {
      const bool is_idle = scheduler_.find_idle_capacity() != sched::kNull;
      const bool is_overheld = scheduler_.find_overheld(now_) != sched::kNull;
      violations_ += (is_idle ? 1U : 0U) + (is_overheld ? 1U : 0U) + (scheduler_.ledger().adds_up() ? 0U : 1U);
    }
  }

  void submit(const ReplayArrivals& arrivals, std::size_t i, Instant at) {
    sched::Request request;
    request.prompt_tokens = arrivals.prompt_tokens[i];
    request.allowed = ModelMask{arrivals.allowed_mask[i]};
    request.downgrade = ModelMask{arrivals.downgrade_mask[i]};
    request.first_token_deadline = instant_from_ns(arrivals.deadline_ns[i]);
    if (!arrivals.end_deadline_ns.empty()) request.end_deadline = instant_from_ns(arrivals.end_deadline_ns[i]);
    if (!arrivals.tenant.empty()) request.tenant = TenantId{arrivals.tenant[i]};
    if (!arrivals.affinity_key.empty()) request.affinity_key = arrivals.affinity_key[i];
    const auto number = static_cast<std::uint32_t>(tickets_.size());
    prompts_.push_back(arrivals.prompt_tokens[i]);
    outputs_.push_back(arrivals.output_tokens[i]);
    times_.placed_ns.push_back(-1);
    times_.first_token_ns.push_back(-1);
    times_.last_token_ns.push_back(-1);
    times_.model.push_back(-1);
    times_.outcome.push_back(static_cast<std::uint8_t>(Outcome::queued));
    const sched::Ticket ticket = scheduler_.reserve();
    tickets_.push_back(ticket);
    if (ticket.slot() != sched::Ticket::kNoSlot) request_of_slot_[ticket.slot()] = number;
    scheduler_.submit(ticket, request, at);
    note_outcome(number);
    start_placed();
  }

  /// Finals are kept for a while only, so they are noted as they happen.
  void note_outcome(std::uint32_t number) {
    if (const auto outcome = scheduler_.outcome(tickets_[number])) {
      times_.outcome[number] = static_cast<std::uint8_t>(*outcome);
    }
  }

  /// A model has become resident: its device tells the scheduler which.
  void confirm_load(std::size_t device) {
    const std::optional<std::size_t> engine = devices_[device].take_loaded();
    if (!engine) return;
    for (std::size_t r = 0; r < places_.size(); ++r) {
      if (places_[r].device != device || places_[r].engine != *engine) continue;
      const ModelId model = scheduler_.fleet().replica(ReplicaId{static_cast<std::uint16_t>(r)}).model;
      scheduler_.loaded(scheduler_.fleet()[model].config.device, model, now_);
      return;
    }
  }

  /// Sends what the scheduler decided to the devices: models to load, and requests to their engines.
  void start_placed() {
    while (const std::optional<sched::SwapCommand> swap = scheduler_.next_swap()) {
      const ReplicaPlace place = places_[index_of(scheduler_.fleet()[swap->load].replicas.front())];
      devices_[place.device].bring_in(place.engine, now_);
      confirm_load(place.device);  // where loading takes no time
    }
    while (const std::optional<sched::Placement> placement = scheduler_.next_placement()) {
      const std::uint32_t number = request_of_slot_[placement->ticket.slot()];
      const ReplicaPlace place = places_[index_of(placement->replica)];
      times_.placed_ns[number] = to_ns(now_);
      times_.model[number] = static_cast<std::int16_t>(index_of(placement->model));
      EngineRequest request;
      request.tag = number;
      request.prompt_tokens = prompts_[number];
      request.output_tokens = std::max(outputs_[number], 1U);
      if (!devices_[place.device].enqueue(place.engine, request, now_)) {
        scheduler_.fail(placement->ticket, false, Outcome::failed_replica, now_);  // larger than the engine's whole KV
        note_outcome(number);
      }
    }
  }

  void pass_on(const Reported& report) {
    const auto number = static_cast<std::uint32_t>(report.request);
    const sched::Ticket ticket = tickets_[number];
    switch (report.kind) {
      case Report::first_token:
        times_.first_token_ns[number] = to_ns(now_);
        scheduler_.first_token(ticket, now_);
        return;
      case Report::completed:
        times_.last_token_ns[number] = to_ns(now_);
        scheduler_.complete(ticket, outputs_[number], now_);
        break;
      case Report::lost:
        scheduler_.fail(ticket, true, Outcome::failed_replica, now_);
        break;
    }
    note_outcome(number);
  }

  void tick() {
    loop_.tick(scheduler_, now_);
    count_share_changes();
    if (config_.keeps_ticks) keep_tick();
  }

  void count_share_changes() {
    const sched::Fleet& fleet = scheduler_.fleet();
    counted_.resize(fleet.model_count(), -1.0);
    bool has_moved = false;
    for (std::size_t m = 0; m < counted_.size(); ++m) {
      const double share = fleet.share_of(ModelId{static_cast<std::uint8_t>(m)});
      has_moved |= counted_[m] >= 0.0 && std::abs(share - counted_[m]) > kCountedMove;
    }
    if (has_moved) ++share_changes_;
    for (std::size_t m = 0; m < counted_.size(); ++m) {
      if (has_moved || counted_[m] < 0.0) counted_[m] = fleet.share_of(ModelId{static_cast<std::uint8_t>(m)});
    }
  }

  void keep_tick() {
    const sched::Fleet& fleet = scheduler_.fleet();
    ReplayTick& kept = ticks_.emplace_back();
    kept.at_ns = to_ns(now_);
    for (std::size_t m = 0; m < fleet.model_count(); ++m) {
      const ModelId id{static_cast<std::uint8_t>(m)};
      kept.models.push_back({fleet.share_of(id), fleet[id].decode_pace() + fleet[id].demand.need(now_),
                             fleet[id].waiting, fleet[id].running});
    }
  }

  ReplayConfig config_;
  sched::Scheduler scheduler_;
  std::unique_ptr<sched::LoadOutlook> outlook_;
  sched::AllocationLoop loop_;
  std::vector<Device> devices_;
  std::vector<ReplicaPlace> places_;
  std::vector<std::uint32_t> request_of_slot_;
  std::vector<sched::Ticket> tickets_;
  std::vector<std::uint32_t> prompts_;
  std::vector<std::uint32_t> outputs_;
  ReplayTimes times_;
  std::vector<ReplayTick> ticks_;
  std::vector<Reported> reports_;
  std::vector<double> counted_;
  Instant now_{};
  Instant next_tick_{};
  std::uint64_t share_changes_ = 0;
  std::uint64_t events_ = 0;
  std::uint64_t violations_ = 0;
};

}  // namespace zeta::sim
