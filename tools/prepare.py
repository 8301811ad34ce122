"""Checks what a machine must bring to build zeta, names what is missing, and fetches two Debian header packages.

Runs under the system's Python before anything is installed, so it uses the standard library only. Headers that the
system lacks (Python's, doctest's) are unpacked below .venv/deb: no root is needed and the system stays as it is.
The result is .venv/build-env.sh, which the Makefile's recipes source.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
UNPACKED = VENV / "deb"
LOWEST_PYTHON = (3, 11)


def missing_tools() -> list[str]:
    """One line per thing that must be installed by hand, with the Debian package that brings it."""
    missing = []
    if sys.version_info < LOWEST_PYTHON:
        missing.append(f"Python 3.11 or newer (this is {sys.version.split()[0]}): apt-get install python3")
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        missing.append("Python's venv module: apt-get install python3-venv")
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler.split()[0]) is None:
        missing.append(f"a C++20 compiler ({compiler} is not on PATH): apt-get install g++")
    else:
        probe = subprocess.run(
            [*compiler.split(), "-std=c++20", "-fsyntax-only", "-x", "c++", "-"],
            input="#include <bit>\n#include <concepts>\nstatic_assert(std::has_single_bit(8u));\n",
            capture_output=True,
            text=True,
            check=False,
        )
        if probe.returncode != 0:
            missing.append(
                f"a compiler with C++20 and its library ({compiler} has not): apt-get install g++ (12 or newer)"
            )
    return missing


def unpack_debian_package(name: str) -> bool:
    """Downloads one Debian package and unpacks it below .venv/deb. False where that cannot be done."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return False
    work = VENV / "deb-download"
    state = work / "state"
    (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    private = [
        "-o",
        f"Dir::State::lists={state / 'lists'}",
        "-o",
        f"Dir::Cache={state}",
        "-o",
        "APT::Sandbox::User=root",
    ]
    attempts: list[list[list[str]]] = [
        [["apt-get", "download", "-q", name]],
        [["apt-get", *private, "update", "-q"], ["apt-get", *private, "download", "-q", name]],
    ]
    try:
        for commands in attempts:
            if all(subprocess.run(c, cwd=work, capture_output=True, check=False).returncode == 0 for c in commands):
                for package in work.glob(f"{name}_*.deb"):
                    subprocess.run(["dpkg-deb", "-x", str(package), str(UNPACKED)], check=True)
                    return True
        return False
    finally:
        shutil.rmtree(work, ignore_errors=True)


def python_headers() -> Path | None:
    """Where Python.h lies: in the system's place, or in the unpacked package."""
    system = Path(sysconfig.get_path("include"))
    if (system / "Python.h").exists():
        return system
    unpacked = UNPACKED / system.relative_to("/")
    package = f"libpython{sys.version_info.major}.{sys.version_info.minor}-dev"
    if (unpacked / "Python.h").exists() or unpack_debian_package(package):
        return unpacked
    return None


def has_doctest() -> bool:
    """Whether the C++ tests can be built: doctest in the system, or in the unpacked package."""
    places = [Path("/usr/include"), Path("/usr/local/include"), UNPACKED / "usr/include"]
    if any((place / "doctest/doctest.h").exists() for place in places):
        return True
    return unpack_debian_package("doctest-dev")


def main() -> int:
    """Prints what is missing and returns 1, or writes .venv/build-env.sh and returns 0."""
    missing = missing_tools()
    headers = None if missing else python_headers()
    if not missing and headers is None:
        missing.append("Python's headers: apt-get install python3-dev")
    if missing:
        print("zeta cannot be built here yet. Missing:", *missing, sep="\n  - ", file=sys.stderr)
        return 1

    lines = [f"export PATH={shlex.quote(str(VENV / 'bin'))}:$PATH"]
    if headers is not None and headers.is_relative_to(UNPACKED):
        # Debian's pyconfig.h includes <x86_64-linux-gnu/python3.11/pyconfig.h>, from one level up.
        lines.append(f"export CPATH={shlex.quote(str(headers.parent))}${{CPATH:+:$CPATH}}")
        lines.append(f'export CMAKE_ARGS="-DPython_INCLUDE_DIR={headers} ${{CMAKE_ARGS:-}}"')
    if has_doctest():
        lines.append("export ZETA_HAS_DOCTEST=1")
    else:
        print("doctest is not here and could not be fetched: the C++ tests will be skipped.", file=sys.stderr)
        print("  To run them: apt-get install doctest-dev", file=sys.stderr)
    VENV.mkdir(exist_ok=True)
    (VENV / "build-env.sh").write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
