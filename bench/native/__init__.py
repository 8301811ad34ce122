"""Builds and runs the C++ benchmarks of the core."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["Unavailable", "build", "instructions", "lifecycle", "run"]

ROOT = Path(__file__).resolve().parent.parent.parent
_SOURCE = ROOT / "bench" / "native" / "lifecycle.cpp"
_FLAGS = ("-std=c++20", "-O3", "-DNDEBUG", "-ffp-contract=off")


class Unavailable(Exception):
    """What is missing, and what would bring it."""


def build() -> Path:
    """Compiles lifecycle.cpp with the release flags of the extension; the program's path."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise Unavailable("no C++ compiler; apt-get install g++")
    program = ROOT / "build" / "bench" / "lifecycle"
    program.parent.mkdir(parents=True, exist_ok=True)
    newest = max(path.stat().st_mtime for path in [_SOURCE, *(ROOT / "csrc" / "include").rglob("*.hpp")])
    if program.exists() and program.stat().st_mtime > newest:
        return program
    with tempfile.TemporaryDirectory(dir=program.parent) as folder:  # two runs may build at once
        fresh = Path(folder) / "lifecycle"
        command = [compiler, *_FLAGS, f"-I{ROOT / 'csrc' / 'include'}", str(_SOURCE), "-o", str(fresh), "-pthread"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
        fresh.replace(program)
    return program


def instructions(*, depth: int, replicas: int, count: int = 2_000) -> float:
    """Instructions per lifecycle, counted by callgrind: the same on every run of one build.

    Raises
    ------
    Unavailable
        If valgrind is not installed.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise Unavailable("no valgrind; apt-get install valgrind")
    with tempfile.TemporaryDirectory() as folder:
        command = [valgrind, "--tool=callgrind", "--toggle-collect=plain_lifecycles"]
        command += [f"--callgrind-out-file={folder}/out", str(build()), str(depth), str(replicas), str(count), "plain"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = re.search(r"Collected : (\d+)", done.stderr)
        if done.returncode != 0 or found is None:
            raise RuntimeError(f"callgrind failed:\n{done.stderr[-2000:]}")
    return int(found[1]) / count


def run(*, depth: int, replicas: int, count: int, mode: str = "") -> dict[str, Any]:
    """One run: what lifecycle.cpp prints; see there for the modes."""
    command = [str(build()), str(depth), str(replicas), str(count), mode]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"lifecycle {depth} {replicas}: {done.stderr}")
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def lifecycle(*, depth: int, replicas: int, rounds: int, count: int = 100_000) -> dict[str, Any]:
    """The median of several runs, by p50, with ``instructions`` per lifecycle (None without valgrind)."""
    runs = [run(depth=depth, replicas=replicas, count=count) for _ in range(rounds)]
    row = sorted(runs, key=lambda each: float(each["ns_p50"]))[rounds // 2]
    row["ns_p50_of_rounds"] = [each["ns_p50"] for each in runs]
    try:
        row["instructions"] = instructions(depth=depth, replicas=replicas)
    except Unavailable:
        row["instructions"] = None
    return row
