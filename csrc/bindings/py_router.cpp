#include "py_router.hpp"

#include <algorithm>
#include <chrono>
#include <system_error>
#include <thread>

namespace py = pybind11;

namespace zeta::bindings {

PyRouter::PyRouter(sched::SchedulerConfig given, py::object clock, std::int64_t tick_interval_ns, bool has_thread,
                   runtime::ForecastMode forecast, py::object ask_net)
    : config{std::move(given)},
      clock_{std::move(clock)},
      tick_interval_ns_{tick_interval_ns},
      has_thread_{has_thread && clock_.is_none()},
      forecast_{forecast},
      ask_net_{std::move(ask_net)},
      is_net_asked_for_{!has_thread_ || ask_net_.is_none()},
      asks_for_net_after_{static_cast<std::uint64_t>(1 + 500'000'000 / std::max<std::int64_t>(tick_interval_ns, 1))} {
  build();
}

PyRouter::~PyRouter() { close(); }

void PyRouter::build() {
  std::shared_ptr<runtime::Clock> clock;
  if (clock_.is_none()) {
    clock = std::make_shared<runtime::SteadyClock>();
  } else {
    clock = std::make_shared<PythonClock>(clock_);
  }
  router_ = std::make_unique<runtime::Router>(config, std::move(clock), Duration{tick_interval_ns_}, forecast_);
}

void PyRouter::start() {
  is_started_ = true;  // on the first use, so that a configured but idle router has no thread
  router_->start();
}

void PyRouter::ask_for_net() {
  is_net_asked_for_ = true;
  try {
    ask_net_();
  } catch (py::error_already_set& error) {
    error.discard_as_unraisable("a zeta router's net");  // whoever submits a request has not asked for this
  }
  if (router_ == nullptr) raise_closed();  // by another thread meanwhile
}

void PyRouter::set_net(OnnxNet* net, py::object name) {
  auto& nets = open().loop().nets();
  (void)nets.offer(net == nullptr ? nullptr : net->take());
  (void)nets.collect();
  net_name_ = std::move(name);
}

void PyRouter::close() {
  if (router_ == nullptr) return;
  const std::unique_ptr<runtime::Router> router = std::move(router_);
  router->stop();  // with the GIL, which neither its thread nor its users need to leave
  // Blocked pollers wake, find the router closed and leave; the router goes after the last of them.
  // E142: acquire, pairs with the release in without_gil.
  while (users.load(std::memory_order_acquire) > 0) {
    router->wake_all();
    std::this_thread::sleep_for(std::chrono::milliseconds{1});
  }
}

void PyRouter::stop() {
  if (router_ == nullptr) return;
  is_started_ = is_net_asked_for_ = true;  // not again
  router_->stop();
  router_->flush_log();
}

void PyRouter::reset_after_fork() {
  if (router_ == nullptr) return;
  router_.release()->abandon();               // its thread and locks belong to the parent: leaked, not destroyed
  users.store(0, std::memory_order_relaxed);  // the child has one thread
  is_started_ = false;
  net_name_ = py::none();
  is_net_asked_for_ = !has_thread_ || ask_net_.is_none();
  build();
}

void PyRouter::log_to(const std::string& path, const std::string& header) {
  runtime::Router& router = open();
  try {
    router.log_to(path, header);
  } catch (const std::system_error& error) {
    errno = error.code().value();
    PyErr_SetFromErrnoWithFilename(PyExc_OSError, path.c_str());
    throw py::error_already_set();
  }
}

TenantId PyRouter::tenant(PyObject* name) {
  if (name == Py_None || name == nullptr) return TenantId{0};
  if (PyObject* id = PyDict_GetItemWithError(tenants_.ptr(), name)) {
    return TenantId{static_cast<std::uint16_t>(PyLong_AsUnsignedLong(id))};
  }
  if (!PyUnicode_Check(name)) {
    throw py::type_error("tenant: expected a str or None, got " + std::string{Py_TYPE(name)->tp_name});
  }
  // Tenant 0 is the nameless one. Names beyond max_tenants share the last number and its turn.
  const auto id = std::min<std::size_t>(tenants_.size() + 1, std::max<std::uint32_t>(config.max_tenants, 1) - 1);
  if (tenants_.size() < config.max_tenants) tenants_[py::handle{name}] = py::int_(id);
  return TenantId{static_cast<std::uint16_t>(id)};
}

ModelMask PyRouter::models(PyObject* names) const {
  ModelMask mask;
  const auto add = [&](py::handle name) {
    for (std::size_t i = 0; i < model_names.size(); ++i) {
      if (model_names[i].equal(name)) {
        mask.insert(ModelId{static_cast<std::uint8_t>(i)});
        return;
      }
    }
    std::string known;
    for (std::size_t i = 0; i < model_names.size(); ++i) {
      known += (i == 0 ? "" : ", ") + py::str(model_names[i]).cast<std::string>();
    }
    throw py::value_error("models: no model is called " + py::repr(name).cast<std::string>() + "; known: " + known);
  };
  if (PyUnicode_Check(names)) {
    add(names);
  } else {
    for (const py::handle name : py::iter(names)) add(name);
  }
  if (mask.empty()) throw py::value_error("models: the list is empty; name at least one model or pass None for all");
  return mask;
}

void PyRouter::raise_closed() {
  const py::object error = py::module_::import("zeta.errors").attr("ClosedError");
  PyErr_SetString(error.ptr(), "the router is closed; build a new one");
  throw py::error_already_set();
}

}  // namespace zeta::bindings
