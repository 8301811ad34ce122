"""The rooms of the C++ core: a header includes only rooms on floors below its own, and no room does what it may not."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from cpp_source import ROOT, cpp_files, without_comments

# Upper floors first. Rooms on one floor do not see each other.
FLOORS = [
    {"sim"},
    {"sched"},
    {"route", "share", "forecast"},
    {"queue"},
    {"sync", "score", "text"},
    {"core"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

_PYTHON = (r"#\s*include\s*[<\"](pybind11/|Python\.h|.*/Python\.h)", "knows no Python: that is csrc/bindings")
_FENCE = (
    r"\batomic_(thread|signal)_fence\b",
    "uses no fence: the thread sanitizer cannot see one; order a load or store",
)
_CLOCK = (
    r"\b(system|steady|high_resolution|utc|tai|gps|file)_clock\b|\bclock_gettime\b|\bgettimeofday\b|\bstd::time\b",
    "reads no clock: take an Instant",
)
_THREAD = (
    r"#\s*include\s*<(pthread\.h|future)>|\bstd::j?thread\b|\bstd::async\b|\bpthread_create\b",
    "starts no thread: that is csrc/runtime",
)
_SLEEP = (r"\bsleep_(for|until)\b|\bnanosleep\b", "sleeps nowhere: time is passed in")
_LIBM_NAMES = (
    "exp exp2 expm1 log log2 log10 log1p pow sin cos tan sinh cosh tanh asin acos atan atan2 cbrt hypot erf erfc "
    "tgamma lgamma"
)
_LIBM = (
    rf"\bstd::({'|'.join(_LIBM_NAMES.split())})f?\s*\(",
    "uses no libm whose last bit varies: take zeta/core/math.hpp",
)
_RANDOM = (r"#\s*include\s*<random>|\bstd::\w+_distribution\b|\bstd::mt19937", "draws from zeta/core/rng.hpp only")

# Which sentence holds below which directory.
RULES = {
    "csrc/include": [_PYTHON, _FENCE, _CLOCK, _THREAD, _SLEEP, _LIBM, _RANDOM],
    "csrc/runtime": [_PYTHON, _FENCE],
    "csrc/bindings": [_FENCE, _CLOCK, _THREAD],
    "csrc/tests": [_PYTHON, _FENCE],
}


def floor_breaches(room: str, code: str) -> Iterator[tuple[int, str]]:
    """Lines of a header of `room` that include a room it may not see."""
    for match in re.finditer(r'#\s*include\s*[<"](zeta/(\w+)/[^">]*|[^">]*\.\./[^">]*)[">]', code):
        line = code.count("\n", 0, match.start()) + 1
        target = match.group(2)
        if target is None:
            yield line, f"includes {match.group(1)}: write the path from csrc/include"
        elif target not in FLOOR_OF:
            yield line, f"includes zeta/{target}/, a room that tools/check_include_floors.py does not know"
        elif target != room and FLOOR_OF[target] <= FLOOR_OF[room]:
            yield line, f"is in {room} and may include only rooms below it; {target} is not below"


def breaches(path: Path, directory: str) -> Iterator[tuple[int, str]]:
    """Every breach in one file, as line and sentence."""
    code = without_comments(path.read_text())
    if directory == "csrc/include":
        parts = path.relative_to(ROOT / directory).parts
        if len(parts) < 3 or parts[0] != "zeta" or parts[1] not in FLOOR_OF:
            yield 1, f"lies outside the rooms {', '.join(FLOOR_OF)}"
        else:
            yield from floor_breaches(parts[1], code)
    for pattern, sentence in RULES[directory]:
        for match in re.finditer(pattern, code):
            yield code.count("\n", 0, match.start()) + 1, sentence


def main() -> int:
    """Prints each breach; 1 if there is one."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {sentence}"
        for directory in RULES
        for path in cpp_files(directory)
        for line, sentence in breaches(path, directory)
    ]
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
