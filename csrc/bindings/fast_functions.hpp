#pragma once
// For functions of the C API beside pybind11's: arguments, errors and numpy columns in some nanoseconds each.

#include <pybind11/numpy.h>

#include <cstddef>
#include <string>

namespace zeta::bindings {

/// Runs `body` and turns what it throws into a Python error.
template <class Body>
PyObject* guarded(Body&& body) {  // not noexcept: a thread that Python ends is unwound through here
  namespace py = pybind11;
  try {
    return body();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

/// A function as a PyMethodDef holds it.
template <class Function>
PyCFunction as_function(Function* function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

}  // namespace zeta::bindings
