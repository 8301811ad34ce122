#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "zeta/sched/outlook.hpp"
#include "zeta/sched/outlook_trust.hpp"
#include "zeta/sched/plans_in_flight.hpp"
#include "zeta/sched/scheduler.hpp"
#include "zeta/share/foresight.hpp"

namespace zeta::sched {

struct AllocationConfig {
  Duration actuation_delay{0};            ///< From a plan of shares to its effect, as measured.
  bool may_be_delayed = false;            ///< Room is set aside for plans in flight, should a delay be measured later.
  Duration forecast_from{5'000'000'000};  ///< Least delay at which a forecast is listened to.
  share::ForesightConfig foresight{};
};

/// The allocation loop: counts what arrives, looks ahead where acting is slow, plans every shared device, and puts
/// plans into force when they can act. The same code plans in replay and live; it reads no clock and has no thread.
///
/// One owner, the scheduler's. After construction nothing allocates.
///
/// - Without an actuation delay a tick is Scheduler::tick, whatever a forecast says: feedback is better there.
/// - With one, each tick's plan follows the last one made (not the one in force) and acts a delay later. The owner
///   calls `act` when `next_due` has come.
/// - From `forecast_from` on, and while the outlook is known and trusted (OutlookTrust), needs are those of the instant
///   at which the plan will act: the backlog of now, plus what is expected to arrive, less what the device does until
///   then under the plans in flight (Smith, 1957: a controller with a dead time acts on a model of what it has already
///   set going). Otherwise the plan is, bit for bit, the one that would be made without any forecast.
class AllocationLoop {
 public:
  AllocationLoop(const Fleet& fleet, const AllocationConfig& config)
      : config_{config},
        latest_(fleet.device_count()),
        trust_{fleet.model_count(), is_ever_delayed()},
        counted_(fleet.model_count()),
        arrived_(fleet.model_count()),
        expected_(fleet.model_count()) {
    in_flight_.reserve(fleet.device_count());
    for (std::size_t d = 0; d < fleet.device_count(); ++d) {
      in_flight_.emplace_back(is_ever_delayed() && fleet.device(d).config.is_shared);
    }
  }

  /// Where forecasts come from; nullptr: nowhere. It must outlive the loop.
  void set_outlook(LoadOutlook* outlook) noexcept {
    outlook_ = outlook;
    is_foreseen_ = false;
  }

  /// A newly measured delay; counts as none where the configuration set no room aside.
  void set_actuation_delay(Duration delay) noexcept {
    config_.actuation_delay = is_ever_delayed() ? std::max(delay, Duration{0}) : Duration{0};
  }
  [[nodiscard]] bool is_delayed() const noexcept { return config_.actuation_delay > Duration{0}; }

  /// One round.
  void tick(Scheduler& scheduler, Instant now) noexcept {
    count(scheduler.fleet(), now);
    look_ahead();
    if (!is_delayed()) {
      scheduler.tick(now);
      return;
    }
    plan_ahead(scheduler, now);
    scheduler.note_overload(now);
  }

  // --- parts of a round, for a loop that lets others use the scheduler while it looks ahead ---

  /// Counts what has arrived if a second has ended.
  void count(const Fleet& fleet, Instant now) noexcept {
    if (outlook_ == nullptr || !is_ever_delayed()) return;
    if (next_bin_ == kNever) next_bin_ = Instant{kBin * (now.time_since_epoch() / kBin + 1)};
    if (next_bin_ > now) return;
    const std::int64_t passed = 1 + (now - next_bin_) / kBin;
    count_over(fleet, static_cast<double>(passed));
    // After a stall longer than kMostBins the outlook hears of its last part only.
    next_bin_ += kBin * std::max(passed - kMostBins, std::int64_t{0});
    bins_to_close_ = std::min(passed, kMostBins);
  }

  /// Closes the seconds that were counted and asks the outlook; true if there were any. Needs no scheduler.
  bool look_ahead() noexcept {
    const bool has_any = bins_to_close_ > 0;
    for (; bins_to_close_ > 0; --bins_to_close_, next_bin_ += kBin) close_bin();
    return has_any;
  }

  /// Whether a tick at `at` will look ahead.
  [[nodiscard]] bool looks_ahead_at(Instant at) const noexcept { return outlook_ != nullptr && next_bin_ <= at; }

  /// Plans every shared device; the plans act a delay later.
  void plan_ahead(const Scheduler& scheduler, Instant now) noexcept {
    for (std::size_t d = 0; d < latest_.size(); ++d) {
      if (!scheduler.fleet().device(d).config.is_shared) continue;
      latest_[d] = plan(scheduler, d, now);
      in_flight_[d].push(latest_[d], now + config_.actuation_delay, config_.actuation_delay);
    }
    foreseen_ticks_ += is_foreseen_ ? 1 : 0;
  }

  /// Where the next plans go on from what is in force, and those in flight are forgotten: for a delay that begins.
  void start_from(const Fleet& fleet) noexcept {
    for (std::size_t d = 0; d < latest_.size(); ++d) {
      latest_[d] = fleet.device(d).plan;
      while (in_flight_[d].size() > 0) in_flight_[d].pop();
    }
  }

  /// When the next plan in flight acts; kNever without one.
  [[nodiscard]] Instant next_due() const noexcept {
    Instant next = kNever;
    for (const PlansInFlight& plans : in_flight_) next = std::min(next, plans.next_due());
    return next;
  }

  /// Puts into force what is due by `now`.
  void act(Scheduler& scheduler, Instant now) noexcept {
    act(now, [&scheduler](std::size_t device, const share::Plan& plan) { scheduler.set_plan(device, plan); });
  }
  /// As above, by `put(device, plan)`.
  template <class Put>
  void act(Instant now, Put&& put) noexcept {
    for (std::size_t d = 0; d < in_flight_.size(); ++d) {
      while (in_flight_[d].next_due() <= now) {
        put(d, in_flight_[d][0].plan);
        in_flight_[d].pop();
      }
    }
  }

  [[nodiscard]] const OutlookTrust& trust() const noexcept { return trust_; }
  /// What the outlook last said, by model; of meaning only where `is_foreseen`.
  [[nodiscard]] std::span<const share::ExpectedWork> expected() const noexcept { return expected_; }
  /// Whether the last tick's plans looked ahead.
  [[nodiscard]] bool is_foreseen() const noexcept { return is_foreseen_; }
  [[nodiscard]] std::uint64_t foreseen_ticks() const noexcept { return foreseen_ticks_; }

 private:
  static constexpr Duration kBin{1'000'000'000};
  static constexpr std::int64_t kMostBins = 600;
  static constexpr int kParts = 24;  ///< Of the way to the instant at which a plan acts.

  struct Counted {
    std::uint64_t arrivals = 0;
    Duration work{0};
  };

  [[nodiscard]] bool is_ever_delayed() const noexcept {
    return config_.may_be_delayed || config_.actuation_delay > Duration{0};
  }

  /// What arrived since the last count, evenly over the seconds that have passed: one, unless the loop was held up.
  void count_over(const Fleet& fleet, double seconds) noexcept {
    for (std::size_t m = 0; m < counted_.size(); ++m) {
      const Model& model = fleet[ModelId{static_cast<std::uint8_t>(m)}];
      arrived_[m] = {static_cast<double>(model.arrivals - counted_[m].arrivals) / seconds,
                     to_seconds(model.arrived_work - counted_[m].work) / seconds};
      counted_[m] = {model.arrivals, model.arrived_work};
    }
  }

  void close_bin() noexcept {
    outlook_->note(arrived_, next_bin_);
    const bool is_known =
        outlook_->expect(next_bin_, expected_) &&
        std::all_of(expected_.begin(), expected_.end(), [](const auto& each) { return each.is_known(); });
    const std::span<const share::ExpectedWork> said = expected_;
    trust_.note(arrived_, is_known ? said : said.first(0), static_cast<std::size_t>(config_.actuation_delay / kBin));
    is_foreseen_ = is_known && trust_.is_trusted() && config_.actuation_delay >= config_.forecast_from;
  }

  [[nodiscard]] share::Plan plan(const Scheduler& scheduler, std::size_t d, Instant now) const noexcept {
    const Fleet& fleet = scheduler.fleet();
    const std::vector<ModelId>& models = fleet.device(d).models;
    std::array<share::ModelDemand, kMaxModels> demands;
    for (std::size_t i = 0; i < models.size(); ++i) demands[i] = demand_of(fleet[models[i]], now);
    const std::span<share::ModelDemand> present = std::span{demands}.first(models.size());
    if (is_foreseen_) foresee(fleet.device(d), in_flight_[d], present, now);
    return share::tick(scheduler.config().share, present, latest_[d], now);
  }

  /// Gives every demand the need that it is expected to have when a plan made now acts.
  void foresee(const Device& device, const PlansInFlight& plans, std::span<share::ModelDemand> demands,
               Instant now) const noexcept {
    const std::size_t n = demands.size();
    std::array<share::Foreseen, kMaxModels> foreseen;
    const std::span<share::Foreseen> present = std::span{foreseen}.first(n);
    for (std::size_t i = 0; i < n; ++i) {
      foreseen[i].backlog_s = demands[i].backlog_work_s;
      foreseen[i].arriving = expected_[index_of(device.models[i])];
    }
    weigh(present, device.plan);
    const double delay_s = to_seconds(config_.actuation_delay);
    const double part_s = delay_s / kParts;
    std::size_t next = 0;
    for (int k = 0; k < kParts; ++k) {
      const double from_s = part_s * k;
      const Instant at = now + duration_from_seconds(from_s);
      for (; next < plans.size() && plans[next].due <= at; ++next) weigh(present, plans[next].plan);
      share::go_on(present, config_.foresight.capacity, from_s, from_s + part_s);
    }
    for (std::size_t i = 0; i < n; ++i) {
      demands[i].expected_need = share::expected_need(config_.foresight, foreseen[i], delay_s);
    }
  }

  /// As put_into_force does: a plan lifts, it takes nothing from who uses less than an even part.
  static void weigh(std::span<share::Foreseen> models, const share::Plan& plan) noexcept {
    const double even = 1.0 / static_cast<double>(models.size());
    for (std::size_t i = 0; i < models.size(); ++i) {
      models[i].weight = plan.count == models.size() ? std::max(plan.share[i], even) : even;
    }
  }

  AllocationConfig config_;
  std::vector<share::Plan> latest_;  ///< By device; in force or in flight.
  std::vector<PlansInFlight> in_flight_;
  LoadOutlook* outlook_ = nullptr;
  OutlookTrust trust_;
  std::vector<Counted> counted_;  ///< By model, up to the last bin.
  std::vector<ArrivedBin> arrived_;
  std::vector<share::ExpectedWork> expected_;
  Instant next_bin_ = kNever;       ///< Ends at a whole second of the clock; kNever before the first tick.
  std::int64_t bins_to_close_ = 0;  ///< Counted, and not yet told to the outlook.
  std::uint64_t foreseen_ticks_ = 0;
  bool is_foreseen_ = false;
};

}  // namespace zeta::sched
