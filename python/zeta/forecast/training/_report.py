"""How a training went, for people."""

from __future__ import annotations

import itertools
import os
import statistics

from zeta._page import COLOURS, html_figure, html_table, need_plotly, write_page
from zeta.forecast.training._train import Trained

__all__ = ["heading_lines", "source_rows", "write_html"]


def heading_lines(trained: Trained) -> list[str]:
    """What was trained, on what, and how well, a sentence each."""
    settings, plan = trained.settings, trained.settings.plan
    losses = [one.stop_loss for one in trained.seeds]
    spread = f"{statistics.fmean(losses):.4f} ({min(losses):.4f}–{max(losses):.4f})"
    hidden = "–".join(map(str, plan.hidden))
    known = "all" if settings.until == 1.0 else f"the first {settings.until:.0%}"
    return [
        (
            f"A perceptron {hidden}, {trained.parameters} parameters, on {known} of {len(trained.series)} series: "
            f"{trained.rows} rows, and {trained.synthetic_rows} of made-up series."
        ),
        (
            f"Loss on later rows, {len(losses)} seeds: {spread}; 0.9-quantile and median and tail together, weighted, "
            "relative to the mean error of the level. Not a score: the net stopped by these rows."
        ),
        f"Seed {trained.chosen_seed} was fitted anew on all rows. {trained.wall_s:.0f} s.",
    ]


def source_rows(trained: Trained) -> tuple[list[str], list[list[str]]]:
    """The header and one row for each series given: pinball 0.9 over all seeds."""
    rows = []
    for one in trained.sources:
        if not one.pinball_90:
            continue
        least, most = min(one.pinball_90), max(one.pinball_90)
        mean = f"{statistics.fmean(one.pinball_90):.3f} ({least:.3f}–{most:.3f})"
        rows.append([one.name, f"{one.bin_s:g}", str(one.rows), mean])
    return ["series", "bin s", "rows", "pinball 0.9 over the level's error"], rows


def write_html(trained: Trained, path: str | os.PathLike[str]) -> None:
    """Writes one self-contained page: the losses of each seed while it learnt, and what each series gave.

    Raises
    ------
    MissingExtraError
        If plotly is not installed.
    """
    need_plotly()
    import plotly.graph_objects as go

    figure = go.Figure()
    for seed, colour in zip(trained.seeds, itertools.cycle(COLOURS), strict=False):
        steps = [check.step for check in seed.checks]
        kinds = (("learn", [check.learn for check in seed.checks]), ("later", [check.stop for check in seed.checks]))
        for name, losses in kinds:
            line = {"color": colour, "width": 1 if name == "learn" else 2, "dash": "dot" if name == "learn" else None}
            figure.add_trace(go.Scatter(x=steps, y=losses, name=f"seed {seed.seed}, {name}", mode="lines", line=line))
    figure.update_layout(height=480, template="plotly_white", xaxis_title="step", yaxis_title="relative loss")
    write_page(
        os.fspath(path),
        title="zeta train",
        heading=heading_lines(trained),
        table=html_table(*source_rows(trained)),
        sections=[("Loss while learning", html_figure(figure))],
    )
