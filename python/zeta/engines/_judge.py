"""How good the exported models are: bits per byte of texts held out, and how many questions they answer."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np

from zeta.engines._lm import LanguageModel
from zeta.engines._tokens import END
from zeta.engines.questions import KINDS, chat_text, question

__all__ = ["answers_right", "bits_per_byte"]

_ROWS = 64


def bits_per_byte(model: LanguageModel, texts: Sequence[str]) -> float:
    """Cross-entropy of the texts, each read from its start and with its end, by the bytes that they have."""
    bits, size = 0.0, sum(len(text.encode()) for text in texts)
    ordered = sorted(([END, *model.tokens.encode(text), END] for text in texts), key=len)
    for first in range(0, len(ordered), _ROWS):
        rows = ordered[first : first + _ROWS]
        states = model.empty_states(len(rows))
        for at in range(max(map(len, rows)) - 1):
            # Sorted by length: those that have ended are the first ones.
            gone = sum(len(row) - 1 <= at for row in rows)
            rows, states = rows[gone:], np.ascontiguousarray(states[:, gone:])
            logits, states, _ = model.step(np.array([row[at] for row in rows]), states)
            highest = logits.max(axis=1)
            total = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
            told = logits[np.arange(len(rows)), [row[at + 1] for row in rows]]
            bits += float((total - told).sum()) / math.log(2)
    return bits / size


def answers_right(model: LanguageModel, *, each: int, seed: int) -> dict[str, float]:
    """By kind of question, the part answered word for word."""
    found = {}
    for kind in KINDS:
        dice = random.Random(f"{seed}:{kind}")
        asked = [question(dice, kind) for _ in range(each)]
        told = _answers(model, [chat_text(prompt) for prompt, _ in asked], 40)
        found[kind] = sum(text.strip() == right for text, (_, right) in zip(told, asked, strict=True)) / each
    return found


def _answers(model: LanguageModel, prompts: Sequence[str], limit: int) -> list[str]:
    pieces = [[END, *model.tokens.encode(prompt)] for prompt in prompts]
    logits, states, _ = model.read(pieces, model.empty_states(len(pieces)))
    rows: list[list[int]] = [[] for _ in prompts]
    for _ in range(limit):
        best = logits.argmax(axis=1)
        for row, token in zip(rows, best, strict=True):
            row.append(int(token))
        logits, states, _ = model.step(best, states)
    return [model.tokens.decode(row[: row.index(END)] if END in row else row) for row in rows]
