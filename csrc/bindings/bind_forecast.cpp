#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bindings.hpp"
#include "columns.hpp"
#include "zeta/forecast/dataset.hpp"
#include "zeta/forecast/layout.hpp"

namespace py = pybind11;

namespace zeta::bindings {
namespace {

forecast::Target target_from(const std::string& name) {
  if (name == "arrivals") return forecast::Target::kArrivals;
  if (name == "work") return forecast::Target::kWork;
  throw py::value_error("target is \"" + name + "\"; expected arrivals or work.");
}

std::vector<std::size_t> horizons_from(const std::optional<std::vector<std::int64_t>>& given) {
  if (!given) return {forecast::kHorizonBins.begin(), forecast::kHorizonBins.end()};
  std::vector<std::size_t> horizons;
  for (const std::int64_t bins : *given) {
    if (bins < 1 || bins > 1'000'000) {
      throw py::value_error("a horizon is " + std::to_string(bins) + " bins; expected 1 to 1,000,000.");
    }
    horizons.push_back(static_cast<std::size_t>(bins));
  }
  return horizons;
}

py::dict layout() {
  py::dict found;
  found["features"] = forecast::kFeatures;
  found["outputs"] = forecast::kOutputs;
  found["fine_bins"] = forecast::kFineBins;
  found["coarse_bins"] = forecast::kCoarseBins;
  found["coarse_width"] = forecast::kCoarseWidth;
  found["horizon_bins"] = std::vector<std::size_t>{forecast::kHorizonBins.begin(), forecast::kHorizonBins.end()};
  found["quantiles"] = std::vector<double>{forecast::kQuantiles.begin(), forecast::kQuantiles.end()};
  found["targets"] = std::vector<std::string>{"arrivals", "work"};
  return found;
}

py::tuple dataset(const py::object& rates, const py::object& is_gap, double bin_s, const std::string& target,
                  const py::object& arrival_rates, std::optional<double> start_s,
                  const std::optional<std::vector<std::int64_t>>& horizon_bins) {
  const auto rows = static_cast<std::size_t>(py::isinstance<py::array>(rates) ? py::len(rates) : 0);
  const forecast::Series series{
      .rates = column<double>(rates, "rates", rows, "float64"),
      .arrival_rates = optional_column<double>(arrival_rates, "arrival_rates", rows, "float64"),
      .is_gap = optional_column<std::uint8_t>(is_gap, "is_gap", rows, "uint8"),
      .bin_s = bin_s,
      .target = target_from(target),
      .start = start_s};
  const std::vector<std::size_t> horizons = horizons_from(horizon_bins);
  py::array_t<float> features(std::vector<std::size_t>{rows, forecast::kFeatures});
  py::array_t<double> targets(std::vector<std::size_t>{rows, horizons.size()});
  py::array_t<double> scales(std::vector<std::size_t>{rows});
  const std::span<float> into_features{features.mutable_data(), rows * forecast::kFeatures};
  const std::span<double> into_targets{targets.mutable_data(), rows * horizons.size()};
  const std::span<double> into_scales{scales.mutable_data(), rows};
  {
    const py::gil_scoped_release unlocked;
    forecast::write_dataset(series, horizons, into_features, into_targets, into_scales);
  }
  return py::make_tuple(features, targets, scales);
}

}  // namespace

void bind_forecast(py::module_& module) {
  module.def("forecast_layout", &layout,
             "The windows, horizons and quantiles of a forecast, and the number of a net's inputs and outputs.");
  module.def("forecast_dataset", &dataset, py::arg("rates"), py::arg("is_gap") = py::none(), py::kw_only(),
             py::arg("bin_s"), py::arg("target") = "arrivals", py::arg("arrival_rates") = py::none(),
             py::arg("start_s") = py::none(), py::arg("horizon_bins") = py::none(),
             R"doc(Features, targets and scale after each bin of a series.

Parameters
----------
rates : ndarray of float64, shape (n,)
    Mean rate in each bin: requests per second, or GPU-seconds per second.
is_gap : ndarray of uint8, shape (n,), optional
    Not 0 where a bin is missing.
bin_s : float
    Length of a bin in seconds.
target : {"arrivals", "work"}
    What `rates` is.
arrival_rates : ndarray of float64, shape (n,), optional
    Requests per second of the same model, where `rates` is work.
start_s : float, optional
    When the first bin begins, in seconds from a Monday's midnight; None where the wall clock is not known.
horizon_bins : sequence of int, optional
    By default those of `forecast_layout`.

Returns
-------
features : ndarray of float32, shape (n, features)
    What a net reads at the end of each bin.
targets : ndarray of float64, shape (n, horizons)
    Mean rate over the bins that follow; NaN where they are not complete or one of them is missing.
scale : ndarray of float64, shape (n,)
    A net's outputs are multiples of it.)doc");
}

}  // namespace zeta::bindings
