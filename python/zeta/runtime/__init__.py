"""Where threads start."""

from __future__ import annotations

from zeta.runtime._monitor import Monitor, examine

__all__ = ["Monitor", "examine"]
