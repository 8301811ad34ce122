"""Builds and runs the C++ benchmarks of the core."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["Unavailable", "build", "counted", "instructions", "lifecycle", "run"]

ROOT = Path(__file__).resolve().parent.parent.parent
_HERE = Path(__file__).resolve().parent
_FLAGS = ("-std=c++20", "-O3", "-DNDEBUG", "-ffp-contract=off")


class Unavailable(Exception):
    """What is missing, and what would bring it."""


def compiler() -> str:
    """The C++ compiler's path."""
    found = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if found is None:
        raise Unavailable("no C++ compiler; apt-get install g++")
    return found


def build(source: str = "lifecycle.cpp", name: str = "lifecycle", more: Sequence[str] = ()) -> Path:
    """Compiles one source with the release flags of the extension and `more`; the program's path.

    A program of that name that is newer than all sources is taken as it is.
    """
    program = ROOT / "build" / "bench" / name
    program.parent.mkdir(parents=True, exist_ok=True)
    sources = [_HERE / source, *_HERE.rglob("*.hpp"), *(ROOT / "csrc" / "include").rglob("*.hpp")]
    if program.exists() and program.stat().st_mtime > max(path.stat().st_mtime for path in sources):
        return program
    with tempfile.TemporaryDirectory(dir=program.parent) as folder:  # two runs may build at once
        fresh = Path(folder) / name
        command = [compiler(), *_FLAGS, f"-I{ROOT / 'csrc' / 'include'}", str(_HERE / source), "-o", str(fresh)]
        done = subprocess.run([*command, "-pthread", *more], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join([*command, *more])} failed:\n{done.stderr}")
        fresh.replace(program)
    return program


def counted(function: str, command: Sequence[str]) -> int:
    """Instructions inside a function (with what it calls), by callgrind; the same on every run of one build.

    Raises
    ------
    Unavailable
        If valgrind is not installed.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise Unavailable("no valgrind; apt-get install valgrind")
    with tempfile.TemporaryDirectory() as folder:
        under = [valgrind, "--tool=callgrind", f"--toggle-collect={function}", f"--callgrind-out-file={folder}/out"]
        done = subprocess.run([*under, *command], capture_output=True, text=True, check=False)
        found = re.search(r"Collected : (\d+)", done.stderr)
        if done.returncode != 0 or found is None:
            raise RuntimeError(f"callgrind failed:\n{done.stderr[-2000:]}")
    return int(found[1])


def instructions(*, depth: int, replicas: int, count: int = 2_000) -> float:
    """Instructions per lifecycle; raises Unavailable without valgrind."""
    return counted("plain_lifecycles", [str(build()), str(depth), str(replicas), str(count), "plain"]) / count


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
