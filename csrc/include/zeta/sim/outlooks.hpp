#pragma once
// Forecasts that a replay can try: the future itself, and sources that are wrong on purpose.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "zeta/core/rng.hpp"
#include "zeta/sched/forecaster_outlook.hpp"
#include "zeta/sched/outlook.hpp"

namespace zeta::sim {

/// Perfect foresight: reads what will come from a table of work per second and model.
class KnownFuture final : public sched::LoadOutlook {
 public:
  /// `work_s[second * models + model]` from the clock's zero on; nothing comes after its end.
  KnownFuture(std::size_t models, std::span<const double> work_s) : models_{models}, until_(models) {
    until_.reserve(work_s.size() + models);
    for (const double each : work_s) until_.push_back(until_[until_.size() - models] + each);
  }

  void note(std::span<const sched::ArrivedBin>, Instant) noexcept override {}

  [[nodiscard]] bool expect(Instant now, std::span<share::ExpectedWork> models) noexcept override {
    const auto second = static_cast<std::size_t>(to_ns(now) / 1'000'000'000);
    for (std::size_t i = 0; i < models_; ++i) {
      for (std::size_t k = 0; k < share::ExpectedWork::kHorizonsS.size(); ++k) {
        const double horizon_s = share::ExpectedWork::kHorizonsS[k];
        const double work_s = until(second + static_cast<std::size_t>(horizon_s), i) - until(second, i);
        models[i].pace[k] = work_s / horizon_s;
      }
    }
    return true;
  }

 private:
  [[nodiscard]] double until(std::size_t second, std::size_t model) const noexcept {
    return until_[std::min(second, until_.size() / models_ - 1) * models_ + model];
  }

  std::size_t models_;
  std::vector<double> until_;  ///< Work up to the start of each second.
};

/// How a forecast is spoilt.
enum class Fault : std::uint8_t {
  stale,        ///< What it says after five minutes it says for ever, as if it were new.
  ten_times,    ///< Ten times too much.
  tenth,        ///< A tenth of it.
  random,       ///< Each second and model anything from nothing to twice the device.
  not_numbers,  ///< Not a number.
};
inline constexpr std::array<std::string_view, 5> kFaultNames{"stale", "x10", "x0.1", "random", "nan"};

/// A source whose forecasts reach the loop spoilt.
class FaultyOutlook final : public sched::LoadOutlook {
 public:
  FaultyOutlook(std::unique_ptr<sched::LoadOutlook> source, std::size_t models, Fault fault)
      : source_{std::move(source)}, fault_{fault}, kept_(models) {}

  void note(std::span<const sched::ArrivedBin> models, Instant end) noexcept override { source_->note(models, end); }

  [[nodiscard]] bool expect(Instant now, std::span<share::ExpectedWork> models) noexcept override {
    const bool is_frozen = fault_ == Fault::stale && now > Instant{} + kFreshFor;
    if (!is_frozen && !source_->expect(now, kept_)) return false;
    for (std::size_t i = 0; i < models.size(); ++i) {
      models[i] = kept_[i];
      spoil(models[i]);
    }
    return true;
  }

 private:
  static constexpr Duration kFreshFor{300'000'000'000};

  void spoil(share::ExpectedWork& work) noexcept {
    if (fault_ == Fault::stale) return;
    if (fault_ == Fault::random) {
      work.pace.fill(2.0 * rng_.next_unit());
      return;
    }
    if (fault_ == Fault::not_numbers) {
      work = share::ExpectedWork{};
      return;
    }
    const double factor = fault_ == Fault::ten_times ? 10.0 : 0.1;
    for (double& each : work.pace) each *= factor;
  }

  std::unique_ptr<sched::LoadOutlook> source_;
  Fault fault_;
  std::vector<share::ExpectedWork> kept_;
  Rng rng_{0x5EED};
};

/// What a replay can be told to forecast with.
inline constexpr std::array<std::string_view, 9> kForecastNames{"auto", "off",  "ewma",   "perfect", "stale",
                                                                "x10",  "x0.1", "random", "nan"};

/// The source called `name`: off (none), auto, ewma, perfect (reads `future`), or a fault's name, which spoils auto.
/// Nothing for any other name.
[[nodiscard]] inline std::optional<std::unique_ptr<sched::LoadOutlook>> outlook_named(std::string_view name,
                                                                                      std::size_t models,
                                                                                      std::span<const double> future) {
  using Source = std::unique_ptr<sched::LoadOutlook>;
  if (name == "off") return Source{};
  if (name == "perfect") return Source{std::make_unique<KnownFuture>(models, future)};
  if (name == "ewma") return Source{std::make_unique<sched::EwmaOutlook>(models)};
  if (name == "auto") return Source{std::make_unique<sched::ForecasterOutlook>(models)};
  const auto* fault = std::find(kFaultNames.begin(), kFaultNames.end(), name);
  if (fault == kFaultNames.end()) return std::nullopt;
  return Source{std::make_unique<FaultyOutlook>(std::make_unique<sched::ForecasterOutlook>(models), models,
                                                static_cast<Fault>(fault - kFaultNames.begin()))};
}

}  // namespace zeta::sim
