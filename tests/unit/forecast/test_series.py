from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from zeta._core import forecast_dataset, forecast_layout
from zeta.errors import TraceError
from zeta.forecast import dataset, read_series
from zeta.traces import EMBEDDED_NAME


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_embedded_trace_gives_arrivals_and_work_whose_sums_are_the_requests() -> None:
    arrivals, work = read_series(EMBEDDED_NAME)
    assert (arrivals.name, arrivals.target, arrivals.bin_s) == (EMBEDDED_NAME, "arrivals", 1.0)
    assert arrivals.arrival_rates is None
    assert work.arrival_rates is arrivals.rates
    assert len(arrivals) == 3501
    assert 19_366 - 20 <= arrivals.rates.sum() <= 19_366  # without the last, partial bin
    assert arrivals.start_s is None  # an hour says nothing of the time of day
    ten = read_series(EMBEDDED_NAME, bin_s=10)[0]
    np.testing.assert_allclose(ten.rates[:100], arrivals.rates[:1000].reshape(100, 10).mean(axis=1))


def test_each_model_of_a_trace_is_its_own_series_priced_on_its_model(tmp_path: Path) -> None:
    rows = "".join(f"{i * 250},100,50,{('small', 'large')[i % 2]}\n" for i in range(400))
    path = write(tmp_path / "two.csv.gz", "arrival_ms,prompt_tokens,output_tokens,model\n" + rows)
    series = {(s.name, s.target): s for s in read_series(path)}
    assert set(series) == {(f"two:{m}", t) for m in ("small", "large") for t in ("arrivals", "work")}
    np.testing.assert_array_equal(series["two:small", "arrivals"].rates, np.full(99, 2.0))
    assert series["two:large", "work"].rates.mean() > 1.5 * series["two:small", "work"].rates.mean() > 0


def test_gaps_of_a_rate_series_are_missing_whether_marked_absent_or_empty(tmp_path: Path) -> None:
    text = "workload,t_s,rate_rps,gap\n"
    for at in (0, 1, 2, 4, 5, 6, 7):  # 3 is absent
        rate = "" if at == 5 else f"{at + 1}"
        text += f"a,{at * 600},{rate},{int(at == 1)}\n"
    text += "b,600,5,0\nb,1200,7,0\n"
    a, b = read_series(write(tmp_path / "rates.csv", text))
    np.testing.assert_array_equal(a.is_gap, [0, 1, 0, 1, 0, 1, 0, 0])
    np.testing.assert_array_equal(a.rates, [1, 0, 3, 0, 5, 0, 7, 8])
    assert (a.bin_s, b.name) == (600.0, "rates:b")
    coarse = read_series(tmp_path / "rates.csv", bin_s=1200)[0]
    np.testing.assert_array_equal(coarse.is_gap, [1, 1, 1, 0])
    assert coarse.rates[3] == 7.5
    targets = dataset(a, [1, 2]).targets
    np.testing.assert_array_equal(np.isnan(targets[:, 0]), [1, 1, 1, 1, 1, 1, 0, 1])


def test_bins_that_do_not_fit_the_file_are_refused_with_what_would() -> None:
    with pytest.raises(TraceError, match=r"expected 0\.001 to"):
        read_series(EMBEDDED_NAME, bin_s=0)
    with pytest.raises(TraceError, match="expected 2 to"):
        read_series(EMBEDDED_NAME, bin_s=3000)


def test_bins_of_rates_must_be_a_multiple_of_the_files_windows(tmp_path: Path) -> None:
    path = write(tmp_path / "rates.csv", "t_s,rate_rps\n0,1\n600,2\n1200,3\n")
    with pytest.raises(TraceError, match="multiple of the file's 600 s"):
        read_series(path, bin_s=900)


def test_a_coarse_clock_sets_the_bin_and_its_ties_are_spread(tmp_path: Path) -> None:
    rows = "".join(f"{tick * 3000},10,10\n" * 6 for tick in range(200))
    path = write(tmp_path / "coarse.csv", "arrival_ms,prompt_tokens,output_tokens\n" + rows)
    native = read_series(path)[0]
    assert native.bin_s == 3.0
    np.testing.assert_array_equal(native.rates[:-1], np.full(len(native) - 1, 2.0))
    np.testing.assert_array_equal(read_series(path, bin_s=1)[0].rates[:300], np.full(300, 2.0))


def test_changing_the_future_changes_no_feature() -> None:
    rng = np.random.default_rng(0)
    rates = rng.poisson(4.0, 900).astype(np.float64)
    other = rates.copy()
    other[500:] = rng.poisson(40.0, 400)
    gaps = np.zeros(900, dtype=np.uint8)
    gaps[510:520] = 1
    features, targets, scale = forecast_dataset(rates, bin_s=1.0)
    changed, other_targets, other_scale = forecast_dataset(other, gaps, bin_s=1.0)
    np.testing.assert_array_equal(features[:500], changed[:500])
    np.testing.assert_array_equal(scale[:500], other_scale[:500])
    assert (features[500] != changed[500]).any()
    assert targets[499, 0] != other_targets[499, 0]
    # A shorter file gives the same rows, too.
    np.testing.assert_array_equal(forecast_dataset(rates[:300], bin_s=1.0)[0], features[:300])
    assert features.shape == (900, forecast_layout()["features"])


def test_arrays_of_another_kind_are_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="contiguous 1-d array of float64"):
        forecast_dataset(np.zeros(5, dtype=np.float32), bin_s=1.0)
    with pytest.raises(ValueError, match="expected arrivals or work"):
        forecast_dataset(np.zeros(5), bin_s=1.0, target="tokens")
    with pytest.raises(ValueError, match="a bin is"):
        forecast_dataset(np.zeros(5), bin_s=0.0)
