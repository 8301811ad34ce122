"""zeta's nets on the oldest and the newest ONNX Runtime, each installed into an environment of its own, and on none."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import zeta

OLDEST, TOO_OLD, NEWEST = "==1.20.1", "==1.19.2", ""

SCRIPT = """
import json, sys
import numpy as np
from zeta.errors import ModelLoadError
from zeta.forecast.artefact import Schema, golden_distance
from zeta.forecast.onnx import NativeNet, PackageNet, find_library
from zeta.testing.onnx_model import mlp_model
said, outputs = {"library": find_library() and find_library().name}, {}
schema = Schema.current()
features = np.random.default_rng(0).standard_normal((6, schema.features)).astype(np.float32)
for form in (NativeNet, PackageNet):
    try:
        outputs[form.backend] = form(mlp_model(schema), schema).run(features)
    except ModelLoadError as refusal:
        said[form.backend] = str(refusal)
if len(outputs) == 2: said["distance"] = golden_distance(outputs["native"], outputs["package"])
if outputs: said["sum"] = float(np.sum(next(iter(outputs.values())), dtype=np.float64))
json.dump(said, sys.stdout)
"""


def ask(python: Path, alone: Path) -> dict[str, object]:
    """What the nets of the zeta under test do in that environment; `alone` is a folder with nothing but zeta in it."""
    if not alone.exists():
        alone.mkdir()
        (alone / "zeta").symlink_to(Path(zeta.__file__).parent)
    ended = subprocess.run(
        [python, "-c", SCRIPT], capture_output=True, text=True, env={"PYTHONPATH": str(alone)}, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    answer: dict[str, object] = json.loads(ended.stdout)
    return answer


def environment_with(folder: Path, *requirements: str) -> Path:
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "numpy>=1.26", *requirements], check=True)
    return python


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    return tmp_path / "alone"


@pytest.fixture
def here(alone: Path) -> dict[str, object]:
    return ask(Path(sys.executable), alone)


@pytest.mark.nightly
@pytest.mark.parametrize("version", [OLDEST, NEWEST], ids=["oldest", "newest"])
def test_both_forms_agree_on_the_oldest_and_the_newest_runtime(
    version: str, tmp_path: Path, alone: Path, here: dict[str, object]
) -> None:
    said = ask(environment_with(tmp_path / "env", f"onnxruntime{version}"), alone)
    assert str(said["library"]).startswith("libonnxruntime.so.")
    assert version.removeprefix("==") in str(said["library"])
    assert isinstance(said["distance"], float)
    assert said["distance"] <= 1e-5
    assert said["sum"] == pytest.approx(here["sum"], abs=1e-4)
    print(json.dumps({"version": version or "newest", **said}))  # noqa: T201 (for the record, with pytest -s)


@pytest.mark.nightly
def test_a_runtime_that_is_too_old_is_named_and_its_package_still_serves(tmp_path: Path, alone: Path) -> None:
    said = ask(environment_with(tmp_path / "env", f"onnxruntime{TOO_OLD}"), alone)
    assert "ONNX Runtime 1.19.2" in str(said["native"])
    assert "is too old; expected 1.20 or later" in str(said["native"])


@pytest.mark.nightly
def test_without_a_runtime_both_forms_say_how_to_get_it(tmp_path: Path, alone: Path) -> None:
    said = ask(environment_with(tmp_path / "env"), alone)
    assert said["library"] is None
    for form in ("native", "package"):
        assert "pip install --upgrade onnxruntime" in str(said[form])


@pytest.mark.nightly
def test_without_its_shared_library_the_package_serves(tmp_path: Path, alone: Path, here: dict[str, object]) -> None:
    python = environment_with(tmp_path / "env", "onnxruntime")
    for library in tmp_path.glob("env/lib/*/site-packages/onnxruntime/capi/libonnxruntime.so.*"):
        library.unlink()
    said = ask(python, alone)
    assert said["library"] is None
    assert "shared library" in str(said["native"])
    assert said["sum"] == pytest.approx(here["sum"], abs=1e-4)
