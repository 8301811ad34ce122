"""Small ONNX files, written byte by byte: sound ones for tests and benchmarks, and the parts to build unsound ones.

Messages are protobuf: `field` writes one field, the functions below it whole messages of ONNX.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeta.forecast.artefact import Schema

__all__ = ["attribute", "field", "graph", "linear_model", "mlp_model", "model", "node", "port", "tensor", "varint"]


def varint(value: int) -> bytes:
    """A number in base 128, least digit first; negative ones as 64-bit two's complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, value: int | float | str | bytes) -> bytes:
    """One field: integers as varints, floats as 32 bits, text and messages with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + np.float32(value).tobytes()
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name: str, values: NDArray[Any], *, extra: bytes = b"") -> bytes:
    """A TensorProto of float32 or int64 with its data inside."""
    kind = {"float32": 1, "int64": 7}[str(values.dtype)]
    dims = b"".join(field(1, int(dim)) for dim in values.shape)
    return dims + field(2, kind) + field(8, name) + field(9, values.tobytes()) + extra


def attribute(name: str, value: int | float | str | Sequence[int]) -> bytes:
    """An AttributeProto of one number, a string, or integers."""
    if isinstance(value, str):
        return field(1, name) + field(4, value) + field(20, 3)
    if isinstance(value, (int, float)):
        return (
            field(1, name)
            + (field(3, value) if isinstance(value, int) else field(2, value))
            + field(20, 2 if isinstance(value, int) else 1)
        )
    return field(1, name) + b"".join(field(8, each) for each in value) + field(20, 7)


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], *attributes: bytes, extra: bytes = b"") -> bytes:
    """A NodeProto."""
    names = b"".join(field(1, name) for name in inputs) + b"".join(field(2, name) for name in outputs)
    return names + field(4, operator) + b"".join(field(5, each) for each in attributes) + extra


def port(name: str, dims: Sequence[int | str], *, element: int = 1) -> bytes:
    """A ValueInfoProto: a tensor whose dimensions are numbers or names."""
    shape = b"".join(field(1, field(1, dim) if isinstance(dim, int) else field(2, dim)) for dim in dims)
    return field(1, name) + field(2, field(1, field(1, element) + field(2, shape)))


def graph(nodes: Sequence[bytes], weights: Sequence[bytes], ports: tuple[bytes, bytes], *, extra: bytes = b"") -> bytes:
    """A GraphProto with one input and one output."""
    body = b"".join(field(1, each) for each in nodes) + field(2, "net") + b"".join(field(5, each) for each in weights)
    return body + field(11, ports[0]) + field(12, ports[1]) + extra


def model(graph: bytes, *, opset: int = 17, ir_version: int = 8, domain: str = "", extra: bytes = b"") -> bytes:
    """A ModelProto: a whole file."""
    opsets = (field(1, domain) if domain else b"") + field(2, opset)
    return field(1, ir_version) + field(2, "zeta.testing") + field(7, graph) + field(8, opsets) + extra


def mlp_model(schema: Schema, hidden: Sequence[int] = (48, 24), *, seed: int = 0) -> bytes:
    """A net of random weights: linear layers with rectifiers between them.

    Parameters
    ----------
    schema : Schema
        Its input and output.
    hidden : sequence of int
        Widths of the layers in between.
    seed : int
        Of the weights.
    """
    draw = np.random.default_rng(seed)
    widths = [schema.features, *hidden, schema.outputs]
    nodes, weights = [], []
    value = schema.input_name
    for layer, (rows, columns) in enumerate(pairwise(widths)):
        is_last = layer == len(widths) - 2
        made = schema.output_name if is_last else f"sum{layer}"
        drawn = draw.standard_normal((rows, columns)) / np.sqrt(rows)
        weights += [
            tensor(f"weight{layer}", drawn.astype(np.float32)),
            tensor(f"bias{layer}", draw.standard_normal(columns).astype(np.float32)),
        ]
        nodes.append(node("Gemm", (value, f"weight{layer}", f"bias{layer}"), (made,)))
        value = made
        if not is_last:
            nodes.append(node("Relu", (value,), (f"part{layer}",)))
            value = f"part{layer}"
    ports = (port(schema.input_name, ("rows", schema.features)), port(schema.output_name, ("rows", schema.outputs)))
    return model(graph(nodes, weights, ports))


def linear_model(schema: Schema, bias: float = 0.0, *, slope: float = 0.0) -> bytes:
    """A net whose every output is ``bias + slope * sum(features)``: one that a test can compute by hand."""
    weights = (
        tensor("weight", np.full((schema.features, schema.outputs), slope, dtype=np.float32)),
        tensor("bias", np.full(schema.outputs, bias, dtype=np.float32)),
    )
    ports = (port(schema.input_name, ("rows", schema.features)), port(schema.output_name, ("rows", schema.outputs)))
    return model(graph([node("Gemm", (schema.input_name, "weight", "bias"), (schema.output_name,))], weights, ports))
