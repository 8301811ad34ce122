from __future__ import annotations

import numpy as np
import pytest

from zeta._core import forecast_layout
from zeta.forecast import FakeForecaster, Forecaster, LastValue, LoadForecaster

S = 1_000_000_000
LAYOUT = forecast_layout()


def fed(forecaster: Forecaster, bins: int, rate: float = 5.0, first: int = 0, seed: int = 0) -> np.ndarray:
    """The rates of model 0's arrivals after `bins` bins of Poisson arrivals."""
    rng = np.random.default_rng(seed)
    for i in range(first, first + bins):
        count = float(rng.poisson(rate))
        forecaster.observe(0, count, 0.1 * count)
        forecast = forecaster.forecast((i + 1) * S)
    return forecast.rates[0, 0]


class Net:
    """A net whose every output is `factor` times the scale, rising a little by quantile."""

    def __init__(self) -> None:
        self.factor = 1.0
        self.jitter = 1e-3
        self.calls = 0

    def __call__(self, features: np.ndarray) -> np.ndarray:
        self.calls += 1
        row = np.tile([0.9, 1.4, 1.8], 5) * self.factor
        wave = 1.0 + self.jitter * ((self.calls % 7) - 3)
        return np.tile(row * wave, (len(features), 1)).astype(np.float32)


@pytest.mark.parametrize(
    "forecaster",
    [LastValue(1), FakeForecaster({0: 3.0}, models=1), LoadForecaster(1)],
    ids=["last", "fake", "load"],
)
def test_every_forecaster_answers_in_the_same_form(forecaster: Forecaster) -> None:
    forecaster.observe(0, 4.0, 2.0)
    forecast = forecaster.forecast(S)
    assert forecast.rates.shape == (1, 2, 5, 3)
    assert forecast.is_valid.shape == (1, 2)
    assert forecast.is_valid.all()
    assert forecast.made_ns == S
    assert forecast.horizons_s == (1.0, 10.0, 60.0, 180.0, 600.0)
    assert forecast.quantiles == (0.5, 0.9, 0.99)
    assert (np.diff(forecast.rates, axis=-1) >= 0).all()


def test_last_value_says_the_last_bin_and_the_fake_what_it_was_told() -> None:
    last = LastValue(2, bin_s=2.0)
    last.observe(1, 6.0, 1.0)
    assert not last.forecast(S).is_valid.any()
    assert last.forecast(2 * S).rates[1, 0, 0, 0] == 3.0
    fake = FakeForecaster({5 * S: 7.0, 8 * S: None}, models=1)
    assert not fake.forecast(4 * S).is_valid.any()
    assert (fake.forecast(6 * S).rates == 7.0).all()
    assert not fake.forecast(9 * S).is_valid.any()
    fake.observe(0, 1.0, 2.0)
    assert fake.observed == [(0, 1.0, 2.0)]


def test_the_forecast_stands_between_two_bins_and_its_quantiles_surround_the_rate() -> None:
    forecaster = LoadForecaster(1)
    rates = fed(forecaster, 900)
    assert 4.0 < rates[2, 0] < 6.0
    assert rates[0, 1] > rates[2, 1] > rates[2, 0]  # one second varies more than sixty
    assert rates[0, 2] > rates[0, 1]
    held = forecaster.forecast(900 * S)
    assert forecaster.forecast(900 * S + S // 2) is held
    assert held.made_ns == 900 * S


def test_missing_bins_make_no_forecast_and_teach_nothing() -> None:
    forecaster = LoadForecaster(1)
    before = fed(forecaster, 600)
    for i in range(600, 620):
        forecaster.mark_missing(0)
        assert not forecaster.forecast((i + 1) * S).is_valid.any()
    after = fed(forecaster, 1, first=620, seed=1)
    assert abs(after[2, 0] - before[2, 0]) < 0.5  # twenty zeros would have pulled it down by a third
    forecaster.observe(0, 5.0, 0.5)
    assert not forecaster.forecast(900 * S).is_valid.any()  # a pause is missing, too


@pytest.mark.parametrize("factor", [np.nan, np.inf, -1.0, 1e30], ids=["nan", "inf", "negative", "huge"])
def test_unsound_outputs_are_left_out_at_once_and_heard_again_when_sound(factor: float) -> None:
    net = Net()
    with_net, without = LoadForecaster(1, net=net), LoadForecaster(1)
    fed(with_net, 800)
    fed(without, 800)
    assert with_net.forecast(800 * S).is_net_used
    net.factor = factor
    for i in range(800, 803):
        poor, plain = fed(with_net, 1, first=i, seed=i), fed(without, 1, first=i, seed=i)
        assert not with_net.forecast((i + 1) * S).is_net_used
        assert np.isfinite(poor).all()
        np.testing.assert_allclose(poor, plain, rtol=0.1)
    net.factor = 1.0
    fed(with_net, 3, first=803)
    assert with_net.forecast(806 * S).is_net_used


@pytest.mark.parametrize("fault", ["frozen", "adversarial"])
def test_a_frozen_or_adversarial_net_is_left_within_three_ticks_and_returns_by_itself(fault: str) -> None:
    net = Net()
    forecaster = LoadForecaster(1, net=net)
    fed(forecaster, 800)
    if fault == "frozen":
        net.jitter = 0.0
    else:
        net.factor = 40.0
    used = []
    for i in range(800, 806):
        fed(forecaster, 1, first=i, seed=i)
        used.append(forecaster.forecast((i + 1) * S).is_net_used)
    # The net's answer at 800 is judged at 801: three judgements end before the fourth tick's forecast.
    assert not any(used[3:])
    plain = fed(LoadForecaster(1), 806)
    rates = fed(forecaster, 1, first=806)
    assert rates[0, 2] < 2.0 * plain[0, 2]
    net.jitter, net.factor = 1e-3, 1.0
    fed(forecaster, 400, first=807)
    assert forecaster.forecast(1207 * S).is_net_used


def test_a_net_that_raises_or_answers_in_another_shape_is_no_answer() -> None:
    def broken(features: np.ndarray) -> np.ndarray:
        return features[:, :3]

    forecaster = LoadForecaster(1, net=broken)
    rates = fed(forecaster, 100)
    np.testing.assert_array_equal(rates, fed(LoadForecaster(1), 100))
    with pytest.raises(TypeError, match="function of a feature matrix"):
        fed(LoadForecaster(1, net=3), 1)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="models must be 1 to 32"):
        LoadForecaster(33)
    with pytest.raises(ValueError, match="expected 5"):
        LoadForecaster(1, horizon_bins=[1, 2])
    with pytest.raises(IndexError, match="model 1 of 1"):
        LoadForecaster(1).observe(1, 1.0, 1.0)
