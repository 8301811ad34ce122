"""Random integers that are the same on every machine, a column at a time.

The core's generator (SplitMix64: Steele, Lea, Flood, OOPSLA 2014) in wrapping uint64 arithmetic, which numpy defines to
the bit. numpy's own generators may change their streams between versions, so nothing on the way to an event uses them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["U64Array", "below", "draws"]

U64Array = NDArray[np.uint64]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def draws(seed: int, stream: str, count: int) -> U64Array:
    """The first `count` numbers of the stream called `stream` under `seed`; streams do not resemble each other."""
    return splitmix64(_stream_seed(seed, stream), count)


def splitmix64(state: int, count: int) -> U64Array:
    """What the core's ``Rng{state}`` gives in `count` calls."""
    steps = np.arange(1, count + 1, dtype=np.uint64)
    z = steps * np.uint64(_GOLDEN) + np.uint64(state & _MASK)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def below(numbers: U64Array, bound: int) -> NDArray[np.int64]:
    """Maps each number into [0, bound); the bias is below ``bound / 2**64``."""
    if not 0 < bound < 1 << 63:
        raise ValueError(f"bound = {bound}; expected 1 to 2**63 - 1")
    return (numbers % np.uint64(bound)).astype(np.int64)


def _stream_seed(seed: int, stream: str) -> int:
    state = 0xCBF29CE484222325  # FNV-1a over the name
    for byte in stream.encode():
        state = ((state ^ byte) * 0x100000001B3) & _MASK
    return int(splitmix64(state ^ int(splitmix64(seed & _MASK, 1)[0]), 1)[0])
