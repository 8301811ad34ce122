"""The net that comes with zeta is what its manifest says, and computes what it computed when it was made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import zeta
from zeta.forecast.artefact import GOLDEN_TOLERANCE, Artefact, load_artefact
from zeta.forecast.onnx import PackageNet


@pytest.fixture(scope="module")
def shipped() -> Artefact:
    return load_artefact(Path(zeta.__file__).parent / "artefacts" / "forecast")


def test_the_shipped_net_is_small_and_brings_its_card(shipped: Artefact) -> None:
    files = {path.name: path.stat().st_size for path in Path(shipped.directory).iterdir()}
    assert set(files) == {"MODEL_CARD.md", "manifest.json", "net.onnx"}
    assert sum(files.values()) < 100_000


def test_the_shipped_net_reproduces_its_golden_vectors(shipped: Artefact) -> None:
    expected = shipped.manifest.golden_outputs
    found = PackageNet(shipped.model, shipped.manifest.schema).run(shipped.manifest.golden_inputs)
    assert len(expected) >= 16
    assert np.max(np.abs(found - expected) / np.maximum(1.0, np.abs(expected))) <= GOLDEN_TOLERANCE
    assert np.ptp(expected, axis=0).min() > 0  # every output depends on what is read


def test_the_shipped_net_is_monotone_and_bounded_whatever_it_reads(shipped: Artefact) -> None:
    features = np.random.default_rng(5).normal(scale=20.0, size=(2000, shipped.manifest.schema.features))
    out = PackageNet(shipped.model, shipped.manifest.schema).run(features.astype(np.float32)).reshape(2000, -1, 3)
    assert np.isfinite(out).all()
    assert (out >= 0).all()
    assert (np.diff(out, axis=2) >= 0).all()


def test_the_manifest_says_what_the_shipped_net_has_seen(shipped: Artefact) -> None:
    about = shipped.manifest.about
    assert about["until"] == 1.0
    assert len(about["seeds"]) >= 3
    seen = {one["name"].split(":")[0] for one in about["trained_on"]}
    assert "azure_conv_2023" in seen
    card = (Path(shipped.directory) / "MODEL_CARD.md").read_text()
    for name in seen:
        assert name in card, f"the card does not name {name}"
