#pragma once
// The state of one zeta._core.Router: a runtime router, and the names that Python uses for its models, replicas and
// tenants. All of it is guarded by the GIL, but for what runtime::Router guards itself.

#include <pybind11/pybind11.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "onnx_net.hpp"
#include "runtime/router.hpp"

namespace zeta::bindings {

/// A clock in Python (`now_ns()`), for tests. Called with the GIL held, never from a native thread.
class PythonClock final : public runtime::Clock {
 public:
  explicit PythonClock(pybind11::object clock) : now_ns_{clock.attr("now_ns")} {}
  [[nodiscard]] Instant now() const noexcept override {
    try {
      last_ = instant_from_ns(now_ns_().cast<std::int64_t>());
    } catch (pybind11::error_already_set& error) {
      error.discard_as_unraisable("a zeta clock");  // time stands still rather than the scheduler
    } catch (const std::exception&) {
      PyErr_SetString(PyExc_TypeError, "a zeta clock's now_ns() must return an int of nanoseconds below 2**63");
      PyErr_WriteUnraisable(now_ns_.ptr());
    }
    return last_;
  }

 private:
  pybind11::object now_ns_;
  mutable Instant last_{};
};

/// Strings that leave for Python often, made once.
class Names {
 public:
  void set(std::size_t index, const std::string& name) {
    if (index >= strings_.size()) strings_.resize(index + 1);
    strings_[index] = pybind11::str(name);
  }
  [[nodiscard]] pybind11::handle operator[](std::size_t index) const noexcept {
    return pybind11::handle{index < strings_.size() && strings_[index] ? strings_[index].ptr() : Py_None};
  }
  [[nodiscard]] std::size_t size() const noexcept { return strings_.size(); }

 private:
  std::vector<pybind11::object> strings_;
};

class PyRouter {
 public:
  PyRouter(sched::SchedulerConfig config, pybind11::object clock, std::int64_t tick_interval_ns, bool has_thread,
           runtime::ForecastMode forecast, pybind11::object ask_net);
  ~PyRouter();
  PyRouter(const PyRouter&) = delete;
  PyRouter& operator=(const PyRouter&) = delete;

  /// The live router; raises zeta.errors.ClosedError after close().
  runtime::Router& open() {
    if (router_ == nullptr) raise_closed();
    if (has_thread_ && !is_started_) start();
    if (!is_net_asked_for_ && router_->ticks() >= asks_for_net_after_) ask_for_net();
    return *router_;
  }

  void close();
  /// Ends the thread and writes the log out; what is blocked stays blocked. For the end of the process.
  void stop();
  void reset_after_fork();
  void log_to(const std::string& path, const std::string& header);

  [[nodiscard]] TenantId tenant(PyObject* name);
  [[nodiscard]] ModelMask models(PyObject* names) const;
  /// Puts a net, or none, in the place of the loop's; `name` is what stats call it.
  void set_net(OnnxNet* net, pybind11::object name);
  [[nodiscard]] const pybind11::object& net_name() const noexcept { return net_name_; }
  [[nodiscard]] bool has_thread() const noexcept { return has_thread_; }
  [[nodiscard]] bool is_closed() const noexcept { return router_ == nullptr; }

  Names model_names;
  Names replica_names;
  Names replica_urls;
  sched::SchedulerConfig config;
  std::atomic<int> users{0};  ///< Threads that use the router without the GIL; it outlives them. Raised under the GIL.

 private:
  [[noreturn]] static void raise_closed();
  void build();
  void start();
  void ask_for_net();

  pybind11::object clock_;
  std::int64_t tick_interval_ns_;
  bool has_thread_;
  bool is_started_ = false;
  runtime::ForecastMode forecast_;
  pybind11::object ask_net_;  ///< Sees to a net for the loop; holds no strong reference to the router.
  bool is_net_asked_for_;
  std::uint64_t asks_for_net_after_;  ///< Ticks: half a second, so that a router that is soon gone needs none.
  pybind11::object net_name_ = pybind11::none();
  std::unique_ptr<runtime::Router> router_;
  pybind11::dict tenants_;
};

/// Runs `body` without the GIL, while `close` leaves the router alone. To be called from frames that a dying thread may
/// skip: at interpreter exit CPython (before 3.14) ends a daemon thread that asks for the GIL by unwinding it. So there
/// is no destructor that takes the GIL, no noexcept above this call, and no frame that owns a Python object alone.
template <class Body>
void without_gil(PyRouter& self, Body&& body) {
  self.users.fetch_add(1, std::memory_order_relaxed);  // a count, under the GIL as close is
  PyThreadState* const thread = PyEval_SaveThread();
  body();
  // E142: release, pairs with the acquire in close: what was done to the router comes before its end.
  self.users.fetch_sub(1, std::memory_order_release);
  PyEval_RestoreThread(thread);
}

/// What `question(Scheduler&)` answers between two events. Whoever waits for the end of a batch, milliseconds, lets
/// other Python threads run meanwhile. The question must not touch Python; see without_gil for the frames above.
template <class Question>
auto ask(PyRouter& self, Question&& question) {
  std::optional<std::invoke_result_t<Question, sched::Scheduler&>> answer;
  const auto visit = [&](sched::Scheduler& scheduler) { answer.emplace(question(scheduler)); };
  runtime::Router& router = self.open();
  if (!router.try_with_owner(visit)) without_gil(self, [&] { router.with_owner(visit); });
  return *std::move(answer);
}

/// The methods that are called per request, as plain vectorcall functions on the bound class: pybind11's dispatcher
/// would cost more than the scheduler.
void add_hot_methods(pybind11::object router_class);

/// The type of what poll returns.
pybind11::object make_lease_type(pybind11::module_& module);

}  // namespace zeta::bindings
