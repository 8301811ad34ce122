#include <doctest/doctest.h>

#include <vector>

#include "zeta/core/rng.hpp"
#include "zeta/share/arriving_work.hpp"
#include "zeta/share/size_histogram.hpp"

using namespace zeta;

namespace {

constexpr Instant at_s(double seconds) { return instant_from_ns(0) + duration_from_seconds(seconds); }

}  // namespace

TEST_CASE("keeping the smaller requests fills the part that can be kept, and no more") {
  share::SizeHistogram sizes;
  Rng rng{7};
  std::int64_t total_ns = 0;
  std::vector<std::int64_t> all;
  for (int i = 0; i < 1000; ++i) {
    all.push_back(1'000'000 + static_cast<std::int64_t>(rng.next_below(400'000'000)));
    total_ns += all.back();
    sizes.add(Duration{all.back()});
  }
  for (const double part : {0.1, 0.5, 0.9}) {
    const Duration largest = sizes.largest_within(part);
    std::int64_t kept_ns = 0;
    for (const std::int64_t ns : all) kept_ns += Duration{ns} <= largest ? ns : 0;
    CHECK(static_cast<double>(kept_ns) <= part * static_cast<double>(total_ns));
    CHECK(static_cast<double>(kept_ns) > (part - 0.15) * static_cast<double>(total_ns));
  }
  CHECK(sizes.largest_within(1.0) == Duration::max());
}

TEST_CASE("a histogram of sizes from which everything was removed keeps any size") {
  share::SizeHistogram sizes;
  for (const int ms : {1, 20, 300, 4000}) sizes.add(Duration{ms * 1'000'000LL});
  for (const int ms : {4000, 1, 300, 20}) sizes.remove(Duration{ms * 1'000'000LL});
  CHECK(sizes.largest_within(0.01) == Duration::max());
}

TEST_CASE("arriving work is a mean over five minutes, and old work leaves it") {
  share::ArrivingWork arriving;
  for (int s = 0; s < 300; ++s) arriving.add(duration_from_seconds(0.5), at_s(s));
  CHECK(arriving.utilisation(at_s(299)) == doctest::Approx(0.5));
  CHECK(arriving.utilisation(at_s(445)) == doctest::Approx(0.25).epsilon(0.05));
  CHECK(arriving.utilisation(at_s(700)) == 0.0);
  arriving.add(duration_from_seconds(30.0), at_s(10'000));
  CHECK(arriving.utilisation(at_s(10'001)) == doctest::Approx(0.1));
}
