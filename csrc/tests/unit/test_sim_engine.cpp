#include <doctest/doctest.h>

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "zeta/core/rng.hpp"
#include "zeta/sim/engine.hpp"

namespace {

using namespace zeta;
using sim::Engine;
using sim::EngineConfig;
using sim::EngineHandle;
using sim::EngineRequest;

/// A step costs 1000 ns and 1 ns per token; attention is free.
std::shared_ptr<const sim::StepTable> plain_table() {
  sim::StepTableData data;
  data.dense_ns = {0.0, 1.0, 2.0};
  data.per_sequence_ns = {0.0, 0.0};
  const sim::KnotSurface nothing{2, 2, std::vector<double>(4, 0.0)};
  data.decode_attention = data.mixed_decode_attention = data.prefill_attention = nothing;
  data.step_overhead_ns = 1000.0;
  return std::make_shared<const sim::StepTable>(data);
}

struct Log {
  std::map<std::uint64_t, Instant> scheduled;
  std::map<std::uint64_t, Instant> first;
  std::map<std::uint64_t, Instant> last;
  std::vector<std::uint64_t> completions;
  std::vector<std::uint64_t> losses;
  void first_token(std::uint64_t tag, Instant scheduled_at, Instant now) {
    CHECK(first.count(tag) == 0);
    scheduled[tag] = scheduled_at;
    first[tag] = now;
  }
  void completed(std::uint64_t tag, Instant now) {
    CHECK(last.count(tag) == 0);
    last[tag] = now;
    completions.push_back(tag);
  }
  void lost(std::uint64_t tag, Instant) { losses.push_back(tag); }
};

struct Bench {
  explicit Bench(const EngineConfig& config) : engine{plain_table(), config} {}
  /// Runs at most `limit` steps; returns how many ran.
  int run(int limit = 1'000'000) {
    int steps = 0;
    while (steps < limit) {
      const auto span = engine.begin_step(now);
      if (!span) break;
      now += *span;
      engine.end_step(now, log);
      REQUIRE(engine.is_consistent());
      ++steps;
    }
    return steps;
  }
  std::optional<EngineHandle> add(std::uint64_t tag, std::uint32_t prompt, std::uint32_t output,
                                  std::uint32_t cached = 0) {
    return engine.enqueue(EngineRequest{tag, prompt, output, cached}, now);
  }
  Engine engine;
  Instant now{};
  Log log;
};

EngineConfig config_of(std::uint64_t kv_tokens, bool plans_ahead = false) {
  EngineConfig config;
  config.kv_tokens = kv_tokens;
  config.max_batched_tokens = 256;
  config.max_sequences = 16;
  config.max_waiting = 64;
  config.plans_ahead = plans_ahead;
  return config;
}

}  // namespace

TEST_CASE("sim engine: a request takes its prefill pieces and one step for each further token") {
  Bench bench{config_of(4096)};
  REQUIRE(bench.add(7, 600, 10));
  CHECK(bench.run() == 3 + 9);  // 256 + 256 + 88, the last of which gives the first token
  CHECK(bench.log.first[7] == Instant{Duration{3 * 1000 + 600}});
  CHECK(bench.log.last[7] == Instant{Duration{3 * 1000 + 600 + 9 * 1001}});
  CHECK(bench.engine.kv_tokens_used() == 0);
  CHECK(bench.engine.running() == 0);
}

TEST_CASE("sim engine: cached prompt tokens are skipped in whole blocks and the last token is always computed") {
  Bench bench{config_of(4096)};
  REQUIRE(bench.add(1, 100, 1, 50));
  CHECK(bench.run() == 1);
  CHECK(bench.now == Instant{Duration{1000 + 100 - 48}});
  REQUIRE(bench.add(2, 96, 1, 96));
  const Instant before = bench.now;
  CHECK(bench.run() == 1);
  CHECK(bench.now - before == Duration{1000 + 16});
}

TEST_CASE("sim engine: decodes go before prefill and share a step with it") {
  Bench bench{config_of(4096)};
  REQUIRE(bench.add(1, 10, 100));
  REQUIRE(bench.run(2) == 2);
  REQUIRE(bench.add(2, 400, 5));
  REQUIRE(bench.engine.begin_step(bench.now));
  CHECK(bench.engine.step_load().decode_batch == 1);
  CHECK(bench.engine.step_load().prefill_tokens == 255);
  CHECK(bench.engine.step_load().decode_context_tokens == 12);
}

TEST_CASE("sim engine: planning ahead delays a newcomer by the two steps that are already planned") {
  for (const bool ahead : {false, true}) {
    Bench bench{config_of(4096, ahead)};
    REQUIRE(bench.add(1, 16, 50));
    REQUIRE(bench.run(3) == 3);
    REQUIRE(bench.add(2, 16, 2));
    const Instant arrived = bench.now;
    REQUIRE(bench.run(3) == 3);
    REQUIRE(bench.log.first.count(2) == 1);
    const Duration own = Duration{1000 + 16 + 1};
    const Duration wait = ahead ? Duration{2 * 1001} : Duration{0};
    CHECK(bench.log.first[2] - arrived == wait + own);
  }
}

TEST_CASE("sim engine: the sequence cap holds and waiting requests start in arrival order") {
  Bench bench{config_of(1 << 16)};
  for (std::uint64_t tag = 0; tag < 40; ++tag) REQUIRE(bench.add(tag, 16, 8));
  while (bench.run(1) == 1) CHECK(bench.engine.running() <= 16);
  REQUIRE(bench.log.completions.size() == 40);
  for (std::uint64_t tag = 1; tag < 40; ++tag) CHECK(bench.log.first[tag - 1] <= bench.log.first[tag]);
}

TEST_CASE("sim engine: those who wait start by priority, lower numbers first, and by arrival among equals") {
  Bench bench{config_of(4096)};
  REQUIRE(bench.add(0, 10, 40));
  REQUIRE(bench.run(1) == 1);
  const std::vector<std::int32_t> priorities{5, 0, 5, -1, 0};
  std::uint64_t tag = 0;
  for (const std::int32_t priority : priorities) {
    REQUIRE(bench.engine.enqueue(EngineRequest{++tag, 256, 1, 0, priority}, bench.now));
  }
  bench.run();
  CHECK(bench.log.completions == std::vector<std::uint64_t>{4, 2, 5, 1, 3, 0});
}

TEST_CASE("sim engine: the outputs that it reports are those of the ended steps, each token once, across preemptions") {
  for (const bool ahead : {false, true}) {
    Bench bench{config_of(640, ahead)};
    std::map<std::uint64_t, std::uint64_t> given;
    struct Sink {
      std::map<std::uint64_t, std::uint64_t>& given;
      Log& log;
      void output(std::uint64_t tag, std::uint64_t tokens) const {
        CHECK(tokens >= given[tag]);
        if (given[tag] == 0 && tokens != 0) CHECK(log.first.count(tag) == 1);
        CHECK(tokens <= 200);
        given[tag] = tokens;
      }
    } const sink{given, bench.log};
    for (std::uint64_t tag = 1; tag <= 4; ++tag) REQUIRE(bench.add(tag, 60, 200));
    std::uint64_t before = 0;
    while (bench.run(1) == 1) {
      bench.engine.report_outputs(sink);
      std::uint64_t all = 0;
      for (const auto& [tag, tokens] : given) all += bench.log.last.count(tag) != 0 ? 200 : tokens;
      CHECK(all >= before);
      CHECK(all <= before + 4 + 2);  // one for each, and what a preempted one had in flight
      before = all;
    }
    CHECK(bench.engine.preemptions() > 0);
    CHECK(bench.log.completions.size() == 4);
    CHECK(before == 800);
  }
}

TEST_CASE("sim engine: when KV runs out the latest sequence is recomputed and nothing is lost") {
  for (const bool ahead : {false, true}) {
    Bench bench{config_of(1024, ahead)};
    std::uint64_t tokens = 0;
    for (std::uint64_t tag = 0; tag < 12; ++tag) {
      REQUIRE(bench.add(tag, 100, 200));
      tokens += 300;
    }
    REQUIRE(tokens > 1024);
    bench.run();
    CHECK(bench.engine.preemptions() > 0);
    CHECK(bench.log.completions.size() == 12);
    CHECK(bench.log.last[0] <= bench.log.last[11]);
    CHECK(bench.engine.kv_tokens_used() == 0);
  }
}

TEST_CASE("sim engine: a preempted sequence skips what its freed blocks still hold") {
  Duration ended[2];
  for (const bool keeps : {false, true}) {
    EngineConfig config = config_of(1024);
    config.keeps_freed_blocks = keeps;
    Bench bench{config};
    for (std::uint64_t tag = 0; tag < 12; ++tag) REQUIRE(bench.add(tag, 100, 200));
    bench.run();
    CHECK(bench.engine.preemptions() > 0);
    CHECK(bench.log.completions.size() == 12);
    ended[keeps ? 1 : 0] = bench.now - Instant{};
  }
  CHECK(ended[1] < ended[0]);
}

TEST_CASE("sim engine: a prompt is admitted only when all of it has room, unless told otherwise") {
  for (const bool whole : {true, false}) {
    EngineConfig config = config_of(1024);
    config.reserves_whole_prompt = whole;
    Bench bench{config};
    REQUIRE(bench.add(1, 256, 100));
    REQUIRE(bench.run(1) == 1);
    REQUIRE(bench.add(2, 800, 10));
    REQUIRE(bench.run(1) == 1);
    CHECK(bench.engine.running() == (whole ? 1 : 2));
    bench.run();
    CHECK(bench.log.completions.size() == 2);
  }
}

TEST_CASE("sim engine: what can never fit is refused, and a full queue refuses without losing what waits") {
  Bench bench{config_of(1024)};
  CHECK_FALSE(bench.add(1, 1000, 100));
  CHECK_FALSE(bench.add(1, 0, 5));
  CHECK_FALSE(bench.add(1, 5, 0));
  for (std::uint64_t tag = 0; tag < 64; ++tag) REQUIRE(bench.add(tag, 16, 4));
  CHECK_FALSE(bench.add(64, 16, 4));
  bench.run();
  CHECK(bench.log.completions.size() == 64);
}

TEST_CASE("sim engine: an aborted request frees its KV and reports nothing, whatever it was doing") {
  for (const int steps_before : {0, 1, 2, 5}) {
    Bench bench{config_of(4096, true)};
    const auto kept = bench.add(1, 300, 20);
    const auto gone = bench.add(2, 300, 20);
    REQUIRE(kept);
    REQUIRE(gone);
    bench.run(steps_before);
    CHECK(bench.engine.begin_step(bench.now));
    CHECK(bench.engine.abort(*gone));
    CHECK_FALSE(bench.engine.abort(*gone));
    bench.now += Duration{1};
    bench.engine.end_step(bench.now, bench.log);
    CHECK(bench.engine.is_consistent());
    bench.run();
    CHECK(bench.log.completions == std::vector<std::uint64_t>{1});
    CHECK(bench.engine.kv_tokens_used() == 0);
  }
}

TEST_CASE("sim engine: a crash reports every request inside and leaves an engine that works") {
  Bench bench{config_of(4096, true)};
  for (std::uint64_t tag = 0; tag < 30; ++tag) REQUIRE(bench.add(tag, 64, 50));
  bench.run(20);
  const std::size_t done = bench.log.completions.size();
  bench.engine.crash(bench.now, bench.log);
  CHECK(bench.log.losses.size() + done == 30);
  CHECK(bench.engine.kv_tokens_used() == 0);
  REQUIRE(bench.add(99, 64, 5));
  bench.run();
  CHECK(bench.log.completions.back() == 99);
}

TEST_CASE("sim engine: outputs longer than the ring of finish buckets end at the right step") {
  Bench bench{config_of(1 << 16)};
  REQUIRE(bench.add(1, 16, 10'000));
  REQUIRE(bench.add(2, 16, 4096));
  REQUIRE(bench.add(3, 16, 8192));
  CHECK(bench.run() == 10'000);
  CHECK(bench.log.completions == std::vector<std::uint64_t>{2, 3, 1});
}

TEST_CASE("sim engine: under random arrivals, aborts and tight KV the sums stay true and each request ends once") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Rng rng{seed};
    EngineConfig config = config_of(64 * (8 + rng.next_below(60)), rng.next_below(2) == 0);
    config.max_sequences = 1 + static_cast<std::uint32_t>(rng.next_below(16));
    Bench bench{config};
    std::vector<EngineHandle> handles;
    std::size_t accepted = 0;
    std::size_t aborted = 0;
    for (std::uint64_t tag = 0; tag < 400; ++tag) {
      const auto prompt = static_cast<std::uint32_t>(1 + rng.next_below(300));
      const auto output = static_cast<std::uint32_t>(1 + rng.next_below(150));
      const auto cached = static_cast<std::uint32_t>(rng.next_below(prompt));
      if (const auto handle = bench.add(tag, prompt, output, cached)) {
        handles.push_back(*handle);
        ++accepted;
      }
      bench.run(static_cast<int>(rng.next_below(30)));
      if (rng.next_below(5) == 0 && !handles.empty()) {
        aborted += bench.engine.abort(handles[rng.next_below(handles.size())]) ? 1U : 0U;
        REQUIRE(bench.engine.is_consistent());
      }
    }
    bench.run();
    CHECK(bench.log.completions.size() + aborted == accepted);
    CHECK(bench.engine.kv_tokens_used() == 0);
    CHECK(bench.engine.waiting() == 0);
  }
}
