"""A fitted net as an ONNX file, written node by node, and the artefact around it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from zeta._core import forecast_layout
from zeta.errors import ForecastError
from zeta.forecast.artefact import Artefact, Schema, golden_distance, write_artefact
from zeta.forecast.onnx import PackageNet
from zeta.forecast.training._net import HIGHEST, LOWEST, QuantileNet

__all__ = ["IR_VERSION", "OPSET", "PARITY", "layout_schema", "to_onnx", "write"]

Matrix = NDArray[np.float32]

OPSET = 17
IR_VERSION = 8
"""What ONNX Runtime 1.20 and all later ones read."""

PARITY = 1e-5
"""How far ONNX Runtime may be from torch: absolute below 1, relative above."""


def layout_schema() -> Schema:
    """What this version of zeta feeds to a net and reads from it."""
    layout = forecast_layout()
    return Schema(layout["features"], tuple(layout["horizon_bins"]), tuple(layout["quantiles"]))


def to_onnx(net: QuantileNet) -> bytes:
    """The net as an ONNX file: Clip, then Gemm and Relu by turns, Softplus, MatMul.

    The features' mean and spread are folded into the first layer. Rows are free, everything else is fixed.
    """
    schema = layout_schema()
    nodes = [helper.make_node("Clip", [schema.input_name, "lowest", "highest"], ["clipped"])]
    constants: dict[str, NDArray[Any]] = {"lowest": np.array(LOWEST), "highest": np.array(HIGHEST)}
    values, mean, per_spread = "clipped", _array(net.mean), _array(net.per_spread)
    for number, layer in enumerate(net.body):
        into = f"layer{number}"
        if isinstance(layer, nn.Linear):
            weight, bias = _array(layer.weight), _array(layer.bias)
            if number == 0:
                weight = weight * per_spread
                bias = bias - weight @ mean
            constants |= {f"{into}.weight": weight.T, f"{into}.bias": bias}
            nodes.append(helper.make_node("Gemm", [values, f"{into}.weight", f"{into}.bias"], [into]))
        elif isinstance(layer, nn.ReLU):
            nodes.append(helper.make_node("Relu", [values], [into]))
        else:
            raise ForecastError(
                f"a net with a {type(layer).__name__}; expected Linear and ReLU, which alone are exported"
            )
        values = into
    constants["sums"] = _array(net.sums)
    nodes += [
        helper.make_node("Softplus", [values], ["rise"]),
        helper.make_node("MatMul", ["rise", "sums"], [schema.output_name]),
    ]
    graph = helper.make_graph(
        nodes,
        "zeta-forecast",
        [helper.make_tensor_value_info(schema.input_name, TensorProto.FLOAT, ["rows", schema.features])],
        [helper.make_tensor_value_info(schema.output_name, TensorProto.FLOAT, ["rows", schema.outputs])],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, producer_name="zeta", opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def write(
    net: QuantileNet, directory: str | os.PathLike[str], golden: Sequence[Matrix], about: Mapping[str, Any]
) -> tuple[Artefact, float]:
    """Writes the artefact; returns it with the largest distance between ONNX Runtime and torch over `golden`.

    The last matrix of `golden` goes into the manifest.

    Raises
    ------
    ForecastError
        If the two are further apart than `PARITY` anywhere.
    """
    model = to_onnx(net)
    session = PackageNet(model, layout_schema())
    farthest = 0.0
    wanted = np.empty((0, 0), np.float32)
    for features in golden:
        with torch.no_grad():
            wanted = net(torch.from_numpy(features)).numpy()
        farthest = max(farthest, golden_distance(session.run(features), wanted))
    if not farthest <= PARITY:
        raise ForecastError(f"ONNX Runtime is {farthest:.3g} away from torch; expected at most {PARITY:g}")
    artefact = write_artefact(
        directory,
        model,
        layout_schema(),
        golden[-1],
        golden_outputs=wanted,
        about={**about, "parity": farthest},
    )
    return artefact, farthest


def _array(tensor: torch.Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = tensor.detach().numpy().astype(np.float64)
    return found
