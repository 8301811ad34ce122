"""What the figures were measured on."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import zeta
from bench.harness import GC_POLICY

__all__ = ["describe", "file_name", "version"]

ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("numpy", "ai-dynamo-runtime", "litellm", "ray", "uvloop")


def _git(*words: str) -> str | None:
    try:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _cpu() -> str:
    text = Path("/proc/cpuinfo").read_text()
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()


def _governor() -> str:
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return path.read_text().strip() if path.exists() else "not exposed by this machine"


def version(package: str) -> str | None:
    """Of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_build_stale() -> bool:
    """Whether a source of the extension is newer than the extension, so that the commit does not describe it."""
    import zeta._core

    sources = [*(ROOT / "csrc" / "include").rglob("*.hpp"), *(ROOT / "csrc" / "runtime").rglob("*.hpp")]
    sources += (ROOT / "csrc" / "bindings").glob("*")
    return max(path.stat().st_mtime for path in sources) > Path(zeta._core.__file__).stat().st_mtime


def describe() -> dict[str, Any]:
    """Everything about the machine and the build that a figure depends on."""
    build = zeta.build_info()
    changed = _git(
        "status", "--porcelain", "--untracked-files=no", "--", "csrc", "python", "bench/*.py", "bench/native"
    )
    return {
        "sha": _git("rev-parse", "--short=10", "HEAD"),
        "has_uncommitted_changes": bool(changed),
        "is_build_stale": _is_build_stale(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "threads": os.cpu_count(),
        "governor": _governor(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "compiler": build["compiler"],
        "flags": build["flags"],
        "versions": {"zeta": build["version"]} | {name: version(name) for name in _PACKAGES},
        "gc": GC_POLICY,
        "load_average_1min": os.getloadavg()[0],
    }


def file_name(machine: dict[str, Any]) -> str:
    """``<sha>.<cpu>.<threads>.<date>.json``."""
    cpu = re.sub(r"[^a-z0-9]+", "-", machine["cpu"].lower()).strip("-")
    date = machine["date"][:16].replace(":", "").replace("-", "")
    return f"{machine['sha'] or 'nogit'}.{cpu}.{machine['threads']}.{date}.json"
