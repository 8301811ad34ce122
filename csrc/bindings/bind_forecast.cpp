#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bindings.hpp"
#include "columns.hpp"
#include "onnx_net.hpp"
#include "zeta/forecast/backtest.hpp"
#include "zeta/forecast/dataset.hpp"
#include "zeta/forecast/layout.hpp"
#include "zeta/forecast/load_forecaster.hpp"

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
  found["version"] = forecast::kLayoutVersion;
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

forecast::GuardRule rule_from(const std::string& name) {
  if (name == "blend") return forecast::GuardRule::kBlend;
  if (name == "pick") return forecast::GuardRule::kPick;
  throw py::value_error("rule is \"" + name + "\"; expected blend or pick.");
}

std::size_t rows_of(const py::object& rates) {
  return static_cast<std::size_t>(py::isinstance<py::array>(rates) ? py::len(rates) : 0);
}

forecast::Series series_from(const py::object& rates, const py::object& is_gap, double bin_s, const std::string& target,
                             const py::object& arrival_rates, std::optional<double> start_s) {
  const std::size_t rows = rows_of(rates);
  return {.rates = column<double>(rates, "rates", rows, "float64"),
          .arrival_rates = optional_column<double>(arrival_rates, "arrival_rates", rows, "float64"),
          .is_gap = optional_column<std::uint8_t>(is_gap, "is_gap", rows, "uint8"),
          .bin_s = bin_s,
          .target = target_from(target),
          .start = start_s};
}

py::tuple dataset(const py::object& rates, const py::object& is_gap, double bin_s, const std::string& target,
                  const py::object& arrival_rates, std::optional<double> start_s,
                  const std::optional<std::vector<std::int64_t>>& horizon_bins) {
  const std::size_t rows = rows_of(rates);
  const forecast::Series series = series_from(rates, is_gap, bin_s, target, arrival_rates, start_s);
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

py::object score_from(const forecast::Score& score) {
  if (score.origins == 0) return py::none();
  const auto n = static_cast<double>(score.origins);
  py::dict found;
  found["origins"] = score.origins;
  // Nothing came in all that time: a ratio to it says nothing.
  found["wape"] = score.actual_sum > 0.0 ? py::object(py::float_(score.absolute_sum / score.actual_sum)) : py::none();
  found["pinball_50"] = score.pinball_sum[0] / n;
  found["pinball_90"] = score.pinball_sum[1] / n;
  found["pinball_99"] = score.pinball_sum[2] / n;
  found["coverage_90"] = static_cast<double>(score.below_90) / n;
  found["coverage_99"] = static_cast<double>(score.below_99) / n;
  found["cost_10_1_median"] = score.cost_median / n;
  found["cost_10_1_90"] = score.cost_90 / n;
  return found;
}

std::span<const float> net_outputs(const py::object& given, std::size_t rows) {
  if (given.is_none()) return {};
  const auto array = py::isinstance<py::array_t<float>>(given) ? py::reinterpret_borrow<py::array>(given) : py::array();
  if (array.ndim() != 2 || !(array.flags() & py::array::c_style) || static_cast<std::size_t>(array.shape(0)) != rows ||
      array.shape(1) != static_cast<py::ssize_t>(forecast::kOutputs)) {
    throw py::value_error("net must be a contiguous float32 array of shape (" + std::to_string(rows) + ", " +
                          std::to_string(forecast::kOutputs) + "): a row of outputs for each bin.");
  }
  return {static_cast<const float*>(array.data()), rows * forecast::kOutputs};
}

py::list backtest(const py::object& rates, const py::object& is_gap, double bin_s, const std::string& target,
                  const py::object& arrival_rates, std::optional<double> start_s,
                  const std::optional<std::vector<std::int64_t>>& horizon_bins, std::size_t first_origin,
                  const py::object& net, const std::string& rule) {
  const forecast::Series series = series_from(rates, is_gap, bin_s, target, arrival_rates, start_s);
  const std::vector<std::size_t> horizons = horizons_from(horizon_bins);
  const std::span<const float> outputs = net_outputs(net, series.rates.size());
  const forecast::GuardRule chosen = rule_from(rule);
  std::vector<forecast::HorizonScores> found;
  {
    const py::gil_scoped_release unlocked;
    found = forecast::backtest(series, horizons, first_origin, outputs, chosen);
  }
  py::list results;
  for (const forecast::HorizonScores& each : found) {
    py::dict candidates;
    for (std::size_t k = 0; k < forecast::kCandidates; ++k) {
      candidates[forecast::kCandidateNames[k]] = score_from(each.scores[k]);
    }
    candidates["guard"] = score_from(each.scores[forecast::kCandidates]);
    results.append(py::make_tuple(each.horizon_bins, candidates));
  }
  return results;
}

py::object backtest_points(const py::object& rates, const py::object& is_gap, const py::object& points,
                           std::int64_t horizon, std::size_t first_origin) {
  const forecast::Series series = series_from(rates, is_gap, 1.0, "arrivals", py::none(), std::nullopt);
  const auto given = column<double>(points, "points", series.rates.size(), "float64");
  const std::size_t bins = horizons_from(std::vector<std::int64_t>{horizon})[0];
  const py::gil_scoped_release unlocked;
  const forecast::Score score = forecast::backtest_points(series, bins, first_origin, given);
  const py::gil_scoped_acquire locked;
  return score_from(score);
}

/// A net that is a Python function of a feature matrix. What it raises is no answer.
class CallableNet final : public forecast::NetRunner {
 public:
  explicit CallableNet(py::function net) : net_{std::move(net)} {}

  bool run(std::span<const float> features, std::size_t rows, std::span<float> out) noexcept override {
    try {
      py::array_t<float> given(std::vector<std::size_t>{rows, forecast::kFeatures}, features.data());
      const auto answer = py::array_t<float, py::array::c_style | py::array::forcecast>::ensure(net_(given));
      if (!answer || static_cast<std::size_t>(answer.size()) != out.size()) return false;
      std::copy(answer.data(), answer.data() + out.size(), out.begin());
      return true;
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("a net");
      return false;
    } catch (...) {
      return false;
    }
  }

 private:
  py::function net_;
};

class PyLoadForecaster {
 public:
  PyLoadForecaster(std::size_t models, double bin_s, const std::optional<std::vector<std::int64_t>>& horizon_bins,
                   std::int64_t start_ns, std::optional<double> week_phase_s, const std::string& rule)
      : core_{config_from(models, bin_s, horizon_bins, week_phase_s, rule), instant_from_ns(start_ns)} {}

  void observe(std::size_t model, double arrivals, double work_s) { core_.observe(checked(model), arrivals, work_s); }
  void mark_missing(std::size_t model) { core_.mark_missing(checked(model)); }
  std::size_t advance(std::int64_t now_ns) { return core_.advance(instant_from_ns(now_ns)); }

  bool predict(const py::object& net) {
    if (net.is_none()) return core_.predict(nullptr);
    if (py::isinstance<OnnxNet>(net)) return core_.predict(net.cast<OnnxNet&>().session.get());
    if (!PyCallable_Check(net.ptr())) {
      throw py::type_error("net must be None, a native net's core or a function of a feature matrix; got " +
                           py::str(py::type::of(net)).cast<std::string>());
    }
    CallableNet runner{py::reinterpret_borrow<py::function>(net)};
    return core_.predict(&runner);
  }

  py::array_t<double> rates() const {
    const std::size_t models = core_.config().models;
    py::array_t<double> found(
        std::vector<std::size_t>{models, forecast::kTargets, forecast::kHorizons, forecast::kQuantileCount});
    double* into = found.mutable_data();
    for (std::size_t m = 0; m < models; ++m) {
      for (std::size_t t = 0; t < forecast::kTargets; ++t) {
        for (std::size_t h = 0; h < forecast::kHorizons; ++h) {
          for (std::size_t q = 0; q < forecast::kQuantileCount; ++q) {
            *into++ = core_.rate(ModelId{static_cast<std::uint8_t>(m)}, static_cast<forecast::Target>(t), h, q);
          }
        }
      }
    }
    return found;
  }

  py::array_t<bool> is_valid() const {
    const std::size_t models = core_.config().models;
    py::array_t<bool> found(std::vector<std::size_t>{models, forecast::kTargets});
    bool* into = found.mutable_data();
    for (std::size_t m = 0; m < models; ++m) {
      for (std::size_t t = 0; t < forecast::kTargets; ++t) {
        *into++ = core_.is_valid(ModelId{static_cast<std::uint8_t>(m)}, static_cast<forecast::Target>(t));
      }
    }
    return found;
  }

 private:
  static forecast::LoadForecasterConfig config_from(std::size_t models, double bin_s,
                                                    const std::optional<std::vector<std::int64_t>>& horizon_bins,
                                                    std::optional<double> week_phase_s, const std::string& rule) {
    forecast::LoadForecasterConfig config{
        .models = models, .bin_s = bin_s, .rule = rule_from(rule), .week_phase = week_phase_s};
    const std::vector<std::size_t> horizons = horizons_from(horizon_bins);
    if (horizons.size() != forecast::kHorizons) {
      throw py::value_error("horizon_bins has " + std::to_string(horizons.size()) + " entries; expected " +
                            std::to_string(forecast::kHorizons) + ".");
    }
    std::copy(horizons.begin(), horizons.end(), config.horizon_bins.begin());
    return config;
  }
  ModelId checked(std::size_t model) const {
    if (model >= core_.config().models) {
      throw py::index_error("model " + std::to_string(model) + " of " + std::to_string(core_.config().models) + ".");
    }
    return ModelId{static_cast<std::uint8_t>(model)};
  }

  forecast::LoadForecaster core_;
};

void bind_load_forecaster(py::module_& module) {
  py::class_<PyLoadForecaster>(module, "LoadForecasterCore", "Forecasts of n models. One caller at a time.")
      .def(py::init<std::size_t, double, const std::optional<std::vector<std::int64_t>>&, std::int64_t,
                    std::optional<double>, const std::string&>(),
           py::arg("models"), py::kw_only(), py::arg("bin_s") = 1.0, py::arg("horizon_bins") = py::none(),
           py::arg("start_ns") = 0, py::arg("week_phase_s") = py::none(), py::arg("rule") = "blend")
      .def("observe", &PyLoadForecaster::observe, py::arg("model"), py::arg("arrivals"), py::arg("work_s"),
           "Requests of a model and their predicted GPU-seconds since the last call.")
      .def("mark_missing", &PyLoadForecaster::mark_missing, py::arg("model"),
           "Nobody counted this model in the open bin.")
      .def("advance", &PyLoadForecaster::advance, py::arg("now_ns"), "Closes the bins that have ended; how many.")
      .def("predict", &PyLoadForecaster::predict, py::arg("net") = py::none(),
           "Renews the forecast if a bin was closed. True if the net's answer was used.")
      .def("rates", &PyLoadForecaster::rates,
           "float64 of shape (models, targets, horizons, quantiles); 0 if not valid.")
      .def("is_valid", &PyLoadForecaster::is_valid, "bool of shape (models, targets).");
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
  module.def("forecast_backtest", &backtest, py::arg("rates"), py::arg("is_gap") = py::none(), py::kw_only(),
             py::arg("bin_s"), py::arg("target") = "arrivals", py::arg("arrival_rates") = py::none(),
             py::arg("start_s") = py::none(), py::arg("horizon_bins") = py::none(), py::arg("first_origin") = 0,
             py::arg("net") = py::none(), py::arg("rule") = "blend",
             R"doc(Walks a series with the forecaster that runs live, and scores it.

Arguments as for `forecast_dataset`; scored are origins at the end of bins `first_origin` and later whose target is
complete. `net` (float32, one row of outputs per bin) takes part where it is given. Returns (horizon in bins, scores by
candidate) for each horizon; None for a candidate without an origin.)doc");
  module.def("forecast_points", &backtest_points, py::arg("rates"), py::arg("is_gap"), py::arg("points"), py::kw_only(),
             py::arg("horizon"), py::arg("first_origin"),
             "Scores somebody else's point forecasts (one per bin, NaN for none) with quantiles from their residuals.");
  bind_load_forecaster(module);
}

}  // namespace zeta::bindings
