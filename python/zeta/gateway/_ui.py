"""The dashboard's page: one document with its styles and scripts in it, and the policy that lets nothing else in."""

from __future__ import annotations

import base64
import dataclasses
import functools
import gzip
import hashlib
import importlib.resources

__all__ = ["Page", "load_page"]

_STYLES = ("uPlot.min.css", "style.css")
_SCRIPTS = ("uPlot.iife.min.js", "charts.js", "app.js")


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """What ``/ui`` answers.

    Attributes
    ----------
    body, zipped : bytes
        The document, as it is and by gzip.
    policy : str
        Its ``Content-Security-Policy``: the very styles and scripts that stand in it, data from its own origin, and
        nothing else.
    tag : str
        Its ``ETag``.
    """

    body: bytes
    zipped: bytes
    policy: str
    tag: str


@functools.cache
def load_page() -> Page:
    """The page, put together once from the files beside this one."""
    folder = importlib.resources.files("zeta.gateway") / "ui"

    def read(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    styles = [read(name) for name in _STYLES]
    scripts = [read(name) for name in _SCRIPTS]
    document = (
        read("index.html")
        .replace("<!-- styles -->", "".join(f"<style>{text}</style>" for text in styles))
        .replace("<!-- scripts -->", "".join(f"<script>{text}</script>" for text in scripts))
    )
    body = document.encode()
    policy = (
        f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes(styles)}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Page(body, gzip.compress(body, mtime=0), policy, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def _hashes(texts: list[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
