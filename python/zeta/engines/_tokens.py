"""Text to tokens and back for the embedded language models: bytes joined by byte pairs, nothing unknown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

__all__ = ["END", "Tokens", "pieces_of"]

END: Final = 0
"""Ends a text. The byte 0 itself does not occur in prompts: it is left out."""

_PIECES: Final = re.compile(rb" ?[A-Za-z\x80-\xff]+| ?[0-9]|\n+| ?[^A-Za-z0-9\x80-\xff\s]+| +|\s")
_CACHED: Final = 1 << 16


def pieces_of(text: str) -> list[bytes]:
    """What pairs are joined within: words with the blank before them, single digits, signs."""
    return _PIECES.findall(text.encode().replace(b"\0", b""))


class Tokens:
    """A vocabulary: 256 bytes, and one token for each pair in `merges`, in the order in which they join.

    Parameters
    ----------
    merges : sequence of (int, int)
        Tokens that become token ``256 + index``.
    """

    def __init__(self, merges: Sequence[Sequence[int]]) -> None:
        self.bytes_of: list[bytes] = [b"" if byte == END else bytes([byte]) for byte in range(256)]
        self._ranks: dict[tuple[int, int], int] = {}
        for index, (left, right) in enumerate(merges):
            if not (0 < left < 256 + index and 0 < right < 256 + index):
                raise ValueError(f"merge {index} joins {left} and {right}; expected tokens that exist before it")
            self.bytes_of.append(self.bytes_of[left] + self.bytes_of[right])
            self._ranks[left, right] = 256 + index
        self._known: dict[bytes, tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self.bytes_of)

    def encode(self, text: str) -> list[int]:
        """The text's tokens."""
        known = self._known
        tokens: list[int] = []
        for piece in pieces_of(text):
            joined = known.get(piece)
            if joined is None:
                if len(known) >= _CACHED:
                    known.clear()
                joined = known[piece] = self._join(piece)
            tokens += joined
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """Their text; bytes that are no UTF-8 are replaced."""
        return b"".join([self.bytes_of[token] for token in tokens]).decode(errors="replace")

    def _join(self, piece: bytes) -> tuple[int, ...]:
        tokens = list(piece)
        never = len(self.bytes_of)
        while len(tokens) > 1:
            ranked = [self._ranks.get(pair, never) for pair in pairwise(tokens)]
            best = min(ranked)
            if best == never:
                break
            at = ranked.index(best)
            tokens[at : at + 2] = [best]
        return tuple(tokens)
