"""What the language models read: this project's own documentation and code, and made-up questions and stories."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import re
from pathlib import Path
from typing import Final

from zeta.engines.questions import KINDS, chat_text, question, story
from zeta.errors import ConfigError

__all__ = ["Corpus", "gather"]

_HELD_OUT_EVERY: Final = 12
_STORIES: Final = 0.25
"""Of the made-up texts."""
_SOURCES: Final = ("python/zeta/**/*.py", "csrc/**/*.?pp", "tests/**/*.py", "bench/**/*.py", "bench/**/*.?pp")
_PART_LETTERS: Final = 2000
_SHORTEST_LETTERS: Final = 200


@dataclasses.dataclass(frozen=True, slots=True)
class Corpus:
    """Texts to learn from and texts held out, of two sources.

    Attributes
    ----------
    own, own_held_out : tuple of str
        This project's pages and sources, in parts.
    made_up, made_up_held_out : tuple of str
        Questions with answers, and stories.
    fingerprint : str
        SHA-256 of all of it.
    """

    own: tuple[str, ...]
    own_held_out: tuple[str, ...]
    made_up: tuple[str, ...]
    made_up_held_out: tuple[str, ...]
    fingerprint: str


def gather(root: Path, *, made_up: int, seed: int) -> Corpus:
    """Everything from the checkout at `root`, and `made_up` texts; a twelfth of each is held out.

    Raises
    ------
    ConfigError
        If `root` is no checkout of zeta.
    """
    pages = sorted([*root.glob("*.md"), *root.glob("docs/**/*.md")])
    if not (root / "docs").is_dir() or not pages:
        raise ConfigError(f"{root} has no docs/; expected a checkout of zeta, whose own texts the models learn from")
    own = [text for page in pages for text in _sections(page.read_text())]
    for pattern in _SOURCES:
        own += [text for path in sorted(root.glob(pattern)) for text in _parts(path.read_text())]
    own = list(dict.fromkeys(own))  # what stands twice must not be learnt and held out
    dice = random.Random(seed)
    texts = [_made_up(dice) for _ in range(made_up)]
    learnt = [text for at, text in enumerate(texts) if at % _HELD_OUT_EVERY]
    seen = set(learnt)
    held_out = [text for text in texts[::_HELD_OUT_EVERY] if text not in seen]
    parts = (
        tuple(text for text in own if not _is_held_out(text)),
        tuple(text for text in own if _is_held_out(text)),
        tuple(learnt),
        tuple(held_out),
    )
    digest = hashlib.sha256("\0\0".join("\0".join(part) for part in parts).encode()).hexdigest()
    return Corpus(*parts, digest)


def _made_up(dice: random.Random) -> str:
    if dice.random() < _STORIES:
        asked, told = story(dice)
    else:
        asked, told = question(dice, dice.choice(tuple(KINDS)))
    return f"{chat_text(asked)} {told}"


def _sections(page: str) -> list[str]:
    """A page, cut before its headings."""
    return [part.strip() for part in re.split(r"(?m)^(?=#+ )", page) if len(part) > _SHORTEST_LETTERS]


def _parts(source: str) -> list[str]:
    """A source file, cut at empty lines into parts of some thousand letters."""
    parts, part = [], ""
    for block in source.split("\n\n"):
        part = f"{part}\n\n{block}" if part else block
        if len(part) > _PART_LETTERS:
            parts.append(part.strip())
            part = ""
    return [each for each in (*parts, part.strip()) if len(each) > _SHORTEST_LETTERS]


def _is_held_out(text: str) -> bool:
    """By the text itself, so that it stays on its side when others come and go."""
    return hashlib.sha256(text.encode()).digest()[0] % _HELD_OUT_EVERY == 0
