#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "zeta/core/math.hpp"

TEST_CASE("exact_exp is within 4e-15 of the library's exp in extended precision") {
  long double worst = 0.0L;
  for (double x = -700.0; x < 700.0; x += 0.0131) {
    const long double expected = std::exp(static_cast<long double>(x));
    worst = std::max(worst, std::abs(static_cast<long double>(zeta::exact_exp(x)) / expected - 1.0L));
  }
  CHECK(static_cast<double>(worst) < 4e-15);
}

TEST_CASE("exact_exp grows with its argument and meets its fixed points") {
  CHECK(zeta::exact_exp(0.0) == 1.0);
  CHECK(zeta::exact_exp(1e9) == zeta::exact_exp(700.0));
  CHECK(zeta::exact_exp(-1e9) == zeta::exact_exp(-700.0));
  for (double x = -3.0; x < 3.0; x += 1e-3) REQUIRE(zeta::exact_exp(x) < zeta::exact_exp(x + 1e-3));
}

TEST_CASE("logistic undoes logit") {
  for (double p = 0.01; p < 1.0; p += 0.01) CHECK(zeta::logistic(zeta::logit(p)) == doctest::Approx(p).epsilon(1e-12));
}
