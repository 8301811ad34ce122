"""What `import zeta` costs and leaves behind, each asked of a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

IMPORT_BUDGET_MS = 60.0
HEAVY = {
    "aiohttp",
    "asyncio",
    "multiprocessing",
    "onnxruntime",
    "pandas",
    "plotly",
    "pyarrow",
    "pynvml",
    "rich",
    "scipy",
    "torch",
    "yaml",
}


def ask(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_zeta_costs_less_than_60_ms_beyond_numpy() -> None:
    code = "import time, numpy; start = time.perf_counter(); import zeta; print((time.perf_counter() - start) * 1e3)"
    best_ms = min(float(ask(code)) for _ in range(15))
    assert best_ms < IMPORT_BUDGET_MS


def test_importing_zeta_loads_none_of_the_heavy_packages() -> None:
    loaded = ask("import numpy, sys; before = set(sys.modules); import zeta; print(*(set(sys.modules) - before))")
    assert "zeta._core" in loaded.split()
    assert HEAVY.isdisjoint(name.partition(".")[0] for name in loaded.split())


@pytest.mark.parametrize("kind", ["task", "fd"])
def test_importing_zeta_starts_no_thread_and_leaves_nothing_open(kind: str) -> None:
    code = (
        f"import numpy, os\nbefore = len(os.listdir('/proc/self/{kind}'))\n"
        f"import zeta\nprint(len(os.listdir('/proc/self/{kind}')) - before)"
    )
    assert ask(code) == "0"


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_than_linux_the_import_says_where_zeta_runs(platform: str) -> None:
    code = (
        f"import sys\nsys.platform = {platform!r}\n"
        "try:\n    import zeta\nexcept ImportError as error:\n    print(error)"
    )
    assert f"zeta runs on Linux (x86-64 or aarch64, glibc); this is {platform}" in ask(code)
