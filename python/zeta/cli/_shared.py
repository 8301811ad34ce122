"""What several commands use: tables and progress, with rich where it is installed and without it where it is not."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from zeta.sim.spec import Progress

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["print_table", "shown_progress"]


def print_table(names: Sequence[str], rows: Sequence[Sequence[str]], file: TextIO | None = None) -> None:
    """Prints a table: ruled by rich on a terminal, else in columns that other programs can cut."""
    out = sys.stdout if file is None else file
    if out.isatty() and importlib.util.find_spec("rich") is not None:
        from rich.console import Console
        from rich.table import Table

        table = Table()
        for at, name in enumerate(names):
            table.add_column(name, justify="left" if at == 0 else "right")
        for row in rows:
            table.add_row(*row)
        Console(file=out).print(table)
        return
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    for first, *others in (names, *rows):
        cells = [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]
        print("  ".join(cells), file=out)


@contextlib.contextmanager
def shown_progress() -> Iterator[Progress]:
    """A progress report on the error stream; silent where that is no terminal."""
    if not sys.stderr.isatty():
        yield _silent
    elif importlib.util.find_spec("rich") is None:
        yield _plain
        print(file=sys.stderr)
    else:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
        with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=1.0)

            def update(done: float, label: str) -> None:
                bar.update(task, completed=done, description=label)

            yield update


def _silent(done: float, label: str) -> None:  # noqa: ARG001 - the Protocol's names
    return None


def _plain(done: float, label: str) -> None:
    print(f"\r{100 * done:3.0f} % {label:<40}", end="", file=sys.stderr, flush=True)
