"""The nets: feature rows in, monotone quantiles out, in few operators, because each costs half a microsecond."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zeta._core import forecast_layout

__all__ = ["HIGHEST", "LOWEST", "QuantileNet", "pinball"]

FloatArray = NDArray[np.float64]

_LAYOUT = forecast_layout()
_HORIZONS = len(_LAYOUT["horizon_bins"])
_QUANTILES = len(_LAYOUT["quantiles"])
LOWEST, HIGHEST = -1.0, 8.0
"""Features are clamped to this; above it a log-ratio would mean 6,000 times the scale."""


class QuantileNet(nn.Module):
    """A multilayer perceptron whose outputs rise from one quantile to the next.

    Each output is a sum of softplus values, so none is negative and none falls below the quantile before it. The sum is
    one multiplication by a constant matrix.

    Parameters
    ----------
    hidden : sequence of int
        Widths of the hidden layers.
    mean, spread : ndarray of float64, shape (features,)
        Of the features, over the rows learnt from. A feature with spread 0 told nothing there, and is not read.
    """

    def __init__(self, hidden: Sequence[int], mean: FloatArray, spread: FloatArray) -> None:
        super().__init__()
        widths = [len(mean), *hidden]
        layers: list[nn.Module] = []
        for width, following in itertools.pairwise(widths):
            layers += [nn.Linear(width, following), nn.ReLU()]
        last = nn.Linear(widths[-1], _HORIZONS * _QUANTILES)
        with torch.no_grad():  # begins near (1, 1.3, 1.6) times the scale
            last.weight *= 0.1
            last.bias.copy_(torch.tensor([0.54, -1.0, -1.0] * _HORIZONS))
        self.body = nn.Sequential(*layers, last)
        self.rise = nn.Softplus()
        sums = np.kron(np.eye(_HORIZONS), np.triu(np.ones((_QUANTILES, _QUANTILES))))
        self.register_buffer("sums", torch.from_numpy(sums.astype(np.float32)))
        per_spread = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
        self.register_buffer("mean", torch.from_numpy(mean.astype(np.float32)))
        self.register_buffer("per_spread", torch.from_numpy(per_spread.astype(np.float32)))
        self.sums: Tensor
        self.mean: Tensor
        self.per_spread: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """Rows of features to rows of outputs; see layout.hpp for their order."""
        scaled = (torch.clamp(features, LOWEST, HIGHEST) - self.mean) * self.per_spread
        out: Tensor = self.rise(self.body(scaled)) @ self.sums
        return out


def pinball(out: Tensor, targets: Tensor) -> Tensor:
    """Pinball loss of each quantile, shape (rows, horizons, quantiles); 0 where the target is NaN."""
    quantiles = torch.tensor(_LAYOUT["quantiles"])
    known = torch.isfinite(targets)
    miss = torch.where(known, targets, 0.0)[:, :, None] - out.view(-1, _HORIZONS, _QUANTILES)
    loss = torch.maximum(quantiles * miss, (quantiles - 1.0) * miss)
    return loss * known[:, :, None]
