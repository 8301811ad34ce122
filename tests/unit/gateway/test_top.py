"""``zeta top`` against a gateway's own routes."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from aiohttp import web
from fake_gateway import ADMIN, MODELS, FakeGateway

from zeta.cli import main
from zeta.gateway._control import make_control_app

MakeGateway = Callable[..., FakeGateway]


@pytest.fixture
def serve() -> Iterator[Callable[[FakeGateway], str]]:
    """Serves a gateway from a thread; its address."""
    stops: list[Callable[[], None]] = []

    def served(gateway: FakeGateway) -> str:
        loop = asyncio.new_event_loop()
        port: list[int] = []
        is_up = threading.Event()

        def run() -> None:
            runner = web.AppRunner(make_control_app(gateway), access_log=None)
            loop.run_until_complete(runner.setup())
            loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", 0).start())
            port.append(runner.addresses[0][1])
            is_up.set()
            loop.run_forever()
            loop.run_until_complete(runner.cleanup())
            loop.close()

        thread = threading.Thread(target=run)
        thread.start()
        assert is_up.wait(10)
        stops.extend([lambda: loop.call_soon_threadsafe(loop.stop), thread.join])
        return f"http://127.0.0.1:{port[0]}"

    yield served
    for stop in stops:
        stop()


def test_once_prints_models_replicas_readings_and_decisions(
    make_gateway: MakeGateway, serve: Callable[[FakeGateway], str], capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = make_gateway()
    gateway.step(arrivals=80)
    assert main(["top", "--once", "--url", serve(gateway)]) == 0
    said = capsys.readouterr().out
    for wanted in (*MODELS, f"{MODELS[0]}-0", "NVIDIA H200 (made up)", "ready", "Last decisions", "urgent"):
        assert wanted in said
    stats = gateway.router.stats()
    assert f"{stats['waiting']} waiting, {stats['running']} running, {stats['outcomes']['completed']} completed" in said
    assert "canary" not in said


def test_a_key_comes_from_the_environment_and_its_lack_is_said(
    make_gateway: MakeGateway,
    serve: Callable[[FakeGateway], str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = serve(make_gateway(has_keys=True, open_metrics=False))
    monkeypatch.delenv("ZETA_API_KEY", raising=False)
    assert main(["top", "--once", "--url", url]) == 2
    assert "put one that it knows into ZETA_API_KEY" in capsys.readouterr().err
    monkeypatch.setenv("ZETA_API_KEY", ADMIN)
    assert main(["top", "--once", "--url", f"{url}/v1"]) == 0
    assert ADMIN not in capsys.readouterr().out


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ftp://x", "http://user:pass@127.0.0.1:1"])
def test_no_gateway_there_is_one_sentence(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--once", "--url", url]) == 2
    said = capsys.readouterr().err
    assert said.startswith("zeta: ")
    assert said.count("\n") == 1


def test_in_a_terminal_it_goes_on_until_interrupted(
    make_gateway: MakeGateway, serve: Callable[[FakeGateway], str]
) -> None:
    pytest.importorskip("rich")
    gateway = make_gateway()
    gateway.step()
    url = serve(gateway)
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "zeta", "top", "--url", url, "--interval", "0.1"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "COLUMNS": "200", "LINES": "60", "TERM": "xterm-256color"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job begins with it ignored
    )
    os.close(theirs)
    text = ""
    looks: set[str] = set()
    until_s = time.monotonic() + 20
    while len(looks) < 3 and time.monotonic() < until_s:  # until it has drawn three different states
        text += os.read(ours, 65_536).decode(errors="replace")
        looks = set(re.findall(r"(\d+) waiting", text))
        gateway.step(arrivals=7, endings=0)
    child.send_signal(signal.SIGINT)
    try:
        while os.read(ours, 65_536):
            pass
    except OSError:  # the other side is closed
        pass
    assert child.wait(10) == 130
    assert len(looks) >= 3
    os.close(ours)
    assert all(name in text for name in MODELS)
    assert "Traceback" not in text
