from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zeta
from zeta._core import OnnxNet, onnx_library_version
from zeta.errors import ModelLoadError, NotReadyError
from zeta.forecast import onnx
from zeta.forecast.artefact import (
    GOLDEN_TOLERANCE,
    Schema,
    golden_distance,
    inspect_model,
    load_artefact,
    write_artefact,
)
from zeta.forecast.onnx import NativeNet, Net, PackageNet, find_library, open_net
from zeta.testing.onnx_model import attribute, graph, linear_model, mlp_model, model, node, port, tensor

SCHEMA = Schema.current()
NETS: tuple[Callable[..., Net], ...] = (NativeNet, PackageNet)


def rows(count: int, *, scale: float = 1.0, seed: int = 1) -> np.ndarray[Any, np.dtype[np.float32]]:
    drawn = np.random.default_rng(seed).standard_normal((count, SCHEMA.features)) * scale
    return drawn.astype(np.float32)


def test_the_library_is_found_without_importing_the_package() -> None:
    found = find_library()
    assert found is not None
    assert found.name == f"libonnxruntime.so.{onnx_library_version(str(found))}"


@pytest.mark.parametrize("make", NETS)
def test_a_linear_net_gives_what_the_hand_computes(make: Callable[..., Net]) -> None:
    features = rows(4)
    outputs = make(linear_model(SCHEMA, bias=0.5, slope=0.25), SCHEMA).run(features)
    assert outputs.shape == (4, SCHEMA.outputs)
    np.testing.assert_allclose(outputs, (0.5 + 0.25 * features.sum(axis=1))[:, None].repeat(15, axis=1), atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e3])
def test_both_forms_agree(seed: int, scale: float) -> None:
    net = mlp_model(SCHEMA, seed=seed)
    native, package = NativeNet(net, SCHEMA, max_rows=32), PackageNet(net, SCHEMA)
    for count in (1, 6, 32, 6):
        features = rows(count, scale=scale, seed=seed)
        assert golden_distance(native.run(features), package.run(features)) <= GOLDEN_TOLERANCE


def _every_operator() -> bytes:
    """A net with each kind of weight and attribute that is allowed, by operators that need them."""
    width, outputs = SCHEMA.features, SCHEMA.outputs
    draw = np.random.default_rng(5)
    weights = [
        tensor("w", draw.standard_normal((width, outputs)).astype(np.float32)),
        tensor("kernel", draw.standard_normal((1, 1, 3)).astype(np.float32)),
        tensor("gain", np.ones(outputs, dtype=np.float32)),
        tensor("axes", np.array([1])),
        tensor("flat", np.array([-1, outputs])),
        tensor("least", np.array(0.25, dtype=np.float32)),
        tensor("three", np.array([-1, 5, 3])),
        tensor("last", np.array(2)),
    ]
    nodes = [
        node("Unsqueeze", ("features", "axes"), ("x3",)),
        node("Conv", ("x3", "kernel"), ("conv",), attribute("pads", (1, 1)), attribute("auto_pad", "NOTSET")),
        node("Squeeze", ("conv", "axes"), ("x2",)),
        node("MatMul", ("x2", "w"), ("product",)),
        node("LayerNormalization", ("product", "gain"), ("normal",), attribute("epsilon", 1e-5)),
        node("LeakyRelu", ("normal",), ("leaky",), attribute("alpha", 0.1)),
        node("Softplus", ("leaky",), ("steps",)),
        node("Reshape", ("steps", "three"), ("by_horizon",)),
        node("CumSum", ("by_horizon", "last"), ("rising",)),
        node("Reshape", ("rising", "flat"), ("matrix",)),
        node("Clip", ("matrix", "least"), ("quantiles",)),
    ]
    return model(graph(nodes, weights, (port("features", ("rows", width)), port("quantiles", ("rows", outputs)))))


def test_a_net_of_many_operators_passes_and_runs_alike() -> None:
    net = _every_operator()
    inspect_model(net, SCHEMA)
    outputs = NativeNet(net, SCHEMA).run(rows(8)).reshape(8, 5, 3)
    assert (np.diff(outputs, axis=2) >= 0).all()
    assert golden_distance(outputs, PackageNet(net, SCHEMA).run(rows(8)).reshape(8, 5, 3)) <= GOLDEN_TOLERANCE


def test_numbers_that_are_not_finite_reach_the_caller() -> None:
    features = rows(2)
    features[0, 0] = np.nan
    features[1, 0] = np.inf
    for make in NETS:
        outputs = make(linear_model(SCHEMA, slope=1.0), SCHEMA).run(features)
        assert np.isnan(outputs[0]).all()
        assert np.isinf(outputs[1]).all()


def test_a_run_takes_its_tensors_from_what_is_kept_at_hand() -> None:
    net = NativeNet(mlp_model(SCHEMA), SCHEMA, max_rows=6)
    features = rows(6)
    for _ in range(100):
        net.run(features)
    stats = net.stats()
    assert stats["runs"] == 100
    assert stats["tensor_allocations"] <= 200
    assert stats["tensor_allocations_from_heap"] == 0
    assert 0 < stats["last_run_us"] <= stats["longest_run_us"]
    assert stats["tensor_bytes_in_use"] > 0


def test_a_session_gives_its_memory_back() -> None:
    used = NativeNet(mlp_model(SCHEMA), SCHEMA)
    before = used.stats()["tensor_bytes_in_use"]
    others = [NativeNet(mlp_model(SCHEMA, (256, 256)), SCHEMA) for _ in range(4)]
    assert used.stats()["tensor_bytes_in_use"] > before
    del others
    assert used.stats()["tensor_bytes_in_use"] == before


def test_a_net_that_wants_too_much_memory_fails_and_the_host_lives() -> None:
    """21 times the input beside itself: 600 MB for one row."""
    doubled = [node("Concat", (f"x{i}",) * 2, (f"x{i + 1}",), attribute("axis", 1)) for i in range(21)]
    cut = node("Slice", ("x21", "from", "to", "axes"), ("quantiles",))
    weights = [tensor("from", np.array([0])), tensor("to", np.array([15])), tensor("axes", np.array([1]))]
    ports = (port("features", ("rows", SCHEMA.features)), port("quantiles", ("rows", SCHEMA.outputs)))
    bomb = model(graph([node("Identity", ("features",), ("x0",)), *doubled, cut], weights, ports))
    inspect_model(bomb, SCHEMA)
    with pytest.raises(ModelLoadError, match="bad_alloc"):
        NativeNet(bomb, SCHEMA, max_rows=1)
    assert np.isfinite(NativeNet(mlp_model(SCHEMA), SCHEMA).run(rows(1))).all()


def test_a_late_net_gives_no_answer_and_rests_after_three() -> None:
    net = NativeNet(mlp_model(SCHEMA), SCHEMA, max_rows=6, deadline_us=0.001)
    answers = [net.core.run(rows(6)) for _ in range(3 + 100 + 1 + 200 + 1)]
    assert answers == [None] * len(answers)
    stats = net.stats()
    assert (stats["late"], stats["runs"]) == (5, 5)
    assert (stats["rests"], stats["rested"]) == (3, 300)
    with pytest.raises(NotReadyError, match="last good forecast"):
        net.run(rows(6))


def test_a_net_in_time_is_not_late() -> None:
    net = NativeNet(mlp_model(SCHEMA), SCHEMA, max_rows=6, deadline_us=60e6, hang_limit_us=60e6)
    for _ in range(200):
        assert np.isfinite(net.run(rows(6))).all()
    assert net.stats()["late"] == 0


def _slow_model(times: int) -> bytes:
    """Multiplies by a square of 256 × 256 again and again: ORT looks at its stop flag in between."""
    draw = np.random.default_rng(0)
    weights = [
        tensor("in", (draw.standard_normal((SCHEMA.features, 256)) / 10).astype(np.float32)),
        tensor("square", (draw.standard_normal((256, 256)) / 16).astype(np.float32)),
        tensor("out", (draw.standard_normal((256, SCHEMA.outputs)) / 16).astype(np.float32)),
    ]
    nodes = [node("MatMul", ("features", "in"), ("x0",))]
    for i in range(times):
        nodes.append(node("MatMul", (f"x{i}", "square"), (f"x{i + 1}",)))
    nodes.append(node("MatMul", (f"x{times}", "out"), ("quantiles",)))
    ports = (port("features", ("rows", SCHEMA.features)), port("quantiles", ("rows", SCHEMA.outputs)))
    return model(graph(nodes, weights, ports))


def test_a_run_without_end_is_stopped_between_two_nodes() -> None:
    net = NativeNet(_slow_model(600), SCHEMA, max_rows=256, hang_limit_us=10_000)  # some 90 to 450 ms
    features = rows(256)
    assert net.core.run(features) is None
    stats = net.stats()
    assert (stats["stopped"], stats["late"], stats["failures"]) == (1, 1, 0)
    unlimited = NativeNet(_slow_model(600), SCHEMA, max_rows=256)
    unlimited.run(features)
    assert stats["last_run_us"] < unlimited.stats()["last_run_us"] / 2
    # The stop is for one run: a short one afterwards has its answer.
    assert any(net.core.run(features[:1]) is not None for _ in range(150))


@pytest.mark.parametrize(
    ("given", "kind", "sentence"),
    [
        ([[0.0]], TypeError, "numpy array of float32"),
        (np.zeros((1, SCHEMA.features)), TypeError, "numpy array of float32"),
        (np.zeros((1, 3), dtype=np.float32), ValueError, "shape"),
        (np.zeros(SCHEMA.features, dtype=np.float32), ValueError, "shape"),
        (np.zeros((0, SCHEMA.features), dtype=np.float32), ValueError, "shape"),
        (np.zeros((9, SCHEMA.features), dtype=np.float32), ValueError, "1 to 8"),
        (np.zeros((SCHEMA.features, 2), dtype=np.float32).T, ValueError, "contiguous"),
    ],
)
def test_features_of_another_form_are_refused(given: Any, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        NativeNet(mlp_model(SCHEMA), SCHEMA, max_rows=8).run(given)


@pytest.mark.parametrize(
    ("changes", "kind", "sentence"),
    [
        ({"features": 5}, ModelLoadError, "expected -1"),
        ({"outputs": 3}, ModelLoadError, "expected -1"),
        ({"input_name": "x"}, ModelLoadError, 'expected "x"'),
        ({"output_name": "y"}, ModelLoadError, 'expected "y"'),
        ({"max_rows": 0}, ValueError, "max_rows must be 1"),
        ({"features": -1}, ValueError, "features must be 1"),
        ({"deadline_us": -1.0}, ValueError, "deadline_us"),
        ({"hang_limit_us": float("nan")}, ValueError, "hang_limit_us"),
        ({"model": b""}, ModelLoadError, "ONNX Runtime"),
        ({"model": b"no model"}, ModelLoadError, "ONNX Runtime"),
        ({"library": "/nowhere/libonnxruntime.so.1"}, ModelLoadError, "cannot load ONNX Runtime"),
        ({"library": "libc.so.6"}, ModelLoadError, "no OrtGetApiBase"),
    ],
)
def test_the_native_session_checks_for_itself(changes: dict[str, Any], kind: type[Exception], sentence: str) -> None:
    options: dict[str, Any] = {
        "library": str(find_library()),
        "model": mlp_model(SCHEMA),
        "features": SCHEMA.features,
        "outputs": SCHEMA.outputs,
        "max_rows": 4,
    } | changes
    with pytest.raises(kind, match=sentence):
        OnnxNet(options.pop("library"), options.pop("model"), **options)


def test_an_artefact_opens_in_both_forms(tmp_path: Path) -> None:
    artefact = write_artefact(tmp_path, mlp_model(SCHEMA), SCHEMA, rows(16))
    assert [open_net(artefact, backend=backend).backend for backend in ("auto", "native", "package")] == [
        "native",
        "native",
        "package",
    ]


def test_without_the_library_the_package_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artefact = write_artefact(tmp_path, mlp_model(SCHEMA), SCHEMA, rows(16))
    monkeypatch.setattr(onnx, "find_library", lambda: None)
    assert open_net(artefact).backend == "package"
    with pytest.raises(ModelLoadError, match="pip install --upgrade onnxruntime"):
        open_net(artefact, backend="native")


def test_without_the_package_there_is_no_net_and_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artefact = write_artefact(tmp_path, mlp_model(SCHEMA), SCHEMA, rows(16))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert find_library() is None
    with pytest.raises(ModelLoadError, match="pip install --upgrade onnxruntime"):
        open_net(artefact)


def test_the_shipped_net_passes_every_check_in_both_forms() -> None:
    artefact = load_artefact(Path(zeta.__file__).parent / "artefacts" / "forecast", schema=SCHEMA)
    native, package = open_net(artefact, backend="native"), open_net(artefact, backend="package")
    for seed in range(20):
        features = rows(32, scale=2.0, seed=seed)
        assert golden_distance(native.run(features), package.run(features)) <= GOLDEN_TOLERANCE
