from __future__ import annotations

from pathlib import Path

import pytest

from zeta._page import html_table, write_page


def test_a_page_asks_nothing_of_the_network_and_escapes_what_it_is_given(tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="plotly is not installed: pip install 'zeta-router[cli]'")
    out = tmp_path / "page.html"
    table = html_table(["a<b", "c"], [["<script>", "1"]])
    write_page(out, "t & u", ["first <line>"], table, [("one", "<p>1</p>"), ("two", "<p>2</p>")], remarks=["so > that"])
    text = out.read_text()
    assert "<script src" not in text
    assert "&lt;script&gt;" in text
    for part in ("<title>t &amp; u</title>", "first &lt;line&gt;", "so &gt; that", 'href="#part1"', "<h2>two</h2>"):
        assert part in text


def test_one_section_needs_no_links(tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="plotly is not installed: pip install 'zeta-router[cli]'")
    out = tmp_path / "page.html"
    write_page(out, "t", [], html_table(["a"], []), [("one", "")])
    assert "<nav>" not in out.read_text()
