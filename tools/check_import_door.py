"""Rooms import rooms, never the package's door: `import zeta` inside python/zeta would see every floor at once."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "python" / "zeta"


def imports_of_the_door(source: str, submodules: set[str]) -> list[int]:
    """Lines that import zeta itself, or a name of zeta that is no submodule."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import) and any(alias.name == "zeta" for alias in node.names):
            lines.append(node.lineno)
        if isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            if node.level > 0 or (node.module == "zeta" and not names <= submodules):
                lines.append(node.lineno)
    return lines


def main() -> int:
    """Prints each offending line; 1 if there is one."""
    submodules = {entry.stem for entry in PACKAGE.iterdir() if entry.suffix == ".py" or entry.is_dir()} | {"_core"}
    found = [
        f"{path.relative_to(PACKAGE.parent.parent)}:{line}: import a room (from zeta.room import name), absolutely, "
        "not zeta itself"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != PACKAGE / "__init__.py"
        for line in imports_of_the_door(path.read_text(), submodules)
    ]
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
