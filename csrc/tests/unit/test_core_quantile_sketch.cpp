#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "zeta/core/quantile_sketch.hpp"
#include "zeta/core/rng.hpp"

using zeta::QuantileSketch;

TEST_CASE("a sketch is within 1/16 of the true quantile over nine decades") {
  zeta::Rng rng{7};
  std::vector<double> values;
  QuantileSketch sketch;
  for (int i = 0; i < 2'000; ++i) {
    const double unit = rng.next_unit();
    values.push_back(std::pow(10.0, -6.0 + 9.0 * unit));
    sketch.add(values.back());
  }
  std::sort(values.begin(), values.end());
  for (const double q : {0.01, 0.1, 0.5, 0.9, 0.99}) {
    const double expected = values[static_cast<std::size_t>(q * 1'999.0)];
    const double got = sketch.quantile(q).value();
    CHECK(got / expected > 1.0 - QuantileSketch::kRelativeError);
    CHECK(got / expected < 1.0 + QuantileSketch::kRelativeError);
  }
}

TEST_CASE("before the first value a sketch knows no quantile, and what is no duration does not count") {
  QuantileSketch sketch;
  CHECK_FALSE(sketch.quantile(0.5).has_value());
  sketch.add(std::numeric_limits<double>::quiet_NaN());
  sketch.add(-1.0);
  CHECK_FALSE(sketch.quantile(0.5).has_value());
  sketch.add(0.0);
  sketch.add(std::numeric_limits<double>::infinity());
  CHECK(sketch.seen() == 2);
  CHECK(sketch.quantile(0.0).value() < 2e-6);
  CHECK(sketch.quantile(1.0).value() > 1'000.0);
}

TEST_CASE("what is old fades: after a change the median follows within 4,096 values") {
  QuantileSketch sketch;
  for (int i = 0; i < 1'000'000; ++i) sketch.add(0.1);
  CHECK(sketch.quantile(0.5).value() == doctest::Approx(0.1).epsilon(1.0 / 16));
  for (int i = 0; i < 4'096; ++i) sketch.add(1.0);
  CHECK(sketch.quantile(0.5).value() == doctest::Approx(1.0).epsilon(1.0 / 16));
}
