#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <vector>

#include "zeta/core/cpu.hpp"
#include "zeta/core/rng.hpp"
#include "zeta/route/choose.hpp"

namespace {

using zeta::SimdLevel;
using namespace zeta::route;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

std::int64_t plainly(const ReplicaColumns& columns, double prefill_s) {
  std::int64_t chosen = kNoChoice;
  double least = kInfinity;
  for (std::size_t i = 0; i < columns.count; ++i) {
    double wait_s = columns.load_s[i] + prefill_s;
    if (columns.prefix_held != nullptr) wait_s = columns.load_s[i] + prefill_s * (1.0 - columns.prefix_held[i]);
    if (!(columns.room[i] >= 1.0) || !(wait_s < least)) continue;
    least = wait_s;
    chosen = static_cast<std::int64_t>(i);
  }
  return chosen;
}

void check(const std::vector<double>& load, const std::vector<double>& room, const std::vector<double>& held) {
  for (const bool has_prefix : {false, true}) {
    const ReplicaColumns columns{load.size() - 1, load.data() + 1, room.data() + 1,
                                 has_prefix ? held.data() + 1 : nullptr};
    for (int level = 0; level <= static_cast<int>(zeta::simd_level()); ++level) {
      CAPTURE(level);
      REQUIRE(choose_replica(columns, 0.75, static_cast<SimdLevel>(level)) == plainly(columns, 0.75));
    }
  }
}

}  // namespace

TEST_CASE("the choice is the first of the least, at every width and count") {
  zeta::Rng rng{5};
  const std::vector<double> loads{0.0, 0.25, 0.5, 1.0, 1.0, 2.0, kNan, kInfinity, -kInfinity, -0.0};
  const std::vector<double> rooms{0.0, 0.5, 1.0, 1.0, 64.0, kNan, -1.0, kInfinity};
  const std::vector<double> parts{0.0, 1.0, 0.5, 0.5, kNan};
  for (const std::size_t n : {0UL, 1UL, 2UL, 31UL, 32UL, 33UL, 64UL, 100UL, 256UL, 1001UL}) {
    for (int round = 0; round < 50; ++round) {
      std::vector<double> load(n + 1), room(n + 1), held(n + 1);
      for (double& value : load) value = round % 2 == 0 ? loads[rng.next_below(loads.size())] : rng.next_unit();
      for (double& value : room) value = rooms[rng.next_below(rooms.size())];
      for (double& value : held) value = round % 2 == 0 ? parts[rng.next_below(parts.size())] : rng.next_unit();
      check(load, room, held);
    }
  }
}

TEST_CASE("a held prefix is worth as much work ahead as it saves of prefill") {
  const std::vector<double> load{0.0, 0.5};
  const std::vector<double> room{1.0, 1.0};
  const std::vector<double> held{0.0, 1.0};
  const ReplicaColumns columns{2, load.data(), room.data(), held.data()};
  CHECK(choose_replica(columns, 0.4) == 0);
  CHECK(choose_replica(columns, 0.6) == 1);
}

TEST_CASE("nothing is chosen where no replica has room or nothing is known") {
  const std::vector<double> full(40, 0.0);
  const std::vector<double> unknown(40, kNan);
  const std::vector<double> idle(40, 1.0);
  CHECK(choose_replica({40, idle.data(), full.data(), nullptr}, 0.0) == kNoChoice);
  CHECK(choose_replica({40, unknown.data(), idle.data(), nullptr}, 0.0) == kNoChoice);
}
