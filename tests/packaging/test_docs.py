"""The documentation leads somewhere: every link to a file or heading, and every path of the glossary, exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?://)(?P<path>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")
CODE_PATH = re.compile(r"`((?:zeta|csrc|python)/[\w/.]+)`")


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    dead = []
    for link in LINK.finditer(page.read_text()):
        target = (page.parent / link["path"]).resolve() if link["path"] else page
        if not target.exists() or (link["anchor"] and link["anchor"] not in anchors(target)):
            dead.append(link[0])
    assert dead == []


def test_every_page_is_listed() -> None:
    docs = ROOT / "docs"
    listed = {link["path"] for link in LINK.finditer((docs / "README.md").read_text())}
    assert {page.name for page in docs.glob("*.md")} - listed == {"README.md"}


def test_every_word_of_the_glossary_lives_where_it_says() -> None:
    found = CODE_PATH.findall((ROOT / "docs" / "glossary.md").read_text())
    paths = [ROOT / ("csrc/include" if path.startswith("zeta/") else "") / path for path in found]
    assert len(paths) > 80
    assert [path for path in paths if not path.exists()] == []
