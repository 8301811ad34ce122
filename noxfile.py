"""The daily sessions: `nox -l` lists them, `nox -s tests` runs one. Each is a target of the Makefile."""

from __future__ import annotations

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "tests", "native"]


def _make(session: nox.Session, target: str) -> None:
    session.run("make", target, *session.posargs, external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Formats, types, floors, memory edges, spelling."""
    _make(session, "gates")


@nox.session
def tests(session: nox.Session) -> None:
    """The fast Python tests, on a fresh build."""
    _make(session, "test-python")


@nox.session
def native(session: nox.Session) -> None:
    """The C++ tests, without Python."""
    _make(session, "test-native")


@nox.session
def tsan(session: nox.Session) -> None:
    """The C++ tests under the thread sanitizer."""
    _make(session, "test-tsan")


@nox.session
def asan(session: nox.Session) -> None:
    """The C++ tests under the address sanitizer."""
    _make(session, "test-asan")


@nox.session
def bench(session: nox.Session) -> None:
    """The short benchmarks."""
    _make(session, "bench")


@nox.session
def docs(session: nox.Session) -> None:
    """Runs every code block of the README and of docs/."""
    session.run("make", "test-python", "PYTEST_ARGS=tests/packaging/test_readme.py", external=True)


@nox.session
def wheel(session: nox.Session) -> None:
    """Builds the wheel and tests it in an empty environment."""
    _make(session, "wheel")
