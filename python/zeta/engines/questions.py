"""Made-up questions with their answers, and made-up stories: text without end that needs more than grammar.

Some kinds only need a good memory for what was learnt (opposites, days), some need what stands in the question
(who has what, backwards), some need a little computing (sums, sorting). A larger model gets more of them right.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

__all__ = ["KINDS", "chat_text", "question", "story"]

_NAMES: Final = ("Ann", "Tom", "Mia", "Ben", "Eva", "Leo", "Ida", "Max", "Zoe", "Sam", "Nora", "Paul")
_THINGS: Final = ("lamp", "cup", "book", "key", "coat", "map", "drum", "kite", "rope", "bell", "coin", "hat")
_COLOURS: Final = ("red", "green", "blue", "white", "black", "grey", "brown", "pink")
_PLACES: Final = ("lake", "market", "hill", "harbour", "garden", "station", "forest", "bridge")
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_OPPOSITES: Final = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("old", "new"), ("high", "low"), ("long", "short"),
    ("open", "closed"), ("full", "empty"), ("early", "late"), ("wet", "dry"), ("hard", "soft"), ("light", "dark"),
    ("rich", "poor"), ("loud", "quiet"), ("near", "far"), ("first", "last"), ("up", "down"), ("busy", "idle"),
)  # fmt: skip
_NUMBERS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

Maker = Callable[[random.Random], tuple[str, str]]


def _opposite(dice: random.Random) -> tuple[str, str]:
    one, other = dice.choice(_OPPOSITES)
    if dice.random() < 0.5:
        one, other = other, one
    return f"What is the opposite of {one}?", f"The opposite of {one} is {other}."


def _after(dice: random.Random) -> tuple[str, str]:
    kind, row = dice.choice((("day", _DAYS), ("month", _MONTHS)))
    at = dice.randrange(len(row))
    word, step = dice.choice((("after", 1), ("before", -1)))
    return f"Which {kind} comes {word} {row[at]}?", f"{row[(at + step) % len(row)]} comes {word} {row[at]}."


def _larger(dice: random.Random) -> tuple[str, str]:
    one, other = dice.sample(range(100), 2)
    word, pick = dice.choice((("larger", max), ("smaller", min)))
    return f"Which is {word}, {one} or {other}?", f"{pick(one, other)} is {word}."


def _sum(dice: random.Random) -> tuple[str, str]:
    one, other = dice.randrange(50), dice.randrange(50)
    return f"What is {one} plus {other}?", f"{one} plus {other} is {one + other}."


def _owner(dice: random.Random) -> tuple[str, str]:
    names, things = dice.sample(_NAMES, 3), dice.sample(_THINGS, 3)
    told = [f"{name} has the {thing}" for name, thing in zip(names, things, strict=True)]
    at = dice.randrange(3)
    return f"{told[0]}, {told[1]}, {told[2]}. Who has the {things[at]}?", f"{names[at]} has the {things[at]}."


def _backwards(dice: random.Random) -> tuple[str, str]:
    words = dice.sample(_COLOURS, dice.choice((2, 3)))
    return f"Say {' '.join(words)} backwards.", f"{' '.join(reversed(words))}."


def _sorted(dice: random.Random) -> tuple[str, str]:
    digits = dice.sample(range(10), dice.choice((3, 4)))
    return f"Sort {', '.join(map(str, digits))}.", f"{', '.join(map(str, sorted(digits)))}."


def _counted(dice: random.Random) -> tuple[str, str]:
    word = dice.choice(_COLOURS)
    count = dice.randrange(1, 7)
    return f"How many words are these: {' '.join([word] * count)}?", f"These are {_NUMBERS[count]} words."


KINDS: Final[dict[str, Maker]] = {
    "opposite": _opposite,
    "after": _after,
    "larger": _larger,
    "sum": _sum,
    "owner": _owner,
    "backwards": _backwards,
    "sorted": _sorted,
    "counted": _counted,
}


def chat_text(prompt: str) -> str:
    """How a question stands before its answer."""
    return f"Q: {prompt}\nA:"


def question(dice: random.Random, kind: str) -> tuple[str, str]:
    """A question of this kind, and its answer."""
    return KINDS[kind](dice)


def story(dice: random.Random) -> tuple[str, str]:
    """A request for a story about somebody and something, and one that keeps to them."""
    name, other = dice.sample(_NAMES, 2)
    thing, colour, place = dice.choice(_THINGS), dice.choice(_COLOURS), dice.choice(_PLACES)
    day = dice.choice(_DAYS)
    lines = [
        dice.choice(
            (
                f"On {day} {name} went to the {place}.",
                f"{name} lived near the {place}.",
                f"One {day} {name} walked to the {place} with {other}.",
            )
        ),
        dice.choice(
            (
                f"There was a {colour} {thing} on the ground.",
                f"{name} had a {colour} {thing} and liked it very much.",
                f"{name} was looking for a {colour} {thing}.",
            )
        ),
        dice.choice(
            (
                f'"Is this your {thing}?" asked {other}.',
                f'"I have never seen such a {thing}," said {other}.',
                f'"May I have the {thing}?" asked {other}.',
            )
        ),
        dice.choice(
            (
                f'"Yes," said {name}, "the {colour} {thing} is mine."',
                f'"No," said {name}, "but we can ask at the {place}."',
                f'"Take the {thing}," said {name}, "and bring it back on {dice.choice(_DAYS)}."',
            )
        ),
        dice.choice(
            (
                f"So {name} gave the {thing} to {other}.",
                f"So they took the {thing} and went home.",
                f"So {other} and {name} hid the {thing} near the {place}.",
            )
        ),
        dice.choice(
            (
                f"Everybody at the {place} still talks about the {colour} {thing}.",
                f"After that {other} and {name} were friends.",
                f"{name} never lost the {thing} again.",
            )
        ),
    ]
    return f"Tell a story about {name} and a {colour} {thing}.", " ".join(lines)
