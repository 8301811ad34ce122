"""Every ordered atomic names its edge (`// E12: …`), and docs/memory_model.md lists exactly the edges in use.

An edge joins a release to an acquire, so each id must stand at one of each. Operations without an explicit order are
refused: sequential consistency by default hides what was meant.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cpp_source import ROOT, cpp_files, without_comments

TABLE = ROOT / "docs" / "memory_model.md"
EDGE = re.compile(r"\bE\d+\b")
ORDER = re.compile(r"\bmemory_order(?:_|::)(acquire|release|acq_rel|seq_cst|consume)\b")
ANY_ORDER = re.compile(r"\bmemory_order\w*|\border\w*\b")
OPERATION = re.compile(
    r"(?:\.|->)(load|store|exchange|compare_exchange_(?:weak|strong)|fetch_(?:add|sub|and|or|xor)|test_and_set)\s*\("
)
MEMBER = re.compile(r"\b(?:Atomic|std::atomic)<[^;{}()]*>\s+(\w+)\s*(?:\{[^}]*\}|=[^;]*)?;")
SIDES = {"acquire": "a", "consume": "a", "release": "r", "acq_rel": "ar", "seq_cst": "ar"}


@dataclass(frozen=True, slots=True)
class Use:
    """One ordered operation: where it is, its order, and the edges named beside it."""

    place: str
    order: str
    edges: frozenset[str]


def comment_of(lines: list[str], code_lines: list[str], number: int) -> str:
    """The comments on a line and on the comment lines right above the statement that holds it (0-based)."""
    first = number
    # A statement may begin some lines above: go up until the line before ends one, opens a block or is blank code.
    while first > 0 and code_lines[first - 1].strip() and code_lines[first - 1].rstrip()[-1] not in ";{}:":
        first -= 1
    top = first
    while top > 0 and lines[top - 1].strip() and not code_lines[top - 1].strip():
        top -= 1
    return "\n".join(
        line[len(code.rstrip()) :]
        for line, code in zip(lines[top : number + 1], code_lines[top : number + 1], strict=True)
    )


def arguments_at(code: str, opening: int) -> str:
    """The text between the parenthesis at `opening` and its partner."""
    depth = 0
    for position in range(opening, len(code)):
        depth += {"(": 1, ")": -1}.get(code[position], 0)
        if depth == 0:
            return code[opening + 1 : position]
    return code[opening + 1 :]


def unordered_operations(code: str) -> Iterator[tuple[int, str]]:
    """Lines where an atomic is used without saying the order."""
    for match in OPERATION.finditer(code):
        if not ANY_ORDER.search(arguments_at(code, match.end() - 1)):
            yield code.count("\n", 0, match.start()) + 1, f".{match.group(1)}() without a memory order"
    for name in {match.group(1) for match in MEMBER.finditer(code)}:
        implicit = rf"(?:\+\+|--)\s*{name}\b|(?<![\w.>]){name}\s*(?:\+\+|--|[-+|&^]?=(?!=))"
        for match in re.finditer(implicit, code):
            yield code.count("\n", 0, match.start()) + 1, f"operator on the atomic {name} has the default order"


def read(path: Path) -> tuple[list[Use], list[str]]:
    """The ordered operations of one file, and what is wrong in it."""
    source = path.read_text()
    code = without_comments(source)
    lines, code_lines = source.splitlines(), code.splitlines()
    where = path.relative_to(ROOT)
    uses = [
        Use(f"{where}:{number + 1}", order, frozenset(EDGE.findall(comment_of(lines, code_lines, number))))
        for number, line in enumerate(code_lines)
        for order in ORDER.findall(line)
    ]
    wrong = [f"{where}:{line}: {what}" for line, what in unordered_operations(code)]
    wrong += [f"{use.place}: memory_order_{use.order} names no edge (// E12: …)" for use in uses if not use.edges]
    return uses, wrong


def main() -> int:
    """Prints what is wrong; 1 if there is something."""
    uses: list[Use] = []
    wrong: list[str] = []
    for path in cpp_files("csrc/include", "csrc/runtime", "csrc/bindings"):
        found, breaches = read(path)
        uses += found
        wrong += breaches

    sides: dict[str, set[str]] = defaultdict(set)
    for use in uses:
        for edge in use.edges:
            sides[edge] |= set(SIDES[use.order])
    rows = re.findall(r"^\|\s*(E\d+)\s*\|", TABLE.read_text(), re.MULTILINE)
    table = TABLE.relative_to(ROOT)
    wrong += [f"{table}: {edge} is listed twice" for edge in sorted(set(rows)) if rows.count(edge) > 1]
    wrong += [f"{table}: {edge} is used in the code but not listed" for edge in sorted(sides.keys() - set(rows))]
    wrong += [f"{table}: {edge} is listed but used nowhere" for edge in sorted(set(rows) - sides.keys())]
    for edge, ends in sorted(sides.items()):
        if "r" not in ends:
            wrong.append(f"{edge}: no release names it")
        if "a" not in ends:
            wrong.append(f"{edge}: no acquire names it")
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
