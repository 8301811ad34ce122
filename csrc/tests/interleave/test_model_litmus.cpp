// The model shows what C++20 allows and never what it forbids, on the programs that the literature uses to tell the
// two.

#include <doctest/doctest.h>

#include <chrono>
#include <set>
#include <vector>

#include "interleave/explore.hpp"
#include "interleave/model_atomic.hpp"

using namespace zeta::interleave;

namespace {

constexpr auto kRlx = std::memory_order_relaxed;
constexpr auto kAcq = std::memory_order_acquire;
constexpr auto kRel = std::memory_order_release;
constexpr auto kSc = std::memory_order_seq_cst;

using Outcome = std::vector<int>;

/// Every outcome that some schedule shows; `program` runs its threads and returns what they read.
template <class Program>
std::set<Outcome> outcomes(Program program, Model::Memory memory = Model::Memory::kWeak) {
  std::set<Outcome> seen;
  const Exploration result = explore(
      [&](Model& model) {
        const Outcome outcome = program(model);
        // A schedule that reads ahead in vain shows nothing; the model says so only now.
        if (!model.is_void()) seen.insert(outcome);
        return std::string();
      },
      schedules(20'000), 1, memory);
  CHECK(!result.failure);
  return seen;
}

Outcome message_passing(Model& model, std::memory_order store, std::memory_order load) {
  ModelAtomic<int> data{0};
  ModelAtomic<int> flag{0};
  int is_told = 0;
  int read = 0;
  model.run(
      [&] {
        data.store(1, kRlx);
        flag.store(1, store);
      },
      [&] {
        is_told = flag.load(load);
        read = data.load(kRlx);
      });
  return {is_told, read};
}

Outcome store_buffering(Model& model, std::memory_order store, std::memory_order load) {
  ModelAtomic<int> x{0};
  ModelAtomic<int> y{0};
  int a = 0;
  int b = 0;
  model.run(
      [&] {
        x.store(1, store);
        a = y.load(load);
      },
      [&] {
        y.store(1, store);
        b = x.load(load);
      });
  return {a, b};
}

Outcome load_buffering(Model& model, std::memory_order load, std::memory_order store) {
  ModelAtomic<int> x{0};
  ModelAtomic<int> y{0};
  int a = 0;
  int b = 0;
  model.run(
      [&] {
        a = x.load(load);
        y.store(1, store);
      },
      [&] {
        b = y.load(load);
        x.store(1, store);
      });
  return {a, b};
}

}  // namespace

TEST_CASE("message passing loses the message only when one side is relaxed") {
  const Outcome stale{1, 0};
  CHECK(outcomes([](Model& m) { return message_passing(m, kRel, kAcq); }).count(stale) == 0);
  CHECK(outcomes([](Model& m) { return message_passing(m, kRlx, kAcq); }).count(stale) == 1);
  CHECK(outcomes([](Model& m) { return message_passing(m, kRel, kRlx); }).count(stale) == 1);
  CHECK(outcomes([](Model& m) { return message_passing(m, kRlx, kRlx); }, Model::Memory::kInterleaving).count(stale) ==
        0);
}

TEST_CASE("two threads that store and then look both miss each other unless all four are seq_cst") {
  const Outcome both_miss{0, 0};
  CHECK(outcomes([](Model& m) { return store_buffering(m, kRel, kAcq); }).count(both_miss) == 1);
  CHECK(outcomes([](Model& m) { return store_buffering(m, kSc, kAcq); }).count(both_miss) == 1);
  CHECK(outcomes([](Model& m) { return store_buffering(m, kRel, kSc); }).count(both_miss) == 1);
  CHECK(outcomes([](Model& m) { return store_buffering(m, kSc, kSc); }).count(both_miss) == 0);
}

TEST_CASE("a relaxed load may move below a store, an acquire may not") {
  const Outcome both_ahead{1, 1};
  CHECK(outcomes([](Model& m) { return load_buffering(m, kRlx, kRlx); }).count(both_ahead) == 1);
  CHECK(outcomes([](Model& m) { return load_buffering(m, kAcq, kRlx); }).count(both_ahead) == 0);
  // One release suffices to order its thread's load before whoever acquires; relaxed loads do not acquire.
  CHECK(outcomes([](Model& m) { return load_buffering(m, kAcq, kRel); }).count(both_ahead) == 0);
}

TEST_CASE("two locations written in opposite orders both keep the first store, unless release and acquire order them") {
  const auto last_values = [](std::memory_order order) {
    return outcomes([=](Model& model) {
      ModelAtomic<int> x{0};
      ModelAtomic<int> y{0};
      model.run(
          [&] {
            x.store(1, kRlx);
            y.store(2, order);
          },
          [&] {
            y.store(1, kRlx);
            x.store(2, order);
          });
      return Outcome{x.load(kRlx), y.load(kRlx)};
    });
  };
  CHECK(last_values(kRlx).count({1, 1}) == 1);
  CHECK(last_values(kRel).count({1, 1}) == 1);  // nobody acquires
  CHECK(last_values(kSc).count({1, 1}) == 1);   // x and y of the first stores are not in the total order
  const auto handed_over = outcomes([](Model& model) {
    ModelAtomic<int> x{0};
    ModelAtomic<int> flag{0};
    int told = 0;
    model.run(
        [&] {
          x.store(1, kRlx);
          flag.store(1, kRel);
        },
        [&] {
          told = flag.load(kAcq);
          x.store(2, kRlx);
        });
    return Outcome{told, x.load(kRlx)};
  });
  CHECK(handed_over == std::set<Outcome>{{0, 1}, {0, 2}, {1, 2}});
}

TEST_CASE("no value comes from thin air") {
  const auto seen = outcomes([](Model& model) {
    ModelAtomic<int> x{0};
    ModelAtomic<int> y{0};
    int a = 0;
    int b = 0;
    model.run(
        [&] {
          a = x.load(kRlx);
          y.store(a, kRlx);
        },
        [&] {
          b = y.load(kRlx);
          x.store(b, kRlx);
        });
    return Outcome{a, b};
  });
  CHECK(seen == std::set<Outcome>{{0, 0}});
}

TEST_CASE("one location never runs backwards for a reader, not even a relaxed one") {
  const auto seen = outcomes([](Model& model) {
    ModelAtomic<int> x{0};
    int a = 0;
    int b = 0;
    model.run(
        [&] {
          x.store(1, kRlx);
          x.store(2, kRlx);
        },
        [&] {
          a = x.load(kRlx);
          b = x.load(kRlx);
        });
    return Outcome{a, b};
  });
  CHECK(seen == std::set<Outcome>{{0, 0}, {0, 1}, {0, 2}, {1, 1}, {1, 2}, {2, 2}});
}

TEST_CASE("read-modify-writes lose no update, and continue a release sequence even when relaxed") {
  const auto sums = outcomes([](Model& model) {
    ModelAtomic<int> x{0};
    const auto add = [&] { x.fetch_add(1, kRlx); };
    model.run(add, add, add);
    return Outcome{x.load(kRlx)};
  });
  CHECK(sums == std::set<Outcome>{{3}});

  const auto through = [](bool is_exchanged) {
    return outcomes([=](Model& model) {
      ModelAtomic<int> data{0};
      ModelAtomic<int> flag{0};
      int told = 0;
      int read = 0;
      model.run(
          [&] {
            data.store(1, kRlx);
            flag.store(1, kRel);
          },
          [&] {
            if (flag.load(kRlx) != 1) return;
            if (is_exchanged) {
              flag.fetch_add(1, kRlx);
            } else {
              flag.store(2, kRlx);
            }
          },
          [&] {
            told = flag.load(kAcq);
            read = data.load(kRlx);
          });
      return Outcome{told, read};
    });
  };
  CHECK(through(true).count({2, 0}) == 0);
  CHECK(through(false).count({2, 0}) == 1);  // a plain store ends the sequence
}

TEST_CASE("readers of two independent writers agree on their order only when all are seq_cst") {
  const auto run = [](std::memory_order store, std::memory_order load) {
    return outcomes([=](Model& model) {
      ModelAtomic<int> x{0};
      ModelAtomic<int> y{0};
      Outcome out(4, 0);
      model.run([&] { x.store(1, store); }, [&] { y.store(1, store); },
                [&] {
                  out[0] = x.load(load);
                  out[1] = y.load(load);
                },
                [&] {
                  out[2] = y.load(load);
                  out[3] = x.load(load);
                });
      return out;
    });
  };
  const Outcome disagree{1, 0, 1, 0};
  CHECK(run(kRel, kAcq).count(disagree) == 1);
  CHECK(run(kSc, kSc).count(disagree) == 0);
}

TEST_CASE("seq_cst operations on different locations do not synchronise through their order") {
  const auto seen = outcomes([](Model& model) {
    ModelAtomic<int> data{0};
    ModelAtomic<int> x{0};
    ModelAtomic<int> y{0};
    int is_late = 0;
    int read = 0;
    model.run(
        [&] {
          data.store(1, kRlx);
          (void)y.load(kSc);
          x.store(1, kRlx);
        },
        [&] {
          is_late = x.load(kRlx);
          (void)y.load(kSc);
          read = data.load(kRlx);
        });
    return Outcome{is_late, read};
  });
  CHECK(seen.count({1, 0}) == 1);
}

TEST_CASE("a thread that waits for ever is reported, and a weak exchange fails now and then") {
  const Exploration stuck = explore(
      [](Model& model) {
        ModelAtomic<int> flag{0};
        model.run([&] {
          while (flag.load(kAcq) == 0) {
          }
        });
        return std::string();
      },
      1);
  REQUIRE(stuck.failure);
  CHECK(stuck.failure->what.find("waits for another for ever") != std::string::npos);

  const auto seen = outcomes([](Model& model) {
    ModelAtomic<int> x{0};
    bool weak = false;
    bool strong = false;
    model.run([&] {
      int expected = 0;
      weak = x.compare_exchange_weak(expected, 1, kRlx, kRlx);
      expected = weak ? 1 : 0;
      strong = x.compare_exchange_strong(expected, 2, kRlx, kRlx);
    });
    return Outcome{weak, strong};
  });
  CHECK(seen == std::set<Outcome>{{0, 1}, {1, 1}});
}

TEST_CASE("a seed names a schedule: the same steps each time") {
  const Scenario scenario = [](Model& model) {
    ModelAtomic<int> x{0};
    const auto add = [&] {
      for (int i = 0; i < 5; ++i) x.store(x.load(kRlx) + 1, kRlx);
    };
    model.run(add, add, add);
    return x.load(kRlx) == 15 ? std::string() : "lost an update";
  };
  const Exploration found = explore(scenario, 1000);
  REQUIRE(found.failure);
  Model model;
  const std::string first = trace_of(model, scenario, found.failure->seed, Model::Memory::kBySeed);
  CHECK(first == found.failure->trace);
  CHECK(explore(scenario, 1, found.failure->seed).failure);
}

TEST_CASE("the model takes a million steps in a second" * doctest::skip(kSanitized)) {
  const auto from = std::chrono::steady_clock::now();
  const Exploration result = explore(
      [](Model& model) {
        std::vector<ModelAtomic<int>> cells(8);
        const auto work = [&] {
          for (std::size_t i = 0; i < 24; ++i) cells[i % 8].store(cells[(i * 5) % 8].load(kAcq) + 1, kRel);
        };
        model.run(work, work, work);
        return std::string();
      },
      5'000, 1);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count();
  const double rate = static_cast<double>(result.steps) / seconds;
  MESSAGE("M steps/s: " << rate / 1e6);
  CHECK(rate > 1e6);
}
