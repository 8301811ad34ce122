// zeta.suitability, zeta.latest_start_ns, zeta.choose_replica: the scoring kernels on the caller's numpy columns.

#include <pybind11/stl.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bindings.hpp"
#include "fast_functions.hpp"
#include "zeta/core/cpu.hpp"
#include "zeta/core/types.hpp"
#include "zeta/route/choose.hpp"
#include "zeta/score/kernel.hpp"

namespace py = pybind11;

namespace zeta::bindings {
namespace {

constexpr std::array<const char*, 3> kLevelNames{"baseline", "avx2", "avx512"};

// --- columns

enum class Type : std::uint8_t { float64, int64, uint64 };
constexpr std::array<const char*, 3> kTypeNames{"float64", "int64", "uint64"};
constexpr std::array<char, 3> kKinds{'f', 'i', 'u'};

int rank_of(const py::detail::PyArray_Proxy& array) { return array.nd; }

std::string shape_text(const py::detail::PyArray_Proxy& array) {
  std::string text = "(";
  for (int d = 0; d < rank_of(array); ++d) text += (d == 0 ? "" : ", ") + std::to_string(array.dimensions[d]);
  return text + (rank_of(array) == 1 ? ",)" : ")");
}

/// A numpy array of `type`, C-contiguous; throws a sentence where it is another.
const py::detail::PyArray_Proxy& array_of(PyObject* given, const char* name, Type type) {
  const auto which = static_cast<std::size_t>(type);
  if (!py::detail::npy_api::get().PyArray_Check_(given)) {
    throw py::type_error(std::string{name} + ": expected a numpy array of " + kTypeNames[which] + ", got " +
                         Py_TYPE(given)->tp_name);
  }
  const auto& array = *py::detail::array_proxy(given);
  const auto& dtype = *py::detail::array_descriptor1_proxy(array.descr);
  constexpr int kUsable = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  const bool is_same = dtype.kind == kKinds[which] && py::reinterpret_borrow<py::dtype>(array.descr).itemsize() == 8 &&
                       dtype.byteorder == '=';
  if (!is_same || (array.flags & kUsable) != kUsable) {
    throw py::value_error(std::string{name} + ": expected a C-contiguous array of " + kTypeNames[which] + ", got " +
                          py::str(array.descr).cast<std::string>() + " of shape " + shape_text(array) +
                          (is_same ? " that is not contiguous" : "") + ". Use numpy.ascontiguousarray(x, dtype=numpy." +
                          kTypeNames[which] + ").");
  }
  return array;
}

[[noreturn]] void refuse_shape(const char* name, const py::detail::PyArray_Proxy& array, const std::string& expected) {
  throw py::value_error(std::string{name} + ": got shape " + shape_text(array) + ", expected " + expected);
}

/// One value per entry of the first column; `size` is set by that column and checked after.
template <class T>
const T* column_of(PyObject* given, const char* name, Type type, std::optional<std::size_t>& size, const char* letter) {
  const auto& array = array_of(given, name, type);
  if (rank_of(array) != 1) refuse_shape(name, array, std::string{"("} + letter + ",)");
  const auto entries = static_cast<std::size_t>(array.dimensions[0]);
  if (!size) size = entries;
  if (entries != *size) {
    refuse_shape(name, array, "(" + std::to_string(*size) + ",): " + letter + " as in the columns before it");
  }
  return reinterpret_cast<const T*>(array.data);
}

/// (m,) or (m, n).
score::PairColumn pair_column(PyObject* given, const char* name, std::size_t models, std::size_t requests) {
  if (given == nullptr || given == Py_None) return {};
  const auto& array = array_of(given, name, Type::float64);
  const bool is_per_request = rank_of(array) == 2 && static_cast<std::size_t>(array.dimensions[1]) == requests;
  if (rank_of(array) < 1 || static_cast<std::size_t>(array.dimensions[0]) != models ||
      (rank_of(array) != 1 && !is_per_request)) {
    refuse_shape(name, array,
                 "(" + std::to_string(models) + ",) or (" + std::to_string(models) + ", " + std::to_string(requests) +
                     "): one row per model, one column per request");
  }
  return {reinterpret_cast<const double*>(array.data), is_per_request};
}

/// The caller's array for a result, checked, or a new one.
template <class T>
py::object result_array(PyObject* given, const char* name, Type type, const std::vector<py::ssize_t>& shape) {
  if (given == nullptr || given == Py_None) return py::array_t<T>(shape);
  const auto& array = array_of(given, name, type);
  std::string expected = "(";
  bool is_same = static_cast<std::size_t>(rank_of(array)) == shape.size();
  for (std::size_t d = 0; d < shape.size(); ++d) {
    is_same = is_same && array.dimensions[d] == shape[d];
    expected += (d == 0 ? "" : ", ") + std::to_string(shape[d]);
  }
  if (!is_same) refuse_shape(name, array, expected + (shape.size() == 1 ? ",)" : ")"));
  if ((array.flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_) == 0) {
    throw py::value_error(std::string{name} + " is read-only; give an array that can be written to, or None.");
  }
  return py::reinterpret_borrow<py::object>(given);
}

template <class T>
T* data_of(const py::object& array) {
  return reinterpret_cast<T*>(py::detail::array_proxy(array.ptr())->data);
}

/// Where an array's values lie, to see that results do not overwrite what is still to be read.
struct Extent {
  const char* begin = nullptr;
  const char* end = nullptr;

  template <class T>
  static Extent of(const T* data, std::size_t count) {
    const auto* begin = reinterpret_cast<const char*>(data);
    return {begin, begin + (data == nullptr ? 0 : count * sizeof(T))};
  }
  [[nodiscard]] bool overlaps(const Extent& other) const { return begin < other.end && other.begin < end; }
};

void refuse_overlap(const char* name, const Extent& result, std::initializer_list<Extent> others) {
  for (const Extent& other : others) {
    if (result.overlaps(other)) {
      throw py::value_error(std::string{name} + " shares memory with another argument; give an array of its own.");
    }
  }
}

// --- arguments

/// Positional and keyword arguments of a function by position in `names`, the first `positional_most` of which may be
/// given by position. Those not given are null.
template <std::size_t N>
std::array<PyObject*, N> arguments(const char* function, const std::array<const char*, N>& names,
                                   std::size_t positional_most, std::size_t needed, PyObject* const* args,
                                   Py_ssize_t positional, PyObject* keywords) {
  std::array<PyObject*, N> found{};
  const auto given = static_cast<std::size_t>(positional);
  if (given > positional_most) {
    throw py::type_error(std::string{function} + "() takes at most " + std::to_string(positional_most) +
                         " positional arguments, got " + std::to_string(given));
  }
  for (std::size_t i = 0; i < given; ++i) found[i] = args[i];
  const Py_ssize_t named = keywords == nullptr ? 0 : PyTuple_GET_SIZE(keywords);
  for (Py_ssize_t k = 0; k < named; ++k) {
    PyObject* name = PyTuple_GET_ITEM(keywords, k);
    std::size_t i = 0;
    while (i < N && PyUnicode_CompareWithASCIIString(name, names[i]) != 0) ++i;
    if (i == N || found[i] != nullptr) {
      throw py::type_error(std::string{function} + "(): argument " + py::repr(name).cast<std::string>() +
                           (i == N ? " is unknown" : " is given twice"));
    }
    found[i] = args[positional + k];
  }
  for (std::size_t i = 0; i < needed; ++i) {
    if (found[i] == nullptr) throw py::type_error(std::string{function} + "() needs " + names[i]);
  }
  return found;
}

double finite_number(PyObject* value, const char* name) {
  const double number = PyFloat_AsDouble(value);
  if (number == -1.0 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  if (!(number >= 0.0) || std::isinf(number)) {
    throw py::value_error(std::string{name} + ": got " + py::repr(value).cast<std::string>() +
                          ", expected a finite number, 0 or more");
  }
  return number;
}

score::Weights weights_of(PyObject* given) {
  score::Weights weights;
  if (given == nullptr || given == Py_None) return weights;
  const auto part = [given](const char* name, const char* said) {
    const auto value = py::reinterpret_steal<py::object>(PyObject_GetAttrString(given, name));
    if (!value) throw py::error_already_set();
    return finite_number(value.ptr(), said);
  };
  weights.quality = part("quality", "weights.quality");
  weights.cost = part("cost", "weights.cost");
  weights.deadline = part("deadline", "weights.deadline");
  weights.affinity = part("affinity", "weights.affinity");
  return weights;
}

SimdLevel level_of(PyObject* given) {
  if (given == nullptr || given == Py_None) return simd_level();
  for (std::size_t i = 0; i < kLevelNames.size() && i <= static_cast<std::size_t>(simd_level()); ++i) {
    if (PyUnicode_Check(given) && PyUnicode_CompareWithASCIIString(given, kLevelNames[i]) == 0) {
      return static_cast<SimdLevel>(i);
    }
  }
  throw py::value_error("_level: got " + py::repr(given).cast<std::string>() +
                        ", expected one of zeta._core.simd_levels()");
}

constexpr std::size_t kReleaseGilAbove = 1U << 15U;  // pairs: some 20 us of work

// --- functions

constexpr std::array<const char*, 10> kSuitabilityNames{"complexity",    "time_left_s", "quality", "relative_cost",
                                                        "first_token_s", "prefix_held", "weights", "out",
                                                        "best_out",      "_level"};

PyObject* suitability(PyObject* /*module*/, PyObject* const* args, Py_ssize_t positional, PyObject* keywords) {
  return guarded([&]() -> PyObject* {
    const auto given = arguments("suitability", kSuitabilityNames, 6, 5, args, positional, keywords);
    score::Batch batch;
    std::optional<std::size_t> n;
    std::optional<std::size_t> m;
    batch.complexity = column_of<double>(given[0], "complexity", Type::float64, n, "n");
    batch.time_left_s = column_of<double>(given[1], "time_left_s", Type::float64, n, "n");
    const double* quality = column_of<double>(given[2], "quality", Type::float64, m, "m");
    if (*m == 0 || *m > kMaxModels) {
      throw py::value_error("quality: got " + std::to_string(*m) + " models, expected 1 to " +
                            std::to_string(kMaxModels));
    }
    std::array<double, kMaxModels> odds_against;
    for (std::size_t i = 0; i < *m; ++i) odds_against[i] = score::QualityCurve::from_quality(quality[i]).odds_against;
    batch.requests = *n;
    batch.models = *m;
    batch.odds_against = odds_against.data();
    batch.relative_cost = pair_column(given[3], "relative_cost", *m, *n);
    batch.first_token_s = pair_column(given[4], "first_token_s", *m, *n);
    batch.prefix_held = pair_column(given[5], "prefix_held", *m, *n);
    const score::Weights weights = weights_of(given[6]);
    const SimdLevel level = level_of(given[9]);
    const auto rows = static_cast<py::ssize_t>(*m);
    const auto columns = static_cast<py::ssize_t>(*n);
    py::object scores = result_array<double>(given[7], "out", Type::float64, {rows, columns});
    py::object best = result_array<std::int64_t>(given[8], "best_out", Type::int64, {columns});
    auto* scores_to = data_of<double>(scores);
    auto* best_to = data_of<std::int64_t>(best);
    const auto extent = [&](const score::PairColumn& column) {
      return Extent::of(column.values, column.is_per_request ? *m * *n : *m);
    };
    const Extent in[]{Extent::of(batch.complexity, *n), Extent::of(batch.time_left_s, *n), extent(batch.relative_cost),
                      extent(batch.first_token_s), extent(batch.prefix_held)};
    const Extent scores_extent = Extent::of(scores_to, *m * *n);
    const Extent best_extent = Extent::of(best_to, *n);
    refuse_overlap("out", scores_extent, {in[0], in[1], in[2], in[3], in[4], best_extent});
    refuse_overlap("best_out", best_extent, {in[0], in[1], in[2], in[3], in[4]});
    if (*m * *n > kReleaseGilAbove) {
      PyThreadState* const thread = PyEval_SaveThread();
      score::suitability(batch, weights, scores_to, best_to, level);
      PyEval_RestoreThread(thread);
    } else {
      score::suitability(batch, weights, scores_to, best_to, level);
    }
    return PyTuple_Pack(2, scores.ptr(), best.ptr());
  });
}

constexpr std::array<const char*, 3> kLatestStartNames{"deadline_ns", "service_s", "out"};

PyObject* latest_start_ns(PyObject* /*module*/, PyObject* const* args, Py_ssize_t positional, PyObject* keywords) {
  return guarded([&]() -> PyObject* {
    const auto given = arguments("latest_start_ns", kLatestStartNames, 2, 2, args, positional, keywords);
    std::optional<std::size_t> n;
    const auto* deadline_ns = column_of<std::int64_t>(given[0], "deadline_ns", Type::int64, n, "n");
    const auto& service = array_of(given[1], "service_s", Type::float64);
    const auto models = static_cast<std::size_t>(rank_of(service) < 1 ? 0 : service.dimensions[0]);
    if (models == 0) refuse_shape("service_s", service, "(m,) or (m, n) with m at least 1");
    const score::PairColumn service_s = pair_column(given[1], "service_s", models, *n);
    py::object keys = result_array<std::uint64_t>(given[2], "out", Type::uint64, {static_cast<py::ssize_t>(*n)});
    auto* keys_to = data_of<std::uint64_t>(keys);
    refuse_overlap(
        "out", Extent::of(keys_to, *n),
        {Extent::of(deadline_ns, *n), Extent::of(service_s.values, service_s.is_per_request ? models * *n : models)});
    score::latest_start_keys(deadline_ns, service_s, *n, models, keys_to);
    return keys.release().ptr();
  });
}

constexpr std::array<const char*, 5> kChooseNames{"load_s", "room", "prefix_held", "prefill_s", "_level"};

PyObject* choose_replica(PyObject* /*module*/, PyObject* const* args, Py_ssize_t positional, PyObject* keywords) {
  return guarded([&]() -> PyObject* {
    const auto given = arguments("choose_replica", kChooseNames, 4, 2, args, positional, keywords);
    route::ReplicaColumns columns;
    std::optional<std::size_t> n;
    columns.load_s = column_of<double>(given[0], "load_s", Type::float64, n, "n");
    columns.room = column_of<double>(given[1], "room", Type::float64, n, "n");
    if (given[2] != nullptr && given[2] != Py_None) {
      columns.prefix_held = column_of<double>(given[2], "prefix_held", Type::float64, n, "n");
    }
    columns.count = *n;
    const double prefill_s = given[3] == nullptr ? 0.0 : finite_number(given[3], "prefill_s");
    return PyLong_FromLongLong(route::choose_replica(columns, prefill_s, level_of(given[4])));
  });
}

// pybind11-stubgen reads the first line as the signature.
PyMethodDef score_functions[] = {
    {"suitability", as_function(suitability), METH_FASTCALL | METH_KEYWORDS,
     R"(suitability(complexity: numpy.typing.NDArray[numpy.float64], time_left_s: numpy.typing.NDArray[numpy.float64], quality: numpy.typing.NDArray[numpy.float64], relative_cost: numpy.typing.NDArray[numpy.float64], first_token_s: numpy.typing.NDArray[numpy.float64], prefix_held: numpy.typing.NDArray[numpy.float64] | None = None, *, weights: typing.Any = None, out: numpy.typing.NDArray[numpy.float64] | None = None, best_out: numpy.typing.NDArray[numpy.int64] | None = None, _level: str | None = None) -> tuple[numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.int64]]

How well each of m models suits each of n requests now, and each request's best model.

    quality * P(good) - cost * relative_cost - deadline * min(1, first_token_s / time_left_s) + affinity * prefix_held
    P(good) = 1 / (1 + (1 - quality) / quality * exp(4 * (complexity - 1/2)))

The scheduler's own formula and bits (docs/scoring.md), on numpy columns: C-contiguous, no copies.

Parameters
----------
complexity : ndarray of float64, shape (n,)
    How hard each request is, 0 to 1; 0.5 is average. NaN or negative: unknown, then P(good) is 0 on every model.
time_left_s : ndarray of float64, shape (n,)
    Until the first-token deadline, seconds; infinite: none; below 1 ns: late, and the deadline part is 1.
quality : ndarray of float64, shape (m,)
    Prior probability of a good answer on an average request; held to [1e-6, 1 - 1e-6]. m is 1 to 32.
relative_cost : ndarray of float64, shape (m,) or (m, n)
    Predicted work relative to the dearest eligible model, 0 to 1. NaN: the model is not eligible.
first_token_s : ndarray of float64, shape (m,) or (m, n)
    Predicted time to first token from now, seconds; at most 1e9 counts. NaN: unknown, the model is not chosen.
prefix_held : ndarray of float64, shape (m,) or (m, n), optional
    Part of the prompt that the model's replicas have cached, 0 to 1.
weights : zeta.Weights, optional
    Anything with the numbers quality, cost, deadline and affinity, 0 or more.
out : ndarray of float64, shape (m, n), optional
    Where the scores go; it shares no memory with the other arrays.
best_out : ndarray of int64, shape (n,), optional
    Where the best models go.

Returns
-------
scores : ndarray of float64, shape (m, n)
    Larger is better; minus infinity where an input is NaN. One row per model.
best : ndarray of int64, shape (n,)
    The model with the highest score, the lowest number among equals; -1 where every score is minus infinity.

Raises
------
TypeError
    If an argument is missing, unknown or not an array.
ValueError
    If a dtype, shape, weight or memory layout is wrong.

Notes
-----
Thread-safe; releases the GIL above 32,768 scores. The result is the same on every processor, bit for bit.)"},
    {"latest_start_ns", as_function(latest_start_ns), METH_FASTCALL | METH_KEYWORDS,
     R"(latest_start_ns(deadline_ns: numpy.typing.NDArray[numpy.int64], service_s: numpy.typing.NDArray[numpy.float64], *, out: numpy.typing.NDArray[numpy.uint64] | None = None) -> numpy.typing.NDArray[numpy.uint64]

Keys for a queue: by when each request must start. Its deadline less its service on the fastest model.

Parameters
----------
deadline_ns : ndarray of int64, shape (n,)
    On the caller's clock, nanoseconds. The largest int64 means none, and stays the last of all keys.
service_s : ndarray of float64, shape (m,) or (m, n)
    Predicted service of each of m models, seconds. NaN: unknown, left out; all NaN: the key is the deadline.
out : ndarray of uint64, shape (n,), optional
    Where the keys go.

Returns
-------
ndarray of uint64, shape (n,)
    Smallest first: least laxity (Mok, 1983). 0 where that instant lies before the clock's zero.

Raises
------
TypeError
    If an argument is missing, unknown or not an array.
ValueError
    If a dtype, shape or memory layout is wrong.)"},
    {"choose_replica", as_function(choose_replica), METH_FASTCALL | METH_KEYWORDS,
     R"(choose_replica(load_s: numpy.typing.NDArray[numpy.float64], room: numpy.typing.NDArray[numpy.float64], prefix_held: numpy.typing.NDArray[numpy.float64] | None = None, prefill_s: float = 0.0, *, _level: str | None = None) -> int

The replica with room where a prompt's first token is predicted soonest.

The one with the least ``load_s + prefill_s * (1 - prefix_held)``: the work ahead and what is left of its own prefill.

Parameters
----------
load_s : ndarray of float64, shape (n,)
    Predicted work ahead of the prompt on each replica, seconds. NaN: unknown, the replica is not chosen.
room : ndarray of float64, shape (n,)
    Free places in each replica's window, requests. Below 1 or NaN: full.
prefix_held : ndarray of float64, shape (n,), optional
    Part of the prompt that each replica has cached, 0 to 1.
prefill_s : float
    Predicted prefill of the whole prompt, seconds.

Returns
-------
int
    The lowest number among equals; -1 where no replica has room.

Raises
------
TypeError
    If an argument is missing, unknown or not an array.
ValueError
    If a dtype, shape or memory layout is wrong, or `prefill_s` is negative or not finite.

Notes
-----
Keeps nothing and changes nothing: the caller adds what it places to `load_s` and takes it from `room`.)"},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void bind_score(py::module_& module) {
  if (PyModule_AddFunctions(module.ptr(), score_functions) != 0) throw py::error_already_set();
  module.def(
      "simd_levels",
      [] {
        std::vector<std::string> names;
        for (std::size_t i = 0; i <= static_cast<std::size_t>(simd_level()); ++i) names.emplace_back(kLevelNames[i]);
        return names;
      },
      "Widths that the kernels can use on this processor, the one in use last.");
}

}  // namespace zeta::bindings
