"""From series to a net: several seeds, the best one kept, fitted anew on everything it may know."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zeta._version import __version__
from zeta.errors import ForecastError
from zeta.forecast.artefact import Artefact
from zeta.forecast.provenance import provenance_of
from zeta.forecast.series import BinnedSeries
from zeta.forecast.training import _export
from zeta.forecast.training._fit import Check, Fit, Plan, fit, relative_losses
from zeta.forecast.training._net import QuantileNet
from zeta.forecast.training._samples import Source, sources_of, variants
from zeta.forecast.training._synthetic import synthetic_series

__all__ = ["Progress", "SeedResult", "SourceResult", "Trained", "TrainingSettings", "train"]

Matrix = NDArray[np.float32]
Progress = Callable[[float, str], None]
"""Told the part that is done, in [0, 1], and what is going on."""

_SYNTHETIC_BINS = 4000
_SYNTHETIC_ROWS = 400
_REAL_ROWS = 5000
_STOP_FROM = 0.85
_GOLDEN_ROWS = 24
_DATA_PART = 0.35  # of the time, roughly


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingSettings:
    """What is trained, and on how much.

    Attributes
    ----------
    until : float
        Part of each series that the net may know, from its beginning. The rest is there to judge it; 1 is for a net
        that is not judged on these series.
    seeds : tuple of int
        One fit each; at least one.
    synthetic_series : int
        Made-up series to learn from beside those given.
    plan : Plan
        Widths and optimiser.
    threads : int
        Of torch. The matrices are so small that a second one mostly waits.
    """

    until: float = 0.7
    seeds: tuple[int, ...] = (0, 1, 2)
    synthetic_series: int = 1500
    plan: Plan = dataclasses.field(default_factory=Plan)
    threads: int = 1

    def __post_init__(self) -> None:
        if not 0.0 < self.until <= 1.0:
            raise ForecastError(f"until = {self.until}; expected a part of each series, above 0 and at most 1")
        if not self.seeds:
            raise ForecastError("no seeds; expected at least one")
        if self.synthetic_series < 0 or self.threads < 1:
            raise ForecastError("expected synthetic_series of 0 or more and threads of 1 or more")


@dataclasses.dataclass(frozen=True, slots=True)
class SeedResult:
    """One seed's fit: losses relative to forecasting the level, on rows later than those it learnt from."""

    seed: int
    stop_loss: float
    best_step: int
    checks: tuple[Check, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class SourceResult:
    """One series (or variant of one): rows learnt from, and pinball losses per seed, relative to the level's error.

    `pinball_90` is over the rows to stop by and averaged over horizons; an entry per seed.
    """

    name: str
    bin_s: float
    rows: int
    pinball_90: tuple[float, ...]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A net, ready to be written, and how it came about."""

    net: QuantileNet
    settings: TrainingSettings
    series: tuple[BinnedSeries, ...]
    seeds: tuple[SeedResult, ...]
    sources: tuple[SourceResult, ...]
    chosen_seed: int
    rows: int
    synthetic_rows: int
    wall_s: float
    golden: tuple[Matrix, ...] = dataclasses.field(repr=False)

    @property
    def parameters(self) -> int:
        """Trained numbers in the net."""
        return sum(parameter.numel() for parameter in self.net.parameters())

    def about(self) -> dict[str, Any]:
        """What the manifest says of it."""
        plan = self.settings.plan
        return {
            "zeta": __version__,
            "torch": str(torch.__version__),
            "hidden": list(plan.hidden),
            "parameters": self.parameters,
            "steps": plan.steps,
            "batch": plan.batch,
            "until": self.settings.until,
            "rows": self.rows,
            "synthetic_series": self.settings.synthetic_series,
            "synthetic_rows": self.synthetic_rows,
            "chosen_seed": self.chosen_seed,
            "seeds": [{"seed": one.seed, "stop_loss": one.stop_loss, "best_step": one.best_step} for one in self.seeds],
            "wall_s": round(self.wall_s, 1),
            **provenance_of(list(self.series), self.settings.until),
        }

    def write(self, directory: str | os.PathLike[str]) -> Artefact:
        """Writes the artefact, checked against torch.

        Raises
        ------
        ForecastError
            If ONNX Runtime computes something else than torch, or the file would be refused.
        """
        artefact, _ = _export.write(self.net, directory, self.golden, self.about())
        return artefact


def train(
    series: Sequence[BinnedSeries],
    settings: TrainingSettings | None = None,
    progress: Progress = lambda _done, _label: None,
) -> Trained:
    """Trains a net on the first part of each of `series`.

    Each seed fits on the first 85 % of what may be known and stops by the rest; the seed with the least loss there is
    fitted anew on all of it, for as many steps as were best.

    Raises
    ------
    ForecastError
        If no series is long enough.
    """
    settings = settings or TrainingSettings()
    begun = time.monotonic()
    torch.set_num_threads(settings.threads)
    torch.use_deterministic_algorithms(True)
    real = _Told(progress, 0.0, _DATA_PART / 2, "series")
    augmented = list(variants(series, seed=0))
    learn = sources_of(real.over(augmented), until=settings.until, stop_from=_STOP_FROM, most=_REAL_ROWS, seed=0)
    if not learn:
        raise ForecastError(
            f"{len(series)} series and none long enough to learn from; expected several hundred bins in the first "
            f"{settings.until:.0%} of at least one (a shorter bin gives more)"
        )
    made = _Told(progress, _DATA_PART / 2, _DATA_PART / 2, "made-up series", 2 * settings.synthetic_series)
    synthetic = sources_of(
        made.over(synthetic_series(settings.synthetic_series, _SYNTHETIC_BINS, seed=1)),
        until=1.0,
        stop_from=None,
        most=_SYNTHETIC_ROWS,
        seed=1,
    )
    fits: list[Fit] = []
    share = (1.0 - _DATA_PART) / (len(settings.seeds) + 1)
    for number, seed in enumerate(settings.seeds):
        told = _Told(progress, _DATA_PART + number * share, share, f"seed {seed}")
        fits.append(fit(learn, synthetic, settings.plan, seed, each=told))
    results = tuple(
        SeedResult(seed, _stop_loss(one), one.best_step, one.checks)
        for seed, one in zip(settings.seeds, fits, strict=True)
    )
    best = min(results, key=lambda one: one.stop_loss)
    everything = sources_of(augmented, until=settings.until, stop_from=None, most=_REAL_ROWS, seed=0)
    plan = dataclasses.replace(settings.plan, steps=best.best_step)
    told = _Told(progress, 1.0 - share, share, f"seed {best.seed} on all of it")
    final = fit(everything, synthetic, plan, best.seed, each=told)
    return Trained(
        net=final.net,
        settings=settings,
        series=tuple(series),
        seeds=results,
        sources=_source_results(learn, fits),
        chosen_seed=best.seed,
        rows=sum(len(one.learn) for one in everything),
        synthetic_rows=sum(len(one.learn) for one in synthetic),
        wall_s=time.monotonic() - begun,
        golden=_golden(everything, synthetic),
    )


def _stop_loss(found: Fit) -> float:
    losses = [check.stop for check in found.checks if check.stop is not None]
    return min(losses) if losses else math.inf


def _source_results(sources: Sequence[Source], fits: Sequence[Fit]) -> tuple[SourceResult, ...]:
    return tuple(
        SourceResult(
            one.name,
            one.bin_s,
            len(one.learn),
            tuple(relative_losses(found.net, one.stop)[1] for found in fits) if one.stop is not None else (),
        )
        for one in sources
    )


def _golden(real: Sequence[Source], synthetic: Sequence[Source]) -> tuple[Matrix, ...]:
    """Rows to compare torch and ONNX Runtime on: many, and last the few that go into the manifest."""
    rng = np.random.default_rng(0x601D)
    rows = [one.learn.features[rng.integers(0, len(one.learn), 32)] for one in (*real, *synthetic[:256])]
    many = np.concatenate(rows)
    regular = many[rng.choice(len(many), min(_GOLDEN_ROWS, len(many)), replace=False)]
    width = many.shape[1]
    rare = np.stack([np.zeros(width), np.full(width, 30.0), np.full(width, -30.0)]).astype(np.float32)
    return many, np.concatenate([regular, rare])


class _Told:
    """Reports a part of the whole work."""

    def __init__(self, progress: Progress, begin: float, width: float, label: str, total: int = 0) -> None:
        self._progress, self._begin, self._width, self._label, self._total = progress, begin, width, label, total

    def __call__(self, part: float) -> None:
        self._progress(self._begin + self._width * min(part, 1.0), self._label)

    def over(self, items: Any) -> Any:
        total = self._total or len(items)
        for number, item in enumerate(items):
            self(number / max(total, 1))
            yield item
