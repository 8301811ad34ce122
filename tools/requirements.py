"""Prints zeta's required packages and those of its light extras, one a line, as pyproject.toml lists them."""

from __future__ import annotations

import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
print(*project["dependencies"], *extras["cli"], *extras["engines"], *extras["redis"], *extras["serve"], sep="\n")
