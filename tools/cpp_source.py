"""Reads C++ for the gates: which files there are, and their lines with the comments blanked out."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# A string, a character, or a comment: matched together, so that "//" inside a string is no comment.
_TOKEN = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|//[^\n]*|/\*.*?\*/', re.DOTALL)


def cpp_files(*directories: str) -> list[Path]:
    """Every .hpp and .cpp below the given directories of the repository, sorted."""
    return sorted(
        path for directory in directories for path in (ROOT / directory).rglob("*") if path.suffix in {".hpp", ".cpp"}
    )


def without_comments(source: str) -> str:
    """The source with each comment replaced by blanks; lines and columns stay where they are."""

    def blank(match: re.Match[str]) -> str:
        token = match.group()
        return re.sub(r"[^\n]", " ", token) if token.startswith("/") else token

    # 1'000 is a number: its quote opens no character.
    return _TOKEN.sub(blank, re.sub(r"(?<=[0-9a-fA-F])'(?=[0-9a-fA-F])", "_", source))
