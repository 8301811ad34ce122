#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "columns.hpp"
#include "zeta/core/readings.hpp"
#include "zeta/sync/reading_board.hpp"

namespace py = pybind11;

namespace zeta::bindings {
namespace {

using sync::ReadingBoard;

ReadingKind kind_from(const std::string& name) {
  for (std::size_t i = 0; i < kReadingKindNames.size(); ++i) {
    if (kReadingKindNames[i] == name) return static_cast<ReadingKind>(i);
  }
  throw py::value_error("kind is \"" + name + "\"; expected device, host or replica.");
}

std::vector<std::string> field_names(const std::string& kind) {
  const auto strings = [](const auto& names) { return std::vector<std::string>(names.begin(), names.end()); };
  switch (kind_from(kind)) {
    case ReadingKind::kDevice:
      return strings(kDeviceFieldNames);
    case ReadingKind::kHost:
      return strings(kHostFieldNames);
    default:
      return strings(kReplicaFieldNames);
  }
}

std::size_t checked_row(const ReadingBoard& board, std::size_t row) {
  if (row < board.size()) return row;
  throw py::index_error("row " + std::to_string(row) + " is not on a board of " + std::to_string(board.size()) +
                        " rows.");
}

void publish(ReadingBoard& board, std::size_t row, std::uint64_t identity, const py::object& values,
             std::int64_t taken_ns, std::int64_t stale_after_ns) {
  const auto array = py::reinterpret_borrow<py::array>(values);
  const bool is_array = py::isinstance<py::array>(values);
  const auto given = is_array ? static_cast<std::size_t>(array.size()) : std::size_t{0};
  const auto columns = column<double>(values, "values", given, "float64");
  if (given > kReadingFields) {
    throw py::value_error("values has " + std::to_string(given) + " entries, expected at most " +
                          std::to_string(kReadingFields) + ", one per field of the row's kind.");
  }
  if (stale_after_ns < 0) {
    throw py::value_error("stale_after_ns is " + std::to_string(stale_after_ns) + "; expected 0 or more.");
  }
  board.publish(checked_row(board, row), identity, columns, instant_from_ns(taken_ns), Duration{stale_after_ns});
}

/// Names and bounds of a kind's columns, so that a mapping becomes a row by look-ups of interned names.
class Columns {
 public:
  Columns(const std::string& kind, const std::vector<double>& low, const std::vector<double>& high) {
    const auto names = field_names(kind);
    if (low.size() != names.size() || high.size() != names.size()) {
      throw py::value_error("a " + kind + " has " + std::to_string(names.size()) + " fields, expected a lowest and a " +
                            "highest value for each; got " + std::to_string(low.size()) + " and " +
                            std::to_string(high.size()) + ".");
    }
    for (std::size_t i = 0; i < names.size(); ++i) {
      PyObject* name = PyUnicode_InternFromString(names[i].c_str());
      if (name == nullptr) throw py::error_already_set();
      columns_.push_back({py::reinterpret_steal<py::object>(name), low[i], high[i]});
    }
  }

  /// Fills `values`, NaN for what is missing, None, no number or out of bounds; returns how many names were there.
  std::size_t read(const py::dict& given, std::array<double, kReadingFields>& values) const {
    std::size_t found = 0;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      values[i] = ReadingRecord::kUnknown;
      PyObject* value = PyDict_GetItemWithError(given.ptr(), columns_[i].name.ptr());
      if (value == nullptr) {
        if (PyErr_Occurred() != nullptr) throw py::error_already_set();
        continue;
      }
      ++found;
      if (value == Py_None) continue;
      const double number = number_from(value);
      if (number >= columns_[i].low && number <= columns_[i].high) values[i] = number;
    }
    return found;
  }

  [[nodiscard]] std::size_t size() const noexcept { return columns_.size(); }

 private:
  struct Column {
    py::object name;
    double low;
    double high;
  };

  static double number_from(PyObject* value) {
    if (PyFloat_CheckExact(value)) return PyFloat_AS_DOUBLE(value);
    // A number of another type, or garbage; its own code may run here.
    const auto held = py::reinterpret_borrow<py::object>(value);
    const double number = PyFloat_AsDouble(value);
    if (PyErr_Occurred() == nullptr) return number;
    PyErr_Clear();
    return ReadingRecord::kUnknown;
  }

  std::vector<Column> columns_;
};

std::size_t publish_mapping(ReadingBoard& board, std::size_t row, std::uint64_t identity, const Columns& columns,
                            const py::dict& given, std::int64_t taken_ns, std::int64_t stale_after_ns) {
  std::array<double, kReadingFields> values;
  const std::size_t found = columns.read(given, values);
  board.publish(checked_row(board, row), identity, std::span{values}.first(columns.size()), instant_from_ns(taken_ns),
                Duration{stale_after_ns});
  return found;
}

/// The caller's array of shape (rows, fields), or nullptr for None.
template <class T>
T* table_of(const py::object& given, const ReadingBoard& board, const char* name, const char* dtype) {
  if (given.is_none()) return nullptr;
  if (py::isinstance<py::array_t<T>>(given)) {
    auto array = py::reinterpret_borrow<py::array>(given);
    if (array.ndim() == 2 && array.shape(0) == static_cast<py::ssize_t>(board.size()) &&
        array.shape(1) == static_cast<py::ssize_t>(kReadingFields) && (array.flags() & py::array::c_style) &&
        array.writeable()) [[likely]] {
      return static_cast<T*>(array.mutable_data());
    }
  }
  const bool is_array = py::isinstance<py::array>(given);
  const std::string got = is_array ? py::str("{} of shape {}").format(given.attr("dtype"), given.attr("shape"))
                                   : py::str(py::type::of(given));
  throw py::value_error(std::string{name} + " must be a writeable contiguous array of " + dtype + " and shape (" +
                        std::to_string(board.size()) + ", " + std::to_string(kReadingFields) + "); got " + got +
                        ". Use numpy.empty((board.rows, board.fields), dtype=numpy." + dtype + ").");
}

void copy_into(const ReadingBoard& board, const py::object& values, const py::object& ages_s,
               const py::object& is_known, std::int64_t now_ns) {
  double* value = table_of<double>(values, board, "values", "float64");
  double* age = table_of<double>(ages_s, board, "ages_s", "float64");
  bool* known = table_of<bool>(is_known, board, "is_known", "bool_");
  const Instant now = instant_from_ns(now_ns);
  ReadingRecord record;
  for (std::size_t row = 0; row < board.size(); ++row) {
    if (!board.read(row, record)) record = ReadingRecord{};
    if (!record.is_fresh(now)) record.values.fill(ReadingRecord::kUnknown);
    if (value != nullptr) {
      std::copy(record.values.begin(), record.values.end(), value);
      value += kReadingFields;
    }
    if (age != nullptr) {
      const auto since_ns = static_cast<double>(std::max(now - record.taken, Duration{0}).count());
      for (std::size_t i = 0; i < kReadingFields; ++i) age[i] = (since_ns + record.lag_ns[i]) * 1e-9;
      age += kReadingFields;
    }
    if (known != nullptr) {
      for (std::size_t i = 0; i < kReadingFields; ++i) known[i] = record.values[i] == record.values[i];
      known += kReadingFields;
    }
  }
}

py::object read_row(const ReadingBoard& board, std::size_t row, std::int64_t now_ns) {
  ReadingRecord record;
  if (!board.read(checked_row(board, row), record) || record.identity == 0) return py::none();
  const Instant now = instant_from_ns(now_ns);
  py::tuple values(kReadingFields);
  py::tuple ages(kReadingFields);
  for (std::size_t i = 0; i < kReadingFields; ++i) {
    const std::optional<double> value = record.get(i, now);
    const std::optional<Duration> age = record.age(i, now);
    values[i] = value ? py::object(py::float_(*value)) : py::object(py::none());
    ages[i] = age ? py::object(py::float_(to_seconds(*age))) : py::object(py::none());
  }
  return py::make_tuple(record.identity, values, ages);
}

}  // namespace

void bind_monitor(py::module_& module) {
  module.def("reading_fields", &field_names, py::arg("kind"),
             "Names of the columns of a device, host or replica, in their order.");
  module.def(
      "reading_identity",
      [](const std::string& kind, const std::string& key) { return reading_identity(kind_from(kind), key); },
      py::arg("kind"), py::arg("key"), "The 64 bits by which the core knows a row's subject; never 0.");

  py::class_<Columns>(module, "ReadingColumns", "The columns of a device, host or replica, with each one's bounds.")
      .def(py::init<const std::string&, const std::vector<double>&, const std::vector<double>&>(), py::arg("kind"),
           py::arg("low"), py::arg("high"));

  py::class_<ReadingBoard, std::shared_ptr<ReadingBoard>>(
      module, "ReadingBoard",
      "The newest reading of each row: written by one thread per row, read by any, whole or not at all.")
      .def(py::init<std::size_t>(), py::arg("rows").noconvert())
      .def_property_readonly("rows", &ReadingBoard::size, "How many rows it has.")
      .def_property_readonly_static(
          "fields", [](const py::object&) { return kReadingFields; }, "How many columns each row has.")
      .def(
          "publish", &publish, py::arg("row").noconvert(), py::arg("identity").noconvert(), py::arg("values"),
          py::arg("taken_ns").noconvert(), py::arg("stale_after_ns").noconvert(),
          "Puts a reading on the board. values: float64, one per column, NaN for what is unknown; missing columns are "
          "unknown. An unknown column keeps the instant at which it was last known, unless identity is new to the row.")
      .def(
          "publish_mapping", &publish_mapping, py::arg("row").noconvert(), py::arg("identity").noconvert(),
          py::arg("columns"), py::arg("values"), py::arg("taken_ns").noconvert(), py::arg("stale_after_ns").noconvert(),
          "As publish, from a dict of numbers by field; what is missing, None, no number or out of its column's bounds "
          "is unknown. Returns how many of the dict's keys are columns.")
      .def(
          "forget", [](ReadingBoard& board, std::size_t row) { board.forget(checked_row(board, row)); },
          py::arg("row").noconvert(), "Makes all columns of the row unknown; their ages go on.")
      .def(
          "free", [](ReadingBoard& board, std::size_t row) { board.free(checked_row(board, row)); },
          py::arg("row").noconvert(), "Gives the row up: no identity, no values, no ages.")
      .def("copy_into", &copy_into, py::arg("values"), py::arg("ages_s") = py::none(), py::arg("is_known") = py::none(),
           py::kw_only(), py::arg("now_ns").noconvert(),
           "Copies every row into the caller's arrays of shape (rows, fields), each may be None: values (float64, NaN "
           "where unknown or stale), ages_s (float64, seconds since last known, infinite for never), is_known (bool).")
      .def("read", &read_row, py::arg("row").noconvert(), py::kw_only(), py::arg("now_ns").noconvert(),
           "(identity, values, ages_s) of one row, None in place of what is unknown; None for a row that is free.");
}

}  // namespace zeta::bindings
