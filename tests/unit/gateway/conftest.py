"""A made-up gateway for each test, closed at its end."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))  # fake_gateway.py, beside the tests

NEEDED = ("aiohttp", "httptools", "msgspec", "prometheus_client", "uvloop")
if any(importlib.util.find_spec(name) is None for name in NEEDED):
    collect_ignore_glob = ["test_*.py"]
else:
    from fake_gateway import FakeGateway

    @pytest.fixture
    def make_gateway() -> Iterator[Callable[..., FakeGateway]]:
        made: list[FakeGateway] = []

        def make(**given: Any) -> FakeGateway:
            made.append(FakeGateway(**given))
            return made[-1]

        yield make
        for each in made:
            each.close()
