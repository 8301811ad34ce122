"""Runs a net through the ``onnxruntime`` package. The only module that imports it, and not before it is asked to.

For where the interpreter is free: beside a busy Python thread a call waits for the interpreter's lock, 5 ms by default.
The native session in the allocation loop does not.
"""

from __future__ import annotations

import os
import weakref
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeta.errors import ModelLoadError
from zeta.forecast.artefact import Artefact, Schema

__all__ = ["PackageNet", "find_library"]

Matrix = NDArray[np.float32]


def find_library() -> Path | None:
    """The shared library inside the installed ``onnxruntime`` package, without importing it.

    Returns
    -------
    Path or None
        ``capi/libonnxruntime.so.<version>``; ``None`` where the package is absent or brings no such file (before 1.19).
    """
    try:
        spec = find_spec("onnxruntime")
    except (ImportError, ValueError):  # half-removed packages
        return None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        found = sorted((Path(folder) / "capi").glob("libonnxruntime.so.*"), key=lambda path: path.stat().st_mtime)
        if found:
            return found[-1]
    return None


def _new_session(model: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelLoadError(
            f"the onnxruntime package cannot be imported ({error}); expected onnxruntime>=1.20. "
            "Next: pip install --upgrade onnxruntime"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base, and text that is no UTF-8 escapes as UnicodeDecodeError
        raise ModelLoadError(
            f"ONNX Runtime {onnxruntime.__version__} refuses the net: {error!s:.300}. "
            "Next: export it again for an older operator set, or upgrade onnxruntime"
        ) from error


class PackageNet:
    """A net in a session of the ``onnxruntime`` package: one thread, no spinning.

    One caller at a time. After a fork the child makes its own session at its first run; the inherited one is kept and
    never touched, because both running it and destroying it may hang or crash.

    Parameters
    ----------
    model : bytes
        An ONNX file that `zeta.forecast.artefact.inspect_model` has accepted.
    schema : Schema
        What it reads and writes.

    Raises
    ------
    ModelLoadError
        If the package is absent, or refuses the file.
    """

    backend = "package"

    def __init__(self, model: bytes, schema: Schema) -> None:
        self._model = model
        self.schema = schema
        self._session = _new_session(model)
        _alive.add(self)

    @classmethod
    def of(cls, artefact: Artefact) -> PackageNet:
        """A session for an artefact, checked by its golden vectors.

        Raises
        ------
        ModelLoadError
            Also if the golden outputs differ.
        """
        net = cls(artefact.model, artefact.manifest.schema)
        artefact.verify(net.run)
        return net

    def run(self, features: Matrix) -> Matrix:
        """Quantiles of each row.

        Parameters
        ----------
        features : ndarray of float32, shape (rows, features)

        Returns
        -------
        ndarray of float32, shape (rows, outputs)
            As the net gives it: numbers that are not finite are the caller's to judge.

        Raises
        ------
        ModelLoadError
            If ONNX Runtime fails.
        """
        if self._session is None:
            self._session = _new_session(self._model)
        try:
            (outputs,) = self._session.run([self.schema.output_name], {self.schema.input_name: features})
        except Exception as error:
            raise ModelLoadError(f"ONNX Runtime cannot run the net: {error!s:.300}") from error
        return np.asarray(outputs, dtype=np.float32)

    def _forget_session(self) -> None:
        if self._session is not None:
            _leak(self._session)
        self._session = None


_alive: weakref.WeakSet[PackageNet] = weakref.WeakSet()


def _leak(session: object) -> None:
    """Keeps an object for the life of the process and beyond: not even the interpreter's exit destroys it."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


def _after_fork_in_child() -> None:
    for net in _alive:
        net._forget_session()


os.register_at_fork(after_in_child=_after_fork_in_child)
