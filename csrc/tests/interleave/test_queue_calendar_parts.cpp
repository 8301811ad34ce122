// The parts of DeadlineQueue, each alone: what one promises is seen in fewer steps than through the whole queue, so
// each of its memory orders, weakened, soon goes wrong.

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "interleave/explore.hpp"
#include "interleave/model_atomic.hpp"
#include "interleave/mutation.hpp"
#include "zeta/queue/calendar_buckets.hpp"
#include "zeta/queue/calendar_window.hpp"
#include "zeta/queue/cell_pool.hpp"
#include "zeta/queue/deferred_links.hpp"
#include "zeta/queue/index_ring.hpp"
#include "zeta/queue/lower_bound_word.hpp"

using namespace zeta::interleave;
using zeta::queue::Index;

namespace {

constexpr auto kRelaxedOrder = std::memory_order_relaxed;

// --- the pool --------------------------------------------------------------------------------------------------------

using Cells = zeta::queue::Cells<ModelAtomic>;
using Pool = zeta::queue::CellPool<ModelAtomic, 2>;

/// Who has a cell marks it, and takes the mark away before giving it back.
std::string in_one_hand(Model& model) {
  constexpr Index kCount = 3;
  Cells cells{1 + kCount};
  Pool pool{cells, 1, kCount, 0};
  std::string wrong;
  for (const Index cell : {pool.take(1), pool.take(1), pool.take(1)}) pool.give_back(cell, 1);
  const auto take = [&] {
    const Index cell = pool.take(1);
    if (cell == 0) return cell;
    if (cells[cell].item.load(kRelaxedOrder) != 0) wrong = "a cell is in two hands";
    cells[cell].item.store(1, kRelaxedOrder);
    return cell;
  };
  const auto give = [&](Index cell) {
    if (cell == 0) return;
    cells[cell].item.store(0, kRelaxedOrder);
    pool.give_back(cell, 1);
  };
  const auto both = [&] {
    const Index a = take();
    const Index b = take();
    give(a);
    give(b);
  };
  const bool is_done = model.run(both, both, [&] { give(take()); });
  if (!is_done || !wrong.empty()) return wrong;
  for (Index i = 0; i < kCount; ++i) {
    if (pool.take(1) == 0) return "a cell is lost";
  }
  return pool.take(1) == 0 ? "" : "a cell is there twice";
}

// --- the ring --------------------------------------------------------------------------------------------------------

using Ring = zeta::queue::IndexRing<ModelAtomic>;

/// One thread's indices are found in their order, and with them what they name.
std::string in_their_order(Model& model) {
  Ring ring{4};
  std::array<ModelAtomic<int>, 4> named;
  std::string wrong;
  const auto append = [&](Index index) {
    named[index].store(7, kRelaxedOrder);
    if (!ring.append(index)) wrong = "refused although there is room";
  };
  const bool is_done = model.run(
      [&] {
        append(1);
        append(2);
      },
      [&] {
        Ring::Place place;
        if (!ring.find(ring.begin(), place)) return;
        if (place.index() == 2) wrong = "the second is found before the first";
        if (named[place.index()].load(kRelaxedOrder) != 7) wrong = "what it names is stale";
      },
      [&] { append(3); });
  return is_done ? wrong : "";
}

/// Appended and removed round and round, two places short of a full turn: each index once.
std::string round_and_round(Model& model) {
  Ring ring{2};
  std::array<int, 7> seen{};
  std::array<int, 7> held{};
  std::array<ModelAtomic<int>, 7> named;
  std::string wrong;
  const auto append = [&](Index index) {
    named[index].store(7, kRelaxedOrder);
    held[index] = ring.append(index) ? 1 : 0;
  };
  const auto remove = [&] {
    Ring::Place place;
    if (!ring.find(ring.begin(), place) || !ring.remove(place)) return;
    ++seen.at(place.index());
    if (named[place.index()].load(kRelaxedOrder) != 7) wrong = "what it names is stale";
  };
  const bool is_done = model.run(
      [&] {
        append(1);
        remove();
        append(2);
        remove();
      },
      [&] {
        append(3);
        remove();
        append(4);
        remove();
      },
      [&] {
        append(5);
        (void)ring.is_empty();
        remove();
      });
  if (!is_done || !wrong.empty()) return wrong;
  for (int i = 0; i < 6; ++i) remove();
  if (!ring.is_empty() || ring.span() != 0) return "not empty in the end";
  return seen == held ? wrong : "an index was lost or given twice";
}

/// Who misses an index sees what its remover did before: directly, or by the head that others have moved over it.
std::string removed_and_why(Model& model) {
  Ring ring{4};
  (void)ring.append(1);
  (void)ring.append(2);
  std::array<ModelAtomic<int>, 3> why;
  std::string wrong;
  const auto remove = [&](Ring::Place& place) {
    why[place.index()].store(1, kRelaxedOrder);
    (void)ring.remove(place);
  };
  const bool is_done = model.run(
      [&] {
        Ring::Place place;
        if (ring.find(0, place)) remove(place);
      },
      [&] {
        Ring::Place place;
        if (ring.find(1, place)) remove(place);
      },
      [&] {
        const std::uint64_t from = ring.begin();
        Ring::Place place;
        const Index first = !ring.find(from, place) ? 3 : place.index();
        for (Index index = 1; index < first; ++index) {
          if (why[index].load(kRelaxedOrder) == 0) wrong = "removed, and nothing says why";
        }
      });
  return is_done ? wrong : "";
}

// --- the buckets and their tree --------------------------------------------------------------------------------------

using Buckets = zeta::queue::CalendarBuckets<ModelAtomic, 1, 1>;
constexpr std::uint64_t kEnd = 2U << Buckets::kChunkBits;

struct Calendar {
  Calendar() : cells{9}, buckets{cells, 2} {}

  void link(std::uint64_t number, Index cell) {
    cells[cell].item.store(7, kRelaxedOrder);
    buckets.link(number, 0, cell);
  }
  /// Takes a cell of the first bucket that holds one; 0 when none does.
  Index take() {
    for (Buckets::Spot spot; buckets.find(0, kEnd, spot);) {
      const Index cell = buckets.unlink(spot, 0, [] { return true; });
      if (cell != 0) return taken(cell);
    }
    return 0;
  }
  /// The same by the shorter search, where that finds one.
  Index take_at_once() {
    Buckets::Spot spot;
    if (!buckets.find_in_two(0, spot)) return 0;
    const Index cell = buckets.unlink(spot, 0, [] { return true; });
    return cell != 0 ? taken(cell) : 0;
  }
  Index taken(Index cell) {
    ++seen.at(cell);
    if (cells[cell].item.load(kRelaxedOrder) != 7) wrong = "what the cell holds is stale";
    return cell;
  }
  /// After the threads: each of the linked cells once.
  std::string each_once(Index count) {
    for (Index i = 0; i <= count && take() != 0; ++i) {
    }
    for (Index cell = 1; cell <= count; ++cell) {
      if (seen[cell] != 1) return "cell " + std::to_string(cell) + " is taken " + std::to_string(seen[cell]) + " times";
    }
    return wrong;
  }

  Cells cells;
  Buckets buckets;
  std::array<int, 9> seen{};
  std::string wrong;
};

/// The third to fill a bucket relies on what the first two have announced.
std::string third_in_a_bucket(Model& model) {
  Calendar calendar;
  calendar.link(1, 4);
  const bool is_done = model.run([&] { calendar.link(0, 1); }, [&] { calendar.link(0, 2); },
                                 [&] {
                                   calendar.link(0, 3);
                                   Buckets::Spot spot;
                                   if (!calendar.buckets.find(0, kEnd, spot) || spot.number != 0) {
                                     calendar.wrong = "a filled bucket is not shown";
                                   }
                                 });
  if (!is_done || !calendar.wrong.empty()) return calendar.wrong;
  return calendar.each_once(4);
}

/// Neighbours below one leaf, one mid, one root: who announces relies on what was announced above.
std::string third_below_a_word(Model& model) {
  Calendar calendar;
  calendar.link(7, 4);
  const bool is_done = model.run([&] { calendar.link(0, 1); }, [&] { calendar.link(1, 2); },
                                 [&] {
                                   calendar.link(2, 3);
                                   Buckets::Spot spot;
                                   if (!calendar.buckets.find(0, kEnd, spot) || spot.number > 2) {
                                     calendar.wrong = "a filled bucket is not shown";
                                   }
                                 });
  if (!is_done || !calendar.wrong.empty()) return calendar.wrong;
  return calendar.each_once(4);
}

/// The second below a leaf relies on what the first has announced above it.
std::string second_below_a_leaf(Model& model) {
  Calendar calendar;
  calendar.link(3, 3);
  const bool is_done = model.run([&] { calendar.link(0, 1); },
                                 [&] {
                                   calendar.link(1, 2);
                                   Buckets::Spot spot;
                                   if (!calendar.buckets.find(0, kEnd, spot) || spot.number > 1) {
                                     calendar.wrong = "a filled bucket is not shown";
                                   }
                                 });
  if (!is_done || !calendar.wrong.empty()) return calendar.wrong;
  return calendar.each_once(3);
}

/// Who finds a cell gone, or nothing at all, sees what its taker did before.
std::string gone_and_why(Model& model) {
  Calendar calendar;
  calendar.link(0, 1);
  ModelAtomic<int> why{0};
  const auto look = [&] {
    if (why.load(kRelaxedOrder) == 0) calendar.wrong = "gone, and nothing says why";
  };
  const bool is_done = model.run(
      [&] {
        why.store(1, kRelaxedOrder);
        (void)calendar.take();
      },
      [&] {
        Buckets::Spot spot;
        if (!calendar.buckets.find(0, kEnd, spot)) return look();
        const Buckets::Top top = calendar.buckets.top(0, 0);
        if (top.cell() == 0) return look();
        if (calendar.buckets.drop(0, 0, top)) {
          ++calendar.seen[1];
        } else if (calendar.buckets.top(0, 0).cell() == 0) {
          look();
        }
      });
  return is_done && calendar.wrong.empty() ? calendar.each_once(1) : calendar.wrong;
}

/// A bucket is left empty while it, or another below the same words, is filled.
std::string emptied_and_filled(Model& model) {
  Calendar calendar;
  calendar.link(0, 1);
  const bool is_done = model.run([&] { (void)calendar.take(); },
                                 [&] {
                                   calendar.link(0, 2);
                                   (void)calendar.take_at_once();
                                 },
                                 [&] {
                                   calendar.link(2, 3);
                                   calendar.link(4, 4);
                                   (void)calendar.take();
                                 });
  if (!is_done || !calendar.wrong.empty()) return calendar.wrong;
  return calendar.each_once(4);
}

std::string filled_and_emptied_by_each(Model& model) {
  Calendar calendar;
  const auto both = [&](std::uint64_t number, Index cell) {
    calendar.link(number, cell);
    if (calendar.take() == 0) calendar.wrong = "nothing is found, though as many were filled as taken";
  };
  const bool is_done = model.run(
      [&] {
        both(0, 1);
        both(0, 2);
      },
      [&] { both(1, 3); });
  if (!is_done || !calendar.wrong.empty()) return calendar.wrong;
  return calendar.each_once(3);
}

// --- the window ------------------------------------------------------------------------------------------------------

using Window = zeta::queue::CalendarWindow<ModelAtomic>;

/// Whoever fills a bucket and finds the window still over it is right about that.
std::string nothing_left_before(Model& model) {
  Calendar calendar;
  Window window;
  std::array<bool, 3> is_inside{};
  const auto fill = [&](Index cell) {
    calendar.link(cell, cell);
    is_inside[cell] = window.settled_first() == 0;
  };
  const auto move = [&] { window.move(0, 1, [&](std::uint64_t) { return calendar.buckets.is_chunk_empty(0); }); };
  const bool is_done = model.run([&] { fill(1); },
                                 [&] {
                                   move();
                                   move();
                                 },
                                 [&] {
                                   fill(2);
                                   move();
                                 });
  if (!is_done) return "";
  const bool is_any_left = is_inside[1] || is_inside[2];
  return is_any_left && window.first() != 0 ? "the window has left a filled bucket behind" : "";
}

/// Who sees the window moved sees what its mover saw.
std::string what_the_mover_saw(Model& model) {
  Window window;
  ModelAtomic<int> seen{0};
  std::string wrong;
  const bool is_done = model.run(
      [&] {
        window.move(0, 1, [&](std::uint64_t) {
          seen.store(1, kRelaxedOrder);
          return true;
        });
      },
      [&] {
        if (window.first() == 1 && seen.load(kRelaxedOrder) == 0) wrong = "what the mover saw is not seen";
      });
  return is_done ? wrong : "";
}

// --- what is not linked yet ------------------------------------------------------------------------------------------

using Links = zeta::queue::DeferredLinks<ModelAtomic, 3, 1>;

/// Whoever puts a cell and finds the reach before it is right about that.
std::string nothing_left_before_the_reach(Model& model) {
  Links links{true};
  std::array<bool, 2> stands{};
  const auto none = [](std::uint64_t, Index) {};
  const auto move = [&] { links.move(0, 1, [&] { return links.all_of([](Index) { return false; }); }); };
  const bool is_done = model.run([&] { stands[0] = links.put(0, 1, 0, 0, none); },
                                 [&] {
                                   move();
                                   move();
                                 },
                                 [&] {
                                   stands[1] = links.put(1, 2, 0, 0, none);
                                   move();
                                 });
  if (!is_done) return "";
  return (stands[0] || stands[1]) && links.reach() != 0 ? "the reach has passed a cell" : "";
}

/// Who has heard of a push, and finds the reach beyond it, finds the cell in its bucket.
std::string reached_and_linked(Model& model, bool by_next) {
  Calendar calendar;
  calendar.link(3, 3);
  Links links{true};
  ModelAtomic<int> told{0};
  const auto link = [&](std::uint64_t number, Index cell) { calendar.buckets.link(number, 0, cell); };
  const auto put = [&](Index cell, std::uint64_t block) {
    calendar.cells[cell].item.store(7, kRelaxedOrder);
    if (links.put(0, cell, cell, block, link)) return;
    link(cell, cell);
    links.withdraw(0);
  };
  const bool is_done = model.run(
      [&] {
        put(1, 0);
        told.store(1, std::memory_order_release);
        if (by_next) {
          put(2, 1);
        } else {
          links.link_own(0, link);
        }
      },
      [&] {
        if (told.load(std::memory_order_acquire) == 0) return;
        links.move(0, 1, [&] { return links.all_of([](Index cell) { return cell != 1; }); });
        if (links.reach() == 0) return;
        Buckets::Spot spot;
        if (!calendar.buckets.find(0, kEnd, spot) || spot.number != 1) calendar.wrong = "the reach hides a cell";
      });
  if (!is_done || !calendar.wrong.empty()) return calendar.wrong;
  links.link_own(0, link);
  if (!by_next) calendar.link(2, 2);
  return calendar.each_once(3);
}

// --- the bound -------------------------------------------------------------------------------------------------------

using Bound = zeta::queue::LowerBoundWord<ModelAtomic>;

/// Who sees the bound lowered sees what was added; who sees it raised sees where that went.
std::string lowered_and_raised(Model& model) {
  Bound bound;
  ModelAtomic<int> added{0};
  ModelAtomic<int> went{0};
  std::string wrong;
  const bool is_done = model.run(
      [&] {
        added.store(1, kRelaxedOrder);
        bound.lower_to(5);
      },
      [&] {
        const auto before = bound.look();
        went.store(1, kRelaxedOrder);
        bound.raise_to(before, 9);
      },
      [&] {
        const std::uint64_t now = bound.look().bound();
        if (now == 5 && added.load(kRelaxedOrder) == 0) wrong = "what was added is not seen";
        if (now == 9 && went.load(kRelaxedOrder) == 0) wrong = "where it went is not seen";
      });
  return is_done ? wrong : "";
}

const Suite& suite() {
  static const Suite suite{
      .files = {"queue/calendar_buckets.hpp", "queue/calendar_window.hpp", "queue/cell_pool.hpp",
                "queue/deferred_links.hpp", "queue/index_ring.hpp", "queue/lower_bound_word.hpp",
                "queue/occupancy_tree.hpp"},
      .scenarios = {{"a cell in one hand", in_one_hand},
                    {"indices in their order", in_their_order},
                    {"a ring round and round", round_and_round},
                    {"removed and why", removed_and_why},
                    {"the third in a bucket", third_in_a_bucket},
                    {"the third below a word", third_below_a_word},
                    {"the second below a leaf", second_below_a_leaf},
                    {"gone and why", gone_and_why},
                    {"emptied and filled", emptied_and_filled},
                    {"filled and emptied by each", filled_and_emptied_by_each},
                    {"nothing left before the window", nothing_left_before},
                    {"what the mover saw", what_the_mover_saw},
                    {"nothing left before the reach", nothing_left_before_the_reach},
                    {"reached and linked", [](Model& model) { return reached_and_linked(model, false); }},
                    {"reached and linked by the next", [](Model& model) { return reached_and_linked(model, true); }},
                    {"lowered and raised", lowered_and_raised}},
      .argued = {{"CellPool::pop_some compare_exchange E1 -acquire",
                  "docs/memory_model.md, argued equivalents: the head it compares with was "
                  "acquired"}}};
  return suite;
}

}  // namespace

TEST_CASE("the calendar's parts keep each thing in one place, whatever three threads do to them") {
  for (const NamedScenario& named : suite().scenarios) expect_right(named);
}

TEST_CASE("every memory order of the calendar's parts is needed" * doctest::skip(kSanitized)) {
  expect_killed(suite(), 10'000, true);
}
