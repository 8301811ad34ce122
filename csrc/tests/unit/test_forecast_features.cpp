#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "zeta/core/rng.hpp"
#include "zeta/forecast/dataset.hpp"

using namespace zeta;
using namespace zeta::forecast;

namespace {

std::vector<double> noisy(std::size_t n, std::uint64_t seed) {
  Rng random{seed};
  std::vector<double> rates(n);
  for (double& rate : rates) rate = std::floor(random.next_unit() * 9.0);
  return rates;
}

struct Table {
  explicit Table(const Series& series)
      : features(series.rates.size() * kFeatures),
        targets(series.rates.size() * kHorizons),
        scales(series.rates.size()) {
    write_dataset(series, kHorizonBins, features, targets, scales);
  }
  std::vector<float> features;
  std::vector<double> targets;
  std::vector<double> scales;
};

}  // namespace

TEST_CASE("the brief logarithm and the sine by polynomial meet libm's") {
  for (double x = 0.0; x < 1e6; x = x * 1.07 + 1e-3)
    CHECK(brief_log1p(x) == doctest::Approx(std::log1p(x)).epsilon(1e-7));
  CHECK(brief_log(1.0) == 0.0);
  for (double turns = -2.0; turns < 2.0; turns += 0.013) {
    CHECK(std::abs(sine_of_turns(turns) - std::sin(turns * 6.283185307179586)) < 4e-6);
  }
}

TEST_CASE("a fading mean counts its first value in full and halves a value's weight each half-life") {
  FadingMean mean{4.0};
  mean.push(10.0);
  CHECK(mean.mean() == doctest::Approx(10.0));
  for (int i = 0; i < 400; ++i) mean.push(8.0);
  CHECK(mean.mean() == doctest::Approx(8.0));
  for (int i = 0; i < 4; ++i) mean.push(0.0);
  CHECK(mean.mean() == doctest::Approx(4.0));
}

TEST_CASE("a missing bin changes no mean and is never read as zero") {
  History with_gaps{1.0};
  History without{1.0};
  for (const double rate : noisy(300, 1)) {
    without.push(rate, false);
    with_gaps.push(rate, false);
    with_gaps.push(0.0, true);
    with_gaps.push(std::numeric_limits<double>::quiet_NaN(), false);
  }
  CHECK(with_gaps.level() == without.level());
  CHECK(with_gaps.slow() == without.slow());
  CHECK(with_gaps.last() == without.last());
  CHECK(with_gaps.scale() == without.scale());
  CHECK(with_gaps.is_missing(0));
  CHECK(!with_gaps.is_missing(2));
  CHECK(with_gaps.block(0).count == 10.0);
}

TEST_CASE("blocks are the sums of 30 bins that end now, 30 bins ago and so on") {
  History history{1.0};
  const std::vector<double> rates = noisy(777, 2);
  for (const double rate : rates) history.push(rate, false);
  for (std::size_t back = 0; back < kCoarseBins; ++back) {
    double sum = 0.0;
    for (std::size_t i = 0; i < kCoarseWidth; ++i) sum += rates[rates.size() - 1 - back * kCoarseWidth - i];
    CHECK(history.block(back).sum == doctest::Approx(sum));
  }
}

TEST_CASE("no feature depends on a later bin, and every window depends on its own") {
  const std::vector<double> rates = noisy(1500, 3);
  const std::vector<double> counts = noisy(1500, 4);
  const std::vector<std::uint8_t> gaps(rates.size(), 0);
  const Series series{rates, counts, gaps, 1.0, Target::kWork, WeekPhase{12.0}};
  const Table before{series};
  for (const std::size_t cut : {1U, 31U, 480U, 1499U}) {
    std::vector<double> other_rates = rates;
    std::vector<double> other_counts = counts;
    std::vector<std::uint8_t> other_gaps = gaps;
    for (std::size_t i = cut; i < rates.size(); ++i) {
      other_rates[i] = 1000.0 - rates[i];
      other_counts[i] += 7.0;
      other_gaps[i] = i % 3 == 0 ? 1 : 0;
    }
    const Table after{{other_rates, other_counts, other_gaps, 1.0, Target::kWork, WeekPhase{12.0}}};
    for (std::size_t i = 0; i < cut * kFeatures; ++i) REQUIRE(before.features[i] == after.features[i]);
    for (std::size_t i = 0; i < cut; ++i) REQUIRE(before.scales[i] == after.scales[i]);
    CHECK(before.features[cut * kFeatures + kFineBins - 1] != after.features[cut * kFeatures + kFineBins - 1]);
  }
}

TEST_CASE("a target is the mean over the bins that follow, and missing where one of them is") {
  const std::vector<double> rates = noisy(700, 5);
  std::vector<std::uint8_t> gaps(rates.size(), 0);
  gaps[100] = 1;
  const Table table{{rates, {}, gaps, 1.0, Target::kArrivals, {}}};
  const auto target = [&table](std::size_t at, std::size_t horizon) { return table.targets[at * kHorizons + horizon]; };
  CHECK(target(10, 0) == rates[11]);
  double sum = 0.0;
  for (std::size_t i = 11; i <= 20; ++i) sum += rates[i];
  CHECK(target(10, 1) == doctest::Approx(sum / 10.0));
  for (std::size_t i = 90; i < 100; ++i) CHECK(std::isnan(target(i, 1)));
  CHECK(!std::isnan(target(89, 1)));
  CHECK(std::isnan(target(100, 0)));
  CHECK(!std::isnan(target(101, 0)));
  CHECK(std::isnan(target(699, 0)));
  CHECK(!std::isnan(target(698, 0)));
  CHECK(!std::isnan(target(101 - 1 + 1, 3)));
  CHECK(std::isnan(target(0, 4)));
}

TEST_CASE("a seasonal lag appears after two periods and equals what was one period ago") {
  constexpr std::size_t kDay = 144;  // bins of 600 s
  std::vector<double> rates(kDay * 5);
  for (std::size_t i = 0; i < rates.size(); ++i) rates[i] = 1.0 + static_cast<double>(i % kDay);
  const Table table{{rates, {}, {}, 600.0, Target::kArrivals, {}}};
  const auto row = [&table](std::size_t at) { return &table.features[at * kFeatures]; };
  CHECK(row(2 * kDay - 2)[feature::kHasDayLag] == 0.0F);
  CHECK(row(2 * kDay - 2)[feature::kDayLag] == 0.0F);
  const std::size_t at = 2 * kDay + 17;
  CHECK(row(at)[feature::kHasDayLag] == 1.0F);
  CHECK(row(at)[feature::kHasWeekLag] == 0.0F);
  for (const std::size_t horizon : {0U, 1U, 2U}) {
    const double expected = std::log1p(table.targets[at * kHorizons + horizon] / table.scales[at]) - std::log(2.0);
    CHECK(row(at)[feature::kDayLag + horizon] == doctest::Approx(expected).epsilon(1e-5));
  }
  CHECK(row(at)[feature::kDayLag + 3] == 0.0F);  // a horizon of 180 bins is longer than the day
}

TEST_CASE("features stay finite on silence, on a burst from silence and on values that are no numbers") {
  std::vector<double> rates(900, 0.0);
  rates[600] = 1e9;
  rates[700] = std::numeric_limits<double>::infinity();
  rates[701] = -5.0;
  const Table table{{rates, {}, {}, 1.0, Target::kArrivals, {}}};
  for (const float feature : table.features) REQUIRE(std::isfinite(feature));
  for (const double scale : table.scales) REQUIRE((std::isfinite(scale) && scale > 0.0));
}
