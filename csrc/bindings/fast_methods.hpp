#pragma once
// Methods as plain vectorcall functions on a bound class: pybind11's dispatcher would cost more than a queue does.
//
// Errors are Python's own kind: a function returns false or nullptr with the error set, and nothing is thrown. Nothing
// is noexcept and nothing has a destructor all the same: at interpreter exit CPython (before 3.14) ends a daemon thread
// that asks for the GIL by unwinding it, and any call of Python may ask for it.

#include <pybind11/pybind11.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "fast_functions.hpp"

namespace zeta::bindings {

/// Puts methods on a class; the array ends with a null name and lives on.
inline void add_methods(pybind11::object bound_class, PyMethodDef* methods) {
  auto* type = reinterpret_cast<PyTypeObject*>(bound_class.ptr());
  for (PyMethodDef* method = methods; method->ml_name != nullptr; ++method) {
    const auto descriptor = pybind11::reinterpret_steal<pybind11::object>(PyDescr_NewMethod(type, method));
    if (!descriptor) throw pybind11::error_already_set();
    pybind11::setattr(bound_class, method->ml_name, descriptor);
  }
}

/// The C++ object of a bound instance; nullptr with an error where a subclass has not called __init__.
template <class T>
[[nodiscard]] [[gnu::always_inline]] inline T* object_of(PyObject* self) {
  void* object = reinterpret_cast<pybind11::detail::instance*>(self)->get_value_and_holder().value_ptr();
  if (object != nullptr) [[likely]]
    return static_cast<T*>(object);
  PyErr_Format(PyExc_TypeError, "this %s is not initialised; call super().__init__(...) first", Py_TYPE(self)->tp_name);
  return nullptr;
}

/// A keyword as the compiler of Python interns it, so that a pointer tells it.
struct Keyword {
  const char* text;
  PyObject* interned = nullptr;
};

/// What a method takes: the first `required` must be given, the rest may be.
template <std::size_t kCount>
struct Parameters {
  const char* call;  ///< As it is written, for messages.
  std::size_t required;
  std::array<const Keyword*, kCount> keywords;

  /// Sorts the arguments of a call; those not given stay as they are in `values`.
  [[nodiscard]] [[gnu::always_inline]] bool read(PyObject* const* args, Py_ssize_t positional, PyObject* names,
                                                 PyObject* (&values)[kCount]) const {
    const auto count = static_cast<std::size_t>(positional);
    if (names != nullptr || count < required || count > kCount) return read_named(args, positional, names, values);
    for (std::size_t i = 0; i < count; ++i) values[i] = args[i];
    return true;
  }

 private:
  [[nodiscard]] bool read_named(PyObject* const* args, Py_ssize_t positional, PyObject* names,
                                PyObject* (&values)[kCount]) const {
    const auto count = static_cast<std::size_t>(positional);
    if (count > kCount) return refuse_count(count);
    for (std::size_t i = 0; i < count; ++i) values[i] = args[i];
    const std::size_t named = names == nullptr ? 0 : static_cast<std::size_t>(PyTuple_GET_SIZE(names));
    for (std::size_t i = 0; i < named; ++i) {
      PyObject* const name = PyTuple_GET_ITEM(names, static_cast<Py_ssize_t>(i));
      const std::size_t at = index_of(name);
      if (at == kCount || at < count) return refuse_keyword(name, at);
      values[at] = args[count + i];
    }
    for (std::size_t i = count; i < required; ++i) {
      if (values[i] == nullptr) return refuse_missing(i);
    }
    return true;
  }

  [[nodiscard]] std::size_t index_of(PyObject* name) const {
    for (std::size_t i = 0; i < kCount; ++i) {
      if (keywords[i]->interned == name) return i;
    }
    for (std::size_t i = 0; i < kCount; ++i) {
      if (PyUnicode_CompareWithASCIIString(name, keywords[i]->text) == 0) return i;
    }
    return kCount;
  }

  [[gnu::cold]] bool refuse_count(std::size_t count) const {
    PyErr_Format(PyExc_TypeError, "got %zu arguments, expected at most %zu; call %s", count, kCount, call);
    return false;
  }
  [[gnu::cold]] bool refuse_keyword(PyObject* name, std::size_t at) const {
    PyErr_Format(PyExc_TypeError, at == kCount ? "there is no argument %R; call %s" : "%R is given twice; call %s",
                 name, call);
    return false;
  }
  [[gnu::cold]] bool refuse_missing(std::size_t at) const {
    PyErr_Format(PyExc_TypeError, "%s is missing; call %s", keywords[at]->text, call);
    return false;
  }
};

/// Says what was wrong with an integer, in place of the error that reading it set.
[[gnu::cold]] inline bool refuse_integer(PyObject* value, const char* name, PyObject* out_of_range,
                                         const char* expected) {
  const bool is_integer = PyErr_ExceptionMatches(PyExc_OverflowError) != 0;
  PyErr_Clear();
  PyErr_Format(is_integer ? out_of_range : PyExc_TypeError, "%s: got %R (%s), expected %s", name, value,
               Py_TYPE(value)->tp_name, expected);
  return false;
}

/// What read_integer does with anything but an int in range.
[[nodiscard]] [[gnu::cold]] inline bool read_unusual_integer(PyObject* value, const char* name, std::uint64_t& out,
                                                             PyObject* out_of_range, const char* expected) {
  PyErr_Clear();
  PyObject* const whole = PyNumber_Index(value);
  if (whole == nullptr) {  // any other error is the caller's own __index__'s
    return PyErr_ExceptionMatches(PyExc_TypeError) != 0 && refuse_integer(value, name, out_of_range, expected);
  }
  out = PyLong_AsUnsignedLong(whole);
  const bool is_read = PyErr_Occurred() == nullptr;
  if (!is_read) (void)refuse_integer(whole, name, out_of_range, expected);
  Py_DECREF(whole);
  return is_read;
}

/// Any Python or numpy integer from 0 to 2**64 - 1.
[[nodiscard]] [[gnu::always_inline]] inline bool read_integer(PyObject* value, const char* name, std::uint64_t& out,
                                                              PyObject* out_of_range = PyExc_OverflowError,
                                                              const char* expected = "an int from 0 to 2**64 - 1") {
  static_assert(sizeof(unsigned long) == sizeof(std::uint64_t), "this call is the fast one, and Linux has it 64 bits");
  if (PyLong_Check(value)) [[likely]] {
    out = PyLong_AsUnsignedLong(value);
    if (out != ~std::uint64_t{0}) [[likely]]
      return true;  // else the largest there is, or an error
  }
  return read_unusual_integer(value, name, out, out_of_range, expected);
}

/// Anything that is true or false.
[[nodiscard]] inline bool read_flag(PyObject* value, bool& out) {
  const int truth = PyObject_IsTrue(value);
  out = truth > 0;
  return truth >= 0;
}

}  // namespace zeta::bindings
