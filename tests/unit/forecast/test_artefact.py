from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zeta._core import forecast_layout
from zeta.errors import ModelLoadError, SchemaMismatch
from zeta.forecast import artefact as artefacts
from zeta.forecast.artefact import Artefact, Schema, load_artefact, write_artefact
from zeta.forecast.onnx import open_net
from zeta.testing.onnx_model import graph, linear_model, mlp_model, model, node, port, tensor

SCHEMA = Schema(features=7)


def golden_inputs(rows: int = 8, schema: Schema = SCHEMA) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(3).standard_normal((rows, schema.features)).astype(np.float32)


@pytest.fixture
def written(tmp_path: Path) -> Artefact:
    return write_artefact(tmp_path / "net", mlp_model(SCHEMA), SCHEMA, golden_inputs(), about={"seed": 0})


def edit(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = directory / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_what_was_written_reads_back_the_same(written: Artefact) -> None:
    read = load_artefact(written.directory, schema=SCHEMA, sha256=written.manifest.sha256)
    assert read.model == written.model == mlp_model(SCHEMA)
    assert read.manifest.operators == ("Gemm", "Relu")
    assert read.manifest.about == {"seed": 0}
    assert np.array_equal(read.manifest.golden_inputs, golden_inputs())
    assert sorted(path.name for path in read.directory.iterdir()) == ["manifest.json", "net.onnx"]
    open_net(read, backend="package")


def test_writing_again_gives_the_same_bytes(written: Artefact, tmp_path: Path) -> None:
    again = write_artefact(tmp_path / "again", written.model, SCHEMA, golden_inputs(), about={"seed": 0})
    for name in ("net.onnx", "manifest.json"):
        assert (again.directory / name).read_bytes() == (written.directory / name).read_bytes()


def test_a_net_that_trains_to_other_outputs_is_not_written(tmp_path: Path) -> None:
    trained = np.full((8, SCHEMA.outputs), 2.0, dtype=np.float32)
    net = linear_model(SCHEMA, bias=2.0)
    write_artefact(tmp_path, net, SCHEMA, golden_inputs(), golden_outputs=trained + np.float32(1e-5))
    with pytest.raises(ModelLoadError, match=r"golden outputs that are 0\.0001 away; expected at most 1e-05"):
        write_artefact(tmp_path / "other", net, SCHEMA, golden_inputs(), golden_outputs=trained + np.float32(2e-4))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("outputs", [np.nan, np.inf, -np.inf])
def test_golden_outputs_that_are_no_numbers_are_refused(tmp_path: Path, outputs: float) -> None:
    computed = np.full((8, SCHEMA.outputs), outputs, dtype=np.float32)
    with pytest.raises(ModelLoadError, match="finite"):
        write_artefact(tmp_path, linear_model(SCHEMA), SCHEMA, golden_inputs(), run=lambda _: computed)


def test_a_session_that_answers_otherwise_is_refused(written: Artefact) -> None:
    golden = written.manifest.golden_outputs
    written.verify(lambda _: golden)
    for wrong in (golden + np.float32(1e-3), np.full_like(golden, np.nan), golden[:-1]):
        with pytest.raises(ModelLoadError, match="golden outputs"):
            written.verify(lambda _, wrong=wrong: wrong)


def test_a_net_for_another_schema_says_which_part_differs(written: Artefact) -> None:
    with pytest.raises(SchemaMismatch, match=r"given features 7, .*; expected features 9, .*zeta train"):
        load_artefact(written.directory, schema=Schema(features=9, horizons=(1, 2)))


# --- files that are not what they should be ----------------------------------------------------------------------


def _sparse_file(path: Path, size: int) -> None:
    path.unlink()
    with path.open("wb") as file:
        file.truncate(size)


def _replace_by(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "no such file"),
    "empty": (lambda path: path.write_bytes(b""), "empty file"),
    "directory": (_replace_by(Path.mkdir), "a directory"),
    "fifo": (_replace_by(os.mkfifo), "a FIFO"),
    "device": (_replace_by(lambda path: path.symlink_to("/dev/zero")), "a device"),
    "dangling link": (_replace_by(lambda path: path.symlink_to(path.parent / "nowhere")), "no such file"),
    "link to itself": (_replace_by(lambda path: path.symlink_to(path)), "cannot be opened"),
    "10 GB": (lambda path: _sparse_file(path, 10**10), "10000000000 bytes; expected at most"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "given"),
    "one bit": (lambda path: path.write_bytes(path.read_bytes()[:-9] + b"!" + path.read_bytes()[-8:]), "given"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"{"), "given"),
    "garbage": (lambda path: path.write_bytes(bytes(range(256)) * 8), "given"),
}


@pytest.mark.parametrize("name", ["net.onnx", "manifest.json"])
@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_refused_within_a_second(written: Artefact, name: str, case: str) -> None:
    spoil, sentence = BAD_FILES[case]
    path = written.directory / name
    spoil(path)
    began = time.perf_counter()
    with pytest.raises(ModelLoadError, match=sentence) as refused:
        load_artefact(written.directory, schema=SCHEMA)
    assert time.perf_counter() - began < 1.0
    assert str(path) in str(refused.value)
    assert "given " in str(refused.value)
    assert "expected " in str(refused.value)
    assert "Next: " in str(refused.value)


@pytest.mark.parametrize("name", ["net.onnx", "manifest.json"])
def test_a_file_that_may_not_be_read_is_refused(written: Artefact, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (written.directory / name).chmod(0)
    if os.access(written.directory / name, os.R_OK):  # root may read anything; the kernel's answer is played instead
        real = os.open

        def refusing(path: Any, *rest: Any) -> int:
            if Path(path).name == name:
                raise PermissionError(13, "Permission denied")
            return real(path, *rest)

        monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(ModelLoadError, match=r"cannot be opened \(Permission denied\)"):
        load_artefact(written.directory)


def test_the_hash_may_be_pinned_from_elsewhere(written: Artefact, tmp_path: Path) -> None:
    other = write_artefact(tmp_path / "other", mlp_model(SCHEMA, seed=1), SCHEMA, golden_inputs())
    with pytest.raises(ModelLoadError, match="SHA-256"):
        load_artefact(other.directory, sha256=written.manifest.sha256)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda d: d.pop("sha256"), "without 'sha256'"),
        (lambda d: d.update(sha256="0" * 64), "SHA-256"),
        (lambda d: d.update(sha256="g" * 64), "64 hexadecimal digits"),
        (lambda d: d.update(sha256=5), "'sha256' of type int"),
        (lambda d: d.update(size_bytes=True), "'size_bytes' of type bool"),
        (lambda d: d.update(size_bytes=10**12), "'size_bytes' 1000000000000"),
        (lambda d: d.update(format=2), "'format' 2"),
        (lambda d: d.update(opset=14), "operator set 17"),
        (lambda d: d.update(ir_version=9), "IR version 8"),
        (lambda d: d.update(operators=["Gemm"]), "operators Gemm Relu"),
        (lambda d: d.update(operators=[["Gemm"]]), "no names"),
        (lambda d: d.update(surprise=1), "'surprise'"),
        (lambda d: d.update(schema=[]), "'schema' of type list"),
        (lambda d: d["schema"].update(surprise=1), "'surprise'"),
        (lambda d: d["schema"].update(features=0), "'features' 0"),
        (lambda d: d["schema"].update(features="7"), "'features' of type str"),
        (lambda d: d["schema"].update(horizons=[]), "horizons"),
        (lambda d: d["schema"].update(horizons=[1.5]), "horizons"),
        (lambda d: d["schema"].update(quantiles=[0.5, 2.0]), "quantiles"),
        (lambda d: d["golden_inputs"].pop(), "7 golden inputs, 8 outputs"),
        (lambda d: d["golden_inputs"][0].pop(), "no matrix"),
        (lambda d: d.update(golden_inputs=[[1.0]]), "shape"),
        (lambda d: d.update(golden_outputs=[]), "shape"),
        (lambda d: d["golden_outputs"].__setitem__(0, ["x"] * 15), "no matrix"),
        (lambda d: d["golden_outputs"][0].__setitem__(0, float("nan")), "not finite"),
        (lambda d: d["golden_outputs"][0].__setitem__(0, 1e300), "not finite"),
        (lambda d: d["golden_outputs"][0].__setitem__(0, 10**400), "no matrix"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_a_wrong_manifest_is_refused(
    written: Artefact, change: Callable[[dict[str, Any]], object], sentence: str
) -> None:
    edit(written.directory, change)
    with pytest.raises(ModelLoadError, match=sentence):
        load_artefact(written.directory)


@pytest.mark.parametrize("text", [b"[]", b"3", b"null", b"[" * 100_000, b'{"a":' * 50_000, b"1" * 5_000, b"\xff\xfe{"])
def test_a_manifest_that_is_no_object_is_refused(written: Artefact, text: bytes) -> None:
    (written.directory / "manifest.json").write_bytes(text)
    with pytest.raises(ModelLoadError, match=r"manifest\.json"):
        load_artefact(written.directory)


def test_poisoned_weights_with_a_hash_to_match_fail_the_golden_vectors(written: Artefact) -> None:
    poisoned = mlp_model(SCHEMA, seed=1)
    (written.directory / "net.onnx").write_bytes(poisoned)
    edit(
        written.directory,
        lambda d: d.update(sha256=hashlib.sha256(poisoned).hexdigest(), size_bytes=len(poisoned)),
    )
    read = load_artefact(written.directory)
    with pytest.raises(ModelLoadError, match="golden outputs"):
        open_net(read, backend="package")


# --- files that are no plain net -----------------------------------------------------------------------------------


def _net(**changes: Any) -> bytes:
    """A linear net, spoilt in one place."""
    weights = changes.get("weights", [tensor("w", np.ones((7, 15), dtype=np.float32))])
    nodes = changes.get("nodes", [node("MatMul", ("features", "w"), ("quantiles",))])
    ports = (
        changes.get("input", port("features", ("rows", 7))),
        changes.get("output", port("quantiles", ("rows", 15))),
    )
    return model(graph(nodes, weights, ports), **changes.get("model", {}))


def test_the_unspoilt_net_passes() -> None:
    found = artefacts.inspect_model(_net(), SCHEMA)
    assert found.operators == ("MatMul",)
    assert found.weights == 7 * 15


@pytest.mark.parametrize(
    ("spoilt", "kind", "sentence"),
    [
        (_net(model={"opset": 12}), ModelLoadError, "operator set 12; expected 13 to 21"),
        (_net(model={"opset": 22}), ModelLoadError, "operator set 22"),
        (_net(model={"opset": -1}), ModelLoadError, "operator set -1"),
        (_net(model={"ir_version": 11}), ModelLoadError, "IR version 11"),
        (_net(model={"domain": "com.microsoft"}), ModelLoadError, "com.microsoft"),
        (_net(input=port("x", ("rows", 7))), SchemaMismatch, "input 'x'; expected input 'features'"),
        (_net(input=port("features", ("rows", 8))), SchemaMismatch, r"\['rows', 8\]; expected \['rows', 7\]"),
        (_net(input=port("features", (4, 7))), SchemaMismatch, r"\[4, 7\]"),
        (_net(input=port("features", (7,))), SchemaMismatch, r"shape \[7\]"),
        (_net(input=port("features", ("rows", "n"))), SchemaMismatch, "rows"),
        (_net(input=port("features", ("rows", 7), element=11)), SchemaMismatch, "data type 11"),
        (_net(output=port("quantiles", ("rows", 16))), SchemaMismatch, "16"),
        (_net(output=port("quantiles", ("rows", 15), element=10)), SchemaMismatch, "data type 10"),
        (_net(output=port("w", ("rows", 15))), SchemaMismatch, "output 'w'"),
        (_net(nodes=[]), ModelLoadError, "0 nodes"),
        (_net(nodes=[node("Loop", ("features",), ("quantiles",))]), ModelLoadError, "operator 'Loop'"),
        (_net(nodes=[node("If", ("features",), ("quantiles",))]), ModelLoadError, "operator 'If'"),
        (_net(nodes=[node("Scan", ("features",), ("quantiles",))]), ModelLoadError, "operator 'Scan'"),
        (_net(nodes=[node("PyOp", ("features",), ("quantiles",))]), ModelLoadError, "operator 'PyOp'"),
        (_net(nodes=[node("matmul", ("features", "w"), ("quantiles",))]), ModelLoadError, "operator 'matmul'"),
        (_net(nodes=[node("MatMul", ("features", "v"), ("quantiles",))]), ModelLoadError, "'v', which nothing"),
        (_net(nodes=[node("Relu", ("quantiles",), ("quantiles",))]), ModelLoadError, "nothing before it makes"),
        (_net(nodes=[node("Relu", ("features",), ("features",))]), ModelLoadError, "made twice"),
        (_net(nodes=[node("Relu", ("features",), ("other",))]), ModelLoadError, "no node makes"),
        (_net(nodes=[node("Identity", ("features",), (f"n{i}",)) for i in range(257)]), ModelLoadError, "257 nodes"),
        (_net(weights=[tensor("quantiles", np.ones(1, dtype=np.float32))] * 2), ModelLoadError, "twice"),
        (_net(weights=[tensor("features", np.ones(1, dtype=np.float32))]), ModelLoadError, "twice"),
        (_net(weights=[tensor("w", np.full((7, 15), np.nan, dtype=np.float32))]), ModelLoadError, "not finite"),
        (_net(weights=[tensor("w", np.ones((7, 0), dtype=np.float32))]), ModelLoadError, "dimensions"),
        (_net(weights=[tensor("w", np.ones((1,) * 9, dtype=np.float32))]), ModelLoadError, "dimensions"),
    ],
)
def test_a_net_that_is_not_plain_is_refused(spoilt: bytes, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        artefacts.inspect_model(spoilt, SCHEMA)


def test_many_small_fields_cost_no_memory() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ModelLoadError, match="fields"):
            artefacts.inspect_model(b"\x3a\x80\x80\x80\x01" + b"\x0a\x00" * (1 << 20), SCHEMA)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_a_schema_knows_its_outputs() -> None:
    assert SCHEMA.outputs == 15
    assert Schema.current().outputs == forecast_layout()["outputs"]
    assert Schema.current().layout == forecast_layout()["version"] == 1
    assert dataclasses.replace(SCHEMA, horizons=(1,), quantiles=(0.5,)).outputs == 1
