#include <doctest/doctest.h>

#include <limits>

#include "zeta/core/correction.hpp"
#include "zeta/core/rng.hpp"
#include "zeta/core/round_clock.hpp"

using zeta::Correction;

namespace {

/// Uniform in [low, high].
double draw(zeta::Rng& rng, double low, double high) { return low + (high - low) * rng.next_unit(); }

}  // namespace

TEST_CASE("predictions that are right within 45 % are left alone, whatever the noise") {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    zeta::Rng rng{seed};
    Correction correction;
    for (int i = 0; i < 2'000; ++i) {
      correction.observe(draw(rng, 0.6, 1.5), 1.0);
      REQUIRE(correction.in_force() == 1.0);
    }
  }
}

TEST_CASE("a factor of two either way comes into force, within 5 %") {
  for (const double factor : {0.5, 2.0}) {
    zeta::Rng rng{3};
    Correction correction;
    for (int i = 0; i < 23; ++i) correction.observe(factor * draw(rng, 0.8, 1.2), 1.0);
    CHECK(correction.in_force() == 1.0);  // not enough yet
    for (int i = 0; i < 177; ++i) correction.observe(factor * draw(rng, 0.8, 1.2), 1.0);
    CHECK(correction.in_force() == doctest::Approx(factor).epsilon(0.05));
    CHECK(correction.relative_error() < 0.05);
    CHECK(correction.changes() == 0);
  }
}

TEST_CASE("a sudden change is found within 12 observations and followed within 60") {
  zeta::Rng rng{11};
  Correction correction;
  for (int i = 0; i < 1'000; ++i) correction.observe(draw(rng, 0.8, 1.2), 1.0);
  CHECK(correction.changes() == 0);
  int needed = 0;
  while (correction.changes() == 0 && needed < 100) {
    correction.observe(3.0 * draw(rng, 0.8, 1.2), 1.0);
    ++needed;
  }
  CHECK(needed <= 12);
  for (int i = 0; i < 60; ++i) correction.observe(3.0 * draw(rng, 0.8, 1.2), 1.0);
  CHECK(correction.in_force() == doctest::Approx(3.0).epsilon(0.1));
}

TEST_CASE("one wild observation among many moves nothing, and what is no measurement is ignored") {
  Correction correction;
  for (int i = 0; i < 100; ++i) correction.observe(1.0, 1.0);
  correction.observe(1e9, 1.0);
  CHECK(correction.estimate() < 1.02);
  const double before = correction.estimate();
  correction.observe(std::numeric_limits<double>::quiet_NaN(), 1.0);
  correction.observe(1.0, 0.0);
  correction.observe(-1.0, 1.0);
  correction.observe(1.0, 1.0, 0.0);
  CHECK(correction.estimate() == before);
}

TEST_CASE("a round clock counts rounds, less what prefills took, across its wrap") {
  using namespace std::chrono_literals;
  zeta::RoundClock clock;
  zeta::Instant now{};
  clock.set_round(0.02, now);
  const auto first = clock.read(now);
  now += 10s;
  clock.take_off(2.0);
  CHECK(zeta::RoundClock::between(clock.read(now), first) == doctest::Approx(400.0));
  clock.set_round(0.0, now);  // nothing decodes
  now += 1000s;
  CHECK(zeta::RoundClock::between(clock.read(now), first) == doctest::Approx(400.0));
  clock.set_round(0.001, now);
  for (int hour = 0; hour < 100; ++hour) {
    const auto before = clock.read(now);
    now += 3600s;
    CHECK(zeta::RoundClock::between(clock.read(now), before) == doctest::Approx(3.6e6).epsilon(1e-6));
    clock.set_round(0.001, now);
  }
}
