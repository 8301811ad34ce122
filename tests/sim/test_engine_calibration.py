"""The engine model against two measured vLLM runs: fitted on either, judged on the other."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "bench" / "calibration" / "engine_model.py"
RESULTS = ROOT / "bench" / "results" / "engine_calibration.json"
OTHER = {"rtx4090": "rtxpro6000", "rtxpro6000": "rtx4090"}


@pytest.fixture(scope="module")
def calibration() -> ModuleType:
    spec = importlib.util.spec_from_file_location("engine_model_calibration", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("fitted_on", ["rtx4090", "rtxpro6000"])
def test_constants_fitted_on_one_run_hold_on_the_other(calibration: ModuleType, fitted_on: str) -> None:
    constants = calibration.fit(calibration.load(fitted_on))
    judged = calibration.load(OTHER[fitted_on])
    errors = calibration.errors(judged, calibration.replay(judged, constants))
    assert {name: error for name, error in errors.items() if abs(error) > calibration.BARS[name]} == {}


def test_the_bars_see_a_model_that_is_wrong(calibration: ModuleType) -> None:
    judged = calibration.load("rtxpro6000")
    errors = calibration.errors(judged, calibration.replay(judged, calibration.StepConstants(), plans_ahead=False))
    assert abs(errors["prefill_p50"]) > calibration.BARS["prefill_p50"]


def test_kv_room_from_the_cards_memory_lies_within_what_the_log_allows(calibration: ModuleType) -> None:
    run = calibration.load("rtx4090")
    log = calibration.check_kv_room(run)
    assert log["admitted"] == 41
    assert log["at_least_tokens"] <= run.kv_tokens <= log["at_most_tokens"]


def test_the_committed_results_are_those_of_this_model(calibration: ModuleType) -> None:
    committed = json.loads(RESULTS.read_text())["judged"]
    for name, entry in committed.items():
        constants = calibration.StepConstants(**entry["constants"])
        for card, judged in entry["on"].items():
            replayed = calibration.replay(calibration.load(card), constants)
            assert f"{replayed.event_hash:#018x}" == judged["event_hash"], (name, card)
            assert judged["within_bars"]


def dispatched_features() -> list[str]:
    features = getattr(np, "_core" if hasattr(np, "_core") else "core")._multiarray_umath
    return [name for name in features.__cpu_dispatch__ if features.__cpu_features__.get(name)]


def test_event_logs_are_equal_with_avx_disabled(calibration: ModuleType) -> None:
    expected = calibration.replay(calibration.load("rtx4090"), calibration.StepConstants()).event_hash
    program = (
        "import runpy; m = runpy.run_path(r'%s'); c = m['StepConstants']();"
        "print(m['replay'](m['load']('rtx4090'), c).event_hash)"
    )
    environment = dict(os.environ)
    environment["GLIBC_TUNABLES"] = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-AVX,-FMA,-FMA4,-ERMS"
    environment["NPY_DISABLE_CPU_FEATURES"] = " ".join(dispatched_features())
    run = subprocess.run(
        [sys.executable, "-c", program % SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    assert int(run.stdout) == expected
