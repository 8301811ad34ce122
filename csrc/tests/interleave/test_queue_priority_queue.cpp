// PriorityQueue under many orders of its threads' steps, with a thread stopped at each step, and with each of its
// memory orders weakened.

#include <doctest/doctest.h>

#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "interleave/explore.hpp"
#include "interleave/freeze.hpp"
#include "interleave/model_atomic.hpp"
#include "interleave/mutation.hpp"
#include "interleave/queue_driver.hpp"
#include "interleave/reused.hpp"
#include "zeta/queue/priority_queue.hpp"

using namespace zeta::interleave;
using zeta::queue::Entry;
using zeta::queue::Item;
using zeta::queue::Key;
using zeta::queue::Ticket;

namespace {

template <unsigned kSerialBits>
struct PriorityCalls {
  using Queue = zeta::queue::PriorityQueue<ModelAtomic, 4, kSerialBits>;
  static Ticket push(Queue& queue, Key key, Item item, std::size_t lane) { return queue.push(key, item, lane); }
  static std::optional<Entry> pop(Queue& queue, std::size_t lane) { return queue.pop(lane); }
  static bool cancel(Queue& queue, Ticket ticket, std::size_t lane) { return queue.cancel(ticket, lane); }
  static bool update(Queue& queue, Ticket ticket, Key key, std::size_t /*lane*/) { return queue.update(ticket, key); }
  static void settle(Queue& queue, std::size_t lane) { (void)queue.peek_key(lane); }
  static std::size_t push_many(Queue& queue, std::span<const Key> keys, std::span<const Item> items,
                               std::span<Ticket> tickets, std::size_t lane) {
    return queue.push_many(keys, items, tickets, lane);
  }
  static std::size_t pop_many(Queue& queue, std::span<Key> keys, std::span<Item> items, std::size_t lane) {
    return queue.pop_many(keys, items, lane);
  }
};
using Calls = PriorityCalls<64>;
using Queue = Calls::Queue;
using D = Driver<Calls>;

constexpr Rules kRules{.is_fifo_per_producer = true, .capacity = 8};
constexpr std::array<Key, 4> kKeys{10, 20, 20, 30};

Queue& empty_queue(Model& model) {
  static Reused<Queue> reused;
  return reused.fresh(model, [](Queue&) {}, std::size_t{8});
}

/// Two places: pushes are refused, and slots change hands at once.
std::string full_queue(Model& model) {
  static Reused<Queue> reused;
  Rules rules = kRules;
  rules.capacity = 2;
  D d{model, reused.fresh(model, [](Queue&) {}, std::size_t{2}), rules};
  d.push(1, 10);
  model.run(
      [&] {
        d.push(2, 20);
        d.pop();
        d.push(3, 30);
      },
      [&] {
        d.push(4, 5);
        d.cancel(1);
        d.push(5, 5);
      },
      [&] { d.push(6, 15); });
  return d.finish();
}

/// The next look at the lanes forgets those that were idle: a push must not be forgotten with its lane.
std::string idle_lane(Model& model) {
  static Reused<Queue> reused;
  D d{model,
      reused.fresh(
          model,
          [](Queue& queue) {
            for (const std::size_t lane : {0U, 1U, 2U}) (void)queue.push(1, 1, lane);
            while (queue.pop(3)) {
            }
            // Every lane's bit is set and its use of the last round forgotten; two looks are left of this round.
            for (int looks = 4; looks < 2 * 4096 - 2; ++looks) (void)queue.pop(3);
            for (const std::size_t lane : {0U, 1U, 2U}) (void)queue.push(1, 1, lane);
            for (int looks = 0; looks < 4096; ++looks) (void)queue.pop(3);
          },
          std::size_t{8}),
      kRules};
  model.run([&] { d.push(1, 10); },
            [&] {
              d.pop();
              d.pop();
            },
            [&] {
              d.push(2, 5);
              d.pop();
            });
  return d.finish();
}

/// The heap holds as many stale entries as it can: the next entry drops them.
std::string full_of_stale_entries(Model& model) {
  static Reused<Queue> reused;
  D d{model,
      reused.fresh(
          model,
          [](Queue& queue) {
            const Ticket ticket = queue.push(1000, 1, 3);
            for (Key key = 999; key > 999 - 66; --key) {
              (void)queue.peek_key(3);
              (void)queue.update(ticket, key);
            }
            (void)queue.cancel(ticket, 3);
          },
          std::size_t{2}),
      Rules{.is_fifo_per_producer = true}};
  d.push(1, 10);
  d.push(2, 20);
  model.run(
      [&] {
        d.update(1, 5);
        d.pop();
      },
      [&] {
        d.update(2, 4);
        d.pop();
      },
      [&] { d.cancel(1); });
  return d.finish();
}

/// Serials run out after eight: entries are renumbered beside cancels and updates.
std::string serials_run_out(Model& model) {
  using FewSerials = PriorityCalls<3>;
  static Reused<FewSerials::Queue> reused;
  Driver<FewSerials> d{model,
                       reused.fresh(
                           model,
                           [](FewSerials::Queue& queue) {
                             for (int i = 0; i < 4; ++i) {
                               (void)queue.push(1, 1, 3);
                               (void)queue.pop(3);
                             }
                           },
                           std::size_t{4}),
                       Rules{.is_fifo_per_producer = true}};
  d.push(1, 10);
  d.push(2, 10);
  model.run(
      [&] {
        d.pop();
        d.push(3, 10);
        d.pop();
      },
      [&] {
        d.update(2, 5);
        d.cancel(1);
      },
      [&] { d.push(4, 10); });
  return d.finish();
}

/// A lane gives slots to the set that all share, because its own boxes are full, and others claim them there.
std::string full_boxes(Model& model) {
  constexpr std::size_t kBoxes = 30;
  static Reused<Queue> reused;
  D d{model,
      reused.fresh(
          model,
          [](Queue& queue) {
            for (std::size_t i = 0; i < kBoxes + 1; ++i) (void)queue.push(i, i, 3);
            for (std::size_t i = 0; i < kBoxes + 1; ++i) (void)queue.pop(0);
            (void)queue.push(1, 1, 1);  // takes the one that found no box
            (void)queue.pop(0);
          },
          kBoxes + 1),
      Rules{.is_fifo_per_producer = true}};
  d.push(1, 10);
  model.run([&] { d.pop(); },
            [&] {
              d.push(2, 5);
              d.push(3, 20);
            },
            [&] { d.push(4, 15); });
  return d.finish();
}

/// A lane that more threads share than there are lanes.
std::string shared_lane(Model& model) {
  D d{model, empty_queue(model), Rules{.capacity = 8}};
  constexpr std::size_t kShared = Queue::kLanes - 1;
  const auto push = [&](Item item, Key key) {
    d.history().push(item, key, [&] { return d.queue().push(key, item, kShared); });
  };
  const auto pop = [&] { d.history().pop([&] { return d.queue().pop(kShared); }); };
  model.run([&] { push(1, 10); }, [&] { push(2, 5); },
            [&] {
              push(3, 20);
              pop();
            });
  return d.history().wrong();
}

constexpr const char* kLanesBit = "docs/memory_model.md, argued equivalents: E29 orders the head behind the bit";

constexpr const char* kNewest = "docs/memory_model.md, beyond the model: a read-modify-write reads the newest store";

Suite make_suite() {
  Suite suite{.files = {"queue/priority_queue.hpp", "queue/inbox.hpp", "queue/slot_pool.hpp", "queue/slot_set.hpp",
                        "queue/entry_heap.hpp", "sync/try_lock.hpp"},
              .scenarios = queue_scenarios<Calls>(empty_queue, kRules),
              .argued = {{"Inbox::post fetch E30 -release", kLanesBit},
                         {"Inbox::empty load E30 -acquire", kLanesBit},
                         {"SlotSet::has_any load E35 -acquire",
                          "docs/memory_model.md, argued equivalents: the exchange that follows acquires"},
                         {"SlotSet::add fetch E34 -release", kNewest},
                         {"SlotSet::empty exchange E34 -acquire", kNewest},
                         {"SlotSet::empty exchange E35 -acquire", kNewest}}};
  suite.scenarios.push_back({"two places", full_queue});
  suite.scenarios.push_back({"an idle lane", idle_lane});
  suite.scenarios.push_back({"a heap full of stale entries", full_of_stale_entries});
  suite.scenarios.push_back({"serials run out", serials_run_out});
  suite.scenarios.push_back({"full boxes", full_boxes});
  suite.scenarios.push_back({"a shared lane", shared_lane});
  suite.scenarios.push_back({"three threads at random", [](Model& model) {
                               return random_program<Calls>(model, empty_queue(model), kRules, kKeys, 2, 3);
                             }});
  suite.scenarios.push_back({"three threads at random on an empty queue", [](Model& model) {
                               return random_program<Calls>(model, empty_queue(model), kRules, kKeys, 0, 3);
                             }});
  return suite;
}

const Suite& suite() {
  static const Suite suite = make_suite();
  return suite;
}

}  // namespace

TEST_CASE("whatever three threads do to a priority queue, a strict one could have answered the same") {
  for (const NamedScenario& named : suite().scenarios) {
    CAPTURE(named.name);
    expect_right(named);
  }
}

TEST_CASE("a subject that is built once behaves as one that is built anew") {
  Model model;
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    const auto with = [&](Queue& queue) { return random_program<Calls>(model, queue, kRules, kKeys, 2, 3); };
    model.begin(seed, Model::Memory::kWeak);
    CHECK(with(empty_queue(model)).empty());
    const std::uint64_t steps = model.steps();
    model.begin(seed, Model::Memory::kWeak);
    const auto anew = std::make_unique<Queue>(8);
    CHECK(with(*anew).empty());
    CHECK(model.steps() == steps);
  }
}

TEST_CASE("a thread stopped while it pushes, cancels or updates stops nobody and hides no other push") {
  const auto beside = [](auto frozen) { return beside_others<Calls>(empty_queue, kRules, frozen); };
  expect_unstoppable({"push", beside([](D& d) { d.push(5, 1); })});
  expect_unstoppable({"push_many", beside([](D& d) { d.push_many<2>({5, 6}, {1, 40}); })});
  expect_unstoppable({"cancel", beside([](D& d) { d.cancel(1); })});
  expect_unstoppable({"update", beside([](D& d) { d.update(1, 30); })});
}

TEST_CASE("a thread stopped while it pops stops no push, cancel or update") {
  expect_unstoppable({"pop", [](Model& model) {
                        D d{model, empty_queue(model), Rules{}};
                        d.push(1, 10);
                        d.push(2, 20);
                        const bool is_done = model.run([&] { d.pop(); },
                                                       [&] {
                                                         d.push(3, 15);
                                                         d.cancel(3);
                                                       },
                                                       [&] {
                                                         d.update(2, 5);
                                                         d.cancel(1);
                                                       });
                        return is_done ? d.history().wrong() : "";
                      }});
}

TEST_CASE("every memory order of the priority queue is needed" * doctest::skip(kSanitized)) {
  expect_killed(suite(), 2'000);
}
