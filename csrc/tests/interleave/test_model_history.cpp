// The judge of histories, on histories written by hand: one for each way to be wrong, beside the nearest right one.

#include <doctest/doctest.h>

#include <array>
#include <optional>
#include <string>

#include "interleave/explore.hpp"
#include "interleave/history.hpp"
#include "interleave/model_atomic.hpp"

using namespace zeta::interleave;
using zeta::queue::Entry;
using zeta::queue::Item;
using zeta::queue::Key;
using zeta::queue::Ticket;

namespace {

/// Operations that return what the test says. A callable given as `during` runs inside: those operations overlap.
struct Script {
  explicit Script(Rules rules = {}) : history{begun(model), rules} {}

  static Model& begun(Model& model) {
    model.begin(1, Model::Memory::kInterleaving);
    return model;
  }

  template <class During = void (*)()>
  void push(Item item, Key key, bool is_granted = true, During during = [] {}) {
    history.push(item, key, [&] {
      during();
      return is_granted ? item + 100 : 0;
    });
  }
  template <class During = void (*)()>
  void pop(Item item, Key key, During during = [] {}) {
    history.pop([&] {
      during();
      return std::optional(Entry{key, item, item + 100});
    });
  }
  template <class During = void (*)()>
  void pop_nothing(During during = [] {}) {
    history.pop([&] {
      during();
      return std::optional<Entry>();
    });
  }
  template <class During = void (*)()>
  void cancel(Item item, bool is_granted, During during = [] {}) {
    history.cancel(item, [&] {
      during();
      return is_granted;
    });
  }
  template <class During = void (*)()>
  void update(Item item, Key key, bool is_granted, During during = [] {}) {
    history.update(item, key, [&] {
      during();
      return is_granted;
    });
  }
  bool is_wrong_with(const std::string& words) const { return history.wrong().find(words) != std::string::npos; }
  bool is_right() const { return history.wrong().empty(); }

  Model model;
  History history;
};

}  // namespace

TEST_CASE("an item must come from a push, once, with its own key and ticket") {
  Script nowhere;
  nowhere.pop(1, 5);
  CHECK(nowhere.is_wrong_with("comes from no push"));

  Script early;
  early.pop(1, 5);
  early.push(1, 5);
  CHECK(early.is_wrong_with("comes from no push"));

  Script overlapping;
  overlapping.pop(1, 5, [&] { overlapping.push(1, 5); });
  CHECK(overlapping.is_right());

  Script twice;
  twice.push(1, 5);
  twice.pop(1, 5);
  twice.pop(1, 5);
  CHECK(twice.is_wrong_with("also pop"));

  Script key;
  key.push(1, 5);
  key.pop(1, 6);
  CHECK(key.is_wrong_with("does not have this key"));

  Script refused;
  refused.push(1, 5, false);
  refused.pop(1, 5);
  CHECK(refused.is_wrong_with("its push was refused"));

  Script ticket;
  ticket.history.push(1, 5, [] { return Ticket{7}; });
  ticket.pop(1, 5);
  CHECK(ticket.is_wrong_with("ticket"));
}

TEST_CASE("the smaller of two keys that are there leaves first") {
  Script wrong;
  wrong.push(1, 5);
  wrong.push(2, 9);
  wrong.pop(2, 9);
  CHECK(wrong.is_wrong_with("although there is item 1"));

  Script late;
  late.push(2, 9);
  late.pop(2, 9, [&] { late.push(1, 5); });
  CHECK(late.is_right());

  Script taken_meanwhile;
  taken_meanwhile.push(1, 5);
  taken_meanwhile.push(2, 9);
  taken_meanwhile.pop(2, 9, [&] { taken_meanwhile.pop(1, 5); });
  CHECK(taken_meanwhile.is_right());

  Script cancelled_later;
  cancelled_later.push(1, 5);
  cancelled_later.push(2, 9);
  cancelled_later.pop(2, 9);
  cancelled_later.cancel(1, true);
  CHECK(cancelled_later.is_wrong_with("although there is item 1"));

  Script quantum{Rules{.quantum = 10}};
  quantum.push(1, 5);
  quantum.push(2, 9);
  quantum.pop(2, 9);
  CHECK(quantum.is_right());
  quantum.push(3, 11);
  quantum.pop(3, 11);
  CHECK(quantum.is_wrong_with("although there is item 1"));
}

TEST_CASE("a pop that begins its search at an instant takes later keys first") {
  Script script;
  script.push(1, 5);
  script.push(2, 9);
  script.history.pop_from(7, [] { return std::optional(Entry{9, 2, 102}); });
  CHECK(script.is_right());

  Script wrong;
  wrong.push(1, 5);
  wrong.push(2, 9);
  wrong.history.pop_from(7, [] { return std::optional(Entry{5, 1, 101}); });
  CHECK(wrong.is_wrong_with("although there is item 2"));
}

TEST_CASE("nothing is found only where nothing is") {
  Script wrong;
  wrong.push(1, 5);
  wrong.pop_nothing();
  CHECK(wrong.is_wrong_with("found nothing"));

  Script taken;
  taken.push(1, 5);
  taken.pop_nothing([&] { taken.pop(1, 5); });
  CHECK(taken.is_right());

  Script cancelled;
  cancelled.push(1, 5);
  cancelled.cancel(1, true);
  cancelled.pop_nothing();
  CHECK(cancelled.is_right());

  Script lost;
  lost.push(1, 5);
  lost.push(2, 6);
  lost.pop(1, 5);
  lost.pop_nothing();
  CHECK(lost.is_wrong_with("although there is item 2"));
}

TEST_CASE("a ticket ends once, and a live one is not refused") {
  Script both;
  both.push(1, 5);
  both.cancel(1, true, [&] { both.pop(1, 5); });
  CHECK_FALSE(both.is_right());

  Script cancelled_twice;
  cancelled_twice.push(1, 5);
  cancelled_twice.cancel(1, true);
  cancelled_twice.cancel(1, true);
  CHECK(cancelled_twice.is_wrong_with("granted although"));

  Script refused;
  refused.push(1, 5);
  refused.cancel(1, false);
  CHECK(refused.is_wrong_with("refused although the item is there"));

  Script raced;
  raced.push(1, 5);
  raced.cancel(1, false, [&] { raced.pop(1, 5); });
  CHECK(raced.is_right());

  Script too_late;
  too_late.push(1, 5);
  too_late.pop(1, 5);
  too_late.update(1, 6, true);
  CHECK(too_late.is_wrong_with("granted although pop"));

  Script refused_update;
  refused_update.push(1, 5);
  refused_update.update(1, 6, false);
  CHECK(refused_update.is_wrong_with("refused although the item is there"));
}

TEST_CASE("an update gives the new key from then on, and either while it runs") {
  Script old_key;
  old_key.push(1, 5);
  old_key.update(1, 8, true);
  old_key.pop(1, 5);
  CHECK(old_key.is_wrong_with("does not have this key"));

  for (const Key key : {5, 8}) {
    Script meanwhile;
    meanwhile.push(1, 5);
    meanwhile.update(1, 8, true, [&] { meanwhile.pop(1, key); });
    CHECK(meanwhile.is_right());
  }

  Script order;
  order.push(1, 9);
  order.push(2, 5);
  order.update(1, 3, true);
  order.pop(2, 5);
  CHECK(order.is_wrong_with("although there is item 1"));

  Script either;
  either.push(1, 9);
  either.push(2, 5);
  either.update(1, 3, true, [&] { either.pop(2, 5); });
  CHECK(either.is_right());

  Script not_applied;
  not_applied.push(1, 9);
  not_applied.push(2, 5);
  not_applied.pop(2, 5);
  not_applied.pop(1, 9);
  not_applied.update(1, 3, false);
  CHECK(not_applied.is_right());
}

TEST_CASE("first in, first out where that is promised") {
  Script free;
  free.push(1, 5);
  free.push(2, 5);
  free.pop(2, 5);
  CHECK(free.is_right());

  Script fifo{Rules{.is_fifo = true}};
  fifo.push(1, 5);
  fifo.push(2, 5);
  fifo.pop(2, 5);
  CHECK(fifo.is_wrong_with("although there is item 1"));

  Script overlapping{Rules{.is_fifo = true}};
  overlapping.push(1, 5, true, [&] { overlapping.push(2, 5); });
  overlapping.pop(2, 5);
  CHECK(overlapping.is_right());

  Script overdue{Rules{.overdue_below = 100, .is_overdue_fifo = true}};
  overdue.push(1, 50);
  overdue.push(2, 20);
  overdue.pop(2, 20);
  CHECK(overdue.is_wrong_with("although there is item 1"));
}

TEST_CASE("full is said only by a queue that is full") {
  Script wrong{Rules{.capacity = 2}};
  wrong.push(1, 5);
  wrong.push(2, 5, false);
  CHECK(wrong.is_wrong_with("full although at most 1"));

  Script right{Rules{.capacity = 1}};
  right.push(1, 5);
  right.push(2, 5, false);
  CHECK(right.is_right());
  right.pop(1, 5);
  right.push(3, 5, false);
  CHECK(right.is_wrong_with("full although at most 0"));
}

TEST_CASE("a batch is in order and as long as can be") {
  const auto batch = [](std::array<Entry, 2> given, std::size_t taken) {
    Script script;
    script.push(1, 5);
    script.push(2, 9);
    std::array<Entry, 2> out{};
    script.history.pop_many(out, [&](std::span<Entry> into) {
      std::copy(given.begin(), given.end(), into.begin());
      return taken;
    });
    return script.history.wrong();
  };
  const Entry one{5, 1, 101};
  const Entry two{9, 2, 102};
  CHECK(batch({one, two}, 2).empty());
  CHECK(batch({two, one}, 2).find("of the same batch") != std::string::npos);
  CHECK(batch({one, two}, 1).find("although there is item 2") != std::string::npos);
  CHECK(batch({two, one}, 1).find("although there is item 1") != std::string::npos);
}

TEST_CASE("an operation that never returns may have had its effect, but only its own") {
  const auto with_frozen_pop = [](int pushed, int found) {
    Model model;
    model.freeze(0, 0, true);
    model.begin(1, Model::Memory::kInterleaving);
    ModelAtomic<int> gate{0};
    History history{model};
    for (Item item = 1; item <= static_cast<Item>(pushed); ++item) history.push(item, 5, [&] { return item + 100; });
    model.run(
        [&] {
          history.pop([&] {
            (void)gate.load(std::memory_order_relaxed);
            return std::optional<Entry>();
          });
        },
        [&] {
          for (Item item = 1; item <= static_cast<Item>(found); ++item) {
            history.pop([&] { return std::optional(Entry{5, item, item + 100}); });
          }
          history.pop([] { return std::optional<Entry>(); });
        });
    return history.wrong();
  };
  CHECK(with_frozen_pop(2, 2).empty());
  CHECK(with_frozen_pop(2, 1).empty());  // the frozen one has the other
  CHECK(with_frozen_pop(3, 1).find("found nothing") != std::string::npos);
}

TEST_CASE("under weak memory, before means happens-before") {
  const auto pop_after_push = [](std::memory_order store, std::memory_order load) {
    return explore(
               [=](Model& model) {
                 ModelAtomic<int> told{0};
                 ModelAtomic<Ticket> work{1};
                 History history{model};
                 const bool is_done = model.run(
                     [&] {
                       history.push(1, 5, [&] { return Ticket{100} + work.fetch_add(1, std::memory_order_relaxed); });
                       told.store(1, store);
                     },
                     [&] {
                       if (told.load(load) == 1) history.pop([] { return std::optional<Entry>(); });
                     });
                 return is_done ? history.wrong() : "";
               },
               2'000, 1, Model::Memory::kWeak)
        .failure.has_value();
  };
  CHECK(pop_after_push(std::memory_order_release, std::memory_order_acquire));
  CHECK_FALSE(pop_after_push(std::memory_order_relaxed, std::memory_order_acquire));
  CHECK_FALSE(pop_after_push(std::memory_order_release, std::memory_order_relaxed));
}
