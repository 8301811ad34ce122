"""Byte pairs learnt from text: the pair seen most often becomes a token, again and again."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from zeta.engines._tokens import END, pieces_of

__all__ = ["learn_merges"]


def learn_merges(text: str, count: int) -> list[tuple[int, int]]:
    """The first `count` merges of `text`; ties go to the smaller pair, so that the same text gives the same ones."""
    words = [(list(piece), times) for piece, times in sorted(Counter(pieces_of(text)).items()) if len(piece) > 1]
    pairs: Counter[tuple[int, int]] = Counter()
    for tokens, times in words:
        for pair in pairwise(tokens):
            pairs[pair] += times
    merges: list[tuple[int, int]] = []
    while len(merges) < count and pairs:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[best] < 2 or END in best:
            break
        merges.append(best)
        new = 255 + len(merges)
        for tokens, times in words:
            at = 0
            while at + 1 < len(tokens):
                if (tokens[at], tokens[at + 1]) != best:
                    at += 1
                    continue
                for pair in pairwise(tokens[max(at - 1, 0) : at + 3]):
                    pairs[pair] -= times
                tokens[at : at + 2] = [new]
                for pair in pairwise(tokens[max(at - 1, 0) : at + 2]):
                    pairs[pair] += times
                at += 1
        pairs = +pairs
    return merges
