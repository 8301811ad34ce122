"""The version, as compiled into the extension: one fact, kept in one place."""

from __future__ import annotations

from zeta._core import build_info

__all__ = ["__version__"]

__version__: str = str(build_info()["version"])
