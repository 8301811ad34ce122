"""Prometheus text, read fast: only the wanted lines, each series taken apart once by prometheus_client."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from zeta.errors import MissingExtraError

__all__ = ["PrometheusText", "Series"]

Labels = Mapping[str, str]
Series = dict[str, list[tuple[Labels, float]]]
"""By metric name, each series' labels and value."""

_MAX_SERIES: Final = 4096
_SEARCH_EVERY: Final = 16


class PrometheusText:
    """Reads the same server's page again and again.

    Parameters
    ----------
    names : iterable of str
        Metrics of interest; all other lines are skipped unread.

    Raises
    ------
    MissingExtraError
        Without the package prometheus-client, which knows the format's quoting and numbers.

    Notes
    -----
    A page has hundreds of lines, most of them buckets, and hardly ever changes but in its numbers. Where the wanted
    lines stand is remembered; a read looks there first, and searches when it finds another line or another number of
    lines, and every sixteenth time. What precedes a value is taken apart by the library when it is new.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._parse = _parser()
        any_name = b"|".join(re.escape(name.encode()) for name in sorted(names))
        labels = rb'\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\}'
        # Name, labels and value; behind it perhaps a timestamp, which nobody needs.
        self._line = re.compile(rb"((?:%b)(?:%b)?)[ \t]+([^ \t]+)(?:[ \t].*)?" % (any_name, labels))
        self._known: dict[bytes, tuple[str, Labels] | None] = {}
        self._places: list[tuple[int, bytes, tuple[str, Labels]]] = []
        self._count = -1
        self._reads = 0

    def read(self, page: bytes) -> Series:
        """The wanted series that have a number; NaN and infinities are left out."""
        lines = page.split(b"\n")
        is_as_before = len(lines) == self._count and all(lines[at].startswith(start) for at, start, _ in self._places)
        if not is_as_before or self._reads % _SEARCH_EVERY == 0:
            self._find(lines)
        self._reads += 1
        found: Series = {}
        for at, start, (name, labels) in self._places:
            try:
                value = float(lines[at][len(start) :].split(None, 1)[0])
            except (ValueError, IndexError):
                continue
            if math.isfinite(value):
                found.setdefault(name, []).append((labels, value))
        return found

    def _find(self, lines: list[bytes]) -> None:
        if len(self._known) > _MAX_SERIES:
            self._known.clear()  # labels that never repeat, such as those of a request
        self._count = len(lines)
        self._places = []
        for at, line in enumerate(lines):
            match = self._line.fullmatch(line.rstrip(b"\r"))
            if match is None:
                continue
            series = match[1]
            if series not in self._known:
                self._known[series] = self._take_apart(series.decode("utf-8", errors="replace"))
            known = self._known[series]
            if known is not None:
                # The blank belongs to it: a name may begin as another does.
                self._places.append((at, line[: match.end(1) + 1], known))

    def _take_apart(self, series: str) -> tuple[str, Labels] | None:
        try:
            (sample,) = [sample for family in self._parse(f"{series} 0\n") for sample in family.samples]
        except Exception:
            # The library raises what happens to it on bad input; a line that it cannot read has no value.
            return None
        return sample.name, dict(sample.labels)


def _parser() -> Callable[[str], Iterable[Any]]:
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ImportError as error:
        raise MissingExtraError("reading an engine's metrics", ["prometheus-client"], "engines") from error
    parse: Callable[[str], Iterable[Any]] = text_string_to_metric_families
    return parse
