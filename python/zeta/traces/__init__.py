"""Request traces and rate series: what is in a file, in order of arrival, as numpy columns.

Read from csv, csv.gz, jsonl, jsonl.gz and parquet (extra ``cli``), in the canonical form or as Azure, BurstGPT and
Mooncake publish theirs. Rows that cannot be used are reported with their line, never dropped in silence.
"""

from __future__ import annotations

from zeta.traces._columns import TraceChunk
from zeta.traces._rates import RateSeries, is_rate_series, read_rates
from zeta.traces._trace import EMBEDDED_NAME, BadRow, Trace, TraceSummary, read_column

__all__ = [
    "EMBEDDED_NAME",
    "BadRow",
    "RateSeries",
    "Trace",
    "TraceChunk",
    "TraceSummary",
    "is_rate_series",
    "read_column",
    "read_rates",
]
