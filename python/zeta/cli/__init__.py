"""The command ``zeta``."""

from __future__ import annotations

from zeta.cli._main import main

__all__ = ["main"]
