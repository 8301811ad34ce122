#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "allocation_count.hpp"
#include "zeta/core/rng.hpp"
#include "zeta/forecast/backtest.hpp"
#include "zeta/forecast/load_forecaster.hpp"

using namespace zeta;
using namespace zeta::forecast;
using namespace std::chrono_literals;

namespace {

/// Poisson counts by inversion.
double poisson(Rng& random, double mean) {
  double left = exact_exp(-mean);
  double below = left;
  const double u = random.next_unit();
  double count = 0.0;
  while (u > below && count < 1000.0) {
    count += 1.0;
    left *= mean / count;
    below += left;
  }
  return count;
}

class SteadyNet final : public NetRunner {
 public:
  bool run(std::span<const float> features, std::size_t rows, std::span<float> out) noexcept override {
    for (std::size_t i = 0; i < rows * kOutputs; ++i) {
      const std::size_t row = i / kOutputs;
      out[i] = 0.9F + 0.5F * static_cast<float>(i % kQuantileCount) + 1e-3F * features[row * kFeatures + kFineBins - 1];
    }
    return true;
  }
};

}  // namespace

TEST_CASE("the window's quantiles are those of its last 250 residuals, sorted") {
  ResidualWindow window;
  std::vector<float> all;
  Rng random{1};
  for (int i = 0; i < 1000; ++i) {
    all.push_back(static_cast<float>(random.next_below(40)));
    window.push(all.back());
    std::vector<float> kept(all.end() - std::min<std::ptrdiff_t>(250, std::ssize(all)), all.end());
    std::sort(kept.begin(), kept.end());
    const double place = std::max(0.0, 0.9 * static_cast<double>(kept.size() + 1) - 1.0);
    const auto low = std::min(static_cast<std::size_t>(place), kept.size() - 1);
    const auto high = std::min(low + 1, kept.size() - 1);
    const double part = low == high ? 0.0 : place - static_cast<double>(low);
    const double expected = static_cast<double>(kept[low]) + part * static_cast<double>(kept[high] - kept[low]);
    REQUIRE(window.quantile(0.9) == doctest::Approx(expected));
  }
}

TEST_CASE("the tail's quantile is exceeded about once in a hundred, with light and with heavy tails") {
  for (const bool is_heavy : {false, true}) {
    Tail tail{1};
    Rng random{2};
    const double q90 = is_heavy ? 1.0 / std::sqrt(0.1) : 2.302585;
    int above = 0;
    for (int i = 0; i < 40'000; ++i) {
      const double u = 1.0 - random.next_unit();
      const double value = is_heavy ? 1.0 / std::sqrt(u) : -exact_log(u);
      const double q99 = tail.above(q90);
      above += i >= 10'000 && value > q99 ? 1 : 0;
      tail.push(value, q90, q99);
    }
    CHECK(above == doctest::Approx(300).epsilon(0.15));
  }
}

TEST_CASE("the local level is quick after a walk and slow in pure noise") {
  Rng random{3};
  LevelBank walk;
  LevelBank noise;
  double level = 100.0;
  for (int i = 0; i < 3000; ++i) {
    level += random.next_unit() - 0.5;
    walk.push(level);
    noise.push(100.0 + 20.0 * (random.next_unit() - 0.5));
  }
  CHECK(std::abs(walk.best() - level) < 0.6);
  CHECK(std::abs(noise.best() - 100.0) < 1.2);
}

TEST_CASE("ridge_ar finds the mean reversion that makes it better than the level") {
  Rng random{4};
  std::vector<double> rates(6000);
  double state = 0.0;
  for (double& rate : rates) {
    state = -0.8 * state + random.next_unit() - 0.5;  // each bin pulls the next the other way
    rate = 10.0 + state;
  }
  const auto scores = backtest(Series{.rates = rates, .arrival_rates = {}, .is_gap = {}, .bin_s = 60.0},
                               std::array<std::size_t, 1>{1}, 4200, {}, GuardRule::kBlend);
  const auto loss = [&scores](Candidate candidate) { return scores[0].scores[index_of(candidate)].pinball_sum[1]; };
  CHECK(loss(Candidate::kRidgeAr) < 0.75 * loss(Candidate::kEwma));
  CHECK(scores[0].scores[kCandidates].pinball_sum[1] < 1.02 * loss(Candidate::kRidgeAr));
}

TEST_CASE("sums over the window stay those of its bins however often the ring comes round") {
  WindowSums sums{60};
  std::vector<double> rates;
  Rng random{5};
  for (int i = 0; i < 5000; ++i) {
    rates.push_back(random.next_unit() * 1e6);
    sums.push(rates.back(), i % 97 == 50);
    if (i < 60) continue;
    for (const std::size_t bins : {1U, 7U, 60U}) {
      double sum = 0.0;
      bool is_whole = true;
      for (std::size_t back = 0; back < bins; ++back) {
        const std::size_t at = rates.size() - 1 - back;
        is_whole = is_whole && at % 97 != 50;
        sum += rates[at];
      }
      REQUIRE(sums.is_whole(bins) == is_whole);
      if (is_whole) REQUIRE(sums.mean(bins) == doctest::Approx(sum / static_cast<double>(bins)));
    }
  }
}

TEST_CASE("until 350 targets have completed the guard says what EWMA says") {
  HorizonForecaster forecaster{1};
  History history{1.0};
  LevelBank bank;
  Rng random{6};
  bool has_departed = false;
  for (int i = 0; i < 500; ++i) {
    const double rate = poisson(random, 4.0);
    history.push(rate, false);
    bank.push(rate);
    if (const Pending* made = forecaster.due(history.bins())) forecaster.settle(*made, rate);
    const Pending& made = forecaster.predict(history.bins(), history, bank, {}, false);
    const bool is_ewma = made.guard == made.candidates[index_of(Candidate::kEwma)];
    if (forecaster.completed() < HorizonForecaster::kWarmUp) REQUIRE(is_ewma);
    has_departed = has_departed || !is_ewma;
  }
  CHECK(has_departed);
}

TEST_CASE("after construction the load forecaster allocates nothing, with a net, gaps and pauses") {
  LoadForecaster forecaster{{.models = 4}, Instant{}};
  SteadyNet net;
  Rng random{7};
  Instant now{};
  const std::uint64_t before = test::allocations();
  std::size_t used = 0;
  for (int i = 0; i < 5000; ++i) {
    now += i % 1000 == 999 ? 40s : 200ms;
    for (std::uint8_t m = 0; m < 4; ++m) forecaster.observe(ModelId{m}, poisson(random, 1.0), random.next_unit());
    if (i % 500 == 499) forecaster.mark_missing(ModelId{1});
    (void)forecaster.advance(now);
    used += forecaster.predict(i % 3 == 0 ? nullptr : &net) ? 1U : 0U;
  }
  CHECK(test::allocations() == before);
  CHECK(used > 0);
}

TEST_CASE("whatever comes in, what comes out is finite, not negative and in order") {
  LoadForecaster forecaster{{.models = 1}, Instant{}};
  Rng random{8};
  Instant now{};
  constexpr double kHuge = std::numeric_limits<double>::max();
  const std::array<double, 8> poison{0.0,
                                     1.0,
                                     1e-300,
                                     1e12,
                                     kHuge,
                                     -1.0,
                                     std::numeric_limits<double>::infinity(),
                                     std::numeric_limits<double>::quiet_NaN()};
  for (int i = 0; i < 4000; ++i) {
    now += 1s;
    forecaster.observe(ModelId{0}, random.next_below(20) == 0 ? poison[random.next_below(8)] : poisson(random, 3.0),
                       0.1);
    (void)forecaster.advance(now);
    (void)forecaster.predict(nullptr);
    for (std::size_t h = 0; h < kHorizons; ++h) {
      double least = 0.0;
      for (std::size_t q = 0; q < kQuantileCount; ++q) {
        const double rate = forecaster.rate(ModelId{0}, Target::kArrivals, h, q);
        REQUIRE(std::isfinite(rate));
        REQUIRE(rate >= least);
        least = rate;
      }
    }
  }
}

TEST_CASE("the horizon for a lead time is the shortest that covers it") {
  const LoadForecaster forecaster{{.models = 1}, Instant{}};
  CHECK(forecaster.horizon_for(0s) == 0);
  CHECK(forecaster.horizon_for(1s) == 0);
  CHECK(forecaster.horizon_for(2s) == 1);
  CHECK(forecaster.horizon_for(60s) == 2);
  CHECK(forecaster.horizon_for(61s) == 3);
  CHECK(forecaster.horizon_for(1h) == 4);
}

TEST_CASE("what was observed over several bins is spread over them") {
  LoadForecaster forecaster{{.models = 1}, Instant{}};
  forecaster.observe(ModelId{0}, 12.0, 3.0);
  CHECK(forecaster.advance(Instant{4500ms}) == 4);
  (void)forecaster.predict(nullptr);
  CHECK(forecaster.series(ModelId{0}, Target::kArrivals).history().value(3) == 3.0);
  CHECK(forecaster.series(ModelId{0}, Target::kWork).history().last() == 0.75);
  CHECK(forecaster.next_close() == Instant{5s});
}
