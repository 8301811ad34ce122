// One record of the monitor's board, read by the core: nanoseconds, alone and beside a writer that never rests.
//
//   monitor ROWS ROUNDS          prints one line of JSON
//   monitor count ROWS READS     READS reads inside counted_read, for callgrind

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <thread>
#include <vector>

#include "zeta/sync/reading_board.hpp"

namespace {

using Clock = std::chrono::steady_clock;
using zeta::ReadingRecord;
using zeta::sync::ReadingBoard;

constexpr int kBatch = 64;  // reads between two looks at the clock, which costs more than a read

[[gnu::noinline]] bool counted_read(const ReadingBoard& board, std::size_t row, ReadingRecord& record) {
  return board.read(row, row + 1, record);
}

void publish(ReadingBoard& board, std::size_t row, double value) {
  std::array<double, zeta::kReadingFields> values{};
  values.fill(value);
  board.publish(row, row + 1, values, zeta::Instant{std::chrono::seconds{1}}, std::chrono::seconds{1});
}

/// Each record must be of one piece: all its values are equal.
bool is_whole(const ReadingRecord& record) {
  return std::all_of(record.values.begin(), record.values.end(), [&](double v) { return v == record.values[0]; });
}

struct Times {
  double p50 = 0;
  double p99 = 0;
};

Times read_all(const ReadingBoard& board, int rounds, bool& is_right) {
  std::vector<double> times;
  ReadingRecord record;
  std::size_t row = 0;
  for (int round = 0; round < rounds; ++round) {
    const auto from = Clock::now();
    for (int i = 0; i < kBatch; ++i) {
      is_right &= counted_read(board, row, record);
      row = row + 1 < board.size() ? row + 1 : 0;
    }
    times.push_back(std::chrono::duration<double, std::nano>(Clock::now() - from).count() / kBatch);
    is_right &= is_whole(record);
  }
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times[times.size() * 99 / 100]};
}

}  // namespace

int main(int argc, char** argv) {
  const bool counts = argc == 4 && std::string_view(argv[1]) == "count";
  if (argc != 3 && !counts) {
    std::fprintf(stderr, "usage: monitor ROWS ROUNDS | monitor count ROWS READS\n");
    return 2;
  }
  ReadingBoard board{std::strtoul(argv[counts ? 2 : 1], nullptr, 10)};
  for (std::size_t row = 0; row < board.size(); ++row) publish(board, row, 1.0);
  const int rounds = std::atoi(argv[counts ? 3 : 2]);
  if (counts) {
    ReadingRecord record;
    for (int i = 0; i < rounds; ++i) {
      if (!counted_read(board, static_cast<std::size_t>(i) % board.size(), record)) return 1;
    }
    return 0;
  }

  bool is_right = true;
  (void)read_all(board, rounds / 10 + 1, is_right);  // warm
  const Times alone = read_all(board, rounds, is_right);
  std::atomic<bool> is_over{false};
  Times beside;
  {
    const std::jthread writer([&] {
      double value = 0;
      // Whether it sees the end a little later does not matter.
      while (!is_over.load(std::memory_order_relaxed)) {
        for (std::size_t row = 0; row < board.size(); ++row) publish(board, row, value);
        value += 1.0;
      }
    });
    beside = read_all(board, rounds, is_right);
    is_over.store(true, std::memory_order_relaxed);
  }
  if (!is_right) {
    std::fprintf(stderr, "wrong answer: a record was missing or torn\n");
    return 1;
  }
  std::printf(
      "{\"rows\": %zu, \"record_bytes\": %zu, \"ns_p50\": %.2f, \"ns_p99\": %.2f, \"ns_p50_beside_writer\": %.2f, "
      "\"ns_p99_beside_writer\": %.2f}\n",
      board.size(), sizeof(ReadingRecord), alone.p50, alone.p99, beside.p50, beside.p99);
  return 0;
}
