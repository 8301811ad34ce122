// Which model a device that holds one at a time should hold.

#include <doctest/doctest.h>

#include <array>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "zeta/share/due_counts.hpp"
#include "zeta/share/residency.hpp"

namespace {

using namespace zeta;
using namespace std::chrono_literals;
using share::Candidate;
using share::Change;
using share::Held;
using share::Residence;

constexpr Instant kNow = instant_from_ns(10'000'000'000'000);
constexpr ModelId kA{0};
constexpr ModelId kB{1};
constexpr ModelId kC{2};

/// Serves 10 requests per second, of which 1 arrives; 20 s to load.
Candidate model(ModelId id, double in_time, double late, double slack_s = 1000.0) {
  return {.model = id,
          .in_time = in_time,
          .late = late,
          .arrival_rps = 1.0,
          .service_rps = 10.0,
          .slack_s = slack_s,
          .load_s = 20.0};
}

struct Case {
  explicit Case(std::vector<Candidate> models) : candidates{std::move(models)} {}

  share::CollationConfig config{.max_wait = 300s};
  std::vector<Candidate> candidates;
  std::vector<Held> held;
  Residence there{.resident = kA, .since = kNow - 1000s, .drain_s = 5.0, .usual_drain_s = 5.0};

  void holds(ModelId id, Duration waited) { held.push_back({ModelMask::of(id), kNow - waited}); }
  [[nodiscard]] std::optional<Change> next() const {
    return share::next_resident(config, candidates, held, there, kNow);
  }
};

}  // namespace

TEST_CASE("residency: the model stays while it serves whatever waits") {
  Case c{{model(kA, 0, 0), model(kB, 0, 0)}};
  CHECK_FALSE(c.next());
}

TEST_CASE("residency: a model that somebody waits for stays, however much waits for another") {
  Case c{{model(kA, 1, 0), model(kB, 500, 0)}};
  c.holds(kB, 100s);
  CHECK_FALSE(c.next());
  c.candidates[0].in_time = 0;
  REQUIRE(c.next());
  CHECK(c.next()->model == kB);
  CHECK_FALSE(c.next()->is_forced);
}

TEST_CASE("residency: of two models the one that serves more in time comes in, late requests count little") {
  Case c{{model(kA, 0, 0), model(kB, 0, 100), model(kC, 60, 0)}};
  c.holds(kB, 100s);
  c.holds(kC, 50s);
  REQUIRE(c.next());
  CHECK(c.next()->model == kC);
}

TEST_CASE("residency: arrivals that would be late without the model keep it against late requests") {
  Case c{{model(kA, 0, 0, 1.0), model(kB, 0, 60, 1.0)}};
  c.holds(kB, 60s);
  CHECK_FALSE(c.next());
  c.candidates[0].slack_s = c.candidates[1].slack_s = 1000.0;  // with time enough nothing is lost by going
  REQUIRE(c.next());
  CHECK(c.next()->model == kB);
  c.config.rule = share::CollationRule::exhaustive;  // which does not ask
  c.candidates[0].slack_s = c.candidates[1].slack_s = 1.0;
  CHECK(c.next());
}

TEST_CASE("residency: the oldest request brings its model in before the longest wait, drain and loading counted in") {
  Case c{{model(kA, 5, 0, 1.0), model(kB, 0, 1, 1.0)}};
  c.holds(kB, 214s);  // 0.8 × 300 s − 5 s − 20 s = 215 s
  CHECK_FALSE(c.next());
  c.held[0].oldest = kNow - 215s;
  REQUIRE(c.next());
  CHECK(c.next()->model == kB);
  CHECK(c.next()->is_forced);
}

TEST_CASE("residency: a model with work is not left before it has stayed for three times its loading") {
  Case c{{model(kA, 5, 0), model(kB, 0, 1)}};
  c.holds(kB, 400s);
  c.there.since = kNow - 59s;
  CHECK_FALSE(c.next());
  c.there.since = kNow - 60s;
  CHECK(c.next());
  c.there.since = kNow - 1s;
  c.candidates[0].in_time = 0;  // it has nothing to do
  CHECK(c.next());
}

TEST_CASE("residency: what goes before it in the row makes the row start earlier") {
  Case c{{model(kA, 0, 0, 1.0), model(kB, 0, 450, 1.0), model(kC, 0, 9, 1.0)}};
  c.candidates[0].arrival_rps = c.candidates[1].arrival_rps = 5.0;  // 450 waiting take 90 s and more
  c.holds(kB, 130s);
  CHECK_FALSE(c.next());  // alone, B has time
  c.holds(kC, 129s);
  REQUIRE(c.next());
  CHECK(c.next()->model == kB);
  CHECK(c.next()->is_forced);
}

TEST_CASE("residency: a change for gain goes to the first of the row where it would make that one wait too long") {
  Case c{{model(kA, 0, 0), model(kB, 0, 5), model(kC, 200, 0)}};
  c.holds(kB, 180s);
  c.holds(kC, 20s);
  REQUIRE(c.next());
  CHECK(c.next()->model == kB);
  c.held[0].oldest = kNow - 50s;
  REQUIRE(c.next());
  CHECK(c.next()->model == kC);
}

TEST_CASE("residency: an empty device loads, and a set without a candidate loads nothing") {
  Case c{{model(kB, 1, 0)}};
  c.there.resident = kNoModel;
  c.holds(kC, 400s);
  CHECK_FALSE(c.next()->is_forced);  // B has work, nobody can serve C
  c.holds(kB, 1s);
  REQUIRE(c.next());
  CHECK(c.next()->model == kB);
}

TEST_CASE("due counts: what is added and removed leaves nothing, whenever it is removed") {
  share::DueCounts counts;
  Instant now = instant_from_ns(1'000'000'000'000);
  struct Waiting {
    Instant latest, arrival;
  };
  std::vector<Waiting> all;
  for (int i = 0; i < 500; ++i) {
    const Instant arrival = now;
    all.push_back({arrival + i * 7s - 300s, arrival});
    counts.add(all.back().latest, arrival, now);
    now += 3s;
  }
  CHECK(counts.size() == 500);
  for (std::size_t i = 0; i < all.size(); i += 2) counts.remove(all[i].latest, all[i].arrival, now);
  now += 5000s;
  for (std::size_t i = 1; i < all.size(); i += 2) counts.remove(all[i].latest, all[i].arrival, now);
  CHECK(counts.size() == 0);
  CHECK(counts.in_time(now) == 0);
}

TEST_CASE("due counts: those are in time whose latest start is not before the instant") {
  share::DueCounts counts;
  const Instant now = instant_from_ns(1'000'000'000'000);
  for (int i = 0; i < 10; ++i) counts.add(now + i * 10s, now, now);
  counts.add(now - 1s, now - 5s, now);  // late already
  counts.add(kNever, now, now);         // counts as a thousand seconds after its arrival
  CHECK(counts.size() == 12);
  CHECK(counts.in_time(now) == 11);
  CHECK(counts.in_time(now + 45s) == 6);
  CHECK(counts.in_time(now + 999s) == 1);
  CHECK(counts.in_time(now + 1001s) == 0);
}
