#pragma once
// Where the allocation loop learns of the load to come.

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "zeta/core/math.hpp"
#include "zeta/core/time.hpp"
#include "zeta/share/foresight.hpp"

namespace zeta::sched {

/// What arrived for one model within one second.
struct ArrivedBin {
  double arrivals = 0.0;
  double work_s = 0.0;  ///< Predicted GPU-seconds.
};

/// A source of forecasts. One caller: the loop, on its thread. `note` once for each second that has ended, in order;
/// then `expect`. Neither allocates.
class LoadOutlook {
 public:
  LoadOutlook() = default;
  LoadOutlook(const LoadOutlook&) = delete;
  LoadOutlook& operator=(const LoadOutlook&) = delete;
  virtual ~LoadOutlook() = default;

  /// The second that ends at `end` has passed; entry i is what arrived for model i.
  virtual void note(std::span<const ArrivedBin> models, Instant end) noexcept = 0;

  /// Fills in what is expected from `now` on. False: there is no forecast, or only a stale one.
  [[nodiscard]] virtual bool expect(Instant now, std::span<share::ExpectedWork> models) noexcept = 0;
};

/// Exponentially weighted mean of the work per second, the same for every horizon.
class EwmaOutlook final : public LoadOutlook {
 public:
  explicit EwmaOutlook(std::size_t models, double half_life_s = 30.0)
      : gain_{1.0 - exact_exp(-0.6931471805599453 / half_life_s)}, pace_(models) {}

  void note(std::span<const ArrivedBin> models, Instant) noexcept override {
    ++seen_;
    // A plain mean until the weights of the first seconds have settled.
    const double gain = std::max(gain_, 1.0 / static_cast<double>(seen_));
    for (std::size_t i = 0; i < pace_.size(); ++i) pace_[i] += gain * (models[i].work_s - pace_[i]);
  }

  [[nodiscard]] bool expect(Instant, std::span<share::ExpectedWork> models) noexcept override {
    for (std::size_t i = 0; i < pace_.size(); ++i) models[i].pace.fill(pace_[i]);
    return seen_ != 0;
  }

  [[nodiscard]] double pace(std::size_t model) const noexcept { return pace_[model]; }

 private:
  double gain_;
  std::uint64_t seen_ = 0;
  std::vector<double> pace_;
};

}  // namespace zeta::sched
