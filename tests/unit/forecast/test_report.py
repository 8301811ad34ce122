"""Claims about a backtest's page and its summary."""

from __future__ import annotations

from pathlib import Path

import pytest

from zeta.cli import main
from zeta.forecast.backtest import BacktestResult, Score, SeriesScore
from zeta.forecast.report import summary_lines, summary_rows, write_html


def score(loss: float) -> Score:
    return Score(
        wape=0.2,
        pinball_50=loss,
        pinball_90=loss,
        pinball_99=loss,
        coverage_90=0.9,
        coverage_99=0.99,
        cost_10_1_median=2.0 * loss,
        cost_10_1_90=loss,
    )


def pair(name: str, horizon_s: float, origins: int = 400, **losses: float) -> SeriesScore:
    given = {"last": 2.0, "ewma": 1.0, "kalman": 1.25, "ridge_ar": 1.5, "guard": 1.0} | losses
    return SeriesScore(name, "arrivals", 1.0, horizon_s, origins, {key: score(loss) for key, loss in given.items()})


RESULT = BacktestResult(
    (
        pair("a", 1.0, guard=1.1, net=0.5),
        pair("a", 10.0, guard=0.9),
        pair("b<1>", 1.0, origins=100, guard=3.0),
    ),
    notes=("the net was left out of b",),
)


def test_the_summary_compares_with_the_best_classical_forecaster_of_each_pair() -> None:
    columns, rows = summary_rows(RESULT)
    by_name = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    assert by_name["last"]["pinball .9"] == "2.000"
    assert by_name["ewma"]["pinball .9"] == "1.000"
    assert by_name["guard"]["pinball .9"] == f"{(1.1 * 0.9 * 3.0) ** (1 / 3):.3f}"
    assert by_name["net"]["pairs"] == "1"
    assert by_name["net"]["pinball .9"] == "0.500"


def test_the_worst_counts_only_pairs_with_enough_origins() -> None:
    columns, rows = summary_rows(RESULT)
    guard = next(dict(zip(columns, row, strict=True)) for row in rows if row[0] == "guard")
    assert next(value for name, value in guard.items() if name.startswith("worst")) == "1.100"


def test_a_series_without_any_error_is_left_out_of_ratios() -> None:
    nothing = pair("quiet", 1.0, **dict.fromkeys(("last", "ewma", "kalman", "ridge_ar", "guard"), 0.0))
    assert summary_rows(BacktestResult((*RESULT.series, nothing)))[1][-1][2:5] == summary_rows(RESULT)[1][-1][2:5]


def test_notes_are_told() -> None:
    assert "The net was left out of b." in summary_lines(RESULT)


def test_the_page_has_a_section_for_each_series_and_escapes_names(tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="plotly is not installed: pip install 'zeta-router[cli]'")
    out = tmp_path / "page.html"
    write_html(RESULT, out)
    text = out.read_text()
    assert text.count("<section") == 2
    assert "b&lt;1&gt;" in text
    assert "pinball .9 over last" in text


def test_a_backtest_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("plotly", reason="plotly is not installed: pip install 'zeta-router[cli]'")
    out = tmp_path / "page.html"
    assert main(["backtest", "azure_conv_2023", "--bin", "10", "--horizon", "10", "--html", str(out)]) == 0
    assert "azure_conv_2023" in capsys.readouterr().out
    assert "azure_conv_2023, work" in out.read_text()


def test_a_page_in_no_folder_is_refused_before_anything_long(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    where = tmp_path / "none" / "page.html"
    assert main(["backtest", "azure_conv_2023", "--html", str(where)]) == 2
    assert "its folder does not exist" in capsys.readouterr().err
