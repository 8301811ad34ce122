"""Nets in ONNX Runtime: natively through the shared library inside its wheel, or through its Python package.

`NativeNet` is what the allocation loop runs: its session never needs the interpreter. `PackageNet` serves where that
library is absent, and calls from Python that have the interpreter to themselves: beside a busy Python thread it waits
for the interpreter's lock, 5 ms by default. This is the only module that imports ``onnxruntime``, and not before a
`PackageNet` is made.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from zeta._core import OnnxNet
from zeta.errors import ModelLoadError, NotReadyError
from zeta.forecast.artefact import Artefact, Schema

__all__ = ["NativeNet", "Net", "PackageNet", "find_library", "open_net"]

Matrix = NDArray[np.float32]


class Net(Protocol):
    """A net that Python can run. `NativeNet` and `PackageNet` agree within 1e-5.

    Attributes
    ----------
    backend : str
        ``"native"`` or ``"package"``.
    schema : Schema
        What it reads and writes.
    """

    @property
    def backend(self) -> str: ...
    @property
    def schema(self) -> Schema: ...
    def run(self, features: Matrix) -> Matrix: ...


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
    # See csrc/runtime/onnx_library.hpp: its telemetry sends data, and hangs the exit of forked children.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
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


class NativeNet:
    """A net in a native session: one thread, no spinning, tensors made once.

    One caller at a time. The session belongs to the process that made it: after a fork the child makes its own at its
    first run, and the inherited one is neither run nor destroyed there.

    Parameters
    ----------
    model : bytes
        An ONNX file that `zeta.forecast.artefact.inspect_model` has accepted.
    schema : Schema
        What it reads and writes.
    max_rows : int
        Most rows that a run may bring: two for each model in the loop. Room for them is made now.
    library : Path, optional
        ONNX Runtime's shared library; by default that of `find_library`.
    deadline_us : float
        A run that takes longer gives no answer; 0 for no limit.
    hang_limit_us : float
        A run that is still going then is told to stop; 0 for never. Costs 1 us per run from 5 ms upwards, and a
        sleeping thread.

    Raises
    ------
    ModelLoadError
        If there is no library, it is older than 1.20, or it refuses the file.
    """

    backend = "native"

    def __init__(
        self,
        model: bytes,
        schema: Schema,
        *,
        max_rows: int = 256,
        library: Path | None = None,
        deadline_us: float = 0.0,
        hang_limit_us: float = 0.0,
    ) -> None:
        path = library or find_library()
        if path is None:
            raise ModelLoadError(
                "ONNX Runtime's shared library: given no capi/libonnxruntime.so.* in an installed onnxruntime; "
                "expected that of onnxruntime>=1.20. Next: pip install --upgrade onnxruntime, or use PackageNet"
            )
        self.schema = schema
        self._make: Callable[[], OnnxNet] = lambda: OnnxNet(
            str(path),
            model,
            features=schema.features,
            outputs=schema.outputs,
            max_rows=max_rows,
            input_name=schema.input_name,
            output_name=schema.output_name,
            deadline_us=deadline_us,
            hang_limit_us=hang_limit_us,
        )
        self._net = self._make()

    @property
    def core(self) -> OnnxNet:
        """What a native loop takes over; this process's own."""
        if not self._net.is_of_this_process:
            self._net = self._make()
        return self._net

    def run(self, features: Matrix) -> Matrix:
        """Quantiles of each row.

        Parameters
        ----------
        features : ndarray of float32, shape (rows, features)
            C-contiguous.

        Returns
        -------
        ndarray of float32, shape (rows, outputs)
            As the net gives it: numbers that are not finite are the caller's to judge.

        Raises
        ------
        NotReadyError
            If there is no answer this time: ONNX Runtime failed, the deadline had passed, or the net rests after
            failures.
        """
        outputs: Matrix | None = self.core.run(features)
        if outputs is None:
            raise NotReadyError(f"the net gave no answer in time: {self.stats()}. Next: use the last good forecast")
        return outputs

    def stats(self) -> dict[str, Any]:
        """What the session did: runs, failures, late and stopped ones, rests, allocations of tensors, times."""
        return self._net.stats()


class PackageNet:
    """The same through the ``onnxruntime`` package.

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


def open_net(
    artefact: Artefact,
    *,
    backend: Literal["auto", "native", "package"] = "auto",
    max_rows: int = 256,
    deadline_us: float = 0.0,
    hang_limit_us: float = 0.0,
) -> NativeNet | PackageNet:
    """Makes a session for an artefact, and has it reproduce the golden outputs.

    Parameters
    ----------
    artefact : Artefact
        From `zeta.forecast.artefact.load_artefact`.
    backend : {"auto", "native", "package"}
        ``"auto"`` is native where the shared library is found.
    max_rows, deadline_us, hang_limit_us
        See `NativeNet`; the package has no limits.

    Raises
    ------
    ModelLoadError
        If there is no ONNX Runtime, it refuses the net, or a golden output is further away than 1e-5.
    """
    schema = artefact.manifest.schema
    if backend == "native" or (backend == "auto" and find_library() is not None):
        golden = NativeNet(artefact.model, schema, max_rows=len(artefact.manifest.golden_inputs))
        artefact.verify(golden.run)  # without a deadline, which says nothing about the outputs
        return NativeNet(
            artefact.model, schema, max_rows=max_rows, deadline_us=deadline_us, hang_limit_us=hang_limit_us
        )
    net = PackageNet(artefact.model, schema)
    artefact.verify(net.run)
    return net


_alive: weakref.WeakSet[PackageNet] = weakref.WeakSet()


def _leak(session: object) -> None:
    """Keeps an object for the life of the process and beyond: not even the interpreter's exit destroys it."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


def _after_fork_in_child() -> None:
    for net in _alive:
        net._forget_session()


os.register_at_fork(after_in_child=_after_fork_in_child)
