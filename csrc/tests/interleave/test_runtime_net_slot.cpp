// The slot for a loop's net under every order of its threads' steps, and with each of its memory orders weakened.

#include <doctest/doctest.h>

#include <memory>
#include <string>

#include "interleave/explore.hpp"
#include "interleave/freeze.hpp"
#include "interleave/model_atomic.hpp"
#include "interleave/mutation.hpp"
#include "runtime/net_slot.hpp"

using namespace zeta::interleave;

namespace {

/// Tells whether what its maker and its users wrote has arrived where it is used and where it ends.
struct Net {
  Net(std::string& said_wrong, int& living) : wrong{said_wrong}, alive{living} {
    ++alive;
    made.store(7, std::memory_order_relaxed);
  }
  ~Net() {
    --alive;
    if (made.load(std::memory_order_relaxed) != 7) wrong = "ended by a thread that does not see it made";
    if (uses.load(std::memory_order_relaxed) != seen_uses) wrong = "ended by a thread that does not see its uses";
  }
  void use() {
    if (made.load(std::memory_order_relaxed) != 7) wrong = "used before it was seen made";
    uses.store(++seen_uses, std::memory_order_relaxed);
  }
  std::string& wrong;
  int& alive;
  ModelAtomic<int> made;
  ModelAtomic<int> uses;
  int seen_uses = 0;  // the truth, outside the model
};

using Slot = zeta::runtime::NetSlot<Net, ModelAtomic>;

std::string offered_taken_and_collected(Model& model) {
  std::string wrong;
  int alive = 0;
  {
    Slot slot;
    std::uint64_t last = 0;
    const bool is_done = model.run(
        [&] {
          (void)slot.offer(std::make_unique<Net>(wrong, alive));
          (void)slot.offer(std::make_unique<Net>(wrong, alive));
        },
        [&] {
          for (int tick = 0; tick < 3; ++tick) {
            auto* const version = slot.take();
            if (version == nullptr) continue;
            if (version->number < last) wrong = "an older version came back";
            last = version->number;
            version->net->use();
            version->net->use();
          }
        },
        [&] {
          slot.collect();
          slot.collect();
        });
    if (!is_done) return "";
  }
  if (alive != 0) wrong = std::to_string(alive) + " nets were not destroyed once";
  return wrong;
}

std::string offered_by_two(Model& model) {
  std::string wrong;
  int alive = 0;
  {
    Slot slot;
    std::uint64_t given_back = 0;
    std::uint64_t taken = 0;
    const auto offer = [&] { given_back += slot.offer(std::make_unique<Net>(wrong, alive)) != nullptr ? 1U : 0U; };
    const bool is_done = model.run(offer, offer, [&] {
      for (int tick = 0; tick < 2; ++tick) {
        auto* const version = slot.take();
        if (version == nullptr) continue;
        taken = version->number;
        version->net->use();
      }
    });
    if (!is_done) return "";
    if (given_back + taken > 2) wrong = "a net was given twice";
  }
  if (alive != 0) wrong = std::to_string(alive) + " nets were not destroyed once";
  return wrong;
}

const Suite& suite() {
  static const Suite suite{.files = {"runtime/net_slot.hpp"},
                           .scenarios = {{"nets are offered, taken, put aside, collected", offered_taken_and_collected},
                                         {"two threads offer at once", offered_by_two}},
                           .argued = {}};
  return suite;
}

}  // namespace

TEST_CASE("whatever threads offer, take and collect at a slot, each net is whole in use and destroyed once") {
  for (const NamedScenario& named : suite().scenarios) expect_right(named);
}

TEST_CASE("every memory order of the slot for a net is needed" * doctest::skip(kSanitized)) {
  expect_killed(suite(), 100'000, true);
}
