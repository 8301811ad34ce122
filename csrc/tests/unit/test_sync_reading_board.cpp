#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <limits>
#include <set>
#include <string_view>

#include "allocation_count.hpp"
#include "zeta/core/readings.hpp"
#include "zeta/sync/reading_board.hpp"

using namespace std::chrono_literals;
using zeta::DeviceField;
using zeta::ReadingKind;
using zeta::ReadingRecord;
using zeta::sync::ReadingBoard;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr std::uint64_t kGpu = zeta::reading_identity(ReadingKind::kDevice, "GPU-5a1c");

zeta::Instant at(zeta::Duration span) { return zeta::Instant{span}; }

}  // namespace

TEST_CASE("a field that was never read has neither value nor age") {
  const ReadingRecord record;
  CHECK(!record.get(DeviceField::kUtilisation, at(1s)));
  CHECK(!record.age(DeviceField::kUtilisation, at(1s)));
}

TEST_CASE("a value is known for three periods and then only its age is") {
  ReadingBoard board{2};
  board.publish(1, kGpu, std::array{0.25}, at(10s), 300ms);
  ReadingRecord record;
  REQUIRE(board.read(1, record));
  CHECK(record.get(DeviceField::kUtilisation, at(10s)) == 0.25);
  CHECK(record.get(DeviceField::kUtilisation, at(10'300ms)) == 0.25);
  CHECK(!record.get(DeviceField::kUtilisation, at(10'301ms)));
  CHECK(record.age(DeviceField::kUtilisation, at(10'301ms)) == 301ms);
}

TEST_CASE("an instant that lies ahead of the reader's clock has age zero") {
  ReadingBoard board{1};
  board.publish(0, kGpu, std::array{0.25}, at(10s), 300ms);
  ReadingRecord record;
  REQUIRE(board.read(0, record));
  CHECK(record.age(DeviceField::kUtilisation, at(9s)) == 0ms);
  CHECK(record.get(DeviceField::kUtilisation, at(9s)) == 0.25);
}

TEST_CASE("a field that a later read does not find is unknown and keeps its age") {
  ReadingBoard board{1};
  board.publish(0, kGpu, std::array{0.25, 0.5}, at(10s), 1s);
  for (const double missing : {kNan, std::numeric_limits<double>::infinity()}) {
    board.publish(0, kGpu, std::array{missing, 0.75}, at(11s), 1s);
    ReadingRecord record;
    REQUIRE(board.read(0, record));
    CHECK(!record.get(DeviceField::kUtilisation, at(11s)));
    CHECK(record.age(DeviceField::kUtilisation, at(11s)) == 1s);
    CHECK(record.get(DeviceField::kMemoryUtilisation, at(11s)) == 0.75);
    CHECK(!record.get(DeviceField::kPowerW, at(11s)));
  }
}

TEST_CASE("a forgotten row keeps its ages, and a freed one nothing") {
  ReadingBoard board{1};
  board.publish(0, kGpu, std::array{0.25}, at(10s), 1s);
  board.forget(0);
  ReadingRecord record;
  REQUIRE(board.read(0, kGpu, record));
  CHECK(!record.get(DeviceField::kUtilisation, at(10s)));
  CHECK(record.age(DeviceField::kUtilisation, at(12s)) == 2s);
  board.free(0);
  CHECK(!board.read(0, kGpu, record));
  REQUIRE(board.read(0, record));
  CHECK(record.identity == 0);
  CHECK(!record.age(DeviceField::kUtilisation, at(12s)));
}

TEST_CASE("a row given to another device shows nothing of the one before") {
  constexpr std::uint64_t kOther = zeta::reading_identity(ReadingKind::kDevice, "GPU-77ee");
  ReadingBoard board{1};
  board.publish(0, kGpu, std::array{0.25, 0.5}, at(10s), 1s);
  board.publish(0, kOther, std::array{kNan, 0.75}, at(10s), 1s);
  ReadingRecord record;
  CHECK(!board.read(0, kGpu, record));
  REQUIRE(board.read(0, kOther, record));
  CHECK(!record.age(DeviceField::kUtilisation, at(10s)));
}

TEST_CASE("rows are found by identity, which differs between kinds") {
  ReadingBoard board{3};
  const std::uint64_t replica = zeta::reading_identity(ReadingKind::kReplica, "GPU-5a1c");
  CHECK(replica != kGpu);
  CHECK(!board.find(kGpu));
  board.publish(2, kGpu, std::array{0.25}, at(10s), 1s);
  board.publish(1, replica, std::array{3.0}, at(10s), 1s);
  CHECK(board.find(kGpu) == 2);
  CHECK(board.find(replica) == 1);
}

TEST_CASE("nothing published is nothing read") {
  ReadingBoard board{1};
  ReadingRecord record;
  record.identity = 7;
  CHECK(!board.read(0, record));
  CHECK(record.identity == 7);
}

TEST_CASE("publishing and reading allocate nothing") {
  ReadingBoard board{4};
  ReadingRecord record;
  const std::uint64_t before = zeta::test::allocations();
  for (std::size_t row = 0; row < 4; ++row) board.publish(row, kGpu + row, std::array{0.25}, at(10s), 1s);
  CHECK(board.read(3, kGpu + 3, record));
  CHECK(board.find(kGpu + 2) == 2);
  board.forget(1);
  board.free(2);
  const std::uint64_t after = zeta::test::allocations();
  CHECK(after == before);
}

TEST_CASE("a board of no rows, or of too many, is refused") {
  CHECK_THROWS_WITH(ReadingBoard{0}, "a board has 1 to 65536 rows, got 0");
  CHECK_THROWS(ReadingBoard{65'537});
}

TEST_CASE("names of fields are distinct within a kind") {
  const auto distinct = [](const auto& names) {
    return std::set<std::string_view>(names.begin(), names.end()).size() == names.size();
  };
  CHECK(distinct(zeta::kDeviceFieldNames));
  CHECK(distinct(zeta::kHostFieldNames));
  CHECK(distinct(zeta::kReplicaFieldNames));
  CHECK(zeta::kDeviceFieldNames[static_cast<std::size_t>(DeviceField::kProcessCount)] == "process_count");
  CHECK(zeta::kHostFieldNames[static_cast<std::size_t>(zeta::HostField::kProcessCpus)] == "process_cpus");
  CHECK(zeta::kReplicaFieldNames[static_cast<std::size_t>(zeta::ReplicaField::kIsAwake)] == "is_awake");
}
