#include <doctest/doctest.h>

#include <array>
#include <limits>
#include <span>
#include <vector>

#include "zeta/share/foresight.hpp"
#include "zeta/share/policy.hpp"

using namespace zeta;
using doctest::Approx;
using share::ExpectedWork;
using share::Foreseen;

namespace {

Foreseen model_with(double backlog_s, double pace, double weight = 1.0) {
  Foreseen made;
  made.backlog_s = backlog_s;
  made.weight = weight;
  made.arriving.pace.fill(pace);
  return made;
}

}  // namespace

TEST_SUITE("share/foresight") {
  TEST_CASE("work within a time is read along straight lines between the horizons and never falls") {
    ExpectedWork work;
    work.pace = {2.0, 1.0, 1.0, 0.1, 0.1};  // 2, 10, 60 and then less than before: read as 60
    CHECK(work.within(0.5) == Approx(1.0));
    CHECK(work.within(1.0) == Approx(2.0));
    CHECK(work.within(10.0) == Approx(10.0));
    CHECK(work.within(35.0) == Approx(35.0));
    CHECK(work.within(180.0) == Approx(60.0));
    CHECK(work.between(10.0, 60.0) == Approx(1.0));
  }

  TEST_CASE("a forecast with a number missing, negative or absurd is not known") {
    for (const double bad :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -1.0, 1e30}) {
      ExpectedWork work;
      CHECK(!work.is_known());
      work.pace.fill(1.0);
      CHECK(work.is_known());
      work.pace[3] = bad;
      CHECK(!work.is_known());
    }
  }

  TEST_CASE("a backlog is worked off by the weights, and who needs less leaves the rest to the others") {
    std::array models{model_with(30.0, 0.0, 3.0), model_with(30.0, 0.0, 1.0), model_with(1.0, 0.0, 1.0)};
    share::go_on(models, 1.0, 0.0, 21.0);
    CHECK(models[2].backlog_s == 0.0);
    CHECK(models[0].backlog_s == Approx(15.0));
    CHECK(models[1].backlog_s == Approx(25.0));
  }

  TEST_CASE("what arrives and what is done balance whatever the weights") {
    std::array models{model_with(4.0, 0.7, 0.2), model_with(0.0, 0.6, 0.5), model_with(9.0, 0.1, 0.3)};
    share::go_on(models, 1.0, 5.0, 15.0);
    double left = 0.0;
    for (const Foreseen& each : models) left += each.backlog_s;
    CHECK(left == Approx(4.0 + 9.0 + 10.0 * 1.4 - 10.0));
  }

  TEST_CASE("the expected need is the pace while the plan acts and what is left then") {
    const share::ForesightConfig config{.capacity = 2.0, .clears_s = 10.0, .acts_s = 10.0};
    CHECK(share::expected_need(config, model_with(0.0, 1.0), 30.0) == Approx(0.5));
    CHECK(share::expected_need(config, model_with(5.0, 1.0), 30.0) == Approx(0.75));
  }

  TEST_CASE("a tick reads expected needs where all models have one, and else plans as if there were none") {
    const share::PolicyConfig config;
    const double unknown = std::numeric_limits<double>::quiet_NaN();
    const auto planned = [&](std::vector<double> expected) {
      std::vector<share::ModelDemand> demand(3);
      for (std::size_t i = 0; i < 3; ++i)
        demand[i] = {.due_pressure = i == 0 ? 0.8 : 0.1, .expected_need = expected[i]};
      share::Plan plan;
      for (int t = 0; t < 20; ++t) plan = share::tick(config, demand, plan, instant_from_ns(t * 50'000'000));
      return plan;
    };
    const share::Plan reactive = planned({unknown, unknown, unknown});
    CHECK(reactive.share[0] == Approx(0.8));
    CHECK(planned({0.1, 0.1, unknown}).share == reactive.share);
    CHECK(planned({0.1, -1.0, 0.7}).share == reactive.share);
    const share::Plan foreseen = planned({0.1, 0.1, 0.7});
    CHECK(foreseen.share[2] == Approx(0.7));
    CHECK(foreseen.share[0] == Approx(0.15));
  }
}
