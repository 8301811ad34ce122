// The tools find what they are for: a queue that a stopped thread stops, a memory order that is missing.

#include <doctest/doctest.h>

#include <optional>
#include <string>

#include "interleave/explore.hpp"
#include "interleave/freeze.hpp"
#include "interleave/history.hpp"
#include "interleave/model_atomic.hpp"
#include "interleave/mutation.hpp"
#include "interleave/subjects.hpp"

using namespace zeta::interleave;

namespace {

std::string values_arrive_in_order(Model& model) {
  SpscRing<ModelAtomic> ring;
  std::uint64_t expected = 10;
  std::string wrong;
  const bool is_done = model.run(
      [&] {
        for (std::uint64_t value = 10; value < 14;) {
          if (ring.try_push(value)) ++value;
        }
      },
      [&] {
        while (expected < 14) {
          const auto value = ring.try_pop();
          if (value && *value != expected++) wrong = "popped " + std::to_string(*value);
        }
      });
  return is_done ? wrong : "";
}

std::string pushes_are_seen(Model& model) {
  TicketedRing<ModelAtomic> ring;
  History history{model};
  const auto push = [&](std::uint64_t item) { return history.push(item, 0, [&] { return ring.push(0, item); }); };
  const auto pop = [&] { return history.pop([&] { return ring.pop(); }); };
  model.run([&] { push(1); },
            [&] {
              push(2);
              pop();
            });
  return history.wrong();
}

}  // namespace

TEST_CASE("a ring between two threads keeps its order, and each of its memory orders is needed") {
  const Suite suite{.files = {"interleave/subjects.hpp"},
                    .scenarios = {{"four values through two slots", values_arrive_in_order}},
                    .argued = {}};
  expect_right(suite.scenarios.front());
  if (!kSanitized) expect_killed(suite, 20'000, true);
}

TEST_CASE("the freeze finds the producer that hides later pushes, and says where it stands") {
  const FreezeReport report = freeze_every_step(pushes_are_seen);
  REQUIRE(report.failure);
  CHECK(report.failure->what.find("that found nothing") != std::string::npos);
  CHECK(report.failure->what.find("although there is item 2") != std::string::npos);
  CHECK(report.failure->what.find("subjects.hpp") != std::string::npos);
}

TEST_CASE("the freeze finds a lock by the others that wait for it") {
  const FreezeReport report = freeze_every_step([](Model& model) {
    ModelAtomic<int> lock{0};
    const auto critical = [&] {
      while (lock.exchange(1, std::memory_order_acquire) == 1) {
      }
      lock.store(0, std::memory_order_release);
    };
    model.run(critical, critical);
    return std::string();
  });
  REQUIRE(report.failure);
  CHECK(report.failure->what.find("waits for another for ever") != std::string::npos);
}

TEST_CASE("the mutation finds an order that no scenario needs") {
  const Suite blind{.files = {"interleave/subjects.hpp"},
                    .scenarios = {{"runs and looks at nothing",
                                   [](Model& model) {
                                     SpscRing<ModelAtomic> ring;
                                     model.run([&] { (void)ring.try_push(1); }, [&] { (void)ring.try_pop(); });
                                     return std::string();
                                   }}},
                    .argued = {}};
  const auto mutants = mutants_of(blind);
  REQUIRE(mutants.size() == 4);
  CHECK(mutants[1].key == "SpscRing::try_push store E900 -release");
  CHECK(judge(blind, mutants[1], 1000).fate == Fate::kSurvived);
}
