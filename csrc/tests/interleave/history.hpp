#pragma once
// What the operations of a queue returned, and whether a strict queue could have returned it.

#include <array>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "interleave/model.hpp"
#include "zeta/queue/entry.hpp"

namespace zeta::interleave {

/// What a queue promises about order. The default is a total order on keys, equal keys in any order.
struct Rules {
  std::uint64_t quantum = 1;  ///< keys of one quantum leave in any order
  bool is_fifo = false;       ///< of one quantum, who was pushed first leaves first (items whose key never changed)
  bool is_fifo_per_producer = false;    ///< the same among the items that one thread pushed
  bool may_batch_be_unordered = false;  ///< pop_many is as many pops, between which others push
  /// A pop may pass over an item that an update moves meanwhile, or that another unfinished pop has in its hand and
  /// loses to a cancel or an update. It may not find nothing for the first reason.
  bool may_miss_moving = false;
  bool may_refused_update_show = false;  ///< an update that finds its ticket gone may have shown its key before
  std::uint64_t capacity = 0;            ///< 0: do not judge a push that says "full"
  /// Keys below are all overdue when pushed and share one place in the order.
  std::uint64_t overdue_below = 0;
  bool is_overdue_fifo = false;
};

/// Records invocations and responses, then looks for bad patterns. Items name pushes, so a scenario pushes each item
/// once. An operation that never returns (its thread is frozen) stays pending: it may have had its effect or not.
///
/// **Before.** Operation a is before b when a returned before b was invoked: in interleavings of one memory by the
/// model's stamps; under weak memory by happens-before, since without it no C++ program can tell that a was first.
///
/// **Bad patterns** (each with a test): an item that comes from no push, with a key it never had, or twice; one taken
/// and cancelled; pop(x) or "empty" although an item that must leave sooner was pushed before and, unless removed by
/// something not after, is there; a cancel or an update refused though the item is there, or granted after it left;
/// "full" although there is room; a batch out of order. They are necessary for linearizability, and for a queue with
/// distinct items nearly sufficient: Bouajjani, Emmi, Enea, Hamza, "On reducing linearizability to state
/// reachability", ICALP 2015.
class History {
 public:
  static constexpr std::size_t kMost = 64;

  explicit History(Model& model, Rules rules = {}) : model_{model}, rules_{rules} {}

  /// `push()` returns a ticket, 0 for "full".
  template <class Push>
  queue::Ticket push(queue::Item item, queue::Key key, Push push) {
    const std::size_t at = begin(Kind::kPush, item, key);
    const queue::Ticket ticket = push();
    end(at);
    ops_[at].ticket = ticket;
    ops_[at].is_granted = ticket != queue::kNoTicket;
    return ticket;
  }

  /// `pop()` returns std::optional<Entry>.
  template <class Pop>
  std::optional<queue::Entry> pop(Pop pop) {
    return pop_from(std::nullopt, pop);
  }

  /// A pop that begins its search at `from`: keys of its quantum and later go first, the earlier ones after them.
  template <class Pop>
  std::optional<queue::Entry> pop_from(std::optional<queue::Key> from, Pop pop) {
    const std::size_t at = begin(Kind::kPop, 0, 0);
    ops_[at].from = from.value_or(0);
    const std::optional<queue::Entry> entry = pop();
    end(at);
    if (entry) take(at, *entry);
    return entry;
  }

  /// `pop_many(span)` fills the span from its front and returns how many; it may leave the tickets kNoTicket.
  template <class PopMany>
  std::size_t pop_many(std::span<queue::Entry> out, PopMany pop_many) {
    const std::size_t at = begin(Kind::kPop, 0, 0);
    ops_[at].wanted = out.size();
    const std::size_t taken = pop_many(out);
    end(at);
    const std::size_t batch = ++batches_;
    for (std::size_t i = 0; i < out.size() && i <= taken; ++i) {  // one past: that none was left
      const std::size_t op = i == 0 ? at : repeat(at);
      ops_[op].batch = batch;
      if (i < taken) take(op, out[i]);
    }
    return taken;
  }

  /// `push_many()` writes a ticket per item, 0 for "full".
  template <class PushMany>
  void push_many(std::span<const queue::Item> items, std::span<const queue::Key> keys, std::span<queue::Ticket> tickets,
                 PushMany push_many) {
    const std::size_t first = count_;
    for (std::size_t i = 0; i < items.size(); ++i) begin(Kind::kPush, items[i], keys[i]);
    push_many();
    for (std::size_t i = 0; i < items.size(); ++i) {
      end(first + i);
      ops_[first + i].ticket = tickets[i];
      ops_[first + i].is_granted = tickets[i] != queue::kNoTicket;
    }
  }

  template <class Cancel>
  bool cancel(queue::Item item, Cancel cancel) {
    const std::size_t at = begin(Kind::kCancel, item, 0);
    const bool is_granted = cancel();
    end(at);
    return ops_[at].is_granted = is_granted;
  }

  template <class Update>
  bool update(queue::Item item, queue::Key key, Update update) {
    const std::size_t at = begin(Kind::kUpdate, item, key);
    const bool is_granted = update();
    end(at);
    return ops_[at].is_granted = is_granted;
  }

  /// What a strict queue could not have answered; "" when it could.
  [[nodiscard]] std::string wrong() const {
    for (std::size_t i = 0; i < count_; ++i) {
      const Op& op = ops_[i];
      if (op.is_pending) continue;
      std::string what;
      switch (op.kind) {
        case Kind::kPush:
          if (!op.is_granted) what = wrong_full(op);
          break;
        case Kind::kPop:
          what = op.is_granted ? wrong_take(op) : wrong_absence(op);
          break;
        case Kind::kCancel:
        case Kind::kUpdate:
          what = wrong_by_ticket(op);
          break;
      }
      if (!what.empty()) return what;
    }
    return "";
  }

 private:
  enum class Kind : std::uint8_t { kPush, kPop, kCancel, kUpdate };

  struct Op {
    Kind kind{};
    bool is_pending = true;
    bool is_granted = false;
    std::size_t thread = 0;
    std::uint64_t began = 0;
    std::uint64_t ended = 0;
    Clock known{};               // at the invocation
    std::uint32_t own_step = 0;  // at the response
    queue::Item item = 0;
    queue::Key key = 0;
    queue::Ticket ticket = 0;
    queue::Key from = 0;
    std::size_t wanted = 1;
    std::size_t batch = 0;
  };

  std::size_t begin(Kind kind, queue::Item item, queue::Key key) {
    if (count_ == kMost) std::abort();  // the scenario is too long for this checker
    Op& op = ops_[count_];
    op = Op{};
    op.kind = kind;
    op.item = item;
    op.key = key;
    op.thread = model_.current_thread();
    op.known = model_.clock();
    op.began = model_.next_stamp();
    return count_++;
  }

  void end(std::size_t at) {
    Op& op = ops_[at];
    op.is_pending = false;
    op.ended = model_.next_stamp();
    if (op.thread != Model::kMain) op.own_step = model_.clock()[op.thread];
  }

  std::size_t repeat(std::size_t at) {
    if (count_ == kMost) std::abort();
    ops_[count_] = ops_[at];
    ops_[count_].is_granted = false;
    return count_++;
  }

  void take(std::size_t at, const queue::Entry& entry) {
    ops_[at].is_granted = true;
    ops_[at].item = entry.item;
    ops_[at].key = entry.key;
    ops_[at].ticket = entry.ticket;
  }

  bool is_before(const Op& a, const Op& b) const {
    if (a.is_pending) return false;
    if (!model_.is_weak() || a.thread == Model::kMain || b.thread == Model::kMain) return a.ended < b.began;
    return b.known[a.thread] >= a.own_step && a.ended < b.began;
  }

  static bool is_removal(const Op& op) {
    return op.kind == Kind::kCancel ? op.is_granted : op.kind == Kind::kPop && op.is_granted;
  }

  const Op* push_of(queue::Item item) const {
    for (std::size_t i = 0; i < count_; ++i) {
      if (ops_[i].kind == Kind::kPush && ops_[i].item == item) return &ops_[i];
    }
    return nullptr;
  }

  std::uint64_t place(queue::Key key, queue::Key from) const {
    const std::uint64_t quantum = (key < rules_.overdue_below ? rules_.overdue_below : key) / rules_.quantum;
    const std::uint64_t first = from / rules_.quantum;
    return quantum >= first ? quantum - first : quantum + (std::numeric_limits<std::uint64_t>::max() / 2);
  }

  /// Whether `set` may be what gave its item the key that it has at some moment of `during`.
  bool may_hold(const Op& set, const Op& during) const {
    const bool may_show = rules_.may_refused_update_show && set.kind == Kind::kUpdate;
    if (!set.is_granted && !set.is_pending && !may_show) return false;
    if (is_before(during, set)) return false;
    for (std::size_t i = 0; i < count_; ++i) {
      const Op& later = ops_[i];
      if (later.kind == Kind::kUpdate && later.item == set.item && later.is_granted && &later != &set &&
          is_before(set, later) && is_before(later, during)) {
        return false;
      }
    }
    return true;
  }

  enum class There : std::uint8_t { kAbsent, kUnlessPendingPopTookIt, kPresent };

  /// Whether the pushed item is in the queue during all of `during`.
  There is_there(const Op& push, const Op& during) const {
    if (push.kind != Kind::kPush || !push.is_granted || !is_before(push, during)) return There::kAbsent;
    bool is_ever_removed = false;
    for (std::size_t i = 0; i < count_; ++i) {
      const Op& op = ops_[i];
      if (op.item != push.item) continue;
      const bool may_remove = is_removal(op) || (op.kind == Kind::kCancel && op.is_pending);
      if (may_remove && !is_before(during, op)) return There::kAbsent;
      is_ever_removed |= is_removal(op);
    }
    return is_ever_removed || pending_takes(during) == 0 ? There::kPresent : There::kUnlessPendingPopTookIt;
  }

  std::size_t pending_takes(const Op& during) const {
    std::size_t takes = 0;
    for (std::size_t i = 0; i < count_; ++i) {
      const Op& op = ops_[i];
      if (op.kind == Kind::kPop && op.is_pending && !is_before(during, op)) takes += op.wanted;
    }
    return takes;
  }

  bool must_leave_before(const Op& push, const Op& pop) const {
    const std::uint64_t place_of_pop = place(pop.key, pop.from);
    bool is_updated = false;
    bool is_earlier = true;
    bool is_same = true;
    for (std::size_t i = 0; i < count_; ++i) {
      const Op& set = ops_[i];
      if (set.kind == Kind::kUpdate && (set.item == push.item || set.item == pop.item)) is_updated = true;
      if ((set.kind != Kind::kUpdate && &set != &push) || set.item != push.item || !may_hold(set, pop)) continue;
      is_earlier &= place(set.key, pop.from) < place_of_pop;
      is_same &= place(set.key, pop.from) == place_of_pop;
    }
    if (is_earlier) return true;
    const bool is_fifo =
        rules_.is_fifo || (rules_.is_overdue_fifo && push.key < rules_.overdue_below && pop.key < rules_.overdue_below);
    const Op* const popped = push_of(pop.item);
    if (!is_same || is_updated || popped == nullptr || !is_before(push, *popped)) return false;
    return is_fifo || (rules_.is_fifo_per_producer && push.thread == popped->thread);
  }

  std::string wrong_take(const Op& pop) const {
    const Op* const push = push_of(pop.item);
    if (push == nullptr || is_before(pop, *push)) return describe(pop) + ": the item comes from no push";
    if (!push->is_granted && !push->is_pending) return describe(pop) + ": its push was refused";
    if (!push->is_pending && pop.ticket != queue::kNoTicket && push->ticket != pop.ticket) {
      return describe(pop) + ": the ticket is not its push's";
    }
    bool has_had_key = false;
    for (std::size_t i = 0; i < count_; ++i) {
      const Op& op = ops_[i];
      const bool sets_key = op.kind == Kind::kUpdate || op.kind == Kind::kPush;
      if (sets_key && op.item == pop.item && op.key == pop.key && may_hold(op, pop)) has_had_key = true;
      if (&op != &pop && is_removal(op) && op.item == pop.item) return describe(pop) + ": also " + describe(op);
    }
    if (!has_had_key) return describe(pop) + ": the item does not have this key then";
    for (std::size_t i = 0; i < count_; ++i) {
      if (!rules_.may_batch_be_unordered && pop.batch != 0 && ops_[i].batch == pop.batch && ops_[i].is_granted &&
          &ops_[i] < &pop && place(ops_[i].key, pop.from) > place(pop.key, pop.from)) {
        return describe(pop) + ": after " + describe(ops_[i]) + " of the same batch";
      }
    }
    return wrong_absence(pop);
  }

  /// Items that are there and must leave before what `pop` gave (any item, if it gave none).
  std::string wrong_absence(const Op& pop) const {
    std::size_t unless_taken = 0;
    for (std::size_t i = 0; i < count_; ++i) {
      const Op& push = ops_[i];
      const There there = is_there(push, pop);
      if (there == There::kAbsent || (pop.is_granted && !must_leave_before(push, pop))) continue;
      if (rules_.may_miss_moving && is_moving(push.item, pop)) continue;
      if (there == There::kUnlessPendingPopTookIt && ++unless_taken <= pending_takes(pop)) continue;
      return describe(pop) + ": although there is item " + std::to_string(push.item) + " of " + describe(push);
    }
    return "";
  }

  bool is_moving(queue::Item item, const Op& pop) const {
    bool is_in_hand = false;
    for (std::size_t i = 0; i < count_; ++i) {
      const Op& other = ops_[i];
      is_in_hand |= other.kind == Kind::kPop && &other != &pop && (pop.batch == 0 || other.batch != pop.batch) &&
                    !is_before(other, pop) && !is_before(pop, other);
    }
    for (std::size_t i = 0; i < count_; ++i) {
      const Op& other = ops_[i];
      if (other.item != item || (other.kind != Kind::kUpdate && other.kind != Kind::kCancel)) continue;
      if (is_before(other, pop)) continue;
      if (is_in_hand) return true;
      if (other.kind == Kind::kUpdate && pop.is_granted && !is_before(pop, other)) return true;
    }
    return false;
  }

  std::string wrong_by_ticket(const Op& op) const {
    const Op* const push = push_of(op.item);
    if (push == nullptr) return describe(op) + ": nothing was pushed as this item";
    if (!op.is_granted) {
      return is_there(*push, op) == There::kPresent ? describe(op) + ": refused although the item is there" : "";
    }
    for (std::size_t i = 0; i < count_; ++i) {
      const Op& other = ops_[i];
      if (&other != &op && is_removal(other) && other.item == op.item &&
          (op.kind == Kind::kCancel || is_before(other, op))) {
        return describe(op) + ": granted although " + describe(other);
      }
    }
    return "";
  }

  std::string wrong_full(const Op& push) const {
    if (rules_.capacity == 0) return "";
    std::uint64_t held = 0;
    for (std::size_t i = 0; i < count_; ++i) {
      const Op& other = ops_[i];
      if (other.kind != Kind::kPush || &other == &push || is_before(push, other)) continue;
      if (!other.is_granted && !other.is_pending) continue;
      bool is_gone = false;
      for (std::size_t j = 0; j < count_; ++j) {
        is_gone |= is_removal(ops_[j]) && ops_[j].item == other.item && is_before(ops_[j], push);
      }
      // A push that overlaps may have its slot in hand though the item has gone: it may still be moving it.
      if (!is_gone || !is_before(other, push)) ++held;
    }
    // Any other call that overlaps this one may have a slot in its hands; a pop, all that it could free.
    for (std::size_t i = 0; i < count_; ++i) {
      const Op& other = ops_[i];
      if (&other == &push || is_before(push, other) || is_before(other, push)) continue;
      if (other.kind == Kind::kPop) return "";
      if (other.kind != Kind::kPush || !other.is_granted) ++held;
    }
    return held < rules_.capacity ? describe(push) + ": full although at most " + std::to_string(held) + " are held"
                                  : "";
  }

  std::string describe(const Op& op) const {
    constexpr std::array<const char*, 4> kNames{"push", "pop", "cancel", "update"};
    std::string text = kNames[static_cast<std::size_t>(op.kind)];
    const bool is_empty = op.kind == Kind::kPop && !op.is_granted;
    if (!is_empty) text += " of item " + std::to_string(op.item);
    if (op.kind != Kind::kCancel && !is_empty) text += " key " + std::to_string(op.key);
    if (is_empty) text += " that found nothing";
    if (!op.is_granted && !op.is_pending && !is_empty) text += " (refused)";
    text += op.thread == Model::kMain ? " by main" : " by T" + std::to_string(op.thread);
    return text + " [" + std::to_string(op.began) + "," + (op.is_pending ? "-" : std::to_string(op.ended)) + "]";
  }

  Model& model_;
  Rules rules_;
  std::array<Op, kMost> ops_;
  std::size_t count_ = 0;
  std::size_t batches_ = 0;
};

}  // namespace zeta::interleave
