"""Trains the forecaster's net. The only room that imports torch; needs the extra ``train``."""

from __future__ import annotations

from zeta.forecast.training._fit import Check, Plan
from zeta.forecast.training._report import heading_lines, source_rows, write_html
from zeta.forecast.training._train import Progress, SeedResult, SourceResult, Trained, TrainingSettings, train

__all__ = [
    "Check",
    "Plan",
    "Progress",
    "SeedResult",
    "SourceResult",
    "Trained",
    "TrainingSettings",
    "heading_lines",
    "source_rows",
    "train",
    "write_html",
]
