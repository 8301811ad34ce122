"""A replay's results for people: the rows of its table, and one HTML page with a section for each run."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zeta._page import COLOURS, html_figure, html_table, need_plotly, write_page
from zeta.sim.results import FloatArray, ReplayResult, ReplaySeries, Run, paired_lower_bound, spread

__all__ = ["comparison_lines", "heading_lines", "need_plotly", "summary_rows", "write_html"]

MOST_BINS = 2000
"""Longer series are thinned to this before they are drawn: more points than a screen has pixels."""


def heading_lines(result: ReplayResult) -> list[str]:
    """What was replayed, and what a reader should know about it, a sentence each."""
    what = f"{result.requests} requests of {result.trace} at load {result.load:g} on fleet '{result.fleet}'"
    lines = [f"{what}. Simulated: engine model on virtual time."]
    summary = result.summary
    if summary is not None and summary.bad_row_count:
        shown = "; ".join(f"line {bad.line}: {bad.reason}" for bad in summary.bad_rows[:3])
        lines.append(f"{summary.bad_row_count} rows of the trace could not be used ({shown}).")
    if summary is not None and summary.moved_rows:
        lines.append(f"{summary.moved_rows} rows stood out of order and were put back.")
    return [*lines, *(f"{note[0].upper()}{note[1:]}." for note in result.notes)]


def summary_rows(result: ReplayResult) -> tuple[list[str], list[list[str]]]:
    """The header and one row for each policy and order: means over seeds, and least to greatest for attainment."""
    models = list(result.results[0].attainment_by_model) if result.results else []
    with_capacity = any(run.capacity_x is not None for run in result.results)
    with_burst = any(run.backlog_absorbed_s is not None for run in result.results)
    columns: list[tuple[str, Callable[[Sequence[Run]], str]]] = [
        ("policy/order", lambda runs: runs[0].label),
        ("utilisation", _mean(lambda run: run.utilisation, "{:.2f}")),
        ("attainment", _attainment),
        *((f"  {model}", _by_model(model)) for model in models),
        ("TTFT p50 ms", _mean(lambda run: run.ttft_p50_ms, "{:.0f}")),
        ("p99 ms", _mean(lambda run: run.ttft_p99_ms, "{:.0f}")),
        ("TPOT p99 ms", _mean(lambda run: run.tpot_p99_ms, "{:.0f}")),
        ("longest wait s", _mean(lambda run: run.longest_wait_s, "{:.1f}")),
        ("goodput/s", _mean(lambda run: run.goodput_rps, "{:.2f}")),
        ("refused", _mean(lambda run: run.rejected + run.expired + run.failed, "{:.0f}")),
        ("left", _mean(lambda run: run.left, "{:.0f}")),
        ("share moves/min", _mean(lambda run: run.share_changes_per_min, "{:.1f}")),
    ]
    if with_burst:
        columns.append(("absorbed s", _mean(lambda run: run.backlog_absorbed_s, "{:.0f}")))
    if with_capacity:
        columns.append(("capacity x", _mean(lambda run: run.capacity_x, "{:.2f}")))
    groups = result.by_label().values()
    return [name for name, _ in columns], [[cell(runs) for _, cell in columns] for runs in groups]


def comparison_lines(result: ReplayResult) -> list[str]:
    """The first policy against each other one: the mean difference in attainment, and its lower 90 % bound."""
    groups = result.by_label()
    if len(groups) < 2:
        return []
    first, *others = groups
    lines = []
    for other in others:
        by_seed = {run.seed: run.attainment for run in groups[other]}
        pairs = [(run.attainment, by_seed[run.seed]) for run in groups[first] if run.seed in by_seed]
        if not pairs:
            continue
        better, base = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        points = 100 * (sum(better) - sum(base)) / len(pairs)
        bound = paired_lower_bound(better, base)
        held = "one seed" if bound is None else f"at least {100 * bound:+.2f} at 90 %, {len(pairs)} paired seeds"
        lines.append(f"{first} against {other}: {points:+.2f} points of attainment ({held})")
    return lines


def write_html(result: ReplayResult, path: str | Path) -> None:
    """Writes one self-contained page: the summary, then backlog, shares, TTFT and attainment over time for each run.

    Axes of one kind have one scale over all runs, so that sections can be compared by eye.

    Raises
    ------
    MissingExtraError
        If plotly is not installed.
    """
    need_plotly()
    drawn = [_thinned(series) for series in result.series]
    scale = _Scale(drawn)
    write_page(
        path,
        title=f"zeta replay: {result.trace}",
        heading=heading_lines(result),
        table=html_table(*summary_rows(result)),
        sections=[(f"{series.label}, seed {series.seed}", _figure(series, scale)) for series in drawn],
        remarks=comparison_lines(result),
    )


def _mean(figure: Callable[[Run], float | None], form: str) -> Callable[[Sequence[Run]], str]:
    def cell(runs: Sequence[Run]) -> str:
        found = spread([figure(run) for run in runs])
        return "–" if found is None else form.format(found.mean)

    return cell


def _attainment(runs: Sequence[Run]) -> str:
    found = spread([run.attainment for run in runs])
    if found is None:
        return "–"
    return f"{found.mean:.4f}" + (f" ({found.low:.4f}–{found.high:.4f})" if len(runs) > 1 else "")


def _by_model(model: str) -> Callable[[Sequence[Run]], str]:
    return _mean(lambda run: run.attainment_by_model.get(model), "{:.4f}")


class _Scale:
    """Upper ends of the axes over all runs."""

    def __init__(self, drawn: Sequence[ReplaySeries]) -> None:
        self.waiting = 1.05 * max([_most(values) for series in drawn for values in series.waiting.values()] + [1.0])
        self.ttft_ms = 2.0 * max(
            [_most(values) for series in drawn for values in series.ttft_p99_ms.values()] + [100.0]
        )


def _most(values: FloatArray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if len(finite) else 0.0


def _figure(series: ReplaySeries, scale: _Scale) -> str:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    titles = (
        "waiting requests, by required model",
        "share of the device (dotted: need)",
        "time to first token in ms, by required model (p50; thin: p99)",
        "attainment, by arrival",
    )
    figure = make_subplots(rows=4, cols=1, shared_xaxes=True, vertical_spacing=0.06, subplot_titles=titles)
    named: set[str] = set()

    def draw(row: int, values: FloatArray | None, model: str, colour: str, **style: Any) -> None:
        if values is None:
            return
        trace = go.Scatter(
            x=series.t_s,
            y=values,
            name=model,
            legendgroup=model,
            showlegend=bool(model) and model not in named,
            mode="lines",
            line={"color": colour, "width": 1.5, **style},
        )
        named.add(model)
        figure.add_trace(trace, row=row, col=1)

    for model, colour in zip(series.waiting, itertools.cycle(COLOURS), strict=False):
        draw(1, series.waiting[model], model, colour)
        draw(2, series.share.get(model), model, colour)
        draw(2, series.need.get(model), model, colour, dash="dot", width=1)
        draw(3, series.ttft_p99_ms.get(model), model, colour, width=0.6)
        draw(3, series.ttft_p50_ms.get(model), model, colour)
    draw(4, series.attainment, "", "#444444")
    figure.update_yaxes(range=[0, scale.waiting], row=1, col=1)
    figure.update_yaxes(range=[0, 1.02], row=2, col=1)
    figure.update_yaxes(type="log", range=[1, math.log10(scale.ttft_ms)], row=3, col=1)
    figure.update_yaxes(range=[0, 1.02], row=4, col=1)
    figure.update_xaxes(title_text="seconds from the first arrival", row=4, col=1)
    figure.update_layout(height=860, template="plotly_white", margin={"l": 60, "r": 20, "t": 40, "b": 50})
    return html_figure(figure)


def _thinned(series: ReplaySeries) -> ReplaySeries:
    """`series` in at most `MOST_BINS` bins: peaks of what should be small, means of what is a fraction."""
    every = -(-len(series.t_s) // MOST_BINS)
    if every <= 1:
        return series
    starts = np.arange(0, len(series.t_s), every)

    def peaks(values: FloatArray) -> FloatArray:
        highest: FloatArray = np.fmax.reduceat(values, starts)
        return highest

    def means(values: FloatArray) -> FloatArray:
        known = np.isfinite(values)
        counts = np.add.reduceat(known.astype(np.float64), starts)
        sums = np.add.reduceat(np.where(known, values, 0.0), starts)
        mean: FloatArray = np.divide(sums, counts, out=np.full(len(starts), np.nan), where=counts > 0)
        return mean

    def each(pick: Callable[[FloatArray], FloatArray], by_model: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        return {model: pick(values) for model, values in by_model.items()}

    return dataclasses.replace(
        series,
        t_s=series.t_s[starts],
        waiting=each(peaks, series.waiting),
        running=each(peaks, series.running),
        share=each(means, series.share),
        need=each(means, series.need),
        ttft_p50_ms=each(means, series.ttft_p50_ms),
        ttft_p99_ms=each(peaks, series.ttft_p99_ms),
        attainment=means(series.attainment),
    )
