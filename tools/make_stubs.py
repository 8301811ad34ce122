"""Writes python/zeta/_core.pyi from the built extension, or with --check only says whether it is up to date."""

from __future__ import annotations

import difflib
import re
import subprocess
import sys
import tempfile
import types
from pathlib import Path

STUB = Path(__file__).resolve().parent.parent / "python" / "zeta" / "_core.pyi"


def with_members(stub: str) -> str:
    """Adds what the generator leaves out: the members of C structures. Their docs read "type: sentence"."""
    from zeta import _core

    for name, kind in vars(_core).items():
        lines = []
        for member in vars(kind).values() if isinstance(kind, type) else ():
            if isinstance(member, types.MemberDescriptorType):
                annotation, sentence = (member.__doc__ or "typing.Any: ").split(": ", 1)
                lines += ["@property", f"def {member.__name__}(self) -> {annotation}:", f'    """{sentence}"""']
        found = re.search(rf'class {name}:\n    """.*?"""\n', stub, re.DOTALL)
        if lines and found:
            stub = stub[: found.end()] + "".join(f"    {line}\n" for line in lines) + stub[found.end() :]
    return stub


def generate() -> str:
    """The stub of the zeta._core that this interpreter imports."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "pybind11_stubgen", "zeta._core", "--output-dir", directory]
        command += ["--exit-code", "--numpy-array-use-type-var"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            sys.exit(f"{run.stdout}{run.stderr}")
        stub = Path(directory) / "zeta" / "_core.pyi"
        stub.write_text(with_members(stub.read_text()))
        ruff = [sys.executable, "-m", "ruff"]
        config = ["--isolated", "--config", "line-length = 120", "--quiet", str(stub)]
        subprocess.run([*ruff, "check", "--fix", "--select", "I,F401,UP", *config], check=True)
        subprocess.run([*ruff, "format", *config], check=True)
        return stub.read_text()


def main() -> int:
    """Writes, or compares and prints the difference; 1 if --check finds one."""
    fresh = generate()
    if "--check" not in sys.argv[1:]:
        STUB.write_text(fresh)
        return 0
    kept = STUB.read_text()
    if fresh == kept:
        return 0
    sys.stdout.writelines(difflib.unified_diff(kept.splitlines(True), fresh.splitlines(True), "_core.pyi", "generated"))
    print("The stub is out of date: run `make stubs`, read the difference and commit it.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
