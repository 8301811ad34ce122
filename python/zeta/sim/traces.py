"""The former place of `zeta.traces`."""

from __future__ import annotations

from zeta.traces import EMBEDDED_NAME, BadRow, Trace, TraceChunk, TraceSummary, read_column

__all__ = ["EMBEDDED_NAME", "BadRow", "Trace", "TraceChunk", "TraceSummary", "read_column"]
