"""Nets for the native allocation loop."""

from __future__ import annotations

from pathlib import Path

from zeta._core import OnnxNet
from zeta.forecast.artefact import load_artefact
from zeta.forecast.onnx import NativeNet, open_net

__all__ = ["RUN_LIMIT_US", "load_net"]

RUN_LIMIT_US = 5_000.0
"""A run of the net that takes longer gives no answer, and is told to stop. Usually it takes about 10."""


def load_net(directory: Path, models: int) -> OnnxNet:
    """A net that has passed every check of `zeta.forecast.artefact` and reproduces its golden outputs.

    Parameters
    ----------
    directory : Path
        Of its files.
    models : int
        What it will be asked about at once.

    Raises
    ------
    ModelLoadError, SchemaMismatch
        If it is not exactly what its manifest says, was made for other features, or ONNX Runtime cannot run it.
    """
    net = open_net(
        load_artefact(directory),
        backend="native",
        max_rows=2 * models,
        deadline_us=RUN_LIMIT_US,
        hang_limit_us=RUN_LIMIT_US,
    )
    assert isinstance(net, NativeNet)
    return net.core
