"""The fake engines and the load generator of http_load.cpp, driven from Python."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

from bench import native

__all__ = ["Rig"]


class Rig:
    """Fake OpenAI engines on ports of the kernel's choice, and the load generator, in one process on one core.

    Parameters
    ----------
    engines : int
        How many ports.
    core : int, optional
        Where it runs; None: anywhere.

    Attributes
    ----------
    engines : list of int
        The ports.

    Raises
    ------
    bench.native.Unavailable
        Without a C++ compiler.
    """

    def __init__(self, engines: int = 2, core: int | None = None) -> None:
        program = native.build("http_load.cpp", "http_load", ["-O2"])
        self._process = subprocess.Popen(
            [str(program), str(engines)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
        )
        self.engines: list[int] = self._read()["engines"]

    def load(self, **options: Any) -> dict[str, Any]:
        """Runs one command (see the head of http_load.cpp); what came of it, times in microseconds."""
        assert self._process.stdin is not None
        words = (f"{key}={int(value) if isinstance(value, bool) else value}" for key, value in options.items())
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer

    def cpu_s(self) -> float:
        """User and system time since it started."""
        words = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """Ends the process."""
        with self._process as process:  # closes the pipes; the program ends at its input's end
            assert process.stdin is not None
            process.stdin.close()
            process.wait(10)

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"http_load ended with {self._process.wait(10)}")
        answer: dict[str, Any] = json.loads(line)
        return answer
