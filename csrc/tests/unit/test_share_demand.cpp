#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "zeta/share/demand.hpp"

using namespace std::chrono_literals;
using zeta::Duration;
using zeta::Instant;
using zeta::share::DemandHistogram;

namespace {

constexpr Instant at(Duration since_zero) { return Instant{since_zero}; }

struct Request {
  std::uint32_t bin;
  Instant promise;
  Duration work;
};

/// The definition, by walking every request: what the histogram must equal. Bin b ends at b * 250 ms.
double need_by_walking(const std::vector<Request>& requests, Instant now) {
  const std::int64_t width_ns = DemandHistogram::kBinWidth.count();
  const auto present = static_cast<std::uint32_t>(1 + zeta::to_ns(now) / width_ns);
  double overdue_s = 0.0;
  double weighted_s = 0.0;
  for (const Request& r : requests) {
    if (r.bin >= present) continue;
    const double cap_s = static_cast<double>(r.bin) * 0.25 + 64.0;
    overdue_s += zeta::to_seconds(r.work);
    weighted_s += zeta::to_seconds(r.work) * std::min(zeta::to_seconds(r.promise.time_since_epoch()), cap_s);
  }
  const double now_s = zeta::to_seconds(now.time_since_epoch());
  const double left_s = overdue_s > 0.0 ? std::max(1.0, weighted_s / overdue_s - now_s) : 1.0;
  double need = overdue_s / left_s;
  for (std::uint32_t bin = present; bin < present + DemandHistogram::kBins; ++bin) {
    double due_s = 0.0;
    for (const Request& r : requests) due_s += r.bin >= present && r.bin <= bin ? zeta::to_seconds(r.work) : 0.0;
    const double until_s = std::max(1.0, static_cast<double>(bin) * 0.25 - now_s);
    need = std::max(need, (due_s + overdue_s * std::min(1.0, until_s / left_s)) / until_s);
  }
  return need;
}

}  // namespace

TEST_CASE("a model with nothing waiting needs nothing") {
  const DemandHistogram demand;
  CHECK(demand.need(at(0s)) == 0.0);
  CHECK(demand.need(at(1000s)) == 0.0);
  CHECK(demand.backlog() == 0s);
}

TEST_CASE("work due within the second is asked for over one second, later work over the time until its bin ends") {
  DemandHistogram soon;
  (void)soon.add(at(100ms), at(20s), 500ms, at(0s));
  CHECK(soon.need(at(0s)) == doctest::Approx(0.5));
  DemandHistogram later;
  (void)later.add(at(9900ms), at(20s), 5s, at(0s));
  CHECK(later.need(at(0s)) == doctest::Approx(0.5));
  CHECK(later.need(at(5s)) == doctest::Approx(1.0));
  CHECK(later.need(at(9500ms)) == doctest::Approx(5.0));
}

TEST_CASE("the most pressing prefix of the bins decides, not the sum over all") {
  DemandHistogram demand;
  (void)demand.add(at(1900ms), at(20s), 1s, at(0s));  // 1 s within 2 s
  (void)demand.add(at(9900ms), at(20s), 1s, at(0s));  // 2 s within 10 s
  CHECK(demand.need(at(0s)) == doctest::Approx(0.5));
  (void)demand.add(at(9800ms), at(20s), 6s, at(0s));  // 8 s within 10 s
  CHECK(demand.need(at(0s)) == doctest::Approx(0.8));
}

TEST_CASE("overdue work is asked for over the time left to its promise, at least one second") {
  DemandHistogram demand;
  (void)demand.add(at(1s), at(21s), 4s, at(0s));
  CHECK(demand.need(at(11s)) == doctest::Approx(0.4));
  CHECK(demand.need(at(19s)) == doctest::Approx(2.0));
  CHECK(demand.need(at(20500ms)) == doctest::Approx(4.0));
  CHECK(demand.need(at(300s)) == doctest::Approx(4.0));
}

TEST_CASE("overdue work keeps its pace beside the work that is still to come") {
  DemandHistogram demand;
  (void)demand.add(at(5s), at(20s), 3s, at(10s));       // overdue at once, 10 s left: 0.3
  (void)demand.add(at(14900ms), at(30s), 2s, at(10s));  // 2 s within 5 s: 0.4 on top
  CHECK(demand.overdue() == 3s);
  CHECK(demand.need(at(10s)) == doctest::Approx(0.7));
}

TEST_CASE("a latest start beyond the horizon is filed in the last bin") {
  DemandHistogram demand;
  const std::uint32_t far = demand.add(at(3600s), at(3600s), 64s, at(0s));
  const std::uint32_t last = demand.add(at(63900ms), at(64s), 64s, at(0s));
  CHECK(far == last);
  CHECK(demand.need(at(0s)) == doctest::Approx(2.0));
  CHECK(demand.add(zeta::kNever, zeta::kNever, 1s, at(0s)) == last);
}

TEST_CASE("a request without a promise does not hide the pressure of the others for ever") {
  DemandHistogram demand;
  (void)demand.add(at(900ms), zeta::kNever, 10s, at(0s));
  CHECK(demand.need(at(33s)) == doctest::Approx(10.0 / 32.0));
  CHECK(demand.need(at(65s)) == doctest::Approx(10.0));
}

TEST_CASE("removing everything leaves exactly nothing, in any order and after any delay") {
  std::mt19937_64 random{7};
  for (int round = 0; round < 50; ++round) {
    DemandHistogram demand;
    std::vector<Request> waiting;
    Instant now = at(std::chrono::nanoseconds{static_cast<std::int64_t>(random() % 1'000'000'000'000)});
    for (int step = 0; step < 300; ++step) {
      now += Duration{static_cast<std::int64_t>(random() % (step % 50 == 0 ? 90'000'000'000 : 900'000'000))};
      const Instant latest = now + Duration{static_cast<std::int64_t>(random() % 90'000'000'000) - 10'000'000'000};
      const Instant promise = now + Duration{static_cast<std::int64_t>(random() % 40'000'000'000) - 10'000'000'000};
      const Duration work{static_cast<std::int64_t>(random() % 3'000'000'000)};
      waiting.push_back({demand.add(latest, promise, work, now), promise, work});
      if (random() % 3 == 0) {
        const std::size_t victim = random() % waiting.size();
        demand.remove(waiting[victim].bin, waiting[victim].promise, waiting[victim].work, now);
        waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(victim));
      }
      if (step % 30 == 0) CHECK(demand.need(now) == doctest::Approx(need_by_walking(waiting, now)));
    }
    std::shuffle(waiting.begin(), waiting.end(), random);
    for (const Request& r : waiting) demand.remove(r.bin, r.promise, r.work, now);
    CHECK(demand.backlog() == 0s);
    CHECK(demand.overdue() == 0s);
    CHECK(demand.need(now) == 0.0);
  }
}

TEST_CASE("need read late equals need after rolling: reading changes nothing and misses nothing") {
  DemandHistogram demand;
  for (int i = 0; i < 256; ++i) (void)demand.add(at(i * 250ms), at(20s + i * 250ms), 100ms, at(0s));
  for (const Duration later : {100ms, 1300ms, 20'000ms, 63'900ms, 64'100ms, 500'000ms}) {
    DemandHistogram rolled = demand;
    rolled.remove(rolled.add(at(later), at(later), 0s, at(later)), at(later), 0s, at(later));
    CHECK(demand.need(at(later)) == rolled.need(at(later)));
  }
}

TEST_CASE("bins before the clock's zero and after long silence keep their meaning") {
  DemandHistogram demand;
  const Instant now = at(100h);
  const std::uint32_t bin = demand.add(at(-5s), at(100h + 10s), 2s, now);
  CHECK(demand.overdue() == 2s);
  CHECK(demand.need(now) == doctest::Approx(0.2));
  demand.remove(bin, at(100h + 10s), 2s, now);
  CHECK(demand.need(now) == 0.0);
}
