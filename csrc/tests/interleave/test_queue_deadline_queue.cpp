// DeadlineQueue under many orders of its threads' steps, with a thread stopped at each step, and with each of its
// memory orders weakened.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdint>
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
#include "zeta/queue/deadline_queue.hpp"

using namespace zeta::interleave;
using zeta::queue::Entry;
using zeta::queue::Item;
using zeta::queue::Key;
using zeta::queue::Ticket;

namespace {

constexpr Key kQuantum = 10;
constexpr Key kChunk = 8 * kQuantum;  // with fan_bits 1
constexpr Key kHorizon = 2 * kChunk;

/// Eight buckets a chunk and few of everything, so that every edge is near. `kDeferred` far pushes of each thread wait
/// to be linked; none if it is 0.
template <std::size_t kExtraSpares, unsigned kDeferred = 0>
struct TinyShape : zeta::queue::CalendarShape {
  static constexpr unsigned fan_bits = 1;
  static constexpr unsigned fewest_chunks = 2;
  static constexpr unsigned most_chunks = 4;
  static constexpr unsigned lanes = kDeferred == 0 ? 2 : 6;  // one for each thread, for main, and for others
  static constexpr unsigned deferred = std::max(kDeferred, 1U);
  static constexpr std::size_t least_to_defer = kDeferred == 0 ? ~std::size_t{0} : 1;
  static constexpr unsigned generation_bits = 4;
  static constexpr std::size_t extra_spares = kExtraSpares;
};

template <std::size_t kExtraSpares, unsigned kDeferred = 0>
struct DeadlineCalls {
  using Queue = zeta::queue::DeadlineQueue<ModelAtomic, TinyShape<kExtraSpares, kDeferred>>;
  static inline Key now = 0;
  static inline bool is_feasible_first = false;
  static constexpr std::size_t kLastLane = 5;
  static std::uint32_t lane_of(std::size_t lane) { return static_cast<std::uint32_t>(lane); }
  static Ticket push(Queue& queue, Key key, Item item, std::size_t lane) {
    return queue.push(key, item, now, lane_of(lane));
  }
  static std::optional<Entry> pop(Queue& queue, std::size_t lane) {
    return queue.pop(now, is_feasible_first, lane_of(lane));
  }
  static bool cancel(Queue& queue, Ticket ticket, std::size_t lane) { return queue.cancel(ticket, lane_of(lane)); }
  static bool update(Queue& queue, Ticket ticket, Key key, std::size_t lane) {
    return queue.update(ticket, key, now, lane_of(lane));
  }
  static void settle(Queue& /*queue*/, std::size_t /*lane*/) {}
  static std::size_t push_many(Queue& queue, std::span<const Key> keys, std::span<const Item> items,
                               std::span<Ticket> tickets, std::size_t lane) {
    return queue.push_many(keys, items, tickets, now, lane_of(lane));
  }
  static std::size_t pop_many(Queue& queue, std::span<Key> keys, std::span<Item> items, std::size_t lane) {
    return queue.pop_many(keys, items, now, is_feasible_first, lane_of(lane));
  }
};
using Calls = DeadlineCalls<4>;
using Queue = Calls::Queue;
using D = Driver<Calls>;

constexpr Rules kRules{.quantum = kQuantum,
                       .may_batch_be_unordered = true,
                       .may_miss_moving = true,
                       .may_refused_update_show = true,
                       .capacity = 8};
constexpr std::array<Key, 4> kKeys{10, 20, 25, 30};

Queue& empty_queue(Model& model) {
  static Reused<Queue> reused;
  Calls::now = 0;
  return reused.fresh(model, [](Queue&) {}, std::size_t{8}, kQuantum, kHorizon);
}

/// The window begins at this key when `now` is it: the chunk before.
constexpr Key window_at(Key now) { return (now / kChunk - 1) * kChunk; }

/// An empty queue whose window is where `kNow` puts it.
constexpr Key kNow = 1000;
Queue& late_queue(Model& model) {
  static Reused<Queue> reused;
  Calls::now = kNow;
  return reused.fresh(
      model,
      [](Queue& queue) {
        (void)queue.push(kNow + 500, 1, kNow, 0);
        while (queue.pop(kNow, false, 0)) {
        }
      },
      std::size_t{8}, kQuantum, kHorizon);
}

std::string full_queue(Model& model) {
  static Reused<Queue> reused;
  Calls::now = 0;
  Rules rules = kRules;
  rules.capacity = 2;
  D d{model, reused.fresh(model, [](Queue&) {}, std::size_t{2}, kQuantum, kHorizon), rules};
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

/// Time goes on while one thread still pushes by the old window.
std::string window_moves_past_a_pusher(Model& model) {
  D d{model, empty_queue(model), Rules{}};
  Rules rules = kRules;
  rules.overdue_below = window_at(500);
  D later{model, d.queue(), rules};
  model.run([&] { later.push(1, 5); },
            [&] {
              Calls::now = 500;
              later.pop();
            },
            [&] {
              Calls::now = 500;
              later.push(2, 500);
              later.pop();
            });
  return later.finish();
}

/// Two takers bring in what stood beyond the horizon, while others push beside and beyond it.
std::string beyond_the_horizon(Model& model) {
  Rules rules = kRules;
  rules.overdue_below = window_at(950);
  D d{model, empty_queue(model), rules};
  d.push(1, 1000);
  d.push(2, 960);
  d.push(3, 3000);
  model.run(
      [&] {
        Calls::now = 950;
        d.pop();
      },
      [&] {
        Calls::now = 950;
        d.pop();
      },
      [&] {
        d.push(4, 980);
        d.cancel(2);
      });
  Calls::now = 950;
  return d.finish();
}

/// Before the horizon, beyond it, and from one to the other.
std::string across_the_horizon(Model& model) {
  D d{model, empty_queue(model), kRules};
  d.push(1, 1000);
  d.push(2, 10);
  model.run([&] { d.update(1, 5); }, [&] { d.update(2, 2000); },
            [&] {
              d.pop();
              d.pop();
            });
  return d.finish();
}

/// Items that were overdue by more than a chunk when pushed: first in, first out, and before all others.
std::string overdue_in_turn(Model& model) {
  Rules rules = kRules;
  rules.overdue_below = window_at(kNow);
  rules.is_overdue_fifo = true;
  D d{model, late_queue(model), rules};
  d.push(1, 500);
  model.run(
      [&] {
        d.push(2, 50);
        d.push(3, 20);
      },
      [&] {
        d.pop();
        d.pop();
      },
      [&] {
        d.push(4, kNow);
        d.cancel(1);
      });
  return d.finish();
}

std::string feasible_first(Model& model) {
  D d{model, empty_queue(model), kRules};
  Calls::now = 30;
  const auto pop = [&] {
    d.history().pop_from(30,
                         [&] { return d.queue().pop(30, true, static_cast<std::uint32_t>(model.current_thread())); });
  };
  d.push(1, 20);
  d.push(2, 40);
  model.run([&] { pop(); }, [&] { d.push(3, 35); },
            [&] {
              d.push(4, 10);
              pop();
            });
  return d.finish();
}

/// A place in the ring aside is found, and what it names has another life when it is looked at.
std::string another_life_aside(Model& model) {
  Rules rules = kRules;
  rules.overdue_below = window_at(950);
  D d{model, empty_queue(model), rules};
  d.push(1, 1000);
  Calls::now = 950;
  model.run([&] { d.pop(); },
            [&] {
              d.cancel(1);
              d.pop();
              d.push(2, 960);
            });
  return d.finish();
}

/// An update within the ring aside is seen half done by who brings in what stands there.
std::string half_moved_aside(Model& model) {
  Rules rules = kRules;
  rules.overdue_below = window_at(950);
  D d{model, empty_queue(model), rules};
  d.push(1, 1000);
  d.push(2, 1005);
  model.run([&] { d.update(1, 1010); },
            [&] {
              Calls::now = 950;
              d.pop();
            },
            [&] { d.update(2, 1015); });
  Calls::now = 950;
  return d.finish();
}

/// So long have items come and gone aside, behind one that stays, that the next to come moves that one to the end.
std::string long_ring_aside(Model& model) {
  using Few = DeadlineCalls<1>;
  static Reused<Few::Queue> reused;
  Few::now = 0;
  Rules rules = kRules;
  rules.capacity = 0;
  Driver<Few> d{model, reused.fresh(model, [](Few::Queue&) {}, std::size_t{3}, kQuantum, kHorizon), rules};
  d.push(1, 3000);
  for (int i = 0; i < 16; ++i) (void)d.queue().cancel(d.queue().push(3000, 9, 0, 1), 1);
  model.run([&] { d.push(2, 3100); },
            [&] {
              d.cancel(1);
              d.push(3, 3200);
              d.push(4, 3300);
            });
  return d.finish();
}

/// One looks for the earliest of what stands aside while another brings some of that in.
std::string overtaken_aside(Model& model) {
  Rules rules = kRules;
  rules.overdue_below = window_at(950);
  D d{model, empty_queue(model), rules};
  d.push(1, 1000);
  d.push(2, 960);
  d.push(3, 3000);
  model.run([&] { d.history().pop([&] { return d.queue().pop(0, false, 0); }); },
            [&] {
              Calls::now = 950;
              d.pop();
            });
  Calls::now = 950;
  return d.finish();
}

/// A ticket may reach another thread by no more than a relaxed store; the item moves to where nobody has been.
std::string ticket_by_hearsay(Model& model) {
  D d{model, empty_queue(model), kRules};
  ModelAtomic<Ticket> heard{0};
  model.run([&] { heard.store(d.push(1, 170), std::memory_order_relaxed); },
            [&] {
              const Ticket ticket = heard.load(std::memory_order_relaxed);
              if (ticket == 0) return;
              d.update(1, ticket, 10);
              d.pop();
            });
  return d.finish();
}

/// An item's own cell has been left, and whoever ends the item gives that cell back.
std::string own_cell_given_back(Model& model, bool by_cancel) {
  D d{model, empty_queue(model), kRules};
  d.push(2, 35);
  d.push(1, 30);
  model.run([&] { d.update(1, 10); },
            [&] {
              if (by_cancel) {
                d.cancel(1);
              } else {
                d.pop();
              }
              d.push(3, 50);
            });
  return d.finish();
}

/// An item moves from behind a search to before it: it is not taken for gone.
std::string behind_a_search(Model& model, Key from, Key to) {
  D d{model, empty_queue(model), kRules};
  d.push(1, from);
  model.run([&] { d.update(1, to); }, [&] { d.pop(); });
  return d.finish();
}

/// It does so twice, once for each search that would have to find nothing.
std::string behind_two_searches(Model& model) {
  D d{model, empty_queue(model), kRules};
  d.push(1, 170);
  model.run(
      [&] {
        d.update(1, 10);
        d.update(1, 170);
        d.update(1, 10);
      },
      [&] { d.pop(); });
  return d.finish();
}

/// Spare nodes run out, so that an update has to sweep what others left behind.
std::string spares_run_out(Model& model) {
  using Few = DeadlineCalls<1>;
  static Reused<Few::Queue> reused;
  Few::now = 0;
  Rules rules = kRules;
  rules.capacity = 0;
  Driver<Few> d{model,
                reused.fresh(
                    model,
                    [](Few::Queue& queue) {
                      const Ticket ticket = queue.push(70, 1, 0, 0);
                      for (const Key key : {60U, 50U, 40U}) (void)queue.update(ticket, key, 0, 0);
                      (void)queue.cancel(ticket, 0);
                    },
                    std::size_t{2}, kQuantum, kHorizon),
                rules};
  d.push(1, 30);
  d.push(2, 20);
  model.run(
      [&] {
        d.update(1, 10);
        d.update(1, 40);
      },
      [&] { d.update(2, 50); }, [&] { d.pop(); });
  return d.finish();
}

/// Three threads at random while time goes on, over keys on both sides of the window.
std::string random_in_moving_time(Model& model) {
  constexpr std::array<Key, 6> kSpread{10, 90, 170, 250, 400, 1000};
  Rules rules = kRules;
  rules.overdue_below = window_at(400);
  Queue& queue = empty_queue(model);
  Calls::now = (model.seed() % 3) * 200;
  return random_program<Calls>(model, queue, rules, kSpread, 2, 3);
}

// --- what is not linked yet ------------------------------------------------------------------------------------------

using Deferring = DeadlineCalls<4, 2>;
using DD = Driver<Deferring>;

Deferring::Queue& deferring_queue(Model& model) {
  static Reused<Deferring::Queue> reused;
  Deferring::now = 0;
  return reused.fresh(model, [](Deferring::Queue&) {}, std::size_t{8}, kQuantum, kHorizon);
}

/// Each push puts another link off, and carries out an earlier one, while the reach comes nearer.
std::string links_put_off(Model& model) {
  DD d{model, deferring_queue(model), kRules};
  d.push(1, 10);
  model.run(
      [&] {
        d.push(2, 60);
        d.push(3, 50);
        d.push(4, 40);
      },
      [&] {
        d.pop();
        d.pop();
      },
      [&] {
        d.push(5, 30);
        d.pop();
      });
  return d.finish();
}

/// What is not linked yet is cancelled or gets another key, and its place is used again.
std::string changed_before_its_link(Model& model) {
  DD d{model, deferring_queue(model), kRules};
  d.push(1, 50);
  model.run(
      [&] {
        d.push(2, 60);
        d.push(3, 70);
        d.push(4, 80);
        d.push(5, 90);
      },
      [&] {
        d.cancel(1);
        d.pop();
      },
      [&] {
        d.update(1, 20);
        d.pop();
        d.push(6, 55);
      });
  return d.finish();
}

/// Time goes on past what is not linked yet.
std::string window_moves_past_the_unlinked(Model& model) {
  Rules rules = kRules;
  rules.overdue_below = window_at(500);
  DD d{model, deferring_queue(model), rules};
  d.push(1, 150);
  model.run(
      [&] {
        d.push(2, 90);
        d.push(3, 95);
        d.push(4, 100);
      },
      [&] {
        Deferring::now = 500;
        d.pop();
        d.push(5, 520);
        d.pop();
      },
      [&] {
        Deferring::now = 500;
        d.pop();
      });
  return d.finish();
}

/// Who sees that an item moved from its lane to its bucket finds it there, wherever the search has begun.
std::string linked_behind_a_search(Model& model) {
  DD d{model, deferring_queue(model), kRules};
  model.run(
      [&] {
        d.push(1, 20);
        d.push(2, 90);
        d.push(3, 100);
      },
      [&] {
        d.push(4, 70);
        d.pop();
        d.pop();
      });
  return d.finish();
}

/// Looks for the first item, which brings in all that is not linked yet, and takes none.
void look(DD& d, const Model& model) {
  (void)d.queue().peek_key(0, false, static_cast<std::uint32_t>(model.current_thread()));
}

/// Whoever brings in an item, all see where it went: below a root that another item has shown for long.
std::string brought_in_by_another(Model& model) {
  DD d{model, deferring_queue(model), kRules};
  d.push(2, 70, Deferring::kLastLane);
  model.run([&] { look(d, model); }, [&] { look(d, model); },
            [&] {
              d.push(1, 50);
              d.pop();
            });
  return d.finish();
}

/// Who links its own says so to who has heard of the push.
std::string linked_by_its_own(Model& model) {
  DD d{model, deferring_queue(model), kRules};
  ModelAtomic<int> told{0};
  d.push(2, 70, Deferring::kLastLane);
  model.run(
      [&] {
        d.push(1, 50);
        told.store(1, std::memory_order_release);
        look(d, model);
      },
      [&] {
        if (told.load(std::memory_order_acquire) == 1) d.pop();
      });
  return d.finish();
}

/// A place still names a cell that has been linked, taken and used again.
std::string another_life_unlinked(Model& model) {
  DD d{model, deferring_queue(model), kRules};
  d.push(1, 10, 0);
  d.push(2, 70, 0);
  model.run([&] { d.push(3, 80); },
            [&] {
              d.pop();
              d.push(4, 60);
            },
            [&] { look(d, model); });
  return d.finish();
}

std::string unlinked_feasible_first(Model& model) {
  DD d{model, deferring_queue(model), kRules};
  Deferring::now = 30;
  const auto pop = [&] {
    d.history().pop_from(30,
                         [&] { return d.queue().pop(30, true, static_cast<std::uint32_t>(model.current_thread())); });
  };
  d.push(1, 20);
  d.push(2, 40);
  model.run(
      [&] {
        pop();
        d.push(5, 45);
      },
      [&] { d.push(3, 35); },
      [&] {
        d.push(4, 10);
        pop();
      });
  return d.finish();
}

std::string unlinked_in_moving_time(Model& model) {
  constexpr std::array<Key, 6> kSpread{10, 90, 170, 250, 400, 1000};
  Rules rules = kRules;
  rules.overdue_below = window_at(400);
  Deferring::Queue& queue = deferring_queue(model);
  Deferring::now = (model.seed() % 3) * 200;
  return random_program<Deferring>(model, queue, rules, kSpread, 2, 4);
}

void add_deferring(std::vector<NamedScenario>& scenarios) {
  for (NamedScenario& named : queue_scenarios<Deferring>(deferring_queue, kRules)) {
    scenarios.push_back({"unlinked: " + named.name, named.scenario});
  }
  scenarios.push_back({"links put off", links_put_off});
  scenarios.push_back({"changed before its link", changed_before_its_link});
  scenarios.push_back({"the window moves past the unlinked", window_moves_past_the_unlinked});
  scenarios.push_back({"linked behind a search", linked_behind_a_search});
  scenarios.push_back({"brought in by another", brought_in_by_another});
  scenarios.push_back({"linked by its own", linked_by_its_own});
  scenarios.push_back({"another life unlinked", another_life_unlinked});
  scenarios.push_back({"unlinked, feasible first", unlinked_feasible_first});
  scenarios.push_back({"unlinked, three threads at random", [](Model& model) {
                         return random_program<Deferring>(model, deferring_queue(model), kRules, kKeys, 2, 3);
                       }});
  scenarios.push_back({"unlinked, at random in moving time", unlinked_in_moving_time});
}

Suite make_suite() {
  // Its parts have a suite of their own.
  Suite suite{
      .files = {"queue/deadline_queue.hpp", "queue/deadline_queue_finding.hpp", "queue/deadline_queue_nodes.hpp",
                "queue/deadline_queue_placing.hpp", "queue/deadline_queue_reach.hpp",
                "queue/deadline_queue_sweeping.hpp", "queue/deadline_queue_window.hpp", "queue/tally.hpp"},
      .scenarios = queue_scenarios<Calls>(empty_queue, kRules),
      .argued = {{"DeadlineQueue::find load E12 -acquire",
                  "docs/memory_model.md, beyond the model: three moves between two searches, foreseen by a load"}}};
  suite.scenarios.push_back({"two places", full_queue});
  suite.scenarios.push_back({"the window moves past a pusher", window_moves_past_a_pusher});
  suite.scenarios.push_back({"two takers and the items beyond the horizon", beyond_the_horizon});
  suite.scenarios.push_back({"updates across the horizon", across_the_horizon});
  suite.scenarios.push_back({"overdue items in turn", overdue_in_turn});
  suite.scenarios.push_back({"feasible first", feasible_first});
  suite.scenarios.push_back({"spares run out", spares_run_out});
  suite.scenarios.push_back({"another life aside", another_life_aside});
  suite.scenarios.push_back({"half moved aside", half_moved_aside});
  suite.scenarios.push_back({"a long ring aside", long_ring_aside});
  suite.scenarios.push_back({"overtaken aside", overtaken_aside});
  suite.scenarios.push_back({"a ticket by hearsay", ticket_by_hearsay});
  for (const bool by_cancel : {false, true}) {
    suite.scenarios.push_back({by_cancel ? "an own cell given back by a cancel" : "an own cell given back by a pop",
                               [=](Model& model) { return own_cell_given_back(model, by_cancel); }});
  }
  suite.scenarios.push_back({"behind two searches", behind_two_searches});
  suite.scenarios.push_back({"behind a search", [](Model& model) { return behind_a_search(model, 170, 10); }});
  suite.scenarios.push_back({"behind a search, out", [](Model& model) { return behind_a_search(model, 10, 1000); }});
  suite.scenarios.push_back({"behind a search, in", [](Model& model) { return behind_a_search(model, 1000, 10); }});
  suite.scenarios.push_back({"three threads at random", [](Model& model) {
                               return random_program<Calls>(model, empty_queue(model), kRules, kKeys, 2, 3);
                             }});
  suite.scenarios.push_back({"three threads at random in moving time", random_in_moving_time});
  add_deferring(suite.scenarios);
  return suite;
}

const Suite& suite() {
  static const Suite suite = make_suite();
  return suite;
}

}  // namespace

TEST_CASE("whatever three threads do to a deadline queue, a strict one could have answered the same") {
  for (const NamedScenario& named : suite().scenarios) expect_right(named);
}

TEST_CASE("a thread stopped anywhere in a deadline queue stops nobody and hides nothing but what it takes") {
  const auto beside = [](auto frozen) { return beside_others<Calls>(empty_queue, kRules, frozen); };
  expect_unstoppable({"push", beside([](D& d) { d.push(5, 1); })});
  expect_unstoppable({"push_many", beside([](D& d) { d.push_many<2>({5, 6}, {1, 40}); })});
  expect_unstoppable({"pop", beside([](D& d) { d.pop(); })});
  expect_unstoppable({"pop_many", beside([](D& d) { d.pop_many<2>(); })});
  expect_unstoppable({"cancel", beside([](D& d) { d.cancel(1); })});
  expect_unstoppable({"update", beside([](D& d) { d.update(1, 30); })});
  const auto beside_unlinked = [](auto frozen) { return beside_others<Deferring>(deferring_queue, kRules, frozen); };
  expect_unstoppable({"a push put off", beside_unlinked([](DD& d) {
                        d.push(5, 70);
                        d.push(6, 1);
                        d.push(7, 60);
                      })});
  expect_unstoppable({"a pop of what was put off", beside_unlinked([](DD& d) { d.pop(); })});
  for (const NamedScenario& named : suite().scenarios) {
    const bool is_about_the_window =
        named.name.find("window") != std::string::npos || named.name.find("horizon") != std::string::npos ||
        named.name.find("overdue") != std::string::npos || named.name.find("link") != std::string::npos;
    if (is_about_the_window) expect_unstoppable(named);
  }
}

TEST_CASE("every memory order of the deadline queue is needed" * doctest::skip(kSanitized)) {
  expect_killed(suite(), 40'000);
}
