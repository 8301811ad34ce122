#pragma once
// How long one engine step takes, looked up in tables that were measured on the device.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <utility>
#include <vector>

#include "zeta/core/time.hpp"

namespace zeta::sim {

/// The knots of every attention table: 0, 1, 2, 3, then four per octave (4, 5, 6, 7, 8, 10, 12, 14, 16, 20, ...), so
/// that the cell of a value is found from its leading bits.
struct OctaveKnots {
  static constexpr std::size_t index_of(std::uint64_t value) noexcept {
    if (value < 4) return static_cast<std::size_t>(value);
    const auto exponent = static_cast<unsigned>(std::bit_width(value)) - 1U;
    return 4 * (exponent - 1U) + static_cast<std::size_t>((value >> (exponent - 2U)) & 3U);
  }
  static constexpr std::uint64_t at(std::size_t index) noexcept {
    return index < 4 ? index : static_cast<std::uint64_t>(4 + index % 4) << (index / 4 - 1);
  }
};

/// Nanoseconds on a rows x columns grid of OctaveKnots, bilinear between knots and beyond the last ones.
class KnotSurface {
 public:
  KnotSurface() = default;

  /// `values_ns` is row-major. Throws std::invalid_argument unless there are at least two knots each way.
  KnotSurface(std::size_t rows, std::size_t columns, std::vector<double> values_ns)
      : rows_{rows}, columns_{columns}, values_ns_{std::move(values_ns)} {
    if (rows < 2 || columns < 2 || values_ns_.size() != rows * columns) {
      throw std::invalid_argument("a knot surface needs at least 2 x 2 values, and rows * columns of them");
    }
  }

  [[nodiscard]] double at(double row, double column) const noexcept {
    const auto [r, row_part] = locate(row, rows_);
    const auto [c, column_part] = locate(column, columns_);
    const double* const low = values_ns_.data() + r * columns_ + c;
    const double* const high = low + columns_;
    const double at_low = low[0] + (low[1] - low[0]) * column_part;
    const double at_high = high[0] + (high[1] - high[0]) * column_part;
    return at_low + (at_high - at_low) * row_part;
  }

 private:
  static std::pair<std::size_t, double> locate(double value, std::size_t count) noexcept {
    std::size_t cell = OctaveKnots::index_of(static_cast<std::uint64_t>(value));
    if (cell > count - 2) cell = count - 2;
    const auto knot = static_cast<double>(OctaveKnots::at(cell));
    const auto width = static_cast<double>(OctaveKnots::at(cell + 1)) - knot;
    return {cell, (value - knot) / width};
  }

  std::size_t rows_ = 0;
  std::size_t columns_ = 0;
  std::vector<double> values_ns_;
};

/// What one step computes. Attention of prefill pieces is summed by the caller, piece by piece: it is not a function of
/// their total.
struct StepLoad {
  std::uint64_t prefill_tokens = 0;
  double prefill_attention_ns = 0.0;
  std::uint64_t decode_batch = 0;
  std::uint64_t decode_context_tokens = 0;  ///< Sum over the decoding sequences.
  std::uint64_t sequences = 0;              ///< Sequences that the step touches (output head, sampling).
};

/// Time of a step, and the part of it in which the device is busy.
struct StepCost {
  Duration total{};
  Duration device{};
};

/// What a StepTable is made of. Nanoseconds.
struct StepTableData {
  std::vector<double> dense_ns;         ///< [t]: all layers that see every token once, at t tokens in the step.
  std::vector<double> per_sequence_ns;  ///< [n]: output head and sampling of n sequences.
  KnotSurface decode_attention;         ///< (sequences, mean context) when the step only decodes.
  KnotSurface mixed_decode_attention;   ///< The same when the step also prefills.
  KnotSurface prefill_attention;        ///< (tokens of the piece, tokens of that prompt already in KV).
  double kernel_factor = 1.0;           ///< Multiplies everything above.
  double prefill_surcharge = 0.0;       ///< Adds this fraction, weighted by the prefill part of the step's tokens.
  double step_overhead_ns = 0.0;        ///< Host and launch time of each step; the device idles.
  double sequence_overhead_ns = 0.0;    ///< The same for each sequence of the step.
};

/// Step times of one model on one kind of device. Immutable: any thread may read it, and engines share one.
///
/// step = (dense(prefill + decode tokens) + attention(prefill pieces) + attention(decodes) + head(sequences))
///        * kernel_factor * (1 + prefill_surcharge * prefill / (prefill + decode)) + overheads
///
/// The decomposition by layer class and shape follows LLMServingSim 2.0 and NVIDIA's aiconfigurator, whose measured
/// kernels feed the tables. Every lookup is O(1) and uses only IEEE + - * /, so results are equal on every machine.
class StepTable {
 public:
  explicit StepTable(StepTableData data) : data_{std::move(data)} {
    if (data_.dense_ns.size() < 2 || data_.per_sequence_ns.size() < 2) {
      throw std::invalid_argument("a step table needs dense and per-sequence times for at least 0 and 1");
    }
    if (!(data_.kernel_factor > 0.0) || !(data_.step_overhead_ns >= 0.0) || !(data_.sequence_overhead_ns >= 0.0)) {
      throw std::invalid_argument("a step table needs a kernel factor above 0 and overheads of 0 or more");
    }
  }

  [[nodiscard]] double dense_ns(std::uint64_t tokens) const noexcept { return along(data_.dense_ns, tokens); }
  [[nodiscard]] double per_sequence_ns(std::uint64_t sequences) const noexcept {
    return along(data_.per_sequence_ns, sequences);
  }
  [[nodiscard]] double prefill_attention_ns(std::uint64_t tokens, std::uint64_t tokens_before) const noexcept {
    return data_.prefill_attention.at(static_cast<double>(tokens), static_cast<double>(tokens_before));
  }
  [[nodiscard]] double decode_attention_ns(std::uint64_t batch, std::uint64_t context_tokens,
                                           bool mixed) const noexcept {
    if (batch == 0) return 0.0;
    const KnotSurface& surface = mixed ? data_.mixed_decode_attention : data_.decode_attention;
    const auto sequences = static_cast<double>(batch);
    return surface.at(sequences, static_cast<double>(context_tokens) / sequences);
  }

  [[nodiscard]] StepCost cost(const StepLoad& load) const noexcept {
    const std::uint64_t tokens = load.prefill_tokens + load.decode_batch;
    if (tokens == 0) return {};
    double device = dense_ns(tokens) + per_sequence_ns(load.sequences) + load.prefill_attention_ns +
                    decode_attention_ns(load.decode_batch, load.decode_context_tokens, load.prefill_tokens != 0);
    device *= data_.kernel_factor;
    device *= 1.0 + data_.prefill_surcharge * static_cast<double>(load.prefill_tokens) / static_cast<double>(tokens);
    const double host = data_.step_overhead_ns + data_.sequence_overhead_ns * static_cast<double>(load.sequences);
    return {Duration{static_cast<std::int64_t>(device + host + 0.5)},
            Duration{static_cast<std::int64_t>(device + 0.5)}};
  }

  /// One prefill piece of `prefill_tokens` behind `prefill_kv_tokens` already computed, beside `decode_batch` decodes.
  [[nodiscard]] Duration step_time(std::uint64_t prefill_tokens, std::uint64_t prefill_kv_tokens,
                                   std::uint64_t decode_batch, std::uint64_t decode_context_tokens) const noexcept {
    StepLoad load;
    load.prefill_tokens = prefill_tokens;
    if (prefill_tokens != 0) load.prefill_attention_ns = prefill_attention_ns(prefill_tokens, prefill_kv_tokens);
    load.decode_batch = decode_batch;
    load.decode_context_tokens = decode_context_tokens;
    load.sequences = decode_batch + (prefill_tokens != 0 ? 1U : 0U);
    return cost(load).total;
  }

 private:
  /// Entry `at`, or the last slope continued.
  static double along(const std::vector<double>& values, std::uint64_t at) noexcept {
    if (at < values.size()) return values[static_cast<std::size_t>(at)];
    const std::size_t last = values.size() - 1;
    // Mean slope of the second half: the last pair of entries alone would extend measurement noise.
    const std::size_t half = last / 2;
    const double slope = (values[last] - values[half]) / static_cast<double>(last - half);
    return values[last] + (slope > 0.0 ? slope : 0.0) * static_cast<double>(at - last);
  }

  StepTableData data_;
};

}  // namespace zeta::sim
