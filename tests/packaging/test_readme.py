"""Every python block of the README and of docs/ runs, alone, in an empty directory.

A block that cannot run alone (it needs a server, a GPU, a file) is preceded by `<!-- fragment: why -->`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"(?P<mark><!-- fragment: [^\n]+ -->\n+)?^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def runnable_blocks() -> list[Any]:
    found = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = path.read_text()
        for match in BLOCK.finditer(text):
            if match["mark"] is None:
                line = text.count("\n", 0, match.start("code")) + 1
                name = path.relative_to(ROOT)
                # Blank lines in front, so that a failure's line is the document's.
                found.append(pytest.param(name, "\n" * (line - 1) + match["code"], id=f"{name}:{line}"))
    return found


@pytest.mark.parametrize(("name", "code"), runnable_blocks())
def test_the_block_runs_as_printed(name: Path, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(name), "exec"), {"__name__": "__main__"})


def test_the_readme_shows_the_two_commands_and_a_block_that_runs() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme
    assert "make test" in readme
    assert [match for match in BLOCK.finditer(readme) if match["mark"] is None]
