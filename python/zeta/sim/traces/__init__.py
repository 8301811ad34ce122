"""Request traces: what is in a file, in order of arrival, as numpy columns.

Read from csv, csv.gz, jsonl, jsonl.gz and parquet (extra ``cli``), in the canonical form or as Azure, BurstGPT and
Mooncake publish theirs. Rows that cannot be used are reported with their line, never dropped in silence.
"""

from __future__ import annotations

from zeta.sim.traces._columns import TraceChunk
from zeta.sim.traces._trace import EMBEDDED_NAME, BadRow, Trace, TraceSummary, read_column

__all__ = ["EMBEDDED_NAME", "BadRow", "Trace", "TraceChunk", "TraceSummary", "read_column"]
