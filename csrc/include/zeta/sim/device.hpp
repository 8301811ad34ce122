#pragma once
// One device and the engines on it: who may step when, and how long a step takes beside others.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

#include "zeta/core/time.hpp"
#include "zeta/sim/engine.hpp"

namespace zeta::sim {

/// How engines on one device share it.
enum class Colocation : std::uint8_t {
  timeslice,  ///< One step at a time, round robin over the engines with work: an equal slice of steps each.
  mps,        ///< Steps overlap and slow each other down.
  exclusive,  ///< Each engine has a part of its own: no contention.
  swap,       ///< One resident model; another's turn begins with unloading and loading.
};

/// "timeslice", "mps", "exclusive" or "swap"; std::nullopt otherwise.
constexpr std::optional<Colocation> colocation_from(std::string_view name) noexcept {
  if (name == "timeslice") return Colocation::timeslice;
  if (name == "mps") return Colocation::mps;
  if (name == "exclusive") return Colocation::exclusive;
  if (name == "swap") return Colocation::swap;
  return std::nullopt;
}

/// What an engine brings to its device besides itself.
struct EngineSetup {
  Instant available_from{};  ///< Start-up ends here: before it the engine queues and does not step.
  Duration load_delay{};     ///< `swap`: time to make this model resident.
  Duration unload_delay{};   ///< `swap`: time to drop it.
};

struct DeviceConfig {
  Colocation colocation = Colocation::timeslice;
  /// `swap`: while another engine waits, the resident one admits nothing new after this long and is swapped out when
  /// what it runs has finished.
  Duration max_residency = std::chrono::seconds{10};
};

/// A device on virtual time. The owner alternates `advance_to(next_event())` with its own actions; calls that take
/// `now` expect that the device has been advanced to it. Single-threaded; after the last add_engine nothing allocates.
///
/// `mps` is egalitarian processor sharing (Kleinrock, "Time-shared systems: a theoretical treatment", J. ACM 1967) of
/// the one resource that steps compete for, the device's own time: a step that alone keeps the device busy for a
/// fraction u of its time demands u; while the demands of the steps in progress add up to U > 1, all proceed at the
/// rate 1/U. Host time between kernels is what overlapping gains. Cache and bandwidth interference beyond that is left
/// out.
class Device {
 public:
  explicit Device(const DeviceConfig& config) : config_{config} {}

  /// Returns the engine's index on this device.
  std::size_t add_engine(Engine engine, const EngineSetup& setup = {}) {
    lanes_.push_back(Lane{std::move(engine), setup});
    if (config_.colocation == Colocation::swap && resident_ == kNobody) resident_ = lanes_.size() - 1;
    return lanes_.size() - 1;
  }

  [[nodiscard]] std::size_t size() const noexcept { return lanes_.size(); }
  [[nodiscard]] const Engine& engine(std::size_t index) const noexcept { return lanes_[index].engine; }
  [[nodiscard]] Instant now() const noexcept { return now_; }
  [[nodiscard]] std::uint64_t swaps() const noexcept { return swaps_; }
  /// `swap`: the engine whose model is loaded, or being loaded.
  [[nodiscard]] std::size_t resident() const noexcept { return resident_; }

  /// `swap`: from now on the owner says which engine's model is resident, with `bring_in`; the device changes nothing
  /// by itself.
  void obey() noexcept { is_commanded_ = true; }

  /// `swap`, commanded: begins to unload the resident model and to load another. No engine has work, and none gets any
  /// before `take_loaded` tells that it is done.
  void bring_in(std::size_t index, Instant now) noexcept {
    loaded_at_ = now + lanes_[resident_].setup.unload_delay + lanes_[index].setup.load_delay;
    resident_ = index;
    is_loading_ = true;
    ++swaps_;
    start_steps(now);
  }

  /// The engine whose load has ended, once.
  [[nodiscard]] std::optional<std::size_t> take_loaded() noexcept {
    if (!is_loading_ || now_ < loaded_at_) return std::nullopt;
    is_loading_ = false;
    return resident_;
  }

  [[nodiscard]] std::optional<EngineHandle> enqueue(std::size_t index, const EngineRequest& request,
                                                    Instant now) noexcept {
    const auto handle = lanes_[index].engine.enqueue(request, now);
    if (handle) start_steps(now);
    return handle;
  }

  bool abort(std::size_t index, EngineHandle handle, Instant now) noexcept {
    const bool aborted = lanes_[index].engine.abort(handle);
    if (aborted) start_steps(now);
    return aborted;
  }

  /// The engine loses everything (`sink.lost`) and can step again from `back_at` on (kNever: stays down).
  template <class Sink>
  void crash(std::size_t index, Instant now, Instant back_at, Sink&& sink) noexcept {
    Lane& lane = lanes_[index];
    settle(now);
    lane.engine.crash(now, EngineSink<Sink>{index, sink});
    if (lane.is_stepping) --stepping_;
    lane.is_stepping = false;
    lane.setup.available_from = back_at;
    refresh(now);
    start_steps(now);
  }

  /// No step of this engine ends or begins before `until`; the others go on.
  void stall(std::size_t index, Instant now, Instant until) noexcept {
    Lane& lane = lanes_[index];
    settle(now);
    lane.stalled_until = std::max(lane.stalled_until, until);
    start_steps(now);
  }

  /// Steps of this engine that begin from now on take `factor` times as long.
  void set_slow_down(std::size_t index, double factor) noexcept { lanes_[index].engine.set_slow_down(factor); }

  /// The next instant at which something happens; kNever while idle.
  [[nodiscard]] Instant next_event() const noexcept { return next_event_; }

  /// Runs every event up to and including `until`. The sink is told `first_token(engine, tag, scheduled_at, at)`,
  /// `completed(engine, tag, at)`; it must not call back into this device.
  template <class Sink>
  void advance_to(Instant until, Sink&& sink) noexcept {
    while (next_event_ <= until) {
      const Instant at = next_event_;
      settle(at);
      for (std::size_t i = 0; i < lanes_.size(); ++i) {
        Lane& lane = lanes_[i];
        if (!lane.is_stepping || step_ends(lane) > at) continue;
        lane.is_stepping = false;
        --stepping_;
        lane.engine.end_step(at, EngineSink<Sink>{i, sink});
      }
      start_steps(at);
    }
    if (until > now_ && until != kNever) settle(until);
  }

 private:
  static constexpr std::size_t kNobody = ~std::size_t{0};

  struct Lane {
    Engine engine;
    EngineSetup setup{};
    Instant stalled_until{};
    bool is_stepping = false;
    Instant ends_at{};          ///< Of the step in progress, at the present pace.
    double remaining_ns = 0.0;  ///< `mps`: of the step in progress, at full pace.
    double demand = 0.0;        ///< `mps`: busy fraction of the step in progress.
  };

  template <class Sink>
  struct EngineSink {
    std::size_t index;
    Sink& sink;
    void first_token(std::uint64_t tag, Instant scheduled_at, Instant at) noexcept {
      sink.first_token(index, tag, scheduled_at, at);
    }
    void completed(std::uint64_t tag, Instant at) noexcept { sink.completed(index, tag, at); }
    void lost(std::uint64_t tag, Instant at) noexcept { sink.lost(index, tag, at); }
  };

  [[nodiscard]] static Instant step_ends(const Lane& lane) noexcept {
    return std::max(lane.ends_at, lane.stalled_until);
  }
  [[nodiscard]] static Instant ready_at(const Lane& lane) noexcept {
    return std::max(lane.setup.available_from, lane.stalled_until);
  }

  /// Where one step runs at a time: it does, and not of an engine that is stalled.
  [[nodiscard]] bool is_occupied(Instant at) const noexcept {
    return stepping_ != 0 && std::any_of(lanes_.begin(), lanes_.end(), [at](const Lane& lane) {
             return lane.is_stepping && lane.stalled_until <= at;
           });
  }

  /// Brings the progress of overlapping steps up to `at`.
  void settle(Instant at) noexcept {
    if (config_.colocation == Colocation::mps && stepping_ != 0) {
      const auto elapsed = static_cast<double>((at - now_).count());
      for (Lane& lane : lanes_) {
        if (!lane.is_stepping) continue;
        lane.remaining_ns -= elapsed / pace_;
        if (lane.remaining_ns < 0.0) lane.remaining_ns = 0.0;
      }
    }
    now_ = at;
  }

  void start_steps(Instant at) noexcept {
    switch (config_.colocation) {
      case Colocation::timeslice:
        start_next_in_turn(at);
        break;
      case Colocation::swap:
        start_resident(at);
        break;
      case Colocation::mps:
        settle(at);
        [[fallthrough]];
      case Colocation::exclusive:
        for (std::size_t i = 0; i < lanes_.size(); ++i) try_start(i, at);
        break;
    }
    refresh(at);
  }

  bool try_start(std::size_t index, Instant at) noexcept {
    Lane& lane = lanes_[index];
    if (lane.is_stepping || !lane.engine.has_work() || ready_at(lane) > at) return false;
    const std::optional<Duration> span = lane.engine.begin_step(at);
    if (!span) return false;
    lane.is_stepping = true;
    ++stepping_;
    lane.ends_at = at + *span;
    if (config_.colocation == Colocation::mps) {
      const StepCost cost = lane.engine.step_cost();
      lane.remaining_ns = static_cast<double>(span->count());
      lane.demand =
          span->count() == 0 ? 1.0 : static_cast<double>(cost.device.count()) / static_cast<double>(span->count());
    }
    return true;
  }

  void start_next_in_turn(Instant at) noexcept {
    if (is_occupied(at)) return;
    for (std::size_t i = 0; i < lanes_.size(); ++i) {
      turn_ = turn_ + 1 < lanes_.size() ? turn_ + 1 : 0;
      if (try_start(turn_, at)) return;
    }
  }

  void start_resident(Instant at) noexcept {
    if (lanes_.empty() || at < loaded_at_ || is_occupied(at)) return;
    if (is_commanded_) {
      try_start(resident_, at);
      return;
    }
    Lane& present = lanes_[resident_];
    const std::size_t waiting = longest_waiting_other(at);
    const bool overstays = waiting != kNobody && at - loaded_at_ >= config_.max_residency;
    present.engine.set_admitting(!overstays);
    if (try_start(resident_, at)) return;
    if (waiting == kNobody || (present.engine.has_work() && ready_at(present) <= at)) return;
    present.engine.set_admitting(true);
    loaded_at_ = at + present.setup.unload_delay + lanes_[waiting].setup.load_delay;
    resident_ = waiting;
    ++swaps_;
    if (loaded_at_ <= at) try_start(resident_, at);
  }

  [[nodiscard]] std::size_t longest_waiting_other(Instant at) const noexcept {
    std::size_t found = kNobody;
    Instant oldest = kNever;
    for (std::size_t i = 0; i < lanes_.size(); ++i) {
      if (i == resident_ || ready_at(lanes_[i]) > at) continue;
      const Instant since = lanes_[i].engine.oldest_waiting();
      if (since < oldest) {
        oldest = since;
        found = i;
      }
    }
    return found;
  }

  /// Recomputes the pace of overlapping steps and the next event.
  void refresh(Instant at) noexcept {
    if (config_.colocation == Colocation::mps) {
      double demand = 0.0;
      for (const Lane& lane : lanes_) demand += lane.is_stepping ? lane.demand : 0.0;
      pace_ = demand > 1.0 ? demand : 1.0;
      for (Lane& lane : lanes_) {
        if (!lane.is_stepping) continue;
        // Rounded up, so that a step never ends before its work is done.
        lane.ends_at = at + Duration{static_cast<std::int64_t>(lane.remaining_ns * pace_) + 1};
        if (lane.remaining_ns == 0.0) lane.ends_at = at;
      }
    }
    next_event_ = kNever;
    for (const Lane& lane : lanes_) {
      if (lane.is_stepping) {
        next_event_ = std::min(next_event_, step_ends(lane));
      } else if (lane.engine.has_work() && ready_at(lane) > at) {
        next_event_ = std::min(next_event_, ready_at(lane));
      }
    }
    if (config_.colocation == Colocation::swap && loaded_at_ > at) next_event_ = std::min(next_event_, loaded_at_);
  }

  DeviceConfig config_;
  std::vector<Lane> lanes_;
  Instant now_{};
  Instant next_event_ = kNever;
  std::size_t stepping_ = 0;
  std::size_t turn_ = 0;
  std::size_t resident_ = kNobody;
  Instant loaded_at_{};
  bool is_commanded_ = false;
  bool is_loading_ = false;
  std::uint64_t swaps_ = 0;
  double pace_ = 1.0;
};

}  // namespace zeta::sim
