"""Every program in examples/ runs as printed, by itself, in an empty directory, within two seconds of its own time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SAYS = {
    "asyncio_lease.py": r"7b-0: \d+\nexpired_in_queue: \d+\n24 submitted, 0 left\n",
    "quickstart.py": r"only the 14b will do +-> 14b .*\n(.*\n)*outcomes: \{'completed': 4\}",
    "threads.py": r"200 of 200 requests completed\n7b-0: \d+\n7b-1: \d+\n",
}


def test_every_example_is_tested() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == sorted(SAYS)


@pytest.mark.parametrize("name", sorted(SAYS))
def test_the_example_runs_and_says_what_it_should(name: str, tmp_path: Path) -> None:
    # The time is the process's own, not the wall's, so that a busy machine fails nothing.
    before = os.times()
    run = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    after = os.times()
    assert (run.returncode, run.stderr) == (0, "")
    assert re.search(SAYS[name], run.stdout), run.stdout
    assert after.children_user + after.children_system - before.children_user - before.children_system < 2.0
    assert list(tmp_path.iterdir()) == []
