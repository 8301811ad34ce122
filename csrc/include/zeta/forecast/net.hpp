#pragma once

#include <cstddef>
#include <span>

namespace zeta::forecast {

/// Something that turns feature rows into quantiles: an ONNX session at run time, a scripted one in tests.
///
/// One caller at a time. What comes back is judged by the forecaster (clamped, compared, left out), never trusted.
struct NetRunner {
  NetRunner() = default;
  NetRunner(const NetRunner&) = delete;
  NetRunner& operator=(const NetRunner&) = delete;
  virtual ~NetRunner() = default;

  /// Fills `out` (rows x kOutputs) from `features` (rows x kFeatures; one row per model and target). False: there is no
  /// answer this time, and `out` may hold anything.
  [[nodiscard]] virtual bool run(std::span<const float> features, std::size_t rows, std::span<float> out) noexcept = 0;
};

}  // namespace zeta::forecast
