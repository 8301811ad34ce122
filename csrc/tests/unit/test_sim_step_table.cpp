#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include "zeta/sim/step_table.hpp"

using namespace zeta;
using sim::KnotSurface;
using sim::OctaveKnots;
using sim::StepLoad;
using sim::StepTable;
using sim::StepTableData;

TEST_CASE("sim step table: knots ascend and every value lies in the cell that its index names") {
  for (std::size_t i = 0; i < 100; ++i) CHECK(OctaveKnots::at(i) < OctaveKnots::at(i + 1));
  for (std::uint64_t value = 0; value < 200'000; value += value < 4096 ? 1 : 37) {
    const std::size_t cell = OctaveKnots::index_of(value);
    CHECK(OctaveKnots::at(cell) <= value);
    CHECK(value < OctaveKnots::at(cell + 1));
  }
}

TEST_CASE("sim step table: a bilinear function is reproduced, between knots and beyond them") {
  const std::size_t rows = 12;
  const std::size_t columns = 20;
  std::vector<double> values;
  const auto f = [](double x, double y) { return 3.0 + 2.0 * x + 0.5 * y + 0.25 * x * y; };
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < columns; ++c) {
      values.push_back(f(static_cast<double>(OctaveKnots::at(r)), static_cast<double>(OctaveKnots::at(c))));
    }
  }
  const KnotSurface surface{rows, columns, values};
  for (const double x : {0.0, 1.0, 3.0, 5.0, 11.5, 100.0}) {
    for (const double y : {0.0, 2.5, 17.0, 63.0, 1000.0}) CHECK(surface.at(x, y) == doctest::Approx(f(x, y)));
  }
}

TEST_CASE("sim step table: a step is its parts, its factor and its overheads") {
  StepTableData data;
  data.dense_ns = {0.0, 100.0, 200.0, 300.0};
  data.per_sequence_ns = {0.0, 10.0};
  data.decode_attention = KnotSurface{2, 2, {0.0, 0.0, 0.0, 4.0}};        // 4 * batch * context
  data.mixed_decode_attention = KnotSurface{2, 2, {0.0, 0.0, 0.0, 8.0}};  // twice that beside a prefill
  data.prefill_attention = KnotSurface{2, 2, {0.0, 0.0, 1.0, 3.0}};       // tokens * (1 + 2 * before)
  data.kernel_factor = 2.0;
  data.step_overhead_ns = 1000.0;
  data.sequence_overhead_ns = 5.0;
  const StepTable table{data};
  // 2 decodes over 30 tokens of context: dense 200, head 20, attention 4 * 2 * 15.
  CHECK(table.step_time(0, 0, 2, 30).count() == 2 * (200 + 20 + 120) + 1000 + 10);
  // With a piece of 3 tokens behind 4: dense 500, head 30, attention 8 * 2 * 15 + 3 * 9.
  CHECK(table.step_time(3, 4, 2, 30).count() == 2 * (500 + 30 + 240 + 27) + 1000 + 15);
  CHECK(table.step_time(0, 0, 0, 0).count() == 0);
  const sim::StepCost cost = table.cost(StepLoad{0, 0.0, 2, 30, 2});
  CHECK(cost.total - cost.device == Duration{1010});
}

TEST_CASE("sim step table: the prefill surcharge weighs by the prefill part of the tokens") {
  StepTableData data;
  data.dense_ns = {0.0, 100.0};
  data.per_sequence_ns = {0.0, 0.0};
  data.decode_attention = data.mixed_decode_attention = data.prefill_attention =
      KnotSurface{2, 2, {0.0, 0.0, 0.0, 0.0}};
  data.prefill_surcharge = 0.5;
  const StepTable table{data};
  CHECK(table.step_time(4, 0, 0, 0).count() == 600);
  CHECK(table.step_time(2, 0, 2, 2).count() == 500);
  CHECK(table.step_time(0, 0, 4, 4).count() == 400);
}

TEST_CASE("sim step table: tables that could not answer are refused") {
  CHECK_THROWS_AS(StepTable{StepTableData{}}, std::invalid_argument);
  CHECK_THROWS_AS((KnotSurface{1, 2, {0.0, 0.0}}), std::invalid_argument);
}
