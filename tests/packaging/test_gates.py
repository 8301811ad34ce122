"""Each gate of tools/ goes red on what it is there for. The samples are written into a copy of the tree's shape."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


class Tree:
    """A small repository below a temporary directory, with the real gate scripts in its tools/."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("docs/memory_model.md", "| id | release | acquire | may read |\n|---|---|---|---|\n")
        for script in TOOLS.glob("*.py"):
            self.write(f"tools/{script.name}", script.read_text())

    def write(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def run(self, script: str) -> tuple[int, str]:
        run = subprocess.run(
            [sys.executable, str(self.root / "tools" / script)], capture_output=True, text=True, check=False
        )
        assert run.stderr == ""
        return run.returncode, run.stdout


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.parametrize(
    ("path", "code", "sentence"),
    [
        ("core/a.hpp", '#include "zeta/queue/b.hpp"', "may include only rooms below it"),
        ("score/a.hpp", '#include "zeta/text/b.hpp"', "may include only rooms below it"),
        ("core/a.hpp", "#include <zeta/sim/b.hpp>", "may include only rooms below it"),
        ("core/a.hpp", '#include "../queue/b.hpp"', "write the path from csrc/include"),
        ("core/a.hpp", '#include "zeta/attic/b.hpp"', "does not know"),
        ("attic/a.hpp", "", "outside the rooms"),
        ("core/a.hpp", "#include <pybind11/numpy.h>", "knows no Python"),
        ("core/a.hpp", "#include <python3.11/Python.h>", "knows no Python"),
        ("core/a.hpp", "auto now = std::chrono::steady_clock::now();", "reads no clock"),
        ("core/a.hpp", "std::jthread worker;", "starts no thread"),
        ("core/a.hpp", "std::this_thread::sleep_for(pause);", "sleeps nowhere"),
        ("core/a.hpp", "double y = std::exp(x);", "no libm"),
        ("core/a.hpp", "std::normal_distribution<double> noise;", "rng.hpp"),
        ("core/a.hpp", "std::atomic_thread_fence(std::memory_order_acquire);", "no fence"),
    ],
)
def test_include_floors_refuses(tree: Tree, path: str, code: str, sentence: str) -> None:
    tree.write(f"csrc/include/zeta/{path}", f"#pragma once\n{code}\n")
    status, said = tree.run("check_include_floors.py")
    assert status == 1
    assert f"csrc/include/zeta/{path}" in said
    assert sentence in said


def test_include_floors_accepts_lower_rooms_and_what_only_comments_say(tree: Tree) -> None:
    tree.write(
        "csrc/include/zeta/queue/a.hpp",
        '#pragma once\n#include "zeta/core/b.hpp"\n#include "zeta/queue/c.hpp"\n#include <cmath>\n'
        '// steady_clock and std::exp( and pybind11/ stay outside\nconst char* text = "// not a comment";\n',
    )
    assert tree.run("check_include_floors.py") == (0, "\n")


RELEASE = "a.store(1, std::memory_order_release);  // E7: publishes\n"
ACQUIRE = "// E7: pairs with the store\nauto x = a.load(std::memory_order_acquire);\n"


@pytest.mark.parametrize(
    ("code", "rows", "sentence"),
    [
        (
            RELEASE + "auto x = a.load(std::memory_order_acquire);\n",
            "| E7 |",
            "a.hpp:2: memory_order_acquire names no edge",
        ),
        (RELEASE + ACQUIRE, "", "E7 is used in the code but not listed"),
        (RELEASE + ACQUIRE, "| E7 |\n| E8 |", "E8 is listed but used nowhere"),
        (RELEASE + ACQUIRE, "| E7 |\n| E7 |", "E7 is listed twice"),
        (RELEASE, "| E7 |", "E7: no acquire names it"),
        (ACQUIRE, "| E7 |", "E7: no release names it"),
        (RELEASE + ACQUIRE + "a.fetch_add(\n    1);\n", "| E7 |", "a.hpp:4: .fetch_add() without a memory order"),
        (RELEASE + ACQUIRE + "std::atomic<int> n_{0};\nvoid f() { ++n_; }\n", "| E7 |", "operator on the atomic n_"),
    ],
)
def test_memory_edges_refuses(tree: Tree, code: str, rows: str, sentence: str) -> None:
    tree.write("csrc/include/zeta/queue/a.hpp", code)
    tree.write("docs/memory_model.md", rows)
    status, said = tree.run("check_memory_edges.py")
    assert status == 1
    assert sentence in said


def test_memory_edges_accepts_a_pair_that_is_listed_whatever_the_layout(tree: Tree) -> None:
    tree.write(
        "csrc/include/zeta/queue/a.hpp",
        RELEASE + ACQUIRE + "// E7: a take\n// over two lines\nwhile (!a.compare_exchange_weak(\n"
        "    old, fresh, std::memory_order_acq_rel,\n    std::memory_order_relaxed)) {\n}\n"
        "auto y = a.load(std::memory_order_relaxed);  // a hint; checked again above\n",
    )
    tree.write("docs/memory_model.md", "| E7 | store | load | x |\n")
    assert tree.run("check_memory_edges.py") == (0, "\n")


@pytest.mark.parametrize("line", ["import zeta", "from zeta import Router", "from . import errors"])
def test_import_door_refuses(tree: Tree, line: str) -> None:
    tree.write("python/zeta/__init__.py", "from zeta.errors import ZetaError\n")
    tree.write("python/zeta/errors.py", f"{line}\n")
    status, said = tree.run("check_import_door.py")
    assert status == 1
    assert "python/zeta/errors.py:1: import a room" in said


def test_import_door_accepts_rooms_and_the_extension(tree: Tree) -> None:
    tree.write("python/zeta/errors.py", "from zeta import _core, types\nfrom zeta.types import Outcome\n")
    tree.write("python/zeta/types.py", "")
    assert tree.run("check_import_door.py") == (0, "\n")
