"""The C++ queues beside their peers: builds queues.cpp with the peers that are installed, and runs it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import native

__all__ = ["instructions", "measure", "program"]

# Peer: a header, its library (the compiler must find both), further flags.
_PEERS = {
    "tbb": ("oneapi/tbb/concurrent_priority_queue.h", "libtbb.so", ["-DZETA_BENCH_TBB=1", "-ltbb"]),
    "boost": ("boost/heap/d_ary_heap.hpp", None, ["-DZETA_BENCH_BOOST=1"]),
    "cds": (
        "cds/container/fcpriority_queue.h",
        "libboost_thread.so",
        ["-DZETA_BENCH_CDS=1", "-lcds", "-lboost_thread"],
    ),
}


def _is_there(header: str, library: str | None) -> bool:
    compiler = native.compiler()
    asked = f"#if !__has_include(<{header}>)\n#error absent\n#endif\n"
    command = [compiler, "-std=c++20", "-fsyntax-only", "-x", "c++", "-"]
    if subprocess.run(command, input=asked, capture_output=True, text=True, check=False).returncode != 0:
        return False
    if library is None:
        return True
    # The compiler answers with a path where it finds the file, and with the bare name where it does not.
    command = [compiler, f"-print-file-name={library}"]
    return "/" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def program() -> Path:
    """The comparison, compiled with every peer that this machine has."""
    present = [name for name, (header, library, _) in _PEERS.items() if _is_there(header, library)]
    flags = [flag for name in present for flag in _PEERS[name][2]]
    return native.build("queues.cpp", "-".join(["queues", *present]), flags)


def measure(tasks: Sequence[str], *, rounds: int, seconds: float, threads: Sequence[int] = (1, 2, 4)) -> dict[str, Any]:
    """Runs tasks (see the head of queues.cpp); what the program prints.

    Raises
    ------
    native.Unavailable
        Without a C++ compiler.
    RuntimeError
        If a queue answered wrongly.
    """
    words = [f"rounds={rounds}", f"seconds={seconds}", f"threads={','.join(map(str, threads))}", *tasks]
    done = subprocess.run([str(program()), *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"queues {' '.join(words)}: {done.stderr}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def instructions(queue: str, operation: str, *, workload: str = "us", size: int = 100_000, count: int = 4_096) -> float:
    """Instructions of one push or one pop of a queue named by its kId, on virtual time.

    With the workload us and 100,000 keys about fifty wait in each bucket of a calendar, with llm about one.

    The call of the counted function itself, some five instructions, is within. Raises Unavailable without valgrind.
    """
    command = [str(program()), "count", queue, workload, str(size), str(count), operation]
    return native.counted(f"*counted_{operation}*", command) / count
