"""The language model in PyTorch: layers of gated linear recurrence, as small as they come.

Each layer has a recurrence ``h = a * h + (1 - a) * c`` whose gates depend on the present and the previous token only
(Martin & Cundy, "Parallelizing linear recurrent neural nets over sequence length", 2018; Feng et al., "Were RNNs all we
needed?", 2024), then a perceptron with squared ReLU. So a prompt is read a piece at a time with few large products, and
what a sequence keeps is of fixed size: two rows for each layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["Dense", "Net"]


class _Recurrence(torch.autograd.Function):
    """``h[t] = a[t] * h[t - 1] + b[t]`` along the first axis, from 0. Step by step: on a CPU the products around it
    take the time."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        states = b.clone()
        for t in range(1, len(a)):
            states[t].addcmul_(a[t], states[t - 1])
        ctx.save_for_backward(a, states)
        return states

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, states = ctx.saved_tensors
        into_b = grads[0].clone()
        for t in range(len(a) - 2, -1, -1):
            into_b[t].addcmul_(a[t + 1], into_b[t + 1])
        into_a = torch.zeros_like(a)
        into_a[1:] = into_b[1:] * states[:-1]
        return into_a, into_b


class Dense(nn.Module):
    """A matrix; remembers how large its inputs become while `watches`, for the export to 8 bits."""

    def __init__(self, inputs: int, outputs: int, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) * scale * inputs**-0.5)
        self.watches = False
        self.largest = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.watches:
            self.largest = max(self.largest, float(x.abs().max()))
        return x @ self.weight


class Layer(nn.Module):
    """Recurrence and perceptron, each beside a straight way."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.before_mix = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.full((width,), 0.5))
        self.gates = Dense(width, 3 * width)
        self.keep = nn.Parameter(torch.linspace(-1.0, 5.0, width))
        self.mix = Dense(width, width, layers**-0.5)
        self.before_think = nn.Parameter(torch.ones(width))
        self.widen = Dense(width, 2 * width)
        self.think = Dense(2 * width, width, layers**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = functional.layer_norm(x, x.shape[-1:], self.before_mix)
        previous = functional.pad(n, (0, 0, 0, 0, 1, 0))[:-1]
        keep, candidate, gate = self.gates(n + self.shift * (previous - n)).float().chunk(3, dim=-1)
        a = torch.sigmoid(keep + self.keep)
        states = _Recurrence.apply(a, (1 - a) * candidate)
        x = x + self.mix(states * functional.silu(gate))
        n = functional.layer_norm(x, x.shape[-1:], self.before_think)
        return x + self.think(functional.relu(self.widen(n)).square())


class Net(nn.Module):
    """Tokens (time, rows) to logits (time, rows, vocabulary). Its first and last matrix are one.

    Parameters
    ----------
    vocabulary, width, layers : int
    """

    def __init__(self, vocabulary: int, width: int, layers: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(vocabulary, width) * 0.5)
        self.layers = nn.ModuleList(Layer(width, layers) for _ in range(layers))
        self.before_head = nn.Parameter(torch.ones(width))
        self.watches = False
        self.largest = 0.0

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.table[tokens]
        for layer in self.layers:
            x = layer(x)
        n = functional.layer_norm(x, x.shape[-1:], self.before_head)
        if self.watches:
            self.largest = max(self.largest, float(n.abs().max()))
        return (n @ self.table.T).float() * self.table.shape[1] ** -0.5

    def watch(self, on: bool) -> None:
        """Starts or ends remembering the size of inputs."""
        self.watches = on
        for module in self.modules():
            if isinstance(module, Dense):
                module.watches = on
