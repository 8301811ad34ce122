"""A backtest's scores for people: the forecasters over all series, and one HTML page with plots of each."""

from __future__ import annotations

import itertools
import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence

from zeta._page import COLOURS, html_figure, html_table, need_plotly, write_page
from zeta.forecast.backtest import CANDIDATES, BacktestResult, Score, SeriesScore

__all__ = ["need_plotly", "summary_lines", "summary_rows", "write_html"]

_CLASSICAL = ("ewma", "kalman", "ridge_ar")
_ENOUGH_ORIGINS = 350


def summary_lines(result: BacktestResult) -> list[str]:
    """What was scored, and how to read it, a sentence each."""
    names = {(one.name, one.target) for one in result.series}
    origins = sum(one.origins for one in result.series)
    counted = f"{len(names)} series, {len(result.series)} pairs of series and horizon, {origins:,} origins"
    return [
        f"{counted}, all in the last 30 % of their series. Forecasters learn online and see nothing that comes later.",
        "Relative figures: geometric means of pinball loss over the least of ewma, kalman and ridge_ar on each pair.",
        "That least is chosen in hindsight: below 1 is better than any fixed choice could have been.",
        *(f"{note[0].upper()}{note[1:]}." for note in result.notes),
    ]


def summary_rows(result: BacktestResult) -> tuple[list[str], list[list[str]]]:
    """The header and one row for each forecaster, over all pairs of series and horizon that it answered for."""
    columns = [
        "forecaster",
        "pairs",
        "pinball .5",
        "pinball .9",
        "pinball .99",
        f"worst .9 (≥ {_ENOUGH_ORIGINS} origins)",
        "under .9",
        "under .99",
        "10:1 cost of .9 over median",
    ]
    rows = []
    for name in CANDIDATES:
        pairs = [one for one in result.series if name in one.candidates]
        if not pairs:
            continue
        scores = [one.candidates[name] for one in pairs]
        long = [one for one in pairs if one.origins >= _ENOUGH_ORIGINS]
        costs = [score.cost_10_1_90 / score.cost_10_1_median for score in scores if score.cost_10_1_median > 0]
        rows.append(
            [
                name,
                str(len(pairs)),
                *(_shown(_mean_ratio(pairs, name, loss)) for loss in _LOSSES.values()),
                _shown(max((_ratio(one, name, _LOSSES["pinball .9"]) or 0.0 for one in long), default=None)),
                _shown(statistics.fmean(score.coverage_90 for score in scores)),
                _shown(statistics.fmean(score.coverage_99 for score in scores)),
                _shown(statistics.median(costs) if costs else None),
            ]
        )
    return columns, rows


def write_html(result: BacktestResult, path: str | os.PathLike[str], heading: Sequence[str] = ()) -> None:
    """Writes one self-contained page: the summary, then losses and coverage of each series over its horizons.

    Raises
    ------
    MissingExtraError
        If plotly is not installed.
    """
    need_plotly()
    by_series: dict[str, list[SeriesScore]] = {}
    for one in result.series:
        by_series.setdefault(f"{one.name}, {one.target}, bins of {one.bin_s:g} s", []).append(one)
    write_page(
        os.fspath(path),
        title="zeta backtest",
        heading=[*heading, *summary_lines(result)],
        table=html_table(*summary_rows(result)),
        sections=[(name, _figure(scores) + html_table(*_detail(scores))) for name, scores in by_series.items()],
    )


_LOSSES: Mapping[str, Callable[[Score], float]] = {
    "pinball .5": lambda score: score.pinball_50,
    "pinball .9": lambda score: score.pinball_90,
    "pinball .99": lambda score: score.pinball_99,
}


def _ratio(one: SeriesScore, name: str, loss: Callable[[Score], float]) -> float | None:
    """Loss over that of the best classical forecaster; None where there is none or it made no error at all."""
    classical = [loss(one.candidates[other]) for other in _CLASSICAL if other in one.candidates]
    if not classical or min(classical) <= 0.0:
        return None
    return loss(one.candidates[name]) / min(classical)


def _mean_ratio(pairs: Sequence[SeriesScore], name: str, loss: Callable[[Score], float]) -> float | None:
    ratios = [ratio for one in pairs if (ratio := _ratio(one, name, loss)) is not None and ratio > 0.0]
    return math.exp(statistics.fmean(map(math.log, ratios))) if ratios else None


def _shown(figure: float | None) -> str:
    return "–" if figure is None else f"{figure:.3f}"


def _detail(scores: Sequence[SeriesScore]) -> tuple[list[str], list[list[str]]]:
    names = [name for name in CANDIDATES if any(name in one.candidates for one in scores)]
    columns = ["horizon s", "origins", *(f"{name}: pinball .9" for name in names)]
    rows = []
    for one in scores:
        losses = [f"{one.candidates[name].pinball_90:.4g}" if name in one.candidates else "–" for name in names]
        rows.append([f"{one.horizon_s:g}", f"{one.origins:,}", *losses])
    return columns, rows


def _figure(scores: Sequence[SeriesScore]) -> str:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    titles = ("pinball .5 over last's", "pinball .9 over last's", "targets not above the .9 quantile")
    figure = make_subplots(rows=1, cols=3, subplot_titles=titles, horizontal_spacing=0.06)
    horizons = [f"{one.horizon_s:g} s" for one in scores]

    def over_last(loss: Callable[[Score], float], one: SeriesScore, name: str) -> float | None:
        last = loss(one.candidates["last"])
        return loss(one.candidates[name]) / last if last > 0.0 else None

    for name, colour in zip(CANDIDATES, itertools.cycle(COLOURS), strict=False):
        held = [(horizon, one) for horizon, one in zip(horizons, scores, strict=True) if name in one.candidates]
        if not held:
            continue
        heights = (
            [over_last(_LOSSES["pinball .5"], one, name) for _, one in held],
            [over_last(_LOSSES["pinball .9"], one, name) for _, one in held],
            [one.candidates[name].coverage_90 for _, one in held],
        )
        at = [horizon for horizon, _ in held]
        for column, values in enumerate(heights, start=1):
            bars = go.Bar(x=at, y=values, name=name, legendgroup=name, showlegend=column == 1, marker={"color": colour})
            figure.add_trace(bars, row=1, col=column)
    figure.add_hline(y=0.9, line={"dash": "dot", "width": 1}, row=1, col=3)
    figure.update_yaxes(range=[0, 1.02], row=1, col=3)
    figure.update_layout(height=340, template="plotly_white", margin={"l": 50, "r": 20, "t": 40, "b": 40})
    return html_figure(figure)
