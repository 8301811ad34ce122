#include <doctest/doctest.h>

#include <bit>
#include <cstdint>
#include <limits>
#include <vector>

#include "zeta/core/cpu.hpp"
#include "zeta/core/rng.hpp"
#include "zeta/score/kernel.hpp"

namespace {

using zeta::SimdLevel;
using namespace zeta::score;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kDenormal = std::numeric_limits<double>::denorm_min();

std::vector<SimdLevel> levels() {
  std::vector<SimdLevel> found{SimdLevel::baseline};
  if (zeta::simd_level() >= SimdLevel::avx2) found.push_back(SimdLevel::avx2);
  if (zeta::simd_level() >= SimdLevel::avx512) found.push_back(SimdLevel::avx512);
  return found;
}

std::vector<std::uint64_t> bits(const std::vector<double>& values) {
  std::vector<std::uint64_t> found;
  for (const double value : values) found.push_back(std::bit_cast<std::uint64_t>(value));
  return found;
}

/// Columns with room for one entry before them, so that nothing lies on a vector's boundary.
struct Case {
  std::size_t n;
  std::size_t m;
  std::vector<double> complexity, time_left_s, quality, relative_cost, first_token_s, prefix_held;

  template <class Value>
  Case(std::size_t requests, std::size_t models, Value&& value) : n(requests), m(models) {
    const auto fill = [&](std::vector<double>& column, std::size_t count, int kind) {
      column.resize(count + 1);
      for (double& entry : column) entry = value(kind);
    };
    fill(complexity, n, 0);
    fill(time_left_s, n, 1);
    fill(quality, m, 0);
    fill(relative_cost, n * m, 0);
    fill(first_token_s, n * m, 1);
    fill(prefix_held, n * m, 0);
  }

  /// Every level against score::suitability, one pair at a time.
  void check(const Weights& weights) const {
    std::vector<double> odds;
    for (std::size_t j = 0; j < m; ++j) odds.push_back(QualityCurve::from_quality(quality[j]).odds_against);
    std::vector<double> expected(n * m);
    std::vector<std::int64_t> expected_best(n, kNoBest);
    for (std::size_t i = 0; i < n; ++i) {
      double best = -kInfinity;
      for (std::size_t j = 0; j < m; ++j) {
        const std::size_t at = j * n + i + 1;
        const Features features{QualityCurve{odds[j]}.p_good(complexity[i + 1]), relative_cost[at], first_token_s[at],
                                time_left_s[i + 1], prefix_held[at]};
        expected[j * n + i] = suitability(weights, features);
        if (expected[j * n + i] <= best) continue;
        best = expected[j * n + i];
        expected_best[i] = static_cast<std::int64_t>(j);
      }
    }
    const Batch batch{n,
                      m,
                      complexity.data() + 1,
                      time_left_s.data() + 1,
                      odds.data(),
                      {relative_cost.data() + 1, true},
                      {first_token_s.data() + 1, true},
                      {prefix_held.data() + 1, true}};
    for (const SimdLevel level : levels()) {
      CAPTURE(static_cast<int>(level));
      std::vector<double> scores(n * m + 1, kNan);
      std::vector<std::int64_t> best(n + 1, -7);
      suitability(batch, weights, scores.data(), best.data(), level);
      REQUIRE(std::bit_cast<std::uint64_t>(scores.back()) == std::bit_cast<std::uint64_t>(kNan));  // nothing beyond
      REQUIRE(best.back() == -7);
      scores.pop_back();
      best.pop_back();
      REQUIRE(bits(scores) == bits(expected));
      REQUIRE(best == expected_best);
    }
  }
};

}  // namespace

TEST_CASE("every vector width gives the bits of the single score, for any number of requests") {
  zeta::Rng rng{7};
  for (const std::size_t n : {0UL, 1UL, 2UL, 3UL, 5UL, 7UL, 8UL, 9UL, 31UL, 127UL, 128UL, 129UL, 1000UL}) {
    for (const std::size_t m : {1UL, 3UL, 8UL, 32UL}) {
      const Case random{n, m, [&](int kind) { return rng.next_unit() * (kind == 1 ? 5.0 : 1.0); }};
      random.check(Weights{});
      random.check(Weights{0.3, 1.7, 0.01, 12.0});
    }
  }
}

TEST_CASE("every vector width treats NaN, infinities, zeros, denormals and ties as the single score does") {
  const std::vector<double> odd{kNan, kInfinity, -kInfinity, 0.0,    -0.0,  kDenormal, -kDenormal,
                                1.0,  -1.0,      0.5,        0.5,    0.5,   1e-9,      1e-10,
                                1e9,  1e300,     -1e300,     1e-300, 700.0, 175.5,     1.7976931348623157e308};
  zeta::Rng rng{11};
  for (int round = 0; round < 200; ++round) {
    const Case hard{67, 5, [&](int) { return odd[rng.next_below(odd.size())]; }};
    hard.check(Weights{});
    hard.check(Weights{0.0, 0.0, 0.0, 0.0});
  }
}

TEST_CASE("one value per model is the same as a row filled with it") {
  zeta::Rng rng{3};
  const std::size_t n = 300;
  std::vector<double> complexity(n), time_left(n), rows(2 * n);
  for (double& value : complexity) value = rng.next_unit();
  for (double& value : time_left) value = 3.0 * rng.next_unit();
  const std::vector<double> per_model{0.2, 0.7};
  for (std::size_t i = 0; i < 2 * n; ++i) rows[i] = per_model[i / n];
  const std::vector<double> odds{1.0, 0.25};
  Batch batch{n, 2, complexity.data(), time_left.data(), odds.data(), {rows.data(), true}, {rows.data(), true}, {}};
  std::vector<double> wide(2 * n), narrow(2 * n);
  std::vector<std::int64_t> best(n), best_narrow(n);
  suitability(batch, Weights{}, wide.data(), best.data());
  batch.relative_cost = {per_model.data(), false};
  batch.first_token_s = {per_model.data(), false};
  suitability(batch, Weights{}, narrow.data(), best_narrow.data());
  CHECK(bits(wide) == bits(narrow));
  CHECK(best == best_narrow);
}

TEST_CASE("equal scores go to the lowest model, and a request of which nothing is known to none") {
  const std::vector<double> complexity{0.5, 0.5};
  const std::vector<double> time_left{1.0, kNan};
  const std::vector<double> odds{1.0, 1.0, 1.0};
  const std::vector<double> cost{kNan, 0.5, 0.5};
  const Batch batch{2, 3, complexity.data(), time_left.data(), odds.data(), {cost.data(), false}, {}, {}};
  for (const SimdLevel level : levels()) {
    std::vector<double> scores(6);
    std::vector<std::int64_t> best(2);
    suitability(batch, Weights{}, scores.data(), best.data(), level);
    CHECK(best == std::vector<std::int64_t>{1, kNoBest});
    CHECK(scores[0] == -kInfinity);
    CHECK(scores[2] == 0.25);
  }
}

TEST_CASE("P(good) is the logistic of the shifted logit") {
  for (double quality = 0.05; quality < 1.0; quality += 0.05) {
    for (double complexity = 0.0; complexity <= 1.0; complexity += 0.05) {
      const double expected = zeta::logistic(zeta::logit(quality) + 4.0 * (0.5 - complexity));
      CHECK(QualityCurve::from_quality(quality).p_good(complexity) == doctest::Approx(expected).epsilon(1e-13));
    }
  }
}

TEST_CASE("feedback moves the logit of quality by rate times the surprise") {
  QualityCurve curve = QualityCurve::from_quality(0.6);
  const double p = curve.p_good(0.3);
  curve.learn(0.3, 1.0, 0.1);
  const double moved = zeta::logit(0.6) + 0.1 * (1.0 - p);
  CHECK(curve.p_good(0.5) == doctest::Approx(zeta::logistic(moved)).epsilon(1e-13));
}

TEST_CASE("a key is the deadline less the fastest known service, between zero and never") {
  constexpr std::int64_t kNone = std::numeric_limits<std::int64_t>::max();
  const std::vector<std::int64_t> deadline{5'000'000'000, kNone, 1'000, -5, 5'000'000'000};
  const std::vector<double> service{2.0, 2.0, 2.0, 2.0, kNan, 1.5, 1.0, kNan, 0.0, kNan};
  std::vector<std::uint64_t> keys(5);
  latest_start_keys(deadline.data(), {service.data(), true}, 5, 2, keys.data());
  CHECK(keys == std::vector<std::uint64_t>{3'500'000'000, static_cast<std::uint64_t>(kNone), 0, 0, 5'000'000'000});
}
