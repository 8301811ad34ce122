"""A fitted net as an ONNX file with 8-bit matrices, written node by node.

Weights have one scale for each output, inputs of products one fixed scale from what the net was seen to need. ONNX
Runtime's own dynamic quantisation scales the inputs by the largest value in the batch: then an answer would depend on
who else is in the batch. Weights keep 7 bits, so that no sum of pairs of products leaves 16 bits on CPUs without VNNI.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from zeta.engines.training._net import Dense, Net

__all__ = ["to_onnx"]

_OPSET: Final = 17
_IR_VERSION: Final = 8
_WEIGHT_STEPS: Final = 63
_INPUT_STEPS: Final = 127


class _Graph:
    """Nodes and constants as they come."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self._count = 0

    def add(self, kind: str, *inputs: str, outputs: int = 1, into: str | None = None, **attributes: Any) -> Any:
        """A node; its output's name, or several."""
        self._count += 1
        names = (
            [into or f"{kind}_{self._count}"] if outputs == 1 else [f"{kind}_{self._count}_{i}" for i in range(outputs)]
        )
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, name: str, value: Any, kind: Any = np.float32) -> str:
        """A constant; its name."""
        self.constants[name] = np.asarray(value, kind)
        return name

    def product(self, name: str, x: str, weights: str, weight_scale: NDArray[Any], largest: float) -> str:
        """``x @ weights`` in integers."""
        scale = largest / _INPUT_STEPS
        small = self.add("QuantizeLinear", x, self.constant(f"{name}.x_scale", scale), "middle")
        whole = self.add("MatMulInteger", small, weights, "middle")
        return str(
            self.add(
                "Mul",
                self.add("Cast", whole, to=TensorProto.FLOAT),
                self.constant(f"{name}.scale", weight_scale * scale),
            )
        )


def to_onnx(net: Net) -> bytes:
    """The net as `zeta.engines._lm.LanguageModel` runs it.

    Inputs: tokens (time, rows), states (2 · layers, rows, width), valid (time, rows, 1): 0 where a row's tokens have
    ended, select (time, rows, 1): 1 at its last token. Outputs: logits behind the selected tokens, states, and the
    vectors that the logits come from.
    """
    graph = _Graph()
    layers, width = list(net.layers), net.table.shape[1]
    graph.constant("middle", 128, np.uint8)
    for name, value in (("zero", 0), ("one_axis", 1), ("minus_one", -1)):
        graph.constant(name, [value], np.int64)
    graph.constant("one", 1.0)
    graph.constant("widths", [width] * 3, np.int64)

    table, table_scale = _quantised(_array(net.table).T)
    graph.constant("table", table.T, np.int8)
    graph.constant("table.scale", table_scale[:, None])
    rows = graph.add("Cast", graph.add("Gather", "table", "tokens"), to=TensorProto.FLOAT)
    x = graph.add("Mul", rows, graph.add("Gather", "table.scale", "tokens"))
    before = graph.add("Split", "states", outputs=2 * len(layers), axis=0)
    after: list[str] = []
    for number, layer in enumerate(layers):
        x = _layer(graph, f"layer{number}", layer, x, before[2 * number : 2 * number + 2], after)
    n = _normed(graph, "head", net.before_head, x)
    hidden = graph.add("ReduceSum", graph.add("Mul", n, "select"), "zero", keepdims=0, into="hidden")
    turned = graph.add("Transpose", "table", perm=[1, 0])
    logits = graph.product("head", hidden, turned, table_scale * width**-0.5, net.largest)
    graph.add("Identity", logits, into="logits")
    graph.add("Concat", *after, axis=0, into="states_after")

    kinds = {"tokens": TensorProto.INT64}
    shapes = {
        "tokens": ["time", "rows"],
        "states": [2 * len(layers), "rows", width],
        "valid": ["time", "rows", 1],
        "select": ["time", "rows", 1],
        "logits": ["rows", net.table.shape[0]],
        "states_after": [2 * len(layers), "rows", width],
        "hidden": ["rows", width],
    }
    infos = {n: helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), s) for n, s in shapes.items()}
    made = helper.make_graph(
        graph.nodes,
        "zeta-lm",
        [infos[name] for name in ("tokens", "states", "valid", "select")],
        [infos[name] for name in ("logits", "states_after", "hidden")],
        [numpy_helper.from_array(np.asarray(value, order="C"), name) for name, value in graph.constants.items()],
    )
    opsets = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(made, producer_name="zeta", opset_imports=opsets, ir_version=_IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def _layer(graph: _Graph, name: str, layer: Any, x: str, before: list[str], after: list[str]) -> str:
    """As `zeta.engines.training._net.Layer` computes it, from the states before to those after."""
    n = _normed(graph, f"{name}.mix", layer.before_mix, x)
    earlier = graph.add("Slice", n, "zero", "minus_one", "zero")
    previous = graph.add("Concat", before[0], earlier, axis=0)
    after.append(graph.add("ReduceSum", graph.add("Mul", n, "select"), "zero", keepdims=1))
    shift = graph.constant(f"{name}.shift", _array(layer.shift))
    mixed = graph.add("Add", n, graph.add("Mul", graph.add("Sub", previous, n), shift))
    keep, candidate, gate = graph.add(
        "Split", _dense(graph, f"{name}.gates", layer.gates, mixed), "widths", outputs=3, axis=2
    )
    # 1 - a, which is 0 where a row has ended: there the state stays.
    bias = graph.constant(f"{name}.keep", -_array(layer.keep))
    forgotten = graph.add("Sigmoid", graph.add("Sub", bias, keep))
    forgotten = graph.add("Mul", forgotten, "valid")
    kept, new = graph.add("Sub", "one", forgotten), graph.add("Mul", forgotten, candidate)
    last, states = graph.add(
        "Scan",
        graph.add("Squeeze", before[1], "zero"),
        kept,
        new,
        outputs=2,
        body=_recurrence(),
        num_scan_inputs=2,
    )
    after.append(graph.add("Unsqueeze", last, "zero"))
    gated = graph.add("Mul", states, graph.add("Mul", gate, graph.add("Sigmoid", gate)))
    x = graph.add("Add", x, _dense(graph, f"{name}.out", layer.mix, gated))
    n = _normed(graph, f"{name}.think", layer.before_think, x)
    wide = graph.add("Relu", _dense(graph, f"{name}.widen", layer.widen, n))
    return str(graph.add("Add", x, _dense(graph, f"{name}.narrow", layer.think, graph.add("Mul", wide, wide))))


def _recurrence() -> Any:
    """``h = a * h + b``."""
    nodes = [
        helper.make_node("Mul", ["a", "h"], ["ah"]),
        helper.make_node("Add", ["ah", "b"], ["next"]),
        helper.make_node("Identity", ["next"], ["told"]),
    ]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
        for names in (("h", "a", "b"), ("next", "told"))
    )
    return helper.make_graph(nodes, "recurrence", inputs, outputs)


def _normed(graph: _Graph, name: str, scale: Any, x: str) -> str:
    return str(graph.add("LayerNormalization", x, graph.constant(f"{name}.norm", _array(scale)), axis=-1, epsilon=1e-5))


def _dense(graph: _Graph, name: str, dense: Dense, x: str) -> str:
    weights, scale = _quantised(_array(dense.weight))
    return graph.product(name, x, graph.constant(f"{name}.weight", weights, np.int8), scale, dense.largest)


def _quantised(weights: NDArray[np.float64]) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Whole numbers, and by column what one of them is worth."""
    scale = np.abs(weights).max(axis=0) / _WEIGHT_STEPS
    return np.rint(weights / scale).astype(np.int8), scale


def _array(tensor: Any) -> NDArray[np.float64]:
    found: NDArray[np.float64] = tensor.detach().numpy().astype(np.float64)
    return found
