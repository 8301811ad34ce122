"""Each of these asks a fresh interpreter, so that what goes wrong does so there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

PREAMBLE = """
import asyncio, os, signal, sys, threading, time
import numpy as np
import zeta
def build(places=4, **options):
    model = zeta.Model("m", 0.5, replicas=(zeta.Replica("r", max_in_flight=places),))
    return zeta.Router([model], **options)
def submit(router, count=1):
    return [router.submit(prompt_tokens=10) for _ in range(count)]
"""

Ask = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ask() -> Ask:
    """Runs a script after PREAMBLE; a hang is a TimeoutExpired."""

    def run(
        script: str, timeout_s: float = 60.0, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-X", "faulthandler", "-c", PREAMBLE + script]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=env, check=False)

    return run
