#pragma once

#include <span>

#include "zeta/forecast/load_forecaster.hpp"
#include "zeta/sched/outlook.hpp"

namespace zeta::sched {

/// The medians that forecast::LoadForecaster says: the candidates behind their guard, a trained net among them where
/// there is one.
class ForecasterOutlook final : public LoadOutlook {
 public:
  explicit ForecasterOutlook(std::size_t models, Instant start = Instant{}) : forecaster_{{.models = models}, start} {}

  /// The net to ask from the next forecast on; nullptr: none. It must outlive its use.
  void set_net(forecast::NetRunner* net) noexcept { net_ = net; }

  void note(std::span<const ArrivedBin> models, Instant end) noexcept override {
    for (std::size_t m = 0; m < models.size(); ++m) {
      forecaster_.observe(id(m), models[m].arrivals, models[m].work_s);
    }
    forecaster_.advance(end);
  }

  [[nodiscard]] bool expect(Instant, std::span<share::ExpectedWork> models) noexcept override {
    (void)forecaster_.predict(net_);
    for (std::size_t m = 0; m < models.size(); ++m) {
      if (!forecaster_.is_valid(id(m), forecast::Target::kWork)) return false;
      for (std::size_t h = 0; h < forecast::kHorizons; ++h) {
        models[m].pace[h] = forecaster_.rate(id(m), forecast::Target::kWork, h, kMedian);
      }
    }
    return true;
  }

  [[nodiscard]] const forecast::LoadForecaster& forecaster() const noexcept { return forecaster_; }

 private:
  static constexpr std::size_t kMedian = 0;
  static_assert(forecast::kQuantiles[kMedian] == 0.5);
  static_assert(forecast::kHorizonBins[0] == 1 && forecast::kHorizonBins[1] == 10 && forecast::kHorizonBins[2] == 60 &&
                    forecast::kHorizonBins[3] == 180 && forecast::kHorizonBins[4] == 600,
                "ExpectedWork::kHorizonsS are the forecaster's horizons at bins of a second");

  static ModelId id(std::size_t model) noexcept { return ModelId{static_cast<std::uint8_t>(model)}; }

  forecast::LoadForecaster forecaster_;
  forecast::NetRunner* net_ = nullptr;
};

}  // namespace zeta::sched
