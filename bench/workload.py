"""The requests that every contender is given: seeded, and made before any clock runs."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

__all__ = ["MODELS", "Scale", "Shape", "requests"]

MODELS = (("small-7b", 0.50), ("mid-8b", 0.55), ("large-14b", 0.70))  # name and quality


@dataclasses.dataclass(frozen=True, slots=True)
class Scale:
    """The size of the job: replicas per model, each with room for 64 requests, and requests that wait."""

    replicas: int
    depth: int

    def __str__(self) -> str:
        return f"{len(MODELS)} × {self.replicas}, {self.depth:,} queued"


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """Columns of requests; the lists hold the same values as Python objects."""

    prompt_tokens: NDArray[np.uint32]
    max_tokens: NDArray[np.uint32]
    deadline_ms: NDArray[np.float64]
    complexity: NDArray[np.float64]

    def rows(self) -> list[tuple[int, int, float, float]]:
        columns = (self.prompt_tokens, self.max_tokens, self.deadline_ms, self.complexity)
        return list(zip(*(column.tolist() for column in columns), strict=True))


def requests(count: int, seed: int = 1) -> Shape:
    """Prompts around 400 tokens with a long tail, deadlines of 1 to 60 s, complexity uniform."""
    rng = np.random.default_rng(seed)
    return Shape(
        prompt_tokens=np.minimum(rng.lognormal(6.0, 1.0, count) + 1, 16_000).astype(np.uint32),
        max_tokens=np.full(count, 256, np.uint32),
        deadline_ms=rng.uniform(1_000.0, 60_000.0, count),
        complexity=rng.uniform(0.0, 1.0, count),
    )
