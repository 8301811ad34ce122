"""Prometheus text, read fast: only the wanted lines, each series taken apart once by prometheus_client."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from zeta.errors import MissingExtraError

__all__ = ["Labels", "PrometheusText", "Series"]

Labels = Mapping[str, str]
Series = dict[str, list[tuple[Labels, float]]]
"""By metric name, each series' labels and value."""

_MAX_SERIES: Final = 4096
_SEARCH_EVERY: Final = 64
_NEAR: Final = 32


class PrometheusText:
    """Reads the same server's page again and again.

    Parameters
    ----------
    names : iterable of str
        Metrics of interest; all other lines are skipped unread.

    Attributes
    ----------
    series : list of (str, mapping of str to str)
        The wanted series of the last page: name and labels.
    searches : int
        How often `series` may have changed.

    Raises
    ------
    MissingExtraError
        Without the package prometheus-client, which knows the format's quoting and numbers.

    Notes
    -----
    A page has hundreds of lines, most of them buckets, and hardly ever changes but in its numbers. Where the wanted
    lines stand is remembered; a read looks there first, without taking the page apart. It searches the whole page when
    a line is gone or the number of lines is another, and every sixty-fourth time. What precedes a value is taken apart
    by the library when it is new.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._parse = _parser()
        any_name = b"|".join(re.escape(name.encode()) for name in sorted(set(names)))
        labels = rb'\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\}'
        # Name, labels and value; behind it perhaps a timestamp, which nobody needs.
        self._line = re.compile(rb"((?:%b)(?:%b)?)[ \t]+([^ \t]+)(?:[ \t].*)?" % (any_name, labels))
        self._known: dict[bytes, tuple[str, Labels] | None] = {}
        self.series: list[tuple[str, Labels]] = []
        self.searches = 0
        self._starts: list[bytes] = []  # of the wanted lines, from the newline before them to the blank before a value
        self._at: list[int] = []  # where each stood last
        self._count = -1
        self._reads = 0
        self._raw: list[bytes] = []
        self._numbers: list[float] = []

    def read(self, page: bytes) -> Series:
        """The wanted series that have a number; NaN and infinities are left out."""
        found: Series = {}
        numbers = self.numbers(page)
        for (name, labels), value in zip(self.series, numbers, strict=True):
            if math.isfinite(value):
                found.setdefault(name, []).append((labels, value))
        return found

    def numbers(self, page: bytes) -> list[float]:
        """The values of `series` on this page, NaN where there is none; the same list while none has changed."""
        if not page.startswith(b"#"):
            page = b"\n" + page  # so that each line that matters stands behind a newline
        if not page.endswith(b"\n"):
            page += b"\n"
        if page.count(b"\n") != self._count or self._reads % _SEARCH_EVERY == 0:
            self._search(page)
        self._reads += 1
        raw = self._collect(page)
        if raw is None:
            self._search(page)
            raw = self._collect(page) or []
        if raw != self._raw:
            self._raw, self._numbers = raw, [*map(_number, raw)]
        return self._numbers

    def _collect(self, page: bytes) -> list[bytes] | None:
        """What stands behind each start, in order; None where one is not found."""
        find = page.find
        raw: list[bytes] = []
        places: list[int] = []
        end = drift = 0
        for start, before in zip(self._starts, self._at, strict=True):
            # Numbers before it have grown or shrunk by some digits: it stands near where it stood, moved as the last.
            near = before + drift - _NEAR
            place = find(start, near if near > end else end, before + drift + _NEAR + len(start))
            if place < 0:
                place = find(start, end)
                if place < 0:
                    return None
            drift = place - before
            places.append(place)
            begin = place + len(start)
            end = find(b"\n", begin)
            raw.append(page[begin:end])
        self._at = places
        return raw

    def _search(self, page: bytes) -> None:
        if len(self._known) > _MAX_SERIES:
            self._known.clear()  # labels that never repeat, such as those of a request
        lines = page.split(b"\n")
        self._count = len(lines) - 1
        before, self._starts, self._at = self._starts, [], []
        series: list[tuple[str, Labels]] = []
        at = -1  # of the newline before the line
        for line in lines:
            match = self._line.fullmatch(line.rstrip(b"\r")) if at >= 0 else None
            if match is not None:
                text = match[1]
                if text not in self._known:
                    self._known[text] = self._take_apart(text.decode("utf-8", errors="replace"))
                known = self._known[text]
                if known is not None:
                    # The blank belongs to it: a name may begin as another does.
                    self._starts.append(b"\n" + line[: match.end(1) + 1])
                    self._at.append(at)
                    series.append(known)
            at += len(line) + 1
        if before != self._starts or not self.searches:
            self.series, self._raw, self._numbers = series, [], []
            self.searches += 1

    def _take_apart(self, series: str) -> tuple[str, Labels] | None:
        try:
            (sample,) = [sample for family in self._parse(f"{series} 0\n") for sample in family.samples]
        except Exception:
            # The library raises what happens to it on bad input; a line that it cannot read has no value.
            return None
        return sample.name, dict(sample.labels)


def _number(raw: bytes) -> float:
    try:
        return float(raw)
    except ValueError:
        pass
    try:
        return float(raw.split(None, 1)[0])  # a timestamp follows
    except (ValueError, IndexError):
        return math.nan


def _parser() -> Callable[[str], Iterable[Any]]:
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ImportError as error:
        raise MissingExtraError("reading an engine's metrics", ["prometheus-client"], "engines") from error
    parse: Callable[[str], Iterable[Any]] = text_string_to_metric_families
    return parse
