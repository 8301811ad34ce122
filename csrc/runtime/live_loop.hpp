#pragma once
// The allocation loop as it runs live: sched::AllocationLoop, forecasts with a net that can be replaced, and figures.

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <type_traits>
#include <vector>

#include "runtime/clock.hpp"
#include "runtime/net_slot.hpp"
#include "runtime/onnx_session.hpp"
#include "zeta/core/quantile_sketch.hpp"
#include "zeta/sched/allocation_loop.hpp"
#include "zeta/sched/forecaster_outlook.hpp"
#include "zeta/sched/shared_scheduler.hpp"
#include "zeta/sync/snapshot_ring.hpp"

namespace zeta::runtime {

/// Where a live loop's forecasts come from.
enum class ForecastMode : std::uint8_t {
  automatic,  ///< The candidates behind their guard, a net among them where there is one.
  ewma,       ///< A 30 s mean.
  off,
};

/// p50 and p99 of recent values, in nanoseconds; -1: none yet.
struct Percentiles {
  std::int64_t p50_ns = -1;
  std::int64_t p99_ns = -1;
};

/// What the last round of a live loop did. A value, copied between threads word by word.
struct LoopRound {
  struct Model {
    double share = 0.0;
    double need = 0.0;
    /// Work expected over the next 60 s, in GPU-seconds per second: median, and exceeded one time in 10, in 100. NaN:
    /// unknown.
    std::array<double, forecast::kQuantileCount> work{};
  };

  std::uint64_t rounds = 0;
  std::int64_t at_ns = 0;  ///< The router's clock, when the round began.
  std::int64_t actuation_delay_ns = 0;
  std::uint64_t forecasts = 0;   ///< Seconds that were closed and looked ahead from.
  std::uint64_t net_number = 0;  ///< Of the net in use, counted from 1; 0: none.
  std::uint64_t models = 0;
  std::uint64_t is_net_used = 0;  ///< 1: the guard let the net into the last forecast.
  std::uint64_t is_trusted = 0;   ///< 1: the forecast has lately been good enough to act on, at this delay.
  std::uint64_t is_foreseen = 0;  ///< 1: the last round's plans looked ahead.
  std::uint64_t foreseen = 0;     ///< Rounds that did.
  Percentiles late;               ///< Begin of a round after the instant for which it was set; the thread's only.
  Percentiles took;               ///< Of rounds before this one, from begin to end, its publication included.
  Percentiles forecast;           ///< Features, net, guard; in the rounds that close a second.
  Percentiles net;                ///< Runs of the net.
  OnnxSessionStats net_stats;     ///< Of the net in use.
  std::array<Model, kMaxModels> of_model{};
};
static_assert(std::is_trivially_copyable_v<LoopRound>);

/// One router's allocation loop. A round is: take the net in force, count what arrived, look ahead, plan, publish.
///
/// The scheduler is owned only while arrivals are counted and shares planned, never while a forecast is made, so nobody
/// waits for a net. Without an actuation delay no share depends on a forecast, and planning comes first: a net that is
/// slow delays no plan. With one, counting and looking ahead come first. What the loop does to the scheduler goes
/// through recorded events: `tick` without a delay, `set_share` and `note_overload` with one.
///
/// `prepare`, `round`, `act`, `warm_up` and the questions about time are for one caller at a time, the router's; the
/// rest is for any thread, and blocks nobody. After `prepare` nothing of this allocates.
template <class Net = OnnxSession>
class LiveLoop {
 public:
  explicit LiveLoop(ForecastMode mode) : mode_{mode} {}

  [[nodiscard]] ForecastMode mode() const noexcept { return mode_; }
  /// Where a net is put for the rounds to come.
  [[nodiscard]] NetSlot<Net>& nets() noexcept { return nets_; }

  /// From the next round on. Zero: plans act at once.
  void set_actuation_delay(Duration delay) noexcept {
    delay_ns_.store(std::max(delay, Duration{0}).count(), std::memory_order_relaxed);  // one number, read each round
  }
  /// From the next round on, shares come from elsewhere (`set_share` events): rounds plan none.
  void set_planned_elsewhere(bool is_so) noexcept {
    is_planned_elsewhere_.store(is_so, std::memory_order_relaxed);  // as above
  }

  /// The newest round; false before the first. Never waits for the loop.
  [[nodiscard]] bool read(LoopRound& round) const noexcept { return published_.read(round) > 0; }

  // --- the loop's ----------------------------------------------------------------------------------------------------

  [[nodiscard]] bool is_prepared() const noexcept { return state_.has_value(); }
  /// Makes room, once, before the first round.
  void prepare(const sched::Fleet& fleet, Instant now) { state_.emplace(fleet, mode_, now); }

  /// One round, set for `due`.
  template <template <class> class Atomic>
  void round(sched::SharedScheduler<Atomic>& shared, Instant due, Instant now) noexcept {
    const Instant began = steady_.now();
    State& s = *state_;
    now = s.last_at = std::max(s.last_at, now);
    take_net();
    const bool is_ours = !is_planned_elsewhere_.load(std::memory_order_relaxed);  // as it was set
    if (s.loop.is_delayed() || delay_ns_.load(std::memory_order_relaxed) > 0) {   // as it was set
      shared.with_owner([&](sched::Scheduler& scheduler) {
        adopt_delay(scheduler.fleet());
        s.loop.count(scheduler.fleet(), now);
      });
      look_ahead();
      shared.apply_in_turn([&](sched::Scheduler& scheduler, auto&& apply) {
        if (is_ours && s.loop.is_delayed()) {
          s.loop.plan_ahead(scheduler, now);
          act(scheduler.fleet(), now, apply);
        }
        plan_now(apply, now, is_ours && !s.loop.is_delayed());
        note(scheduler.fleet(), now);
      });
    } else {
      shared.apply_in_turn([&](sched::Scheduler& scheduler, auto&& apply) {
        plan_now(apply, now, is_ours);
        s.loop.count(scheduler.fleet(), now);
        note(scheduler.fleet(), now);
      });
      look_ahead();
    }
    publish(now, now - due);
    s.took.add(to_seconds(steady_.now() - began));
  }

  /// When plans in flight act next.
  [[nodiscard]] Instant next_due() const noexcept { return state_ ? state_->loop.next_due() : kNever; }
  template <template <class> class Atomic>
  void act(sched::SharedScheduler<Atomic>& shared, Instant now) noexcept {
    if (next_due() > now) return;
    shared.apply_in_turn([&](sched::Scheduler& scheduler, auto&& apply) { this->act(scheduler.fleet(), now, apply); });
  }

  /// Whether a round at `at` will run a net, so that it pays to warm it up shortly before.
  [[nodiscard]] bool runs_net_at(Instant at) const noexcept {
    return state_ && state_->net != nullptr && state_->loop.looks_ahead_at(at);
  }
  void warm_up() noexcept { state_->net->warm_up(); }

 private:
  struct State {
    State(const sched::Fleet& fleet, ForecastMode mode, Instant now)
        : loop{fleet, {.may_be_delayed = true}}, last_at{now} {
      constexpr Duration kSecond{1'000'000'000};
      const Instant second{kSecond * (now.time_since_epoch() / kSecond)};  // bins end where the loop's seconds do
      if (mode == ForecastMode::automatic) loop.set_outlook(&forecaster.emplace(fleet.model_count(), second));
      if (mode == ForecastMode::ewma) loop.set_outlook(&mean.emplace(fleet.model_count()));
      current.models = fleet.model_count();
    }
    State(const State&) = delete;
    State& operator=(const State&) = delete;

    sched::AllocationLoop loop;
    std::optional<sched::ForecasterOutlook> forecaster;
    std::optional<sched::EwmaOutlook> mean;
    Net* net = nullptr;
    std::uint64_t net_runs = 0;  ///< Of `net`, up to the last round.
    Instant last_at;
    LoopRound current;
    QuantileSketch late, took, forecast, net_took;
  };

  void take_net() noexcept {
    State& s = *state_;
    if (!s.forecaster) return;
    const NetVersion<Net>* const version = nets_.take();
    const std::uint64_t number = version == nullptr || version->net == nullptr ? 0 : version->number;
    if (number == s.current.net_number && (version == nullptr || version->net.get() == s.net)) return;
    s.net = version->net.get();
    s.net_runs = s.net == nullptr ? 0 : s.net->stats().runs;
    s.current.net_number = number;
    s.forecaster->set_net(s.net);
  }

  void adopt_delay(const sched::Fleet& fleet) noexcept {
    const Duration delay{delay_ns_.load(std::memory_order_relaxed)};  // as it was set
    State& s = *state_;
    if (delay.count() == s.current.actuation_delay_ns) return;
    if (!s.loop.is_delayed() || delay == Duration{0}) s.loop.start_from(fleet);
    s.loop.set_actuation_delay(delay);
    s.current.actuation_delay_ns = delay.count();
  }

  template <class Apply>
  static void plan_now(Apply&& apply, Instant now, bool is_ours) noexcept {
    const auto kind = is_ours ? sched::EventKind::tick : sched::EventKind::note_overload;
    auto event = sched::SharedScheduler<>::make(kind, {}, now);
    apply(event);
  }

  template <class Apply>
  void act(const sched::Fleet& fleet, Instant now, Apply&& apply) noexcept {
    state_->loop.act(now, [&](std::size_t device, const share::Plan& plan) {
      const std::vector<ModelId>& models = fleet.device(device).models;
      for (std::size_t i = 0; i < models.size(); ++i) {
        auto event = sched::SharedScheduler<>::make(sched::EventKind::set_share, {}, now);
        event.model = models[i];
        event.quality = plan.share[i];
        event.in_batch = i + 1 < models.size();
        apply(event);
      }
    });
  }

  void look_ahead() noexcept {
    State& s = *state_;
    const Instant began = steady_.now();
    if (!s.loop.look_ahead()) return;
    s.forecast.add(to_seconds(steady_.now() - began));
    ++s.current.forecasts;
    if (s.net == nullptr) return;
    const OnnxSessionStats stats = s.net->stats();
    if (stats.runs != s.net_runs) s.net_took.add(static_cast<double>(stats.last_run_ns) * 1e-9);
    s.net_runs = stats.runs;
  }

  void note(const sched::Fleet& fleet, Instant now) noexcept {
    LoopRound& round = state_->current;
    for (std::size_t m = 0; m < round.models; ++m) {
      const ModelId id{static_cast<std::uint8_t>(m)};
      round.of_model[m].share = fleet.share_of(id);
      round.of_model[m].need = fleet[id].decode_pace() + fleet[id].demand.need(now);
    }
  }

  void publish(Instant now, Duration late) noexcept {
    State& s = *state_;
    LoopRound& round = s.current;
    s.late.add(std::max(to_seconds(late), 0.0));
    ++round.rounds;
    round.at_ns = to_ns(now);
    round.is_trusted = s.loop.trust().is_trusted() ? 1 : 0;
    round.is_foreseen = s.loop.is_foreseen() ? 1 : 0;
    round.foreseen = s.loop.foreseen_ticks();
    round.late = percentiles(s.late);
    round.took = percentiles(s.took);
    round.forecast = percentiles(s.forecast);
    round.net = percentiles(s.net_took);
    round.net_stats = s.net == nullptr ? OnnxSessionStats{} : s.net->stats();
    bool is_net_used = false;
    for (std::size_t m = 0; m < round.models; ++m) {
      for (std::size_t q = 0; q < forecast::kQuantileCount; ++q) round.of_model[m].work[q] = expected(m, q);
      is_net_used = is_net_used || uses_net(m);
    }
    round.is_net_used = is_net_used ? 1 : 0;
    published_.publish(round);
  }

  [[nodiscard]] bool uses_net(std::size_t model) const noexcept {
    const State& s = *state_;
    return s.net != nullptr && s.forecaster->forecaster()
                                   .series(ModelId{static_cast<std::uint8_t>(model)}, forecast::Target::kWork)
                                   .is_net_used();
  }

  [[nodiscard]] double expected(std::size_t model, std::size_t quantile) const noexcept {
    constexpr std::size_t kMinute = 2;
    static_assert(forecast::kHorizonBins[kMinute] == 60);
    const State& s = *state_;
    if (s.mean && s.current.forecasts > 0) return s.mean->pace(model);
    if (!s.forecaster) return std::numeric_limits<double>::quiet_NaN();
    const forecast::LoadForecaster& forecaster = s.forecaster->forecaster();
    const ModelId id{static_cast<std::uint8_t>(model)};
    if (!forecaster.is_valid(id, forecast::Target::kWork)) return std::numeric_limits<double>::quiet_NaN();
    return forecaster.rate(id, forecast::Target::kWork, kMinute, quantile);
  }

  [[nodiscard]] static Percentiles percentiles(const QuantileSketch& of) noexcept {
    const auto ns = [&of](double q) {
      const std::optional<double> value = of.quantile(q);
      return value ? static_cast<std::int64_t>(*value * 1e9) : std::int64_t{-1};
    };
    return {ns(0.5), ns(0.99)};
  }

  const ForecastMode mode_;
  const SteadyClock steady_;
  std::atomic<std::int64_t> delay_ns_{0};
  std::atomic<bool> is_planned_elsewhere_{false};
  sync::SnapshotRing<LoopRound> published_;
  NetSlot<Net> nets_;
  std::optional<State> state_;  // before nets_ in destruction: it points into them
};

}  // namespace zeta::runtime
