"""One round of the live allocation loop: how late it starts and how long it takes, idle and beside busy Python code.

``python -m bench.micro.allocation_tick --models 3 --busy`` runs a router for some seconds with requests coming and
going and prints what its loop says of itself; ``--json OUT`` keeps the figures. Beside it, in the same run and at the
same pace, a Python thread calls ``session.run`` of the onnxruntime package on the same net, as a loop in Python would.
*Busy* is one more Python thread that computes without pause.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench import machine

from zeta import Device, Model, Replica, Router
from zeta.config import Scheduler
from zeta.forecast.artefact import load_artefact
from zeta.forecast.onnx import PackageNet
from zeta.scheduler import SHIPPED_NET

__all__ = ["measure"]


def _router(models: int, tick_ms: float) -> Router:
    return Router(
        [Model(f"m{i}", 0.5, device="gpu", replicas=[Replica(f"m{i}-0")]) for i in range(models)],
        [Device("gpu")],
        scheduler=Scheduler(tick_interval_ms=tick_ms),
    )


def _compute(is_over: threading.Event) -> None:
    number = 1
    while not is_over.is_set():
        for _ in range(1000):
            number = number * 1103515245 % 2147483647 + 1


def _call_at_pace(net: PackageNet, models: int, period_s: float, is_over: threading.Event, out: list[float]) -> None:
    features = np.zeros((2 * models, net.schema.features), dtype=np.float32)
    while not is_over.wait(period_s):
        began = time.perf_counter()
        net.run(features)
        out.append((time.perf_counter() - began) * 1e6)


def measure(models: int, *, is_busy: bool, seconds: float, tick_ms: float = 50.0, python_too: bool = True) -> Any:
    """What the loop says of itself after so many seconds, and the Python calls beside it."""
    is_over = threading.Event()
    python_us: list[float] = []
    threads = [threading.Thread(target=_compute, args=(is_over,), daemon=True)] if is_busy else []
    if python_too:
        net = PackageNet(load_artefact(SHIPPED_NET).model, load_artefact(SHIPPED_NET).manifest.schema)
        arguments = (net, models, tick_ms * 1e-3, is_over, python_us)
        threads.append(threading.Thread(target=_call_at_pace, args=arguments, daemon=True))
    with _router(models, tick_ms) as router:
        for thread in threads:
            thread.start()
        until = time.monotonic() + seconds
        turn = 0
        while time.monotonic() < until:
            router.submit(prompt_tokens=500, max_tokens=16, models=f"m{turn % models}", deadline_ms=5_000)
            for lease in router.poll(16):
                router.first_token(lease)
                router.complete(lease, output_tokens=8)
            turn += 1
            time.sleep(0.01)
        is_over.set()
        loop = router.stats()["loop"]
        for thread in threads:
            thread.join()
    figures = {key: value for key, value in loop.items() if key.endswith(("_p50", "_p99"))}
    figures |= {"models": models, "is_busy": is_busy, "tick_ms": tick_ms, "seconds": seconds, "ticks": loop["ticks"]}
    figures |= {"forecasts": loop["forecasts"], "net_version": loop["net_version"], "net_runs": loop["net_runs"]}
    if python_us:
        figures["python_run_us_p50"], figures["python_run_us_p99"] = np.percentile(python_us, [50, 99]).tolist()
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints, keeps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--tick-ms", type=float, default=50.0)
    parser.add_argument("--json", type=Path, help="adds the run to those that are in this file")
    args = parser.parse_args(argv)
    figures = measure(args.models, is_busy=args.busy, seconds=args.seconds, tick_ms=args.tick_ms)
    print(json.dumps(figures, indent=1))
    if args.json is not None:
        kept = json.loads(args.json.read_text()) if args.json.is_file() else {"machine": machine.describe(), "runs": []}
        kept["runs"].append(figures)
        args.json.write_text(json.dumps(kept, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
