// One writer at full speed, readers beside it: records stay whole, and never go back.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

#include "stress/team.hpp"
#include "zeta/sync/snapshot_ring.hpp"

namespace {

using Record = std::array<std::uint64_t, 38>;

}  // namespace

TEST_CASE("readers beside a writer at full speed see whole records, each no older than the one before") {
  const std::uint64_t records = std::max<std::uint64_t>(zeta::test::items_in_all() / 4, 10'000);
  zeta::sync::SnapshotRing<Record> ring;
  std::atomic<std::uint64_t> torn{0};
  std::atomic<std::uint64_t> went_back{0};
  std::atomic<std::uint64_t> distinct{0};
  zeta::test::run_threads(3, [&](std::size_t self) {
    if (self == 0) {
      Record record;
      for (std::uint64_t number = 1; number <= records; ++number) {
        record.fill(number);
        ring.publish(record);
      }
      return;
    }
    Record record{};
    for (std::uint64_t last = 0; last < records;) {
      const std::uint64_t number = ring.read(record);
      if (std::any_of(record.begin(), record.end(), [&](std::uint64_t word) { return word != number; })) ++torn;
      if (number < last) ++went_back;
      if (number != last) ++distinct;
      last = number;
    }
  });
  CHECK(torn == 0);
  CHECK(went_back == 0);
  CHECK(distinct >= 2);
}
