#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <random>
#include <vector>

#include "zeta/share/device_shares.hpp"

using namespace std::chrono_literals;
using zeta::Duration;
using zeta::ModelId;
using zeta::ModelMask;
using zeta::share::DeviceShares;

namespace {

/// Takes until `until` of work has been taken; request sizes differ by model, as they do.
template <class Eligible>
std::array<Duration, 3> take(DeviceShares& device, Duration until, Eligible&& eligible, std::uint64_t seed = 1) {
  std::mt19937_64 random{seed};
  std::array<Duration, 3> taken{};
  Duration sum{};
  while (sum < until) {
    const ModelId model = device.pick(eligible(sum));
    REQUIRE(model != zeta::kNoModel);
    const auto size = static_cast<std::int64_t>(1 + random() % (200'000'000 << index_of(model)));
    device.charge(model, Duration{size});
    taken[index_of(model)] += Duration{size};
    sum += Duration{size};
  }
  return taken;
}

const auto everybody = [](Duration) { return ModelMask::first(3); };

}  // namespace

TEST_CASE("over a long backlogged run each model's part of the work is its share") {
  for (const std::array<double, 3> shares : {std::array{0.6, 0.3, 0.1}, {0.05, 0.05, 0.9}, {0.2, 0.35, 0.45}}) {
    DeviceShares device{ModelMask::first(3)};
    device.set_shares(shares);
    const auto taken = take(device, 2000s, everybody);
    for (std::size_t i = 0; i < 3; ++i)
      CHECK(zeta::to_seconds(taken[i]) / 2000.0 == doctest::Approx(shares[i]).epsilon(0.01));
  }
}

TEST_CASE("a model without work banks no more than its credit") {
  for (const Duration credit : {Duration{0}, DeviceShares::kDefaultCredit, Duration{2s}}) {
    DeviceShares device{ModelMask::first(3), credit};
    (void)take(device, 1000s, [](Duration) { return ModelMask{0b011}; });
    CHECK(device.deficit(ModelId{2}) <= credit);
    const auto taken = take(device, 60s, everybody);
    // Its third of the minute, what its credit is worth, and at most one request more.
    CHECK(taken[2] <= 20s + credit + 800ms);
    CHECK(taken[2] >= 20s - 800ms);
  }
}

TEST_CASE("a change of share takes effect at once, and old debts are re-priced") {
  DeviceShares device{ModelMask::first(3)};
  device.set_shares(std::array{0.05, 0.475, 0.475});
  (void)take(device, 500s, everybody);
  device.charge(ModelId{0}, 1s);  // worth 20 s of waiting at the old share, under 2 s at the new
  device.set_shares(std::array{0.6, 0.2, 0.2});
  const auto taken = take(device, 20s, everybody);
  CHECK(zeta::to_seconds(taken[0]) == doctest::Approx(12.0).epsilon(0.15));
}

TEST_CASE("no capacity idles: whoever has eligible work is picked, and nobody when none of the device's has") {
  DeviceShares device{ModelMask{0b1011}};
  CHECK(device.pick(ModelMask{0b1000}) == ModelId{3});
  for (int i = 0; i < 100; ++i) device.charge(ModelId{3}, 5s);
  CHECK(device.pick(ModelMask{0b1000}) == ModelId{3});
  CHECK(device.pick(ModelMask{}) == zeta::kNoModel);
  CHECK(device.pick(ModelMask{0b0100}) == zeta::kNoModel);  // lives elsewhere
}

TEST_CASE("one that works alone for long owes the others nothing afterwards beyond one request") {
  DeviceShares device{ModelMask::first(3)};
  (void)take(device, 1000s, [](Duration) { return ModelMask{0b001}; });
  const auto taken = take(device, 30s, everybody);
  CHECK(taken[0] > 8s);
}

TEST_CASE("a take out of turn is charged to its model and leaves the others' accounts alone") {
  DeviceShares device{ModelMask::first(2)};
  const Duration before = device.deficit(ModelId{0});
  device.adjust(ModelId{1}, 3s);
  CHECK(device.deficit(ModelId{0}) == before);
  CHECK(device.deficit(ModelId{1}) == -6s);  // 3 s at a share of one half
  device.adjust(ModelId{1}, -3s);
  CHECK(device.deficit(ModelId{1}) == 0s);
}

TEST_CASE("the same takes give the same picks, whatever came before was charged in") {
  DeviceShares a{ModelMask::first(3)};
  DeviceShares b{ModelMask::first(3)};
  const std::array shares{1.0 / 3.0, 0.5, 1.0 / 6.0};
  a.set_shares(shares);
  b.set_shares(shares);
  CHECK(take(a, 100s, everybody, 5) == take(b, 100s, everybody, 5));
}

TEST_CASE("shares that are zero or not a number still let a model take when it is alone") {
  DeviceShares device{ModelMask::first(2)};
  device.set_shares(std::array{0.0, std::numeric_limits<double>::quiet_NaN()});
  device.charge(device.pick(ModelMask{0b01}), 10s);
  CHECK(device.pick(ModelMask{0b01}) == ModelId{0});
  CHECK(device.pick(ModelMask{0b11}) == ModelId{1});
}

TEST_CASE("a device without models is refused") {
  CHECK_THROWS_AS(DeviceShares{ModelMask{}}, std::invalid_argument);
  CHECK_THROWS_AS((DeviceShares{ModelMask::first(2), Duration{-1}}), std::invalid_argument);
}
