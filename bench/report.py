"""Tables for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bench.harness import Row, Spread

__all__ = ["Target", "print_rows", "print_table", "print_targets"]


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A figure that zeta promises: the gate must hold, the aim is chased. One without a gate always holds."""

    what: str
    unit: str
    measured: float
    gate: float | None
    aim: float | None = None
    is_least: bool = False  # more is better

    @property
    def holds(self) -> bool:
        if self.gate is None:
            return True
        return self.measured >= self.gate if self.is_least else self.measured <= self.gate


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table; the first column is text, the others are figures."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        print(f"\n{title}")
        for row in [header, *rows]:
            cells = zip(row, widths, strict=True)
            print("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(cells)))
        return
    table = Table(title=title, title_justify="left")
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=max(150, Console().width)).print(table)


def _figure(value: float) -> str:
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def _with_spread(spread: Spread) -> str:
    return f"{_figure(spread.median)} ({_figure(spread.least)}–{_figure(spread.most)})"


def print_rows(title: str, rows: Sequence[Row]) -> None:
    """Contenders in one run; ratios are to the first row's p50."""
    if not rows:
        return
    first = rows[0].us_p50.median
    print_table(
        f"{title}; µs, median of {rows[0].rounds} rounds (least–most)",
        ["contender", "p50", "p99", "p99.9", "operations/s", "p50 / first"],
        [
            [
                row.name,
                _with_spread(row.us_p50),
                _with_spread(row.us_p99),
                _with_spread(row.us_p999),
                f"{row.per_second.median:,.0f}",
                f"{row.us_p50.median / first:,.2f}×",
            ]
            for row in rows
        ],
    )


def print_targets(targets: Sequence[Target]) -> None:
    print_table(
        "Promises",
        ["figure", "measured", "gate", "aim", ""],
        [
            [
                target.what,
                f"{_figure(target.measured)} {target.unit}",
                "" if target.gate is None else f"{'≥' if target.is_least else '≤'} {_figure(target.gate)}",
                "" if target.aim is None else _figure(target.aim),
                "" if target.gate is None else "holds" if target.holds else "MISSED",
            ]
            for target in targets
        ],
    )
