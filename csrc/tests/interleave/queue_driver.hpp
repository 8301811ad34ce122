#pragma once
// Operations on a queue under test, each recorded, for the scenarios that the queues share.

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "interleave/explore.hpp"
#include "interleave/history.hpp"
#include "interleave/model_atomic.hpp"
#include "zeta/core/rng.hpp"
#include "zeta/queue/entry.hpp"

namespace zeta::interleave {

/// One queue in one schedule. `Calls` says how its operations are called:
///   static Ticket push(Queue&, Key, Item, lane); static std::optional<Entry> pop(Queue&, lane);
///   static bool cancel(Queue&, Ticket, lane); static bool update(Queue&, Ticket, Key, lane);
///   static void settle(Queue&, lane): what is waiting to be put in order is;
///   kLastLane, if it has one: the lane of who takes what is left;
///   static std::size_t push_many(Queue&, keys, items, tickets, lane), pop_many(Queue&, keys, items, lane).
///
/// Every item names a cell that its producer writes before the push; whoever takes the item must see it written.
template <class Calls>
class Driver {
 public:
  using Queue = typename Calls::Queue;
  using Item = queue::Item;
  using Key = queue::Key;
  using Ticket = queue::Ticket;
  static constexpr std::size_t kItems = 32;

  Driver(Model& model, Queue& queue, Rules rules) : model_{model}, queue_{queue}, history_{model, rules} {}

  Ticket push(Item item, Key key) { return push(item, key, lane()); }
  Ticket push(Item item, Key key, std::size_t lane) {
    named_[item].store(1, std::memory_order_relaxed);
    return tickets_[item] = history_.push(item, key, [&] { return Calls::push(queue_, key, item, lane); });
  }
  std::optional<queue::Entry> pop() {
    const auto entry = history_.pop([&] { return Calls::pop(queue_, lane()); });
    if (entry) look(entry->item);
    return entry;
  }
  bool cancel(Item item, Ticket ticket) {
    return history_.cancel(item, [&] { return Calls::cancel(queue_, ticket, lane()); });
  }
  bool update(Item item, Ticket ticket, Key key) {
    return history_.update(item, key, [&] { return Calls::update(queue_, ticket, key, lane()); });
  }
  /// Of an item that this thread, or main before, has pushed.
  bool cancel(Item item) { return cancel(item, tickets_[item]); }
  bool update(Item item, Key key) { return update(item, tickets_[item], key); }

  template <std::size_t kCount>
  void push_many(std::array<Item, kCount> items, std::array<Key, kCount> keys) {
    std::array<Ticket, kCount> tickets{};
    for (const Item item : items) named_[item].store(1, std::memory_order_relaxed);
    history_.push_many(items, keys, tickets, [&] { Calls::push_many(queue_, keys, items, tickets, lane()); });
    for (std::size_t i = 0; i < kCount; ++i) tickets_[items[i]] = tickets[i];
  }
  template <std::size_t kCount>
  void pop_many() {
    std::array<Key, kCount> keys{};
    std::array<Item, kCount> items{};
    std::array<queue::Entry, kCount> entries{};
    const std::size_t taken = history_.pop_many(entries, [&](std::span<queue::Entry> out) {
      const std::size_t count = Calls::pop_many(queue_, keys, items, lane());
      for (std::size_t i = 0; i < count; ++i) out[i] = {keys[i], items[i], queue::kNoTicket};
      return count;
    });
    for (std::size_t i = 0; i < taken; ++i) look(items[i]);
  }

  void settle() { Calls::settle(queue_, lane()); }

  /// Takes what is left, on a thread of the model, and says what was wrong in all that happened. The queue holds none.
  std::string finish() {
    is_finishing_ = true;
    if (!model_.run([&] {
          for (std::size_t i = 0; i <= kItems && pop(); ++i) {
          }
        })) {
      return "";  // the model says what
    }
    if (!stale_.empty()) return stale_;
    std::string wrong = history_.wrong();
    if (wrong.empty() && !model_.has_frozen() && queue_.size() != 0) {
      wrong = "empty, but its size is " + std::to_string(queue_.size());
    }
    return wrong;
  }

  Queue& queue() { return queue_; }
  History& history() { return history_; }

 private:
  /// A stopped thread may have left its lane in the middle of something: who takes what is left has another.
  std::size_t lane() const {
    if constexpr (requires { Calls::kLastLane; }) {
      if (is_finishing_) return Calls::kLastLane;
    }
    return model_.current_thread();
  }
  void look(Item item) {
    if (item >= kItems) {
      stale_ = "popped item " + std::to_string(item) + ", which nobody pushed";
    } else if (named_[item].load(std::memory_order_relaxed) != 1) {
      stale_ = "what item " + std::to_string(item) + " names is stale";
    }
  }

  Model& model_;
  Queue& queue_;
  History history_;
  std::array<Ticket, kItems> tickets_{};
  std::array<ModelAtomic<std::uint32_t>, kItems> named_;
  std::string stale_;
  bool is_finishing_ = false;
};

/// Three threads of two or three operations each, chosen by the seed, on a queue that main has given `prefilled` items.
template <class Calls>
std::string random_program(Model& model, typename Calls::Queue& queue, const Rules& rules,
                           std::span<const queue::Key> keys, std::size_t prefilled, std::size_t most_operations) {
  Driver<Calls> driver{model, queue, rules};
  Rng rng{model.seed() * 2 + 1};
  const auto key = [&] { return keys[rng.next_below(keys.size())]; };
  for (queue::Item item = 1; item <= prefilled; ++item) driver.push(item, key());
  if (rng.next_below(2) == 0) driver.settle();
  struct Step {
    std::uint64_t what;
    queue::Item item;
    queue::Key key;
  };
  std::array<std::array<Step, 4>, 3> programs{};
  std::array<std::size_t, 3> lengths{};
  queue::Item next = prefilled + 1;
  for (std::size_t t = 0; t < 3; ++t) {
    lengths[t] = 1 + rng.next_below(most_operations);
    queue::Item own = 0;
    for (std::size_t i = 0; i < lengths[t]; ++i) {
      Step& step = programs[t][i];
      step = {.what = rng.next_below(8), .item = 0, .key = key()};
      if (step.what < 3) {
        step.item = own = next++;
      } else {
        step.item = own != 0 && (prefilled == 0 || rng.next_below(2) == 0) ? own : prefilled;
        if (step.item != own && prefilled > 1) step.item = 1 + rng.next_below(prefilled);
        if (step.item == 0) step.what = 7;  // nothing to name: pop
      }
    }
  }
  const auto run = [&](std::size_t t) {
    for (std::size_t i = 0; i < lengths[t]; ++i) {
      const Step& step = programs[t][i];
      if (step.what < 3) {
        driver.push(step.item, step.key);
      } else if (step.what == 3) {
        driver.cancel(step.item);
      } else if (step.what == 4) {
        driver.update(step.item, step.key);
      } else {
        driver.pop();
      }
    }
  };
  model.run([&] { run(0); }, [&] { run(1); }, [&] { run(2); });
  return driver.finish();
}

/// Thread 0 does `frozen` on a queue of two waiting items, beside threads that do everything.
template <class Calls, class Make, class Frozen>
Scenario beside_others(Make make, Rules rules, Frozen frozen) {
  rules.capacity = 0;  // who is stopped may keep a slot
  return [=](Model& model) {
    Driver<Calls> d{model, make(model), rules};
    d.push(1, 10);
    d.push(2, 20);
    if ((model.seed() & 2U) != 0) d.settle();
    model.run([&] { frozen(d); },
              [&] {
                d.push(3, 15);
                d.pop();
              },
              [&] {
                d.update(2, 5);
                d.cancel(1);
                d.push(4, 30);
                d.pop();
              });
    return d.finish();
  };
}

/// The scenarios of every queue. `make(model)` gives an empty queue of eight places.
template <class Calls, class Make>
std::vector<NamedScenario> queue_scenarios(Make make, Rules rules) {
  using D = Driver<Calls>;
  const auto scene = [=](auto body) -> Scenario {
    return [=](Model& model) {
      D driver{model, make(model), rules};
      body(model, driver);
      return driver.finish();
    };
  };
  return {
      {"two pushes beside a pop",
       scene([](Model& model, D& d) { model.run([&] { d.push(1, 20); }, [&] { d.push(2, 10); }, [&] { d.pop(); }); })},
      {"two pops of one item", scene([](Model& model, D& d) {
         d.push(1, 5);
         model.run([&] { d.pop(); }, [&] { d.pop(); });
       })},
      {"pushes by the threads that pop", scene([](Model& model, D& d) {
         const auto both = [&](queue::Item item) {
           d.push(item, 30 - item);
           d.pop();
         };
         model.run([&] { both(1); }, [&] { both(2); }, [&] { both(3); });
       })},
      {"a cancel beside a pop and a push", scene([](Model& model, D& d) {
         d.push(1, 10);
         d.push(2, 20);
         model.run([&] { d.cancel(1); }, [&] { d.pop(); }, [&] { d.push(3, 5); });
       })},
      {"two cancels and a pop of one ticket", scene([](Model& model, D& d) {
         d.push(1, 10);
         model.run([&] { d.cancel(1); }, [&] { d.cancel(1); }, [&] { d.pop(); });
       })},
      {"cancel, update and pop of one ticket", scene([](Model& model, D& d) {
         d.push(1, 10);
         d.push(2, 20);
         d.settle();
         model.run([&] { d.cancel(1); }, [&] { d.update(1, 30); }, [&] { d.pop(); });
       })},
      {"an update to an earlier key beside pops", scene([](Model& model, D& d) {
         d.push(1, 30);
         d.push(2, 20);
         d.settle();
         model.run(
             [&] {
               d.update(1, 10);
               d.pop();
             },
             [&] { d.pop(); });
       })},
      {"two updates beside a pop", scene([](Model& model, D& d) {
         d.push(1, 30);
         d.push(2, 20);
         model.run(
             [&] {
               d.update(1, 10);
               d.update(1, 25);
             },
             [&] { d.update(1, 5); },
             [&] {
               d.pop();
               d.pop();
             });
       })},
      {"an update, and who hears of it pops", scene([](Model& model, D& d) {
         d.push(1, 30);
         d.push(2, 20);
         d.settle();
         ModelAtomic<int> told{0};
         model.run(
             [&] {
               d.update(1, 10);
               told.store(1, std::memory_order_release);
             },
             [&] {
               if (told.load(std::memory_order_acquire) == 1) d.pop();
             },
             [&] { d.pop(); });
       })},
      {"an update that another's pop may overlook", scene([](Model& model, D& d) {
         d.push(1, 30);
         d.push(2, 10);
         d.push(3, 20);
         d.settle();
         model.run(
             [&] {
               d.update(1, 5);
               d.pop();
             },
             [&] { d.pop(); });
       })},
      {"two updates that another's pop may overlook", scene([](Model& model, D& d) {
         d.push(1, 30);
         d.push(2, 10);
         d.push(3, 35);
         d.push(4, 20);
         d.settle();
         model.run([&] { d.update(1, 28); },
                   [&] {
                     d.update(3, 5);
                     d.pop();
                   },
                   [&] { d.pop(); });
       })},
      {"a push, and who hears of it pops", scene([](Model& model, D& d) {
         ModelAtomic<int> told{0};
         model.run(
             [&] {
               d.push(1, 10);
               told.store(1, std::memory_order_release);
             },
             [&] {
               if (told.load(std::memory_order_acquire) == 1) d.pop();
             },
             [&] { d.pop(); });
       })},
      {"a slot used again under an old ticket", scene([](Model& model, D& d) {
         d.push(1, 10);
         model.run(
             [&] {
               d.pop();
               d.push(2, 10);
               d.pop();
               d.push(3, 10);
             },
             [&] {
               d.cancel(1);
               d.update(1, 5);
             });
       })},
      {"a batch pushed beside a batch popped", scene([](Model& model, D& d) {
         d.push(1, 15);
         model.run([&] { d.template push_many<3>({2, 3, 4}, {20, 10, 30}); }, [&] { d.template pop_many<3>(); },
                   [&] { d.push(5, 12); });
       })},
  };
}

}  // namespace zeta::interleave
