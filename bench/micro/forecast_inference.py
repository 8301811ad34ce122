"""One inference of the forecaster's net: natively without Python, from Python, and through the onnxruntime package.

``python -m bench.micro.forecast_inference`` prints the table; ``--json OUT`` keeps the figures. The net is the one that
zeta ships; a run has two rows per model (arrivals and work). *busy* is beside another Python thread that computes
without pause, one call a millisecond after the last one.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench import machine, native
from bench.harness import WrongAnswer
from bench.report import Target, print_table, print_targets

import zeta
from zeta.forecast.artefact import GOLDEN_TOLERANCE, Artefact, Schema, golden_distance, load_artefact
from zeta.forecast.onnx import NativeNet, Net, PackageNet, find_library

__all__ = ["from_cpp", "from_python"]

MODELS = (3, 16)
SCHEMA = Schema.current()


def _shipped() -> Artefact:
    return load_artefact(Path(zeta.__file__).parent / "artefacts" / "forecast", schema=SCHEMA)


def _features(rows: int) -> Any:
    return np.random.default_rng(0).standard_normal((rows, SCHEMA.features)).astype(np.float32)


def _times(net: Net, rows: int, seconds: float, pause_s: float = 0.0) -> dict[str, float]:
    """Percentiles of single calls for about so long, at least 100 of them, each after a pause."""
    features, run, now = _features(rows), net.run, time.perf_counter_ns
    for _ in range(50):
        run(features)
    spent: list[int] = []
    until = now() + int(seconds * 1e9)
    while len(spent) < 100 or now() < until:
        if pause_s:
            time.sleep(pause_s)  # as a loop does between ticks; whoever waits for the lock has it then
        began = now()
        run(features)
        spent.append(now() - began)
    us = np.array(spent) / 1e3
    return {f"us_{name}": float(np.quantile(us, part)) for name, part in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))}


def from_python(models: int, seconds: float) -> dict[str, dict[str, float]]:
    """Calls from Python, alone and beside a busy thread."""
    rows = 2 * models
    model = _shipped().model
    nets: tuple[Net, ...] = (NativeNet(model, SCHEMA, max_rows=rows), PackageNet(model, SCHEMA))
    if golden_distance(*(net.run(_features(rows)) for net in nets)) > GOLDEN_TOLERANCE:
        raise WrongAnswer("the two forms differ")
    found = {}
    gc.collect()
    gc.disable()
    for net in nets:
        found[f"{net.backend} from Python"] = _times(net, rows, seconds)
    is_over = threading.Event()

    def compute() -> None:
        total = 0
        while not is_over.is_set():
            for number in range(1_000):
                total += number

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        for net in nets:
            found[f"{net.backend} from Python, busy"] = _times(net, rows, seconds, pause_s=0.001)
    finally:
        is_over.set()
        thread.join()
        gc.enable()
    return found


def from_cpp(
    models: int, runs: int, *, hang_limit_ms: int = 0, pause_us: int = 0, is_warm: bool = False
) -> dict[str, Any]:
    """Runs on a native thread, no Python in the process; also what ONNX Runtime takes from the heap."""
    library = find_library()
    if library is None:
        raise native.Unavailable("no shared library of ONNX Runtime; pip install onnxruntime")
    more = (f"-I{native.ROOT / 'csrc'}", "-ldl")
    (native.ROOT / "build" / "bench" / "onnx_session").unlink(
        missing_ok=True
    )  # its headers are not among those watched
    program = native.build("onnx_session.cpp", "onnx_session", more)
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(_shipped().model)
        file.flush()
        words = [str(library), file.name]
        words += [
            str(each)
            for each in (SCHEMA.features, SCHEMA.outputs, 2 * models, runs, hang_limit_ms, pause_us, int(is_warm))
        ]
        done = subprocess.run([str(program), *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"onnx_session failed: {done.stderr}")
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def main(words: Sequence[str] | None = None) -> int:
    """Measures, prints, and keeps the figures where asked to; 1 where a gate is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.micro.forecast_inference", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--seconds", type=float, default=1.0, help="per figure from Python")
    asked = parser.parse_args(words)
    kept: dict[str, Any] = {"machine": machine.describe(), "net_sha256": _shipped().manifest.sha256}
    targets: list[Target] = []
    for models in MODELS:
        rows = kept[f"{models} models"] = {}
        try:
            rows["native, C++"] = from_cpp(models, 100_000)
            rows["native, C++, hang limit 10 ms"] = from_cpp(models, 100_000, hang_limit_ms=10)
            rows["native, C++, every 50 ms"] = from_cpp(models, 50, pause_us=50_000)
            rows["native, C++, every 50 ms, warmed up"] = from_cpp(models, 50, pause_us=50_000, is_warm=True)
        except native.Unavailable as missing:
            print(f"C++: {missing}")
        rows |= from_python(models, asked.seconds)
        shown = [
            [name, *(f"{row[f'us_{part}']:,.1f}" for part in ("p50", "p99", "p999"))] for name, row in rows.items()
        ]
        print_table(
            f"One inference for {models} models, {2 * models} rows", ["", "us p50", "us p99", "us p99.9"], shown
        )
        if "native, C++" in rows:
            inline = rows["native, C++"]
            # Of the budget for 3 models: a whole prediction in 10 us at p50, 25 us at p99.
            targets.append(Target(f"inference in C++, {models} models, p50", "µs", inline["us_p50"], 10.0))
            targets.append(Target(f"inference in C++, {models} models, p99", "µs", inline["us_p99"], 25.0))
            print(
                f"ONNX Runtime {inline['version']}: {inline['mallocs_per_run']:.0f} calls of malloc a run, "
                f"{inline['tensor_allocations_per_run']:.0f} of zeta's allocator for tensors, "
                f"{inline['tensor_allocations_from_heap_per_run']:.0f} of them to the heap"
            )
    print_targets(targets)
    if asked.json:
        kept["machine"]["load_average_1min_after"] = machine.describe()["load_average_1min"]
        asked.json.write_text(json.dumps(kept, indent=1) + "\n")
    return 0 if all(target.holds for target in targets) else 1


if __name__ == "__main__":
    raise SystemExit(main())
