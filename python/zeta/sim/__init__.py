"""Replay on virtual time: traces in, the real scheduler in the middle, results out. No threads, no clock."""

from __future__ import annotations

__all__: list[str] = []
