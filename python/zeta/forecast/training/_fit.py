"""Fits a net to rows: every source counts alike, and training stops where later rows get worse."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zeta.forecast.training._net import HIGHEST, LOWEST, QuantileNet, pinball
from zeta.forecast.training._samples import Rows, Source

__all__ = ["Check", "Fit", "Plan", "fit", "relative_losses"]

FloatArray = NDArray[np.float64]

_QUANTILE_WEIGHTS = (1.0, 2.0, 4.0)
"""The higher a quantile, the smaller its loss; with these the three pull about alike."""
_CHECKS = 24


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """How a net is fitted.

    Attributes
    ----------
    hidden : tuple of int
        Widths of the hidden layers.
    steps, batch : int
        Steps of the optimiser at most, and rows in each.
    learning_rate, weight_decay : float
        Of AdamW, the first at its peak.
    synthetic_part : float
        Part of each batch that comes from made-up series.
    """

    hidden: tuple[int, ...] = (48, 24)
    steps: int = 4000
    batch: int = 1024
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    synthetic_part: float = 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """A look at the losses while fitting; relative to forecasting the level, so 1 is what the level's points give."""

    step: int
    learn: float
    stop: float | None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A fitted net.

    Attributes
    ----------
    net : QuantileNet
        With the weights of the best check.
    checks : tuple of Check
    best_step : int
        Where the loss on the rows to stop by was least; the last where there are none.
    """

    net: QuantileNet
    checks: tuple[Check, ...]
    best_step: int


class _Deck:
    """All rows in one tensor, dealt with the same chance for each source of a kind, large or small to the root."""

    def __init__(self, real: Sequence[Rows], synthetic: Sequence[Rows], synthetic_part: float) -> None:
        rows = [*real, *synthetic]
        self.features = torch.from_numpy(np.concatenate([one.features for one in rows]))
        self.targets = torch.from_numpy(np.concatenate([one.targets for one in rows]))
        self.weights = torch.from_numpy(np.concatenate([one.weights for one in rows]))
        sizes = np.array([len(one) for one in rows])
        self._sizes = sizes
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        chance = np.sqrt(sizes.astype(np.float64))
        is_real = np.arange(len(rows)) < len(real)
        parts = ((is_real, 1.0 - synthetic_part), (~is_real, synthetic_part))
        for chosen, part in parts:
            if chosen.any():
                chance[chosen] *= (part if is_real.any() and (~is_real).any() else 1.0) / chance[chosen].sum()
        self._bounds = np.cumsum(chance)

    def deal(self, rng: np.random.Generator, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        source = np.minimum(np.searchsorted(self._bounds, rng.random(batch) * self._bounds[-1]), len(self._sizes) - 1)
        at = torch.from_numpy(self._starts[source] + (rng.random(batch) * self._sizes[source]).astype(np.int64))
        return self.features[at], self.targets[at], self.weights[at]


def fit(
    sources: Sequence[Source],
    synthetic: Sequence[Source],
    plan: Plan,
    seed: int,
    *,
    each: Callable[[float], None] = lambda _: None,
) -> Fit:
    """Fits one net. `sources` and `synthetic` together must not be empty; `each` is told the part that is done."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 0xF17])
    deck = _Deck([one.learn for one in sources], [one.learn for one in synthetic], plan.synthetic_part)
    mean, spread = _moments(deck, rng)
    net = QuantileNet(plan.hidden, mean, spread)
    optimiser = torch.optim.AdamW(net.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.learning_rate, total_steps=plan.steps)
    stops = [one.stop for one in (*sources, *synthetic) if one.stop is not None]
    checks: list[Check] = []
    best: tuple[float, int, dict[str, Tensor]] | None = None
    running = 0.0
    every = max(1, plan.steps // _CHECKS)
    for step in range(1, plan.steps + 1):
        features, targets, weights = deck.deal(rng, plan.batch)
        loss = _loss(net, features, targets, weights)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        running += (float(loss.detach()) - running) / ((step - 1) % every + 1)
        if step % every == 0 or step == plan.steps:
            stop = _stop_loss(net, stops)
            checks.append(Check(step, running, stop))
            if best is None or stop is None or stop < best[0]:
                best = (stop if stop is not None else running, step, copy.deepcopy(net.state_dict()))
            running = 0.0
            each(step / plan.steps)
    assert best is not None
    net.load_state_dict(best[2])
    net.eval()
    return Fit(net, tuple(checks), best[1])


def _loss(net: QuantileNet, features: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    losses = pinball(net(features), targets) * torch.tensor(_QUANTILE_WEIGHTS)
    known = torch.isfinite(targets).sum().clamp(min=1)
    return (losses.sum(dim=2) * weights).sum() / known


def _stop_loss(net: QuantileNet, stops: Sequence[Rows]) -> float | None:
    """Mean over sources of the loss on their rows to stop by."""
    if not stops:
        return None
    losses = []
    with torch.no_grad():
        for rows in stops:
            tensors = (torch.from_numpy(part) for part in (rows.features, rows.targets, rows.weights))
            losses.append(float(_loss(net, *tensors)))
    return float(np.mean(losses))


def relative_losses(net: QuantileNet, rows: Rows) -> tuple[float, ...]:
    """Pinball loss of each quantile over `rows`, mean over horizons, relative to the level's mean absolute error."""
    with torch.no_grad():
        targets = torch.from_numpy(rows.targets)
        losses = pinball(net(torch.from_numpy(rows.features)), targets) * torch.from_numpy(rows.weights)[:, :, None]
        known = torch.isfinite(targets).sum(dim=0)[:, None]
        means = losses.sum(dim=0) / known.clamp(min=1)
        return tuple(float(value) for value in means[known[:, 0] > 0].mean(dim=0))


def _moments(deck: _Deck, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Mean and spread of the features as they are dealt; a spread is 0 or at least 0.1."""
    dealt = np.concatenate([deck.deal(rng, 4096)[0].numpy() for _ in range(4)]).astype(np.float64)
    features = np.clip(dealt, LOWEST, HIGHEST)
    spread = features.std(axis=0)
    return features.mean(axis=0), np.where(spread > 1e-6, np.maximum(spread, 0.1), 0.0)
