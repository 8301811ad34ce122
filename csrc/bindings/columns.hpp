#pragma once
// Numpy columns in, without copies; what does not fit is refused with a sentence.

#include <pybind11/numpy.h>

#include <cstddef>
#include <span>
#include <string>

namespace zeta::bindings {

/// A contiguous 1-d column of `rows` entries. Throws TypeError or ValueError that names it.
template <class T>
std::span<const T> column(const pybind11::object& given, const char* name, std::size_t rows, const char* dtype) {
  namespace py = pybind11;
  if (!py::isinstance<py::array>(given)) {
    throw py::type_error(std::string{name} + ": expected a numpy array of " + dtype + ", got " +
                         py::str(py::type::of(given)).cast<std::string>());
  }
  const auto array = py::reinterpret_borrow<py::array>(given);
  if (!py::isinstance<py::array_t<T>>(array) || array.ndim() != 1 || !(array.flags() & py::array::c_style)) {
    throw py::value_error(std::string{name} + " must be a contiguous 1-d array of " + dtype + "; got " +
                          py::str(array.dtype()).cast<std::string>() + " with " + std::to_string(array.ndim()) +
                          " dimensions. Use numpy.ascontiguousarray(x, dtype=numpy." + dtype + ").");
  }
  if (static_cast<std::size_t>(array.size()) != rows) {
    throw py::value_error(std::string{name} + " has " + std::to_string(array.size()) + " entries, expected " +
                          std::to_string(rows) + " as in the first column.");
  }
  return {static_cast<const T*>(array.data()), rows};
}

/// As column; empty for None.
template <class T>
std::span<const T> optional_column(const pybind11::object& given, const char* name, std::size_t rows,
                                   const char* dtype) {
  return given.is_none() ? std::span<const T>{} : column<T>(given, name, rows, dtype);
}

}  // namespace zeta::bindings
