"""One self-contained HTML page with tables and plots, drawn by plotly.

The page asks nothing of the network: plotly.js stands in it once (4.5 MB), which buys zooming into a day, and plotly
already comes with the extra ``cli``.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zeta.errors import MissingExtraError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["COLOURS", "Section", "html_figure", "html_table", "need_plotly", "write_page"]

COLOURS = ("#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""

Section = tuple[str, str]
"""A heading in plain text, and the HTML below it."""


def need_plotly() -> None:
    """Checks that a page can be drawn, before anything long begins.

    Raises
    ------
    MissingExtraError
        If plotly is not installed.
    """
    import importlib.util

    if importlib.util.find_spec("plotly") is None:
        raise MissingExtraError("the HTML report", ["plotly"], "cli")


def html_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain texts."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html_figure(figure: Figure) -> str:
    """A plotly figure as a part of a page that `write_page` writes."""
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False}))


def write_page(
    path: str | Path,
    title: str,
    heading: Sequence[str],
    table: str,
    sections: Sequence[Section],
    remarks: Sequence[str] = (),
) -> None:
    """Writes the page: `title`, a paragraph for each line of `heading`, `table`, `remarks`, links and `sections`.

    Raises
    ------
    MissingExtraError
        If plotly is not installed.
    """
    need_plotly()
    from plotly.offline import get_plotlyjs

    links = " · ".join(f'<a href="#part{at}">{html.escape(name)}</a>' for at, (name, _) in enumerate(sections))
    page = _PAGE.format(
        title=html.escape(title),
        plotly=get_plotlyjs(),
        heading=_paragraphs(heading),
        table=table,
        remarks=_paragraphs(remarks),
        links=f"<nav>{links}</nav>" if len(sections) > 1 else "",
        sections="".join(
            f'<section id="part{at}"><h2>{html.escape(name)}</h2>{body}</section>'
            for at, (name, body) in enumerate(sections)
        ),
    )
    Path(path).write_text(page, encoding="utf-8")


def _paragraphs(lines: Sequence[str]) -> str:
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1200px; padding: 0 1em; color: #222; }}
h1 {{ font-size: 1.5em; }} h2 {{ font-size: 1.15em; margin: 2em 0 0; border-top: 1px solid #ddd; padding-top: 1em; }}
table {{ border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; font-size: 0.82em; }}
th, td {{ padding: 0.25em 0.55em; text-align: right; border-bottom: 1px solid #e4e4e4; vertical-align: bottom; }}
td {{ white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; }}
.wide {{ overflow-x: auto; }}
</style>
<script>{plotly}</script>
</head><body><h1>{title}</h1>{heading}<div class="wide">{table}</div>{remarks}{links}{sections}</body></html>
"""
