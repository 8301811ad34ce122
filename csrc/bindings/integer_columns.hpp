#pragma once
// Columns of 64-bit integers: in through the buffer protocol, which costs a fraction of pybind11's array casts; out as
// fresh numpy arrays. Errors as in fast_methods.hpp: set, not thrown.

#include <pybind11/numpy.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace zeta::bindings {

/// Somebody's array of uint64, or of int64 without negative numbers, held until `close`. No destructor: a thread that
/// dies without the GIL must not give the array back.
class IntegerColumn {
 public:
  [[nodiscard]] bool open(PyObject* given, const char* name) {
    if (PyObject_GetBuffer(given, &view_, PyBUF_RECORDS_RO) != 0) {
      PyErr_Clear();
      return refuse(PyExc_TypeError, given, name);
    }
    const bool is_wide = view_.itemsize == 8 && view_.ndim == 1 && reinterpret_cast<std::uintptr_t>(view_.buf) % 8 == 0;
    const bool is_dense = is_wide && (view_.shape[0] < 2 || view_.strides[0] == 8);
    const char kind = kind_of(view_.format);
    if (is_dense && (kind == 'u' || (kind == 'i' && !has_negative()))) [[likely]]
      return true;
    const bool is_negative = is_dense && kind == 'i';
    close();
    if (!is_negative) return refuse(PyExc_ValueError, given, name);
    PyErr_Format(PyExc_OverflowError, "%s has negative numbers, expected 0 to 2**64 - 1 in each row", name);
    return false;
  }

  void close() { PyBuffer_Release(&view_); }

  [[nodiscard]] std::span<const std::uint64_t> rows() const {
    return {static_cast<const std::uint64_t*>(view_.buf), static_cast<std::size_t>(view_.shape[0])};
  }

 private:
  /// 'u' or 'i' for one integer in this machine's byte order (zeta builds for little-endian machines only).
  [[nodiscard]] static char kind_of(const char* format) {
    if (format == nullptr) return '?';
    if (*format == '@' || *format == '=' || *format == '<') ++format;
    if (*format == '\0' || format[1] != '\0') return '?';
    if (*format == 'L' || *format == 'Q') return 'u';
    return *format == 'l' || *format == 'q' ? 'i' : '?';
  }

  [[nodiscard]] bool has_negative() const {
    std::uint64_t bits = 0;
    for (const std::uint64_t row : rows()) bits |= row;
    return (bits >> 63U) != 0;
  }

  [[gnu::cold]] static bool refuse(PyObject* error, PyObject* given, const char* name) {
    if (error == PyExc_TypeError) {
      PyErr_Format(error, "%s: got %s, expected a numpy array of uint64; use numpy.asarray(x, dtype=numpy.uint64)",
                   name, Py_TYPE(given)->tp_name);
      return false;
    }
    PyObject* dtype = PyObject_GetAttrString(given, "dtype");
    if (dtype == nullptr) PyErr_Clear();
    PyObject* shape = PyObject_GetAttrString(given, "shape");
    if (shape == nullptr) PyErr_Clear();
    PyErr_Format(error,
                 "%s: got dtype %S and shape %S, expected a contiguous 1-d array of uint64; use "
                 "numpy.ascontiguousarray(x, dtype=numpy.uint64)",
                 name, dtype != nullptr ? dtype : Py_None, shape != nullptr ? shape : Py_None);
    Py_XDECREF(dtype);
    Py_XDECREF(shape);
    return false;
  }

  Py_buffer view_;
};

/// A fresh numpy array; nullptr with the error set.
template <class T>
[[nodiscard]] PyObject* new_column(std::size_t rows, T*& data) {
  try {
    pybind11::array_t<T> column(static_cast<pybind11::ssize_t>(rows));
    data = column.mutable_data();
    return column.release().ptr();
  } catch (pybind11::error_already_set& error) {
    error.restore();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

}  // namespace zeta::bindings
