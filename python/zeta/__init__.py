"""Decides which waiting request goes to which model next, and how much capacity each model gets."""

from __future__ import annotations

from zeta._core import build_info

__all__ = ["build_info"]
