// zeta.PriorityQueue and zeta.DeadlineQueue. One set of methods serves both: a DeadlineQueue's take `now_ns` as well.

#include <algorithm>
#include <atomic>
#include <concepts>
#include <cstring>
#include <span>
#include <string>

#include "bindings.hpp"
#include "fast_methods.hpp"
#include "integer_columns.hpp"
#include "queue_docs.hpp"
#include "runtime/before_fork.hpp"
#include "zeta/queue/deadline_queue.hpp"
#include "zeta/queue/priority_queue.hpp"

namespace py = pybind11;

namespace zeta::bindings {

/// An integer that the constructor reads itself, so that its errors say which argument was wrong.
struct Whole {
  PyObject* given = nullptr;
};

}  // namespace zeta::bindings

template <>
struct pybind11::detail::type_caster<zeta::bindings::Whole> {
  PYBIND11_TYPE_CASTER(zeta::bindings::Whole, const_name("typing.SupportsIndex"));
  bool load(handle given, bool /*convert*/) noexcept {
    value.given = given.ptr();
    return true;
  }
};

namespace zeta::bindings {
namespace {

using Priority = queue::PriorityQueue<>;
using Deadline = queue::DeadlineQueue<>;
using queue::Item;
using queue::Key;
using queue::Ticket;

template <class Queue>
constexpr bool kIsTimed = std::same_as<Queue, Deadline>;

/// From this many rows on a batch runs without the GIL: about 0.1 ms of work, against 30 ns for letting go and up to a
/// switch interval of 5 ms to get it back from a busy thread.
constexpr std::size_t kLongBatch = 2048;
/// A PriorityQueue's batch lets other takers in between so many rows.
constexpr std::size_t kRowsInTurn = 4096;
/// Up to so many rows a batch is popped onto the stack first: the arrays are then as long as what came.
constexpr std::size_t kSmallBatch = 256;

// --- batches without the GIL, and forks ------------------------------------------------------------------------------

std::atomic<int> batches_without_gil{0};

/// To be called with no destructor above that needs the GIL: see without_gil in py_router.hpp.
template <class Body>
void without_gil(Body&& body) {
  batches_without_gil.fetch_add(1, std::memory_order_relaxed);  // a count, raised under the GIL
  PyThreadState* const thread = PyEval_SaveThread();
  body();
  // E143: release, pairs with the acquire in wait_for_batches: the child's copy has the whole batch.
  batches_without_gil.fetch_sub(1, std::memory_order_release);
  PyEval_RestoreThread(thread);
}

/// Before a fork by a thread that holds the GIL: nobody else is in a queue then, and the child's copies are whole.
void wait_for_batches() noexcept {
  if (PyGILState_Check() == 0) return;  // a fork outside Python, whose child cannot go on in Python
  // E143: acquire, pairs with the release in without_gil.
  while (batches_without_gil.load(std::memory_order_acquire) > 0) runtime::let_others_run();
}

// --- the two queues' calls under one name ----------------------------------------------------------------------------

Ticket push_one(Priority& queue, Key key, Item item, Key /*now*/) { return queue.push(key, item); }
Ticket push_one(Deadline& queue, Key key, Item item, Key now) { return queue.push(key, item, now); }

bool update_one(Priority& queue, Ticket ticket, Key key, Key /*now*/) { return queue.update(ticket, key); }
bool update_one(Deadline& queue, Ticket ticket, Key key, Key now) { return queue.update(ticket, key, now); }

auto pop_one(Priority& queue, Key /*now*/, bool /*feasible_first*/) { return queue.pop(); }
auto pop_one(Deadline& queue, Key now, bool feasible_first) { return queue.pop(now, feasible_first); }

auto peek_one(Priority& queue, Key /*now*/, bool /*feasible_first*/) { return queue.peek_key(); }
auto peek_one(Deadline& queue, Key now, bool feasible_first) { return queue.peek_key(now, feasible_first); }

void push_rows(Priority& queue, std::span<const Key> keys, std::span<const Item> items, std::span<Ticket> tickets,
               Key /*now*/) {
  (void)queue.push_many(keys, items, tickets);
}
void push_rows(Deadline& queue, std::span<const Key> keys, std::span<const Item> items, std::span<Ticket> tickets,
               Key now) {
  (void)queue.push_many(keys, items, tickets, now);
}

std::size_t pop_rows(Priority& queue, std::span<Key> keys, std::span<Item> items, Key /*now*/,
                     bool /*feasible_first*/) {
  std::size_t popped = 0;
  while (popped < keys.size()) {
    const std::size_t turn = std::min(keys.size() - popped, kRowsInTurn);
    const std::size_t came = queue.pop_many(keys.subspan(popped, turn), items.subspan(popped, turn));
    popped += came;
    if (came < turn) break;
  }
  return popped;
}
std::size_t pop_rows(Deadline& queue, std::span<Key> keys, std::span<Item> items, Key now, bool feasible_first) {
  return queue.pop_many(keys, items, now, feasible_first);
}

// --- arguments -------------------------------------------------------------------------------------------------------

Keyword key_word{"key"};
Keyword item_word{"item"};
Keyword now_word{"now_ns"};
Keyword feasible_word{"feasible_first"};
Keyword ticket_word{"ticket"};
Keyword keys_word{"keys"};
Keyword items_word{"items"};
Keyword tickets_word{"tickets"};
Keyword n_word{"n"};

void intern_keywords() {
  for (Keyword* word : {&key_word, &item_word, &now_word, &feasible_word, &ticket_word, &keys_word, &items_word,
                        &tickets_word, &n_word}) {
    word->interned = PyUnicode_InternFromString(word->text);
    if (word->interned == nullptr) throw py::error_already_set();
  }
}

constexpr Parameters<1> kCancelTakes{"cancel(ticket)", 1, {&ticket_word}};
constexpr Parameters<1> kCancelManyTakes{"cancel_many(tickets)", 1, {&tickets_word}};

/// What the other methods of a queue take; the clock's arguments come last, so that the shorter list is a prefix.
template <class Queue>
struct Takes;

template <>
struct Takes<Priority> {
  static constexpr Parameters<2> push{"push(key, item)", 2, {&key_word, &item_word}};
  static constexpr Parameters<2> push_many{"push_many(keys, items)", 2, {&keys_word, &items_word}};
  static constexpr Parameters<1> pop_many{"pop_many(n)", 1, {&n_word}};
  static constexpr Parameters<2> update{"update(ticket, key)", 2, {&ticket_word, &key_word}};
};

template <>
struct Takes<Deadline> {
  static constexpr Parameters<3> push{"push(key, item, now_ns=0)", 2, {&key_word, &item_word, &now_word}};
  static constexpr Parameters<2> pop{"pop(now_ns=0, feasible_first=False)", 0, {&now_word, &feasible_word}};
  static constexpr Parameters<2> peek_key{"peek_key(now_ns=0, feasible_first=False)", 0, {&now_word, &feasible_word}};
  static constexpr Parameters<3> push_many{"push_many(keys, items, now_ns=0)", 2, {&keys_word, &items_word, &now_word}};
  static constexpr Parameters<3> pop_many{
      "pop_many(n, now_ns=0, feasible_first=False)", 1, {&n_word, &now_word, &feasible_word}};
  static constexpr Parameters<3> update{"update(ticket, key, now_ns=0)", 2, {&ticket_word, &key_word, &now_word}};
};

/// When a call happens and what it prefers; a PriorityQueue's calls know neither.
struct Moment {
  Key now = 0;
  bool feasible_first = false;

  [[nodiscard]] bool read(PyObject* now_given, PyObject* feasible_given = nullptr) {
    return (now_given == nullptr || read_integer(now_given, "now_ns", now)) &&
           (feasible_given == nullptr || read_flag(feasible_given, feasible_first));
  }
};

/// The arguments of a method, as they were given.
template <std::size_t kCount>
struct Given {
  PyObject* values[kCount] = {};

  [[nodiscard]] PyObject* at(std::size_t index) const { return index < kCount ? values[index] : nullptr; }
  [[nodiscard]] bool read(const Parameters<kCount>& takes, PyObject* const* args, Py_ssize_t positional,
                          PyObject* names) {
    return takes.read(args, positional, names, values);
  }
};

template <class Queue, std::size_t kCount>
[[nodiscard]] bool read_moment(const Given<kCount>& given, std::size_t from, Moment& moment) {
  if constexpr (kIsTimed<Queue>) return moment.read(given.at(from), given.at(from + 1));
  return true;
}

[[nodiscard]] bool read_ticket(PyObject* value, Ticket& ticket) {
  return read_integer(value, "ticket", ticket, PyExc_OverflowError,
                      "a ticket from push (an int; push returns None when the queue is full)");
}

// --- single calls: with the GIL --------------------------------------------------------------------------------------

template <class Queue>
PyObject* push(PyObject* self, PyObject* const* args, Py_ssize_t positional, PyObject* names) {
  Queue* const queue = object_of<Queue>(self);
  Given<kIsTimed<Queue> ? 3 : 2> given;
  Key key = 0;
  Item item = 0;
  Moment moment;
  if (queue == nullptr || !given.read(Takes<Queue>::push, args, positional, names) ||
      !read_integer(given.values[0], "key", key) || !read_integer(given.values[1], "item", item) ||
      !read_moment<Queue>(given, 2, moment)) {
    return nullptr;
  }
  const Ticket ticket = push_one(*queue, key, item, moment.now);
  if (ticket == queue::kNoTicket) Py_RETURN_NONE;
  return PyLong_FromUnsignedLong(ticket);
}

PyObject* pair_of(std::uint64_t first, std::uint64_t second) {
  PyObject* const pair = PyTuple_New(2);
  if (pair == nullptr) return nullptr;
  PyTuple_SET_ITEM(pair, 0, PyLong_FromUnsignedLong(first));
  PyTuple_SET_ITEM(pair, 1, PyLong_FromUnsignedLong(second));
  if (PyTuple_GET_ITEM(pair, 0) != nullptr && PyTuple_GET_ITEM(pair, 1) != nullptr) [[likely]]
    return pair;
  Py_DECREF(pair);
  return nullptr;
}

template <class Queue>
PyObject* pop_at(Queue& queue, const Moment& moment) {
  const auto entry = pop_one(queue, moment.now, moment.feasible_first);
  if (!entry) Py_RETURN_NONE;
  return pair_of(entry->key, entry->item);
}

template <class Queue>
PyObject* peek_at(Queue& queue, const Moment& moment) {
  const auto key = peek_one(queue, moment.now, moment.feasible_first);
  if (!key) Py_RETURN_NONE;
  return PyLong_FromUnsignedLong(*key);
}

PyObject* pop_priority(PyObject* self, PyObject* /*none*/) {
  Priority* const queue = object_of<Priority>(self);
  return queue == nullptr ? nullptr : pop_at(*queue, Moment{});
}

PyObject* peek_priority(PyObject* self, PyObject* /*none*/) {
  Priority* const queue = object_of<Priority>(self);
  return queue == nullptr ? nullptr : peek_at(*queue, Moment{});
}

PyObject* pop_deadline(PyObject* self, PyObject* const* args, Py_ssize_t positional, PyObject* names) {
  Deadline* const queue = object_of<Deadline>(self);
  Given<2> given;
  Moment moment;
  if (queue == nullptr || !given.read(Takes<Deadline>::pop, args, positional, names) ||
      !moment.read(given.values[0], given.values[1])) {
    return nullptr;
  }
  return pop_at(*queue, moment);
}

PyObject* peek_deadline(PyObject* self, PyObject* const* args, Py_ssize_t positional, PyObject* names) {
  Deadline* const queue = object_of<Deadline>(self);
  Given<2> given;
  Moment moment;
  if (queue == nullptr || !given.read(Takes<Deadline>::peek_key, args, positional, names) ||
      !moment.read(given.values[0], given.values[1])) {
    return nullptr;
  }
  return peek_at(*queue, moment);
}

template <class Queue>
PyObject* cancel(PyObject* self, PyObject* const* args, Py_ssize_t positional, PyObject* names) {
  Queue* const queue = object_of<Queue>(self);
  Given<1> given;
  Ticket ticket = 0;
  if (queue == nullptr || !given.read(kCancelTakes, args, positional, names) || !read_ticket(given.values[0], ticket)) {
    return nullptr;
  }
  return PyBool_FromLong(queue->cancel(ticket) ? 1 : 0);
}

template <class Queue>
PyObject* update(PyObject* self, PyObject* const* args, Py_ssize_t positional, PyObject* names) {
  Queue* const queue = object_of<Queue>(self);
  Given<kIsTimed<Queue> ? 3 : 2> given;
  Ticket ticket = 0;
  Key key = 0;
  Moment moment;
  if (queue == nullptr || !given.read(Takes<Queue>::update, args, positional, names) ||
      !read_ticket(given.values[0], ticket) || !read_integer(given.values[1], "key", key) ||
      !read_moment<Queue>(given, 2, moment)) {
    return nullptr;
  }
  return PyBool_FromLong(update_one(*queue, ticket, key, moment.now) ? 1 : 0);
}

template <class Queue>
PyObject* length(PyObject* self, PyObject* /*none*/) {
  Queue* const queue = object_of<Queue>(self);
  return queue == nullptr ? nullptr : PyLong_FromSize_t(queue->size());
}

// --- batches ---------------------------------------------------------------------------------------------------------

template <class Body>
void run_batch(std::size_t rows, Body&& body) {
  if (rows >= kLongBatch) {
    without_gil(body);
  } else {
    body();
  }
}

template <class Queue>
PyObject* push_columns(Queue& queue, const IntegerColumn& keys, const IntegerColumn& items, Key now) {
  const std::size_t rows = keys.rows().size();
  if (items.rows().size() != rows) {
    PyErr_Format(PyExc_ValueError, "items has %zu rows, expected %zu as in keys", items.rows().size(), rows);
    return nullptr;
  }
  Ticket* tickets = nullptr;
  PyObject* const column = new_column(rows, tickets);
  if (column == nullptr) return nullptr;
  run_batch(rows, [&] { push_rows(queue, keys.rows(), items.rows(), {tickets, rows}, now); });
  return column;
}

template <class Queue>
PyObject* push_many(PyObject* self, PyObject* const* args, Py_ssize_t positional, PyObject* names) {
  Queue* const queue = object_of<Queue>(self);
  Given<kIsTimed<Queue> ? 3 : 2> given;
  Moment moment;
  if (queue == nullptr || !given.read(Takes<Queue>::push_many, args, positional, names) ||
      !read_moment<Queue>(given, 2, moment)) {
    return nullptr;
  }
  IntegerColumn keys;
  IntegerColumn items;
  if (!keys.open(given.values[0], "keys")) return nullptr;
  PyObject* tickets = nullptr;
  if (items.open(given.values[1], "items")) {
    tickets = push_columns(*queue, keys, items, moment.now);
    items.close();
  }
  keys.close();
  return tickets;
}

/// The pair (keys, items) of which it takes ownership; nullptr if one is.
PyObject* columns_pair(PyObject* keys, PyObject* items) {
  PyObject* const pair = keys != nullptr && items != nullptr ? PyTuple_Pack(2, keys, items) : nullptr;
  Py_XDECREF(keys);
  Py_XDECREF(items);
  return pair;
}

PyObject* copied_columns(const Key* keys, const Item* items, std::size_t rows) {
  Key* keys_out = nullptr;
  Item* items_out = nullptr;
  PyObject* const first = new_column(rows, keys_out);
  PyObject* const second = first != nullptr ? new_column(rows, items_out) : nullptr;
  if (second != nullptr) {
    std::copy_n(keys, rows, keys_out);
    std::copy_n(items, rows, items_out);
  }
  return columns_pair(first, second);
}

template <class Queue>
PyObject* pop_small(Queue& queue, std::size_t rows, const Moment& moment) {
  Key keys[kSmallBatch];
  Item items[kSmallBatch];
  const std::size_t came = pop_rows(queue, {keys, rows}, {items, rows}, moment.now, moment.feasible_first);
  return copied_columns(keys, items, came);
}

template <class Queue>
PyObject* pop_large(Queue& queue, std::size_t rows, const Moment& moment) {
  Key* keys = nullptr;
  Item* items = nullptr;
  PyObject* const first = new_column(rows, keys);
  PyObject* const second = first != nullptr ? new_column(rows, items) : nullptr;
  if (second == nullptr) return columns_pair(first, second);
  std::size_t came = 0;
  run_batch(std::min(rows, queue.size()), [&] {  // a hint of how long it will take
    came = pop_rows(queue, {keys, rows}, {items, rows}, moment.now, moment.feasible_first);
  });
  if (came == rows) return columns_pair(first, second);
  PyObject* const shorter = copied_columns(keys, items, came);
  Py_DECREF(first);
  Py_DECREF(second);
  return shorter;
}

template <class Queue>
PyObject* pop_many(PyObject* self, PyObject* const* args, Py_ssize_t positional, PyObject* names) {
  Queue* const queue = object_of<Queue>(self);
  Given<kIsTimed<Queue> ? 3 : 1> given;
  std::uint64_t most = 0;
  Moment moment;
  if (queue == nullptr || !given.read(Takes<Queue>::pop_many, args, positional, names) ||
      !read_integer(given.values[0], "n", most, PyExc_ValueError, "a number of rows, 0 or more") ||
      !read_moment<Queue>(given, 1, moment)) {
    return nullptr;
  }
  const std::size_t rows = std::min<std::size_t>(most, queue->capacity());
  return rows <= kSmallBatch ? pop_small(*queue, rows, moment) : pop_large(*queue, rows, moment);
}

template <class Queue>
PyObject* cancel_many(PyObject* self, PyObject* const* args, Py_ssize_t positional, PyObject* names) {
  Queue* const queue = object_of<Queue>(self);
  Given<1> given;
  IntegerColumn tickets;
  if (queue == nullptr || !given.read(kCancelManyTakes, args, positional, names) ||
      !tickets.open(given.values[0], "tickets")) {
    return nullptr;
  }
  const std::size_t rows = tickets.rows().size();
  bool* are_cancelled = nullptr;
  PyObject* const column = new_column(rows, are_cancelled);
  if (column != nullptr) {
    run_batch(rows, [&] {
      for (std::size_t row = 0; row < rows; ++row) are_cancelled[row] = queue->cancel(tickets.rows()[row]);
    });
  }
  tickets.close();
  return column;
}

// --- the classes -----------------------------------------------------------------------------------------------------

constexpr int kFast = METH_FASTCALL | METH_KEYWORDS;

PyMethodDef priority_methods[] = {
    {"push", as_function(push<Priority>), kFast, docs::kPriorityPush},
    {"pop", pop_priority, METH_NOARGS, docs::kPriorityPop},
    {"push_many", as_function(push_many<Priority>), kFast, docs::kPriorityPushMany},
    {"pop_many", as_function(pop_many<Priority>), kFast, docs::kPriorityPopMany},
    {"cancel", as_function(cancel<Priority>), kFast, docs::kCancel},
    {"cancel_many", as_function(cancel_many<Priority>), kFast, docs::kCancelMany},
    {"update", as_function(update<Priority>), kFast, docs::kPriorityUpdate},
    {"peek_key", peek_priority, METH_NOARGS, docs::kPriorityPeek},
    {"__len__", length<Priority>, METH_NOARGS, docs::kLength},
    {nullptr, nullptr, 0, nullptr},
};

PyMethodDef deadline_methods[] = {
    {"push", as_function(push<Deadline>), kFast, docs::kDeadlinePush},
    {"pop", as_function(pop_deadline), kFast, docs::kDeadlinePop},
    {"push_many", as_function(push_many<Deadline>), kFast, docs::kDeadlinePushMany},
    {"pop_many", as_function(pop_many<Deadline>), kFast, docs::kDeadlinePopMany},
    {"cancel", as_function(cancel<Deadline>), kFast, docs::kCancel},
    {"cancel_many", as_function(cancel_many<Deadline>), kFast, docs::kCancelMany},
    {"update", as_function(update<Deadline>), kFast, docs::kDeadlineUpdate},
    {"peek_key", as_function(peek_deadline), kFast, docs::kDeadlinePeek},
    {"__len__", length<Deadline>, METH_NOARGS, docs::kLength},
    {nullptr, nullptr, 0, nullptr},
};

/// A size or duration between 1 and `most`; throws what Python should raise.
std::uint64_t at_least_one(Whole whole, const char* name, std::uint64_t most, const char* unit) {
  const std::string expected = "1 to " + std::to_string(most) + " " + unit;
  std::uint64_t value = 0;
  if (!read_integer(whole.given, name, value, PyExc_ValueError, expected.c_str())) throw py::error_already_set();
  if (value >= 1 && value <= most) return value;
  throw py::value_error(std::string{name} + ": got " + std::to_string(value) + ", expected " + expected);
}

std::unique_ptr<Priority> make_priority(Whole capacity) {
  return std::make_unique<Priority>(at_least_one(capacity, "capacity", Priority::kMaxCapacity, "items"));
}

std::unique_ptr<Deadline> make_deadline(Whole capacity_given, Whole quantum_given, Whole horizon_given) {
  constexpr std::uint64_t kMostNs = 0x7FFF'FFFF'FFFF'FFFF;
  const std::uint64_t capacity = at_least_one(capacity_given, "capacity", Deadline::kMostCapacity, "items");
  const std::uint64_t quantum = at_least_one(quantum_given, "quantum_ns", kMostNs, "ns");
  const std::uint64_t horizon = at_least_one(horizon_given, "horizon_ns", kMostNs, "ns");
  if (quantum > horizon) {
    throw py::value_error("quantum_ns: got " + std::to_string(quantum) + ", expected at most horizon_ns, which is " +
                          std::to_string(horizon));
  }
  return std::make_unique<Deadline>(capacity, quantum, horizon);
}

}  // namespace

void bind_queue(py::module_& module) {
  intern_keywords();
  runtime::before_fork(wait_for_batches);

  py::class_<Priority> priority(module, "PriorityQueue", docs::kPriority);
  priority.def(py::init(&make_priority), py::arg("capacity") = 1 << 20)
      .def_property_readonly("capacity", &Priority::capacity, "Items that fit.")
      .def("__repr__", [](const Priority& queue) {
        return "<zeta.PriorityQueue: " + std::to_string(queue.size()) + " of " + std::to_string(queue.capacity()) + ">";
      });
  add_methods(priority, priority_methods);

  py::class_<Deadline> deadline(module, "DeadlineQueue", docs::kDeadline);
  deadline
      .def(py::init(&make_deadline), py::arg("capacity"), py::arg("quantum_ns") = 1'000'000,
           py::arg("horizon_ns") = 262'144'000'000)
      .def_property_readonly("capacity", &Deadline::capacity, "Items that fit.")
      .def_property_readonly("quantum_ns", &Deadline::quantum_ns, "Width of a bucket, nanoseconds.")
      .def_property_readonly("horizon_ns", &Deadline::horizon_ns, docs::kHorizon)
      .def("__repr__", [](const Deadline& queue) {
        return "<zeta.DeadlineQueue: " + std::to_string(queue.size()) + " of " + std::to_string(queue.capacity()) +
               ", quantum_ns=" + std::to_string(queue.quantum_ns()) + ">";
      });
  add_methods(deadline, deadline_methods);
}

}  // namespace zeta::bindings
