#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "zeta/core/readings.hpp"
#include "zeta/core/time.hpp"
#include "zeta/sync/snapshot_ring.hpp"

namespace zeta::sync {

/// The newest reading of each device, host and replica: rows of `ReadingRecord`, each in a snapshot ring of its own, so
/// that a writer stopped inside one row holds up nothing, there or elsewhere.
///
/// Rows are written by one thread at a time each, read by any. Nothing allocates after construction. A row may be given
/// to another subject: whoever kept its number asks with the identity and learns that the row has moved on.
class ReadingBoard {
 public:
  explicit ReadingBoard(std::size_t rows) : rows_(checked(rows)) {}

  [[nodiscard]] std::size_t size() const noexcept { return rows_.size(); }

  /// The row's writer only. Values by column, NaN or infinite where unknown; columns beyond the span are unknown. A
  /// field that is unknown keeps the instant at which it was last known. Wait-free.
  void publish(std::size_t row, std::uint64_t identity, std::span<const double> values, Instant taken,
               Duration stale_after) noexcept {
    Row& to = rows_[row];
    ReadingRecord& record = to.writers;
    if (record.identity != identity) record = ReadingRecord{};
    const auto passed_ns = static_cast<double>(std::max(taken - record.taken, Duration{0}).count());
    record.identity = identity;
    record.taken = taken;
    record.stale_after = stale_after;
    for (std::size_t i = 0; i < kReadingFields; ++i) {
      const bool is_known = i < values.size() && std::isfinite(values[i]);
      record.values[i] = is_known ? values[i] : ReadingRecord::kUnknown;
      record.lag_ns[i] = is_known ? 0.0 : record.lag_ns[i] + passed_ns;
    }
    to.ring.publish(to.writers);
  }

  /// The row's writer only. All its fields are unknown from now on, with the ages that they have. Wait-free.
  void forget(std::size_t row) noexcept {
    Row& to = rows_[row];
    to.writers.values.fill(ReadingRecord::kUnknown);
    to.ring.publish(to.writers);
  }

  /// The row's writer only. The row is free. Wait-free.
  void free(std::size_t row) noexcept {
    Row& to = rows_[row];
    to.writers = ReadingRecord{};
    to.ring.publish(to.writers);
  }

  /// Any thread; lock-free as `SnapshotRing::read`. False, and `record` untouched, where nothing was ever published.
  [[nodiscard]] bool read(std::size_t row, ReadingRecord& record) const noexcept {
    return rows_[row].ring.read(record) != 0;
  }

  /// As above; also false when the row is not, or no longer, about `identity`.
  [[nodiscard]] bool read(std::size_t row, std::uint64_t identity, ReadingRecord& record) const noexcept {
    return read(row, record) && record.identity == identity;
  }

  /// Where `identity` stands now; a walk over all rows.
  [[nodiscard]] std::optional<std::size_t> find(std::uint64_t identity) const noexcept {
    ReadingRecord record;
    for (std::size_t row = 0; row < rows_.size(); ++row) {
      if (read(row, identity, record)) return row;
    }
    return std::nullopt;
  }

 private:
  static constexpr std::size_t kMaxRows = 1U << 16U;  // about 110 MB

  struct Row {
    SnapshotRing<ReadingRecord> ring;
    ReadingRecord writers;  ///< the writer's own copy of what it published last
  };

  static std::size_t checked(std::size_t rows) {
    if (rows == 0 || rows > kMaxRows) {
      throw std::invalid_argument("a board has 1 to " + std::to_string(kMaxRows) + " rows, got " +
                                  std::to_string(rows));
    }
    return rows;
  }

  std::vector<Row> rows_;
};

}  // namespace zeta::sync
