from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from zeta.cli import main
from zeta.errors import ConfigError
from zeta.forecast import BinnedSeries, backtest, backtest_series
from zeta.forecast.backtest import default_horizons

HOUR = "azure_conv_2023"


def poisson(n: int, rate: float = 5.0, seed: int = 0) -> BinnedSeries:
    rates = np.random.default_rng(seed).poisson(rate, n).astype(np.float64)
    return BinnedSeries("poisson", "arrivals", 1.0, rates, np.zeros(n, dtype=np.uint8))


def test_scores_are_those_of_a_walk_by_hand() -> None:
    series = poisson(300)
    (one,) = backtest_series(series, horizon_bins=[1])
    last = one.candidates["last"]
    assert one.origins == 90  # bins 210 to 299 are forecast from the ends of 209 to 298
    error = np.abs(series.rates[210:] - _median_of_last(series.rates)[209:299])
    assert last.wape == pytest.approx(error.sum() / series.rates[210:].sum(), rel=1e-5)
    assert last.pinball_50 == pytest.approx(error.mean() / 2, rel=1e-5)


def _median_of_last(rates: np.ndarray) -> np.ndarray:
    """The last value, corrected by the median of its last 250 errors."""
    medians = np.zeros(len(rates))
    errors: list[float] = []
    for i in range(len(rates)):
        if i:
            errors.append(rates[i] - rates[i - 1])
        kept = np.sort(errors[-250:])
        place = max(0.0, 0.5 * (len(kept) + 1) - 1)
        correction = np.interp(place, np.arange(len(kept)), kept) if len(kept) else 0.0
        medians[i] = max(0.0, rates[i] + correction)
    return medians


def test_origins_and_targets_with_a_missing_bin_are_left_out() -> None:
    whole = poisson(1000)
    is_gap = whole.is_gap.copy()
    is_gap[800:810] = 1
    gappy = BinnedSeries("gappy", "arrivals", 1.0, np.where(is_gap, 0.0, whole.rates), is_gap)
    full, cut = backtest_series(whole, horizon_bins=[1, 10]), backtest_series(gappy, horizon_bins=[1, 10])
    assert [one.origins for one in full] == [300, 291]
    assert [one.origins for one in cut] == [300 - 11, 291 - 20 + 1 - 1]
    assert cut[0].candidates["ewma"].coverage_90 > 0.8


def test_no_forecast_knows_what_comes_after_it() -> None:
    calm, wild = poisson(1000), poisson(1000)
    wild.rates[900:] *= 100
    (short,) = backtest_series(
        BinnedSeries("s", "arrivals", 1.0, calm.rates[:900], calm.is_gap[:900]), horizon_bins=[1]
    )
    first, second = (_losses_until_900(series) for series in (calm, wild))
    assert first == second
    assert short.origins == 270


def _losses_until_900(series: BinnedSeries) -> list[float]:
    """Scores of origins up to bin 898 alone: the rest is made missing, after the forecasts were made."""
    is_gap = series.is_gap.copy()
    is_gap[900:] = 1
    (one,) = backtest_series(BinnedSeries("s", "arrivals", 1.0, series.rates, is_gap), horizon_bins=[1])
    return [score.pinball_90 for score in one.candidates.values()]


def test_default_horizons_fit_ten_times_into_what_is_scored() -> None:
    assert default_horizons(3501) == [1, 10, 60]
    assert default_horizons(86_399) == [1, 10, 60, 180, 600]
    assert default_horizons(20) == [1]


def test_a_net_takes_part_at_its_own_horizons_only() -> None:
    def net(features: np.ndarray) -> np.ndarray:
        return np.tile(np.tile([0.9, 1.5, 2.0], 5), (len(features), 1)).astype(np.float32)

    results = backtest_series(poisson(2000), horizon_bins=[1, 7, 10], net=net)
    assert ["net" in one.candidates for one in results] == [True, False, True]


def test_command_writes_the_documented_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    assert main(["backtest", HOUR, "--bin", "10", "--horizon", "10", "100", "--no-net", "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "ridge_ar" in shown
    assert "guard" in shown
    found = json.loads(out.read_text())
    assert list(found) == ["series"]
    assert [(one["target"], one["horizon_s"]) for one in found["series"]] == [
        ("arrivals", 10.0),
        ("arrivals", 100.0),
        ("work", 10.0),
        ("work", 100.0),
    ]
    one = found["series"][0]
    assert {"name", "target", "bin_s", "horizon_s", "origins", "candidates"} == set(one)
    assert set(one["candidates"]) == {"last", "ewma", "kalman", "ridge_ar", "guard"}
    wanted = {"wape", "pinball_50", "pinball_90", "pinball_99", "coverage_90", "coverage_99"}
    for score in one["candidates"].values():
        assert wanted <= set(score)
    assert main(["backtest", HOUR, "--bin", "10", "--horizon", "10", "100", "--no-net", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == found


def test_horizons_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="whole multiple of its bins of 10 s"):
        backtest([HOUR], bin_s=10, horizons_s=[15])
    with pytest.raises(ConfigError, match="no origin to score"):
        backtest([HOUR], bin_s=10, horizons_s=[5000])
