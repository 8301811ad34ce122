// submit, poll, first_token and complete: what is called for every request.

#include "bindings.hpp"
#include "fast_functions.hpp"
#include "fast_methods.hpp"
#include "py_router.hpp"
// After Python.h, which pybind11 brings.
#include <structmember.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace py = pybind11;

namespace zeta::bindings {
namespace {

// --- Lease
// -------------------------------------------------------------------------------------------------------------

struct LeaseObject {
  PyObject_HEAD unsigned long long ticket;
  double queued_ms;
  PyObject* model;
  PyObject* replica;
  PyObject* url;
};

PyTypeObject* lease_type = nullptr;  // made once per process, with the module

void lease_dealloc(PyObject* self) {
  auto* lease = reinterpret_cast<LeaseObject*>(self);
  Py_XDECREF(lease->model);
  Py_XDECREF(lease->replica);
  Py_XDECREF(lease->url);
  PyTypeObject* type = Py_TYPE(self);
  type->tp_free(self);
  Py_DECREF(type);
}

PyObject* lease_repr(PyObject* self) {
  auto* lease = reinterpret_cast<LeaseObject*>(self);
  char queued[32];
  std::snprintf(queued, sizeof queued, "%.3f", lease->queued_ms);
  return PyUnicode_FromFormat("Lease(ticket=%llu, model=%R, replica=%R, queued_ms=%s)", lease->ticket, lease->model,
                              lease->replica, queued);
}

PyMemberDef lease_members[] = {
    {"ticket", T_ULONGLONG, offsetof(LeaseObject, ticket), READONLY, "int: The ticket that submit returned."},
    {"queued_ms", T_DOUBLE, offsetof(LeaseObject, queued_ms), READONLY,
     "float: From submission to placement, milliseconds."},
    {"model", T_OBJECT, offsetof(LeaseObject, model), READONLY, "str: Name of the model."},
    {"replica", T_OBJECT, offsetof(LeaseObject, replica), READONLY, "str: Name of the replica."},
    {"url", T_OBJECT, offsetof(LeaseObject, url), READONLY, "str | None: The replica's URL."},
    {nullptr, 0, 0, 0, nullptr},
};

PyObject* make_lease(const PyRouter& self, const sched::Placement& placement) {
  PyObject* object = lease_type->tp_alloc(lease_type, 0);
  if (object == nullptr) return nullptr;
  auto* lease = reinterpret_cast<LeaseObject*>(object);
  lease->ticket = placement.ticket.value();
  lease->queued_ms = static_cast<double>(placement.queued.count()) * 1e-6;
  lease->model = self.model_names[index_of(placement.model)].inc_ref().ptr();
  lease->replica = self.replica_names[index_of(placement.replica)].inc_ref().ptr();
  lease->url = self.replica_urls[index_of(placement.replica)].inc_ref().ptr();
  return object;
}

// --- arguments
// ---------------------------------------------------------------------------------------------------------

PyRouter& router_of(PyObject* self) {
  auto* instance = reinterpret_cast<py::detail::instance*>(self);
  void* value = instance->get_value_and_holder().value_ptr();
  if (value == nullptr) throw py::type_error("the router is not initialised; call super().__init__ first");
  return *static_cast<PyRouter*>(value);
}

[[noreturn]] void refuse(const char* name, const char* expected, PyObject* given) {
  throw py::value_error(std::string{name} + ": got " + py::repr(given).cast<std::string>() + ", expected " + expected);
}

std::uint32_t to_tokens(PyObject* value, const char* name) {
  const long long tokens = PyLong_AsLongLong(value);
  if (tokens == -1 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  if (tokens < 0 || tokens > 0x7FFFFFFF) refuse(name, "0 to 2147483647 tokens", value);
  return static_cast<std::uint32_t>(tokens);
}

double to_number(PyObject* value) {
  const double number = PyFloat_AsDouble(value);
  if (number == -1.0 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return number;
}

/// Milliseconds from `now`; None is never.
Instant to_deadline(PyObject* value, const char* name, Instant now) {
  if (value == Py_None) return kNever;
  const double ms = to_number(value);
  if (!(ms >= 0.0)) refuse(name, "milliseconds from now, 0 or more, or None", value);
  return saturating_add(now, duration_from_seconds(ms * 1e-3));
}

float to_unit(PyObject* value, const char* name) {
  const double number = to_number(value);
  if (!(number >= 0.0 && number <= 1.0)) refuse(name, "0 to 1", value);
  return static_cast<float>(number);
}

std::uint64_t affinity_of(PyObject* key) {
  if (key == Py_None) return 0;
  const Py_hash_t hash = PyObject_Hash(key);
  if (hash == -1 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return static_cast<std::uint64_t>(hash) | 1U;  // 0 means none
}

enum class Argument : std::uint8_t {
  prompt_tokens,
  max_tokens,
  deadline_ms,
  tenant,
  complexity,
  prompt,
  end_deadline_ms,
  max_wait_ms,
  priority,
  min_quality,
  models,
  affinity_key,
  channel,
  count,
};

constexpr const char* kArguments[] = {"prompt_tokens", "max_tokens",      "deadline_ms", "tenant",   "complexity",
                                      "prompt",        "end_deadline_ms", "max_wait_ms", "priority", "min_quality",
                                      "models",        "affinity_key",    "_channel"};
static_assert(std::size(kArguments) == static_cast<std::size_t>(Argument::count));

PyObject* interned[static_cast<std::size_t>(Argument::count)] = {};

Argument argument_of(PyObject* name) {
  for (std::size_t i = 0; i < std::size(interned); ++i) {
    if (interned[i] == name) return static_cast<Argument>(i);  // keywords in source code are interned
  }
  for (std::size_t i = 0; i < std::size(interned); ++i) {
    if (PyUnicode_Compare(interned[i], name) == 0) return static_cast<Argument>(i);
  }
  throw py::type_error("submit() has no argument " + py::repr(name).cast<std::string>() +
                       "; it takes prompt_tokens or prompt, max_tokens, deadline_ms, end_deadline_ms, max_wait_ms, "
                       "tenant, priority, complexity, min_quality, models and affinity_key");
}

/// Without a tokenizer: English and code in byte-pair vocabularies come to about four bytes per token.
std::uint32_t tokens_of_text(PyObject* text) {
  Py_ssize_t bytes = 0;
  if (!PyUnicode_Check(text) || PyUnicode_AsUTF8AndSize(text, &bytes) == nullptr) {
    if (PyErr_Occurred() != nullptr) throw py::error_already_set();
    refuse("prompt", "a str", text);
  }
  return static_cast<std::uint32_t>(std::min<Py_ssize_t>((bytes + 3) / 4, 0x7FFFFFFF));
}

struct Submission {
  sched::Request request;
  bool has_prompt = false;
};

void set_argument(Submission& submission, PyRouter& self, Argument argument, PyObject* value, Instant now) {
  sched::Request& request = submission.request;
  switch (argument) {
    case Argument::prompt_tokens:
      if (value == Py_None) return;
      request.prompt_tokens = to_tokens(value, "prompt_tokens");
      submission.has_prompt = true;
      return;
    case Argument::prompt:
      if (value == Py_None || submission.has_prompt) return;  // given tokens are better than counted bytes
      request.prompt_tokens = tokens_of_text(value);
      submission.has_prompt = true;
      return;
    case Argument::max_tokens:
      if (value != Py_None) request.max_tokens = to_tokens(value, "max_tokens");
      return;
    case Argument::deadline_ms:
      request.first_token_deadline = to_deadline(value, "deadline_ms", now);
      return;
    case Argument::end_deadline_ms:
      request.end_deadline = to_deadline(value, "end_deadline_ms", now);
      return;
    case Argument::max_wait_ms:
      request.expires_at = to_deadline(value, "max_wait_ms", now);
      return;
    case Argument::tenant:
      request.tenant = self.tenant(value);
      return;
    case Argument::priority: {
      const std::uint32_t band = to_tokens(value, "priority");
      if (band >= self.config.bands) {
        throw py::value_error("priority: got " + std::to_string(band) + ", expected 0 (first) to " +
                              std::to_string(self.config.bands - 1) + " (last); 1 is usual");
      }
      request.priority = static_cast<std::uint8_t>(band);
      return;
    }
    case Argument::complexity:
      if (value != Py_None) request.complexity = to_unit(value, "complexity");
      return;
    case Argument::min_quality:
      request.min_quality = to_unit(value, "min_quality");
      return;
    case Argument::models:
      if (value != Py_None) request.allowed = self.models(value);
      return;
    case Argument::affinity_key:
      request.affinity_key = affinity_of(value);
      return;
    case Argument::channel:
      request.channel = static_cast<std::uint8_t>(to_tokens(value, "_channel") & 1U);
      return;
    case Argument::count:
      return;
  }
}

sched::Ticket to_ticket(PyObject* value) {
  if (Py_TYPE(value) == lease_type) return sched::Ticket{reinterpret_cast<LeaseObject*>(value)->ticket};
  const unsigned long long ticket = PyLong_AsUnsignedLongLong(value);
  if (ticket == static_cast<unsigned long long>(-1) && PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    refuse("ticket", "a ticket from submit or a lease from poll", value);
  }
  return sched::Ticket{ticket};
}

// --- methods
// -----------------------------------------------------------------------------------------------------------

PyObject* submit(PyObject* object, PyObject* const* args, Py_ssize_t positional, PyObject* keywords) {
  return guarded([&]() -> PyObject* {
    PyRouter& self = router_of(object);
    runtime::Router& router = self.open();
    if (positional > 0) throw py::type_error("submit() takes keyword arguments only: submit(prompt_tokens=812)");
    const Instant now = router.now();
    Submission submission;
    const Py_ssize_t given = keywords == nullptr ? 0 : PyTuple_GET_SIZE(keywords);
    for (Py_ssize_t i = 0; i < given; ++i) {
      set_argument(submission, self, argument_of(PyTuple_GET_ITEM(keywords, i)), args[i], now);
    }
    if (!submission.has_prompt) throw py::type_error("submit() needs prompt_tokens= (an int) or prompt= (a str)");
    return PyLong_FromUnsignedLongLong(router.submit(submission.request, now).value());
  });
}

/// One look at the ready list; an empty list when nothing is ready.
PyObject* poll_now(PyRouter& self, runtime::Router& router, std::uint8_t channel, std::size_t most) {
  PyObject* list = PyList_New(0);
  if (list == nullptr) throw py::error_already_set();
  if (!router.has_ready(channel)) {
    router.waker(channel).clear();
    if (!router.has_ready(channel)) return list;
  }
  bool has_failed = false;
  router.poll(
      channel, most,
      [&](const sched::Placement& placement) {
        PyObject* lease = make_lease(self, placement);
        has_failed |= lease == nullptr || PyList_Append(list, lease) != 0;
        Py_XDECREF(lease);
      },
      router.now());
  if (!has_failed) return list;
  Py_DECREF(list);
  throw py::error_already_set();
}

/// Waits in slices, so that a signal is answered within one.
PyObject* poll_waiting(PyRouter& self, std::uint8_t channel, std::size_t most, double timeout_s) {
  constexpr int kSliceMs = 50;
  const bool is_forever = !(timeout_s < 1e9);
  const runtime::SteadyClock clock;
  const Instant start = clock.now();
  for (;;) {
    runtime::Router& router = self.open();
    const int fd = router.waker(channel).fd();
    PyObject* list = poll_now(self, router, channel, most);
    if (PyList_GET_SIZE(list) > 0) return list;
    const double left_s = timeout_s - to_seconds(clock.now() - start);
    if (!is_forever && left_s <= 0.0) return list;
    Py_DECREF(list);
    const int slice_ms = is_forever ? kSliceMs : std::min(kSliceMs, static_cast<int>(std::ceil(left_s * 1e3)));
    without_gil(self, [fd, slice_ms] { (void)runtime::Waker::wait(fd, slice_ms); });
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  }
}

PyObject* poll(PyObject* object, PyObject* const* args, Py_ssize_t positional, PyObject* keywords) {
  return guarded([&]() -> PyObject* {
    PyRouter& self = router_of(object);
    PyObject* most_given = Py_None;
    PyObject* timeout_given = nullptr;
    std::uint8_t channel = 0;
    if (positional > 2) throw py::type_error("poll() takes at most max and timeout");
    if (positional > 0) most_given = args[0];
    if (positional > 1) timeout_given = args[1];
    const Py_ssize_t given = keywords == nullptr ? 0 : PyTuple_GET_SIZE(keywords);
    for (Py_ssize_t i = 0; i < given; ++i) {
      PyObject* name = PyTuple_GET_ITEM(keywords, i);
      PyObject* value = args[positional + i];
      if (PyUnicode_CompareWithASCIIString(name, "max") == 0) {
        most_given = value;
      } else if (PyUnicode_CompareWithASCIIString(name, "timeout") == 0) {
        timeout_given = value;
      } else if (PyUnicode_CompareWithASCIIString(name, "_channel") == 0) {
        channel = static_cast<std::uint8_t>(to_tokens(value, "_channel") & 1U);
      } else {
        throw py::type_error("poll() has no argument " + py::repr(name).cast<std::string>() +
                             "; it takes max and timeout");
      }
    }
    std::size_t most = static_cast<std::size_t>(-1);
    if (most_given != Py_None) most = to_tokens(most_given, "max");
    double timeout_s = 0.0;
    if (timeout_given == Py_None) timeout_s = 1e300;
    if (timeout_given != nullptr && timeout_given != Py_None) timeout_s = to_number(timeout_given);
    if (!(timeout_s > 0.0) || most == 0) return poll_now(self, self.open(), channel, most);
    return poll_waiting(self, channel, most, timeout_s);
  });
}

PyObject* first_token(PyObject* object, PyObject* lease) {
  return guarded([&] { return PyBool_FromLong(router_of(object).open().first_token(to_ticket(lease))); });
}

PyObject* complete(PyObject* object, PyObject* const* args, Py_ssize_t positional, PyObject* keywords) {
  return guarded([&]() -> PyObject* {
    const Py_ssize_t given = positional + (keywords == nullptr ? 0 : PyTuple_GET_SIZE(keywords));
    const bool is_named_right = keywords == nullptr || PyTuple_GET_SIZE(keywords) == 0 ||
                                (PyTuple_GET_SIZE(keywords) == 1 &&
                                 PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, 0), "output_tokens") == 0);
    if (positional < 1 || given > 2 || !is_named_right) {
      throw py::type_error("complete() takes a lease or ticket and output_tokens: complete(lease, output_tokens=143)");
    }
    const bool is_unknown = given < 2 || args[1] == Py_None;
    const std::uint32_t output_tokens = is_unknown ? sched::kUnknownTokens : to_tokens(args[1], "output_tokens");
    return PyBool_FromLong(router_of(object).open().complete(to_ticket(args[0]), output_tokens));
  });
}

PyObject* cancel(PyObject* object, PyObject* ticket) {
  return guarded([&] { return PyBool_FromLong(router_of(object).open().cancel(to_ticket(ticket))); });
}

PyMethodDef hot_methods[] = {
    {"submit", as_function(submit), METH_FASTCALL | METH_KEYWORDS,
     "submit(self, *, prompt_tokens: int | None = None, prompt: str | None = None, max_tokens: int | None = None, "
     "deadline_ms: float | None = None, end_deadline_ms: float | None = None, max_wait_ms: float | None = None, "
     "tenant: str | None = None, priority: int = 1, complexity: float | None = None, min_quality: float = 0.0, "
     "models: str | collections.abc.Iterable[str] | None = None, affinity_key: collections.abc.Hashable = None, "
     "_channel: int = 0) -> int\n\n"
     "Puts a request in the queue and returns its ticket, always: `outcome` tells what became of it."},
    {"poll", as_function(poll), METH_FASTCALL | METH_KEYWORDS,
     "poll(self, max: int | None = None, timeout: float | None = 0.0, *, _channel: int = 0) -> list[Lease]\n\n"
     "Requests whose turn has come, at most max. With a timeout (seconds; None: no end) waits for the first."},
    {"first_token", first_token, METH_O,
     "first_token(self, lease: Lease | int, /) -> bool\n\n"
     "The first token has come. False where the request no longer runs there."},
    {"complete", as_function(complete), METH_FASTCALL | METH_KEYWORDS,
     "complete(self, lease: Lease | int, output_tokens: int | None = None) -> bool\n\n"
     "The answer is complete; None: nobody counted it. False where the request no longer runs."},
    {"cancel", cancel, METH_O,
     "cancel(self, ticket: Lease | int, /) -> bool\n\n"
     "Withdraws a request wherever it is. False where it has ended."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

py::object make_lease_type(py::module_& module) {
  PyType_Slot slots[] = {
      {Py_tp_dealloc, reinterpret_cast<void*>(lease_dealloc)},
      {Py_tp_repr, reinterpret_cast<void*>(lease_repr)},
      {Py_tp_members, lease_members},
      {Py_tp_doc, const_cast<char*>("A request whose turn has come: where to send it. Made by poll.")},
      {0, nullptr},
  };
  PyType_Spec spec{"zeta._core.Lease", sizeof(LeaseObject), 0,
                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE, slots};
  const py::object type = py::reinterpret_steal<py::object>(PyType_FromSpec(&spec));
  if (!type) throw py::error_already_set();
  lease_type = reinterpret_cast<PyTypeObject*>(type.ptr());
  module.attr("Lease") = type;
  return type;
}

void add_hot_methods(py::object router_class) {
  for (std::size_t i = 0; i < std::size(kArguments); ++i) interned[i] = PyUnicode_InternFromString(kArguments[i]);
  add_methods(std::move(router_class), hot_methods);
}

}  // namespace zeta::bindings
