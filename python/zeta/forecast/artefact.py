"""A trained net on disk: the ONNX file, and the manifest that pins it.

::

    directory/
        net.onnx         the net, read as bytes by this module, never by path from a runtime
        manifest.json    size and SHA-256 of the file, its schema, and golden vectors: inputs with their outputs

`load_artefact` refuses whatever is not exactly what the manifest says, before ONNX Runtime sees a byte of it. A session
made from the artefact then has to reproduce the golden outputs (`Artefact.verify`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zeta._core import forecast_layout
from zeta.errors import ModelLoadError, SchemaMismatch
from zeta.forecast._onnx_file import MODEL_BYTES_MAX, ModelFile, RefusedFile, inspect

__all__ = [
    "GOLDEN_TOLERANCE",
    "MANIFEST_NAME",
    "MODEL_NAME",
    "Artefact",
    "Manifest",
    "Schema",
    "inspect_model",
    "load_artefact",
    "write_artefact",
]

MODEL_NAME: Final = "net.onnx"
MANIFEST_NAME: Final = "manifest.json"
MANIFEST_BYTES_MAX: Final = 1024 * 1024
GOLDEN_TOLERANCE: Final = 1e-5
"""How far an output may be from the golden one: absolute below 1, relative above."""

_FORMAT: Final = 1
_GOLDEN_ROWS: Final = range(1, 257)

Matrix = NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True)
class Schema:
    """What a net reads and writes, as both sides must agree on it.

    Attributes
    ----------
    features : int
        Numbers in a row of the input.
    horizons : tuple of int
        Horizons of the forecast, in bins.
    quantiles : tuple of float
        Quantiles at each horizon. A row of the output has ``len(horizons) * len(quantiles)`` numbers, for each horizon
        its quantiles in order.
    input_name, output_name : str
        Names of the net's one input and one output, both float32 with free rows.
    layout : int
        Counts changes of what the features mean.
    """

    features: int
    horizons: tuple[int, ...] = (1, 10, 60, 180, 600)
    quantiles: tuple[float, ...] = (0.5, 0.9, 0.99)
    input_name: str = "features"
    output_name: str = "quantiles"
    layout: int = 1

    @classmethod
    def current(cls) -> Schema:
        """What this version of zeta computes and understands (``csrc/include/zeta/forecast/layout.hpp``)."""
        layout = forecast_layout()
        return cls(
            features=layout["features"],
            horizons=tuple(layout["horizon_bins"]),
            quantiles=tuple(layout["quantiles"]),
            layout=layout["version"],
        )

    @property
    def outputs(self) -> int:
        """Numbers in a row of the output."""
        return len(self.horizons) * len(self.quantiles)


@dataclasses.dataclass(frozen=True, slots=True)
class Manifest:
    """What ``manifest.json`` says.

    Attributes
    ----------
    sha256 : str
        Of the ONNX file, 64 hexadecimal digits.
    size_bytes : int
        Of the ONNX file.
    schema : Schema
        What the net reads and writes.
    ir_version, opset : int
        Of the ONNX file.
    operators : tuple of str
        The operators in it, each once, sorted.
    golden_inputs, golden_outputs : ndarray of float32, shape (rows, features) and (rows, outputs)
        What a session must reproduce.
    about : mapping
        Whatever the maker wants to be known: data, seeds, losses. Not interpreted.
    """

    sha256: str
    size_bytes: int
    schema: Schema
    ir_version: int
    opset: int
    operators: tuple[str, ...]
    golden_inputs: Matrix
    golden_outputs: Matrix
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """The text of ``manifest.json``. Floats are the shortest text that reads back to the same float32."""
        document = {
            "format": _FORMAT,
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "schema": dataclasses.asdict(self.schema),
            "ir_version": self.ir_version,
            "opset": self.opset,
            "operators": list(self.operators),
            "about": dict(self.about),
        }
        head = json.dumps(document, indent=1, allow_nan=False)
        golden = ",\n".join(f' "{name}": [\n{_rows(getattr(self, name))}\n ]' for name in _GOLDEN)
        return f"{head[:-2]},\n{golden}\n}}\n"


_GOLDEN: Final = ("golden_inputs", "golden_outputs")


def _rows(matrix: Matrix) -> str:
    return ",\n".join(f"  [{', '.join(str(number) for number in row)}]" for row in matrix)


@dataclasses.dataclass(frozen=True, slots=True)
class Artefact:
    """A net that passed every check that can be made without running it.

    Attributes
    ----------
    manifest : Manifest
        What it is.
    model : bytes
        The ONNX file, as read and hashed.
    directory : Path
        Where it was read.
    """

    manifest: Manifest
    model: bytes = dataclasses.field(repr=False)
    directory: Path

    def verify(self, run: Callable[[Matrix], Matrix]) -> None:
        """Runs the golden inputs and compares.

        Parameters
        ----------
        run : callable
            Features (rows, features) to outputs (rows, outputs).

        Raises
        ------
        ModelLoadError
            If an output is further from the golden one than `GOLDEN_TOLERANCE`, or is no number.
        """
        expected = self.manifest.golden_outputs
        given = np.asarray(run(self.manifest.golden_inputs))
        path = self.directory / MODEL_NAME
        if given.shape != expected.shape:
            raise _refusal(path, f"golden outputs of shape {given.shape}", f"{expected.shape}")
        distance = golden_distance(given, expected)
        if not distance <= GOLDEN_TOLERANCE:  # also when it is NaN
            raise _refusal(
                path,
                f"golden outputs that are {distance:.3g} away",
                f"at most {GOLDEN_TOLERANCE:g}",
                "the net does not compute what it computed when it was made; get both files anew from where they "
                "were made",
            )


def golden_distance(given: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest distance between two matrices, relative where the expected number is above 1; NaN if one is NaN."""
    far = np.abs(given.astype(np.float64) - expected.astype(np.float64))
    return float(np.max(far / np.maximum(1.0, np.abs(expected.astype(np.float64)))))


def _refusal(
    path: Path, given: str, expected: str, then: str = "", *, is_schema: bool = False
) -> ModelLoadError | SchemaMismatch:
    then = then or "get the artefact anew, or train one with `zeta train`"
    kind = SchemaMismatch if is_schema else ModelLoadError
    return kind(f"{path}: given {given}; expected {expected}. Next: {then}.")


# --- reading ---------------------------------------------------------------------------------------------------------


def _read(path: Path, bytes_max: int) -> bytes:
    """The bytes of a regular file. Nothing else is opened for longer than it takes to see what it is."""
    try:
        # A FIFO would block without O_NONBLOCK; a terminal could become ours without O_NOCTTY.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _refusal(path, "no such file", "a file") from None
    except OSError as error:
        raise _refusal(path, f"a file that cannot be opened ({error.strerror})", "a readable file") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _refusal(path, _kind(status.st_mode), "a regular file")
        if status.st_size > bytes_max:
            raise _refusal(path, f"a file of {status.st_size} bytes", f"at most {bytes_max}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise _refusal(path, f"a file that cannot be read ({error.strerror})", "a readable file") from None
    finally:
        os.close(descriptor)
    if not data:
        raise _refusal(path, "an empty file", "an artefact's file")
    if len(data) > bytes_max:
        raise _refusal(path, f"a file that grew beyond {bytes_max} bytes", f"at most {bytes_max}")
    return data


def _kind(mode: int) -> str:
    names = ((stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"))
    return next((name for is_kind, name in names if is_kind(mode)), "a device")


class _Document:
    """The manifest's JSON, read key by key; each key must be there, have its type, and nothing may be left."""

    def __init__(self, path: Path, document: object, where: str = "the manifest") -> None:
        if not isinstance(document, dict):
            raise _refusal(path, f"{where} that is no JSON object", "an object")
        self._path, self._where = path, where
        self._document = dict(document)

    def take(self, key: str, kind: type, expected: str) -> Any:
        if key not in self._document:
            raise _refusal(self._path, f"{self._where} without {key!r}", expected)
        value = self._document.pop(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise _refusal(self._path, f"{key!r} of type {type(value).__name__}", expected)
        return value

    def integer(self, key: str, allowed: range) -> int:
        value: int = self.take(key, int, f"an integer, {allowed[0]} to {allowed[-1]}")
        if value not in allowed:
            raise _refusal(self._path, f"{key!r} {value}", f"{allowed[0]} to {allowed[-1]}")
        return value

    def end(self) -> None:
        if self._document:
            raise _refusal(self._path, f"{self._where} with {next(iter(self._document))!r}", "no further keys")


def _schema(path: Path, document: object) -> Schema:
    read = _Document(path, document, "the schema")
    features = read.integer("features", range(1, 65_536))
    horizons = read.take("horizons", list, "a list of horizons in bins")
    quantiles = read.take("quantiles", list, "a list of quantiles")
    if not 0 < len(horizons) <= 64 or any(type(each) is not int or each < 1 for each in horizons):
        raise _refusal(path, f"horizons {horizons!r:.100}", "positive integers")
    if not 0 < len(quantiles) <= 64 or any(type(each) is not float or not 0 < each < 1 for each in quantiles):
        raise _refusal(path, f"quantiles {quantiles!r:.100}", "numbers between 0 and 1")
    input_name, output_name = (str(read.take(key, str, "a name")) for key in ("input_name", "output_name"))
    layout = read.integer("layout", range(1, 1_000_000))
    read.end()
    return Schema(features, tuple(horizons), tuple(quantiles), input_name, output_name, layout)


def _golden(path: Path, key: str, rows: list[Any], width: int) -> Matrix:
    try:
        matrix = np.array(rows, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        raise _refusal(path, f"{key!r} that is no matrix", f"rows of {width} numbers") from None
    if matrix.ndim != 2 or matrix.shape[0] not in _GOLDEN_ROWS or matrix.shape[1] != width:
        raise _refusal(path, f"{key!r} of shape {matrix.shape}", f"(1 to {_GOLDEN_ROWS[-1]}, {width})")
    if not np.isfinite(matrix).all():
        raise _refusal(path, f"{key!r} with a number that is not finite", "finite numbers")
    matrix.flags.writeable = False
    return matrix


def _manifest(path: Path, text: bytes) -> Manifest:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise _refusal(path, f"no JSON ({error!s:.100})", "the manifest that write_artefact made") from None
    read = _Document(path, document)
    read.integer("format", range(_FORMAT, _FORMAT + 1))
    sha256 = read.take("sha256", str, "64 hexadecimal digits")
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise _refusal(path, f"'sha256' {sha256!r:.80}", "64 hexadecimal digits, lower case")
    size_bytes = read.integer("size_bytes", range(1, MODEL_BYTES_MAX + 1))
    schema = _schema(path, read.take("schema", dict, "an object"))
    ir_version, opset = (read.integer(key, range(1, 1_000)) for key in ("ir_version", "opset"))
    operators = read.take("operators", list, "a list of operators")
    if any(type(each) is not str for each in operators):
        raise _refusal(path, "'operators' that are no names", "names of ONNX operators")
    about = read.take("about", dict, "an object")
    inputs, outputs = (
        _golden(path, key, read.take(key, list, "rows of numbers"), width)
        for key, width in zip(_GOLDEN, (schema.features, schema.outputs), strict=True)
    )
    read.end()
    if len(inputs) != len(outputs):
        raise _refusal(path, f"{len(inputs)} golden inputs, {len(outputs)} outputs", "as many of each")
    return Manifest(sha256, size_bytes, schema, ir_version, opset, tuple(operators), inputs, outputs, about)


def inspect_model(model: bytes, schema: Schema, *, path: Path = Path(MODEL_NAME)) -> ModelFile:
    """Checks the bytes of an ONNX file, without any runtime: structure, operators, weights, input and output.

    Parameters
    ----------
    model : bytes
        The file.
    schema : Schema
        What it must read and write.
    path : Path, optional
        For the message.

    Raises
    ------
    ModelLoadError, SchemaMismatch
        If it is anything but a plain net for that schema.
    """
    try:
        return inspect(
            model,
            input_port=(schema.input_name, schema.features),
            output_port=(schema.output_name, schema.outputs),
        )
    except RefusedFile as refused:
        raise _refusal(path, refused.given, refused.expected, is_schema=refused.is_schema) from None


def load_artefact(
    directory: str | os.PathLike[str], *, schema: Schema | None = None, sha256: str | None = None
) -> Artefact:
    """Reads an artefact and refuses anything that is not exactly what its manifest says.

    Parameters
    ----------
    directory : path
        Where `write_artefact` put it.
    schema : Schema, optional
        What this version of zeta computes; a net made for another one is refused.
    sha256 : str, optional
        The hash that the file must have, known from elsewhere. The manifest beside a file protects against damage, not
        against somebody who writes both.

    Returns
    -------
    Artefact
        Its bytes in memory. Nothing has run yet: see `Artefact.verify`.

    Raises
    ------
    ModelLoadError
        If a file is missing, no regular file, unreadable, empty, too large, not what the manifest pins, or not a plain
        net. Takes milliseconds and some tens of MiB of memory at most, whatever is there.
    SchemaMismatch
        If the net is sound but made for other inputs or outputs.
    """
    directory = Path(directory)
    path = directory / MANIFEST_NAME
    manifest = _manifest(path, _read(path, MANIFEST_BYTES_MAX))
    if schema is not None and manifest.schema != schema:
        differing = [
            field.name
            for field in dataclasses.fields(Schema)
            if getattr(schema, field.name) != getattr(manifest.schema, field.name)
        ]
        raise _refusal(
            path,
            ", ".join(f"{name} {getattr(manifest.schema, name)}" for name in differing),
            ", ".join(f"{name} {getattr(schema, name)}" for name in differing),
            "train a net for this version with `zeta train`",
            is_schema=True,
        )
    path = directory / MODEL_NAME
    model = _read(path, MODEL_BYTES_MAX)
    pins = {manifest.sha256} if sha256 is None else {manifest.sha256, sha256}
    given = hashlib.sha256(model).hexdigest()
    if len(model) != manifest.size_bytes or pins != {given}:
        expected = " and ".join(sorted(pins))
        raise _refusal(path, f"{len(model)} bytes with SHA-256 {given}", f"{manifest.size_bytes} bytes with {expected}")
    found = inspect_model(model, manifest.schema, path=path)
    said = (manifest.ir_version, manifest.opset, manifest.operators)
    if (found.ir_version, found.opset, found.operators) != said:
        raise _refusal(
            path,
            f"IR version {found.ir_version}, operator set {found.opset}, operators {' '.join(found.operators)}",
            f"IR version {said[0]}, operator set {said[1]}, operators {' '.join(said[2])}",
        )
    return Artefact(manifest, model, directory)


# --- writing ---------------------------------------------------------------------------------------------------------


def write_artefact(
    directory: str | os.PathLike[str],
    model: bytes,
    schema: Schema,
    golden_inputs: ArrayLike,
    *,
    golden_outputs: ArrayLike | None = None,
    run: Callable[[Matrix], Matrix] | None = None,
    about: Mapping[str, Any] | None = None,
) -> Artefact:
    """Checks a net as `load_artefact` will, computes its golden outputs, and writes both files.

    Parameters
    ----------
    directory : path
        Made if it does not exist. Files of that name are replaced, the manifest last.
    model : bytes
        The ONNX file.
    schema : Schema
        What the net reads and writes.
    golden_inputs : array_like, shape (rows, features)
        1 to 256 rows, finite; take them from real series, from every regime that matters.
    golden_outputs : array_like, shape (rows, outputs), optional
        What the net computed where it was trained. Refused if ONNX Runtime computes something further away than
        `GOLDEN_TOLERANCE`; kept as the golden outputs.
    run : callable, optional
        What computes the outputs; by default the file in ONNX Runtime.
    about : mapping, optional
        Facts for the manifest, JSON values only.

    Returns
    -------
    Artefact
        As `load_artefact` reads it back.

    Raises
    ------
    ModelLoadError, SchemaMismatch
        If the file would be refused, or the outputs are too far from those given.
    """
    directory = Path(directory)
    path = directory / MODEL_NAME
    found = inspect_model(model, schema, path=path)
    inputs = _golden(path, "golden_inputs", list(np.asarray(golden_inputs)), schema.features)
    if run is None:
        from zeta.forecast.onnx import PackageNet  # only makers of artefacts need it

        run = PackageNet(model, schema).run
    computed = np.array(run(inputs), dtype=np.float32)
    wanted = computed if golden_outputs is None else np.asarray(golden_outputs)
    outputs = _golden(path, "golden_outputs", list(wanted), schema.outputs)
    manifest = Manifest(
        sha256=hashlib.sha256(model).hexdigest(),
        size_bytes=len(model),
        schema=schema,
        ir_version=found.ir_version,
        opset=found.opset,
        operators=found.operators,
        golden_inputs=inputs,
        golden_outputs=outputs,
        about=dict(about or {}),
    )
    artefact = Artefact(manifest, model, directory)
    artefact.verify(lambda _: computed)
    directory.mkdir(parents=True, exist_ok=True)
    _replace(path, model)
    _replace(directory / MANIFEST_NAME, manifest.to_json().encode())
    return load_artefact(directory, schema=schema)


def _replace(path: Path, data: bytes) -> None:
    """Writes beside the file and renames, so that no reader sees half of it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
