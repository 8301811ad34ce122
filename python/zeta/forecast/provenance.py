"""What a net has been trained on, so that it is never scored on that."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from zeta.forecast.series import BinnedSeries

__all__ = ["fingerprint", "provenance_of", "seen_part"]

_KEY = "trained_on"


def fingerprint(series: BinnedSeries) -> str:
    """Names a series by its numbers: 16 hexadecimal digits."""
    digest = hashlib.sha256(f"{series.target} {series.bin_s!r} {len(series)} ".encode())
    digest.update(np.ascontiguousarray(series.rates).tobytes())
    digest.update(np.ascontiguousarray(series.is_gap).tobytes())
    return digest.hexdigest()[:16]


def provenance_of(series: list[BinnedSeries], until: float) -> dict[str, Any]:
    """What goes into a manifest's ``about``: each series, and the part of it that the net may have seen."""
    found = [
        {
            "name": one.name,
            "target": one.target,
            "bin_s": one.bin_s,
            "bins": len(one),
            "until": until,
            "fingerprint": fingerprint(one),
        }
        for one in series
    ]
    return {_KEY: found}


def seen_part(about: Mapping[str, Any], series: BinnedSeries) -> float:
    """The part of `series` that the net has seen, from its beginning: 0 if none, 1 if all of it.

    Two series are the same if their numbers are, or if name, target and time covered are (other bins of one file).
    """
    mine = fingerprint(series)
    span_s = len(series) * series.bin_s
    part = 0.0
    for one in about.get(_KEY, ()):
        same_file = one["name"] == series.name and one["target"] == series.target
        is_same_span = abs(one["bins"] * one["bin_s"] - span_s) <= 2 * max(one["bin_s"], series.bin_s)
        if one["fingerprint"] == mine or (same_file and is_same_span):
            part = max(part, float(one["until"]))
    return part
