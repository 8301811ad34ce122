"""Claims about training. What needs torch is skipped where the extra ``train`` is not installed."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zeta.cli import main
from zeta.forecast.artefact import load_artefact
from zeta.forecast.onnx import PackageNet
from zeta.forecast.series import BinnedSeries, dataset

HAS_TORCH = all(importlib.util.find_spec(name) is not None for name in ("onnx", "torch"))
needs_torch = pytest.mark.skipif(
    not HAS_TORCH, reason="torch or onnx is not installed: pip install 'zeta-router[train]'"
)


def hidden(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        return None if name in names else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


def bursty(bins: int = 1200, seed: int = 0) -> list[BinnedSeries]:
    rng = np.random.default_rng(seed)
    level = np.exp(0.5 * np.sin(np.arange(bins) / 40.0))
    counts = rng.poisson(4.0 * level).astype(np.float64)
    no_gap = np.zeros(bins, dtype=np.uint8)
    work = BinnedSeries("made", "work", 1.0, counts * 0.1, no_gap, counts)
    return [BinnedSeries("made", "arrivals", 1.0, counts, no_gap), work]


def test_training_without_torch_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    hidden(monkeypatch, "torch", "onnx")
    assert main(["train", "azure_conv_2023", "--out", str(tmp_path / "net")]) == 2
    assert "pip install 'zeta-router[train]'" in capsys.readouterr().err
    assert not (tmp_path / "net").exists()


def test_training_needs_a_trace_and_a_place(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["train", "--out", "net"])
    assert leaving.value.code == 2
    with pytest.raises(SystemExit):
        main(["train", "azure_conv_2023"])
    assert "--out" in capsys.readouterr().err


def test_a_file_in_the_way_is_refused_before_anything_long(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "net").write_text("mine")
    assert main(["train", "azure_conv_2023", "--out", str(tmp_path / "net")]) == 2
    assert "which is a file" in capsys.readouterr().err
    assert (tmp_path / "net").read_text() == "mine"


@pytest.mark.parametrize("until", ["0", "1.5", "nan"])
def test_a_part_outside_the_series_is_refused(until: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["train", "azure_conv_2023", "--out", str(tmp_path / "net"), "--until", until]) == 2
    assert "above 0 and at most 1" in capsys.readouterr().err


@needs_torch
@pytest.mark.parametrize("from_bin", [840, 1000])
def test_rows_to_learn_from_know_nothing_after_the_cut(from_bin: int) -> None:
    from zeta.forecast.training._samples import rows_of

    series = bursty()[0]
    changed = series.rates.copy()
    changed[from_bin:] *= 50.0
    other = dataclasses.replace(series, rates=changed)
    found, expected = (
        rows_of(one, until=0.7, stop_from=0.85, most=10_000, rng=np.random.default_rng(0)) for one in (other, series)
    )
    assert found is not None
    assert expected is not None
    assert found.stop is not None
    assert expected.stop is not None
    for part, same in ((found.learn, expected.learn), (found.stop, expected.stop)):
        np.testing.assert_array_equal(part.features, same.features)
        np.testing.assert_array_equal(part.targets, same.targets)
        np.testing.assert_array_equal(part.weights, same.weights)


@needs_torch
def test_targets_to_learn_from_end_before_the_rows_to_stop_by() -> None:
    from zeta.forecast.training._samples import rows_of

    series = bursty()[0]
    middle = int(0.85 * int(0.7 * len(series)))
    changed = series.rates.copy()
    changed[middle:] *= 50.0
    rows = [
        rows_of(one, until=0.7, stop_from=0.85, most=10_000, rng=np.random.default_rng(0))
        for one in (series, dataclasses.replace(series, rates=changed))
    ]
    first, second = (one.learn for one in rows if one is not None)
    np.testing.assert_array_equal(first.features, second.features)
    np.testing.assert_array_equal(first.targets, second.targets)
    assert np.isfinite(first.targets).any(axis=0).tolist() == [True, True, True, True, True]


@needs_torch
def test_made_up_series_are_the_same_for_the_same_seed_and_differ_between_seeds() -> None:
    from zeta.forecast.training._synthetic import synthetic_series

    first, again, other = (list(synthetic_series(8, 300, seed)) for seed in (1, 1, 2))
    assert len(first) > 8
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.rates, same.rates)
    assert not np.array_equal(first[0].rates, other[0].rates)
    for one in first:
        assert np.isfinite(one.rates).all()
        assert (one.rates >= 0).all()


@needs_torch
def test_thinning_leaves_fewer_requests_and_never_more_work() -> None:
    from zeta.forecast.training._samples import variants

    arrivals, work = bursty()
    thin = [one for one in variants([arrivals, work], seed=0) if "of its requests" in one.name]
    assert [one.target for one in thin] == ["arrivals", "work"] * 2
    for one in thin:
        base = arrivals if one.target == "arrivals" else work
        assert (one.rates <= base.rates + 1e-12).all()
    assert thin[0].rates.sum() / arrivals.rates.sum() == pytest.approx(0.5, abs=0.05)


@needs_torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_exported_net_computes_what_torch_computes() -> None:
    import torch

    from zeta.forecast.training._export import PARITY, layout_schema, to_onnx
    from zeta.forecast.training._net import QuantileNet

    rng = np.random.default_rng(4)
    torch.manual_seed(4)
    width = layout_schema().features
    spread = rng.uniform(0.1, 2.0, width)
    spread[3] = 0.0
    net = QuantileNet((48, 24), rng.normal(size=width), spread)
    features = rng.normal(scale=3.0, size=(500, width)).astype(np.float32)
    with torch.no_grad():
        wanted = net(torch.from_numpy(features)).numpy()
    found = PackageNet(to_onnx(net), layout_schema()).run(features)
    assert np.max(np.abs(found - wanted) / np.maximum(1.0, np.abs(wanted))) <= PARITY
    features[:, 3] += 1.0  # spread 0: not read
    np.testing.assert_array_equal(PackageNet(to_onnx(net), layout_schema()).run(features), found)


@needs_torch
@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_net_trained_by_the_command_beats_its_level_on_bins_that_it_never_saw(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    series = bursty(bins=4000, seed=7)[0]
    trace = tmp_path / "made.csv"
    rows = [f"{at},{rate}" for at, rate in enumerate(series.rates)]
    trace.write_text("\n".join(["t_s,rate_rps", *rows]) + "\n")
    argv = ["train", str(trace), "--out", str(tmp_path / "net"), "--html", str(tmp_path / "page.html")]
    argv += ["--seed", "0", "1", "--steps", "600", "--synthetic", "100"]
    assert main(argv) == 0
    assert "2 seeds" in capsys.readouterr().out
    assert "Loss while learning" in (tmp_path / "page.html").read_text()
    artefact = load_artefact(tmp_path / "net")
    about = json.loads((tmp_path / "net" / "manifest.json").read_text())["about"]
    assert about["until"] == 0.7
    assert about["trained_on"][0]["bins"] == 4000
    data = dataset(series)
    later = slice(2800, 3900)
    out = PackageNet(artefact.model, artefact.manifest.schema).run(data.features[later]).reshape(-1, 5, 3)
    target = data.targets[later, 1]
    median = out[:, 1, 0] * data.scale[later]
    known = np.isfinite(target)
    net_error = np.abs(median - target)[known].mean()
    level_error = np.abs(data.scale[later] - target)[known].mean()
    assert net_error < 0.8 * level_error
    assert (np.diff(out, axis=2) >= 0).all()
