"""Whole runs: a real trace through the scheduler and simulated engines."""

from __future__ import annotations
