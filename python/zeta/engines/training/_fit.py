"""Fits one model: AdamW on random windows of the texts, a fixed number of steps, the same from the same seed."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from zeta.engines._tokens import END, Tokens
from zeta.engines.training._net import Dense, Net

__all__ = ["SIZES", "Fitted", "Plan", "Size", "fit", "tokens_of", "watch"]

Ids = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """One model's shape, and how long it learns.

    Parameters
    ----------
    name : str
    width, layers, steps : int
    rate : float
        Largest learning rate.
    """

    name: str
    width: int
    layers: int
    steps: int
    rate: float


SIZES: Final = (
    Size("tiny", 96, 2, 1600, 5e-3),
    Size("small", 160, 3, 1600, 3e-3),
    Size("base", 256, 4, 1600, 2e-3),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What all sizes share.

    Parameters
    ----------
    merges : int
        Tokens beyond the bytes.
    made_up : int
        Questions and stories.
    window : int
        Tokens in a row of a batch.
    rows : int
        Of a batch, half of them from this project.
    seed : int
    """

    merges: int = 768
    made_up: int = 60_000
    window: int = 256
    rows: int = 8
    seed: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted net and how it went."""

    net: Net
    wall_s: float
    loss_bits_per_token: float


def tokens_of(texts: Sequence[str], tokens: Tokens) -> Ids:
    """All texts in one row, each with its end."""
    return np.concatenate([np.array([*tokens.encode(text), END], np.int64) for text in texts])


def fit(
    size: Size, plan: Plan, tokens: Tokens, own: Ids, made_up: Ids, progress: Callable[[float, str], None]
) -> Fitted:
    """A net of this size, from scratch. The learning rate rises for 6 % of the steps and falls to nothing."""
    torch.manual_seed(plan.seed)
    dice = np.random.default_rng(plan.seed)
    net = Net(len(tokens), size.width, size.layers)
    matrices = [parameter for parameter in net.parameters() if parameter.ndim == 2]
    vectors = [parameter for parameter in net.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=size.rate, betas=(0.9, 0.95))
    started_s, loss_bits = time.perf_counter(), math.nan
    for step in range(size.steps):
        done = step / size.steps
        for group in optimiser.param_groups:
            group["lr"] = size.rate * min(step / (0.06 * size.steps), 0.5 + 0.5 * math.cos(math.pi * done), 1.0)
        batch = _batch(dice, own, made_up, plan)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(batch[:-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), batch[1:].flatten())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        bits = loss.item() / math.log(2)
        loss_bits = bits if step == 0 else 0.98 * loss_bits + 0.02 * bits
        progress(done, f"{size.name}: {loss_bits:.3f} bits per token")
    return Fitted(net, time.perf_counter() - started_s, loss_bits)


def watch(net: Net, own: Ids, made_up: Ids, plan: Plan) -> None:
    """Lets the net see some texts and remember how large its inputs become."""
    dice = np.random.default_rng(plan.seed + 1)
    net.watch(True)
    with torch.no_grad():
        for _ in range(8):
            net(_batch(dice, own, made_up, plan)[:-1])
    net.watch(False)
    assert all(module.largest > 0 for module in net.modules() if isinstance(module, Dense))


def _batch(dice: np.random.Generator, own: Ids, made_up: Ids, plan: Plan) -> torch.Tensor:
    """(window + 1, rows) tokens."""
    rows = []
    for row in range(plan.rows):
        source = own if row % 2 else made_up
        at = int(dice.integers(len(source) - plan.window - 1))
        rows.append(source[at : at + plan.window + 1])
    return torch.from_numpy(np.stack(rows, axis=1))
