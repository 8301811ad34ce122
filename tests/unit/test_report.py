"""Claims about what people read: the table, the comparison and the page."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from zeta.errors import MissingExtraError
from zeta.sim import report
from zeta.sim.results import ReplayResult, ReplaySeries, Run
from zeta.traces import BadRow, TraceSummary


def run_of(policy: str, order: str, seed: int, attainment: float, **given: object) -> Run:
    run = Run(
        policy=policy,  # type: ignore[arg-type]
        order=order,  # type: ignore[arg-type]
        admission="queue",
        seed=seed,
        utilisation=0.8,
        fluid_bound_x=1.5,
        attainment=attainment,
        attainment_by_model={"small": 1.0, "large": None},
        capacity_x=None,
        goodput_rps=5.5,
        completed=98,
        rejected=1,
        expired=2,
        failed=3,
        cancelled=0,
        left=1,
        unservable=1,
        ttft_p50_ms=120.0,
        ttft_p99_ms=None,
        tpot_p50_ms=20.0,
        tpot_p99_ms=30.0,
        longest_wait_s=1.5,
        backlog_absorbed_s=None,
        share_changes_per_min=2.0,
        replica_seconds=300.0,
        swaps=0,
        wall_s=0.25,
        event_hash="00ff",
    )
    return dataclasses.replace(run, **given)  # type: ignore[arg-type]


def series_of(bins: int, label: str = "<a>") -> ReplaySeries:
    t_s = np.arange(bins, dtype=np.float64)
    flat = {label: np.full(bins, 0.5)}
    attainment = np.full(bins, np.nan)
    attainment[::3] = 0.25
    return ReplaySeries("even", "fifo", 3, t_s, {label: t_s.copy()}, flat, flat, flat, flat, flat, attainment)


RESULT = ReplayResult(
    trace="t",
    fleet="default",
    load=2.0,
    requests=100,
    results=(
        run_of("water-fill", "edf", 1, 0.9),
        run_of("water-fill", "edf", 2, 0.8),
        run_of("even", "fifo", 1, 0.7),
        run_of("even", "fifo", 2, 0.5),
    ),
    notes=("a note",),
)


def test_the_table_has_a_row_for_each_policy_and_order_over_its_seeds() -> None:
    names, rows = report.summary_rows(RESULT)
    cells = [dict(zip(names, row, strict=True)) for row in rows]
    assert [cell["policy/order"] for cell in cells] == ["water-fill/edf", "even/fifo"]
    assert cells[0]["attainment"] == "0.8500 (0.8000–0.9000)"
    assert cells[0]["refused"] == "6"


def test_what_was_not_measured_is_a_dash_and_an_empty_column_is_left_out() -> None:
    names, rows = report.summary_rows(RESULT)
    cell = dict(zip(names, rows[0], strict=True))
    assert cell["p99 ms"] == cell["  large"] == "–"
    assert "capacity x" not in names
    asked = dataclasses.replace(RESULT, results=(run_of("even", "edf", 0, 1.0, capacity_x=1.25),))
    names, rows = report.summary_rows(asked)
    assert rows[0][names.index("capacity x")] == "1.25"


def test_policies_are_compared_seed_by_seed() -> None:
    (line,) = report.comparison_lines(RESULT)
    assert (
        line
        == "water-fill/edf against even/fifo: +25.00 points of attainment (at least +20.00 at 90 %, 2 paired seeds)"
    )
    alone = dataclasses.replace(RESULT, results=RESULT.results[:2])
    assert report.comparison_lines(alone) == []


def test_the_heading_says_simulated_and_counts_the_rows_left_out() -> None:
    summary = TraceSummary("t", "canonical", 98, 2, (BadRow(7, "why"), BadRow(9, "so")), 4, 0, 10**9, ())
    lines = report.heading_lines(dataclasses.replace(RESULT, summary=summary))
    assert lines == [
        "100 requests of t at load 2 on fleet 'default'. Simulated: engine model on virtual time.",
        "2 rows of the trace could not be used (line 7: why; line 9: so).",
        "4 rows stood out of order and were put back.",
        "A note.",
    ]


def test_a_long_series_is_thinned_without_losing_its_peak() -> None:
    series = series_of(10_001)
    series.waiting["<a>"][7777] = 1e6
    thin = report._thinned(series)
    assert len(thin.t_s) <= report.MOST_BINS
    assert thin.waiting["<a>"].max() == 1e6
    assert np.nanmean(thin.attainment) == 0.25
    assert report._thinned(series_of(2000)).t_s.shape == (2000,)


def test_the_page_stands_alone_and_shows_every_run(tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="the page comes with the extra 'cli'")
    report.write_html(dataclasses.replace(RESULT, series=(series_of(50), series_of(50))), tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert page.count("<section") == 2
    assert page.count('class="plotly-graph-div"') == 2
    assert re.findall(r"""<(?:script|link|img|iframe)[^>]*\s(?:src|href)=["'][^#"']""", page) == []
    assert "&lt;a&gt;" in page or "\\u003ca\\u003e" in page
    assert "even/fifo, seed 3" in page


def test_the_page_without_plotly_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"zeta-router\[cli\]"):
        report.write_html(RESULT, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()
