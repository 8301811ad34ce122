"""Many engines asked at once: one that is down, slow or gone holds up no other."""

from __future__ import annotations

import contextlib
import http.server
import logging
import threading
import time
from collections.abc import Iterator

import pytest
from tests.unit.monitor.engine_server import Server

from zeta.config import Config, Model, Replica
from zeta.errors import MonitorError, ProbeUnavailable
from zeta.monitor import EngineProbe, EnginesProbe, Kind, Probe, Reading
from zeta.monitor.snapshot import Board

NAMES = ("vllm_0.6", "vllm_0.33", "sglang_0.5", "llamacpp_b8600", "ollama_0.40")


@pytest.fixture
def servers() -> Iterator[dict[str, Server]]:
    """One engine of each kind."""
    servers = {name: Server() for name in NAMES}
    for name, server in servers.items():
        server.load(name)
    yield servers
    for server in servers.values():
        server.close()


@pytest.fixture
def probe(servers: dict[str, Server]) -> Iterator[EnginesProbe]:
    """Of them all, patient."""
    probe = EnginesProbe([EngineProbe(name, server.url) for name, server in servers.items()], deadline_s=20.0)
    yield probe
    probe.close()


def running(reading: Reading) -> dict[str, float | None]:
    return {name: row.get("running") for name, row in reading.rows.items()}


def hang(_: http.server.BaseHTTPRequestHandler) -> None:
    threading.Event().wait(5.0)


def test_engines_of_every_kind_are_read_at_once_as_each_is_alone(
    servers: dict[str, Server], probe: EnginesProbe
) -> None:
    assert isinstance(probe, Probe)
    assert probe.replicas == NAMES
    alone = {}
    for name, server in servers.items():
        with contextlib.closing(EngineProbe(name, server.url, deadline_s=20.0)) as one:
            alone[name] = one.read()
    for _ in range(3):
        together = probe.read()
        assert dict(together.rows) == {name: alone[name].rows[name] for name in NAMES}
        assert dict(together.details) == {name: alone[name].details[name] for name in NAMES}
        assert Board().publish(probe.name, probe.kind, together, 0, 1) == ""
    assert probe.kind is Kind.REPLICA


def test_a_replica_that_hangs_is_unknown_and_the_others_are_not(servers: dict[str, Server]) -> None:
    probe = EnginesProbe([EngineProbe(name, server.url) for name, server in servers.items()], deadline_s=1.0)
    expected = running(probe.read())
    servers["vllm_0.33"].pages["/metrics"] = hang
    began_s = time.monotonic()
    reading = probe.read()
    assert time.monotonic() - began_s < 3.0
    assert running(reading) == expected | {"vllm_0.33": None}
    assert "its time is over" in reading.details["vllm_0.33"]["failure"]
    asked = len(servers["vllm_0.33"].asked)
    began_s = time.monotonic()
    assert running(probe.read()) == expected | {"vllm_0.33": None}
    if time.monotonic() - began_s < 0.5:
        assert len(servers["vllm_0.33"].asked) == asked  # it is left alone for a second
    probe.close()


def test_a_replica_that_is_down_is_said_once_and_comes_back(
    servers: dict[str, Server], probe: EnginesProbe, caplog: pytest.LogCaptureFixture
) -> None:
    expected = running(probe.read())
    page = servers["sglang_0.5"].pages["/metrics"]
    servers["sglang_0.5"].pages["/metrics"] = 503
    for _ in range(3):
        assert running(probe.read())["sglang_0.5"] is None
    servers["sglang_0.5"].pages["/metrics"] = page
    until_s = time.monotonic() + 20.0
    while running(probe.read()) != expected:
        assert time.monotonic() < until_s
    said = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in said] == [logging.WARNING, logging.INFO]
    assert "'sglang_0.5' does not answer: GET /metrics: status 503" in said[0][1]
    assert said[1][1] == "replica sglang_0.5 answers again"


def test_a_read_fails_only_if_every_replica_does(servers: dict[str, Server], probe: EnginesProbe) -> None:
    probe.read()
    for server in servers.values():
        server.pages = dict.fromkeys(server.pages, 500)
    with pytest.raises(MonitorError, match=r"none of 5 replicas answers; replica 'vllm_0\.6' does not answer"):
        probe.read()
    with pytest.raises(ProbeUnavailable, match="no replica to ask"):
        EnginesProbe().read()
    servers["vllm_0.6"].pages = {"/metrics": b"nothing 1\n"}
    lonely = EnginesProbe([EngineProbe("r", servers["vllm_0.6"].url)], deadline_s=20.0)
    for _ in range(2):  # the second time nobody is asked
        with pytest.raises(ProbeUnavailable, match="none of 1 replicas answers; replica 'r': GET /metrics gives"):
            lonely.read()
    lonely.close()


def test_replicas_come_and_go(servers: dict[str, Server], probe: EnginesProbe) -> None:
    probe.remove("ollama_0.40")
    assert set(probe.read().rows) == set(NAMES) - {"ollama_0.40"}
    probe.add(EngineProbe("new", servers["ollama_0.40"].url))
    assert set(probe.read().rows) == (set(NAMES) | {"new"}) - {"ollama_0.40"}
    with pytest.raises(ValueError, match="'new' has a probe already"):
        probe.add(EngineProbe("new", "http://127.0.0.1:1"))
    with pytest.raises(KeyError):
        probe.remove("ollama_0.40")


def test_a_configuration_says_which_engines_there_are(servers: dict[str, Server]) -> None:
    replicas = [
        Replica("a", servers["vllm_0.6"].url + "/v1", engine="vllm"),
        Replica("b", servers["ollama_0.40"].url + "/v1/", engine="ollama"),
        Replica("without an address", engine="vllm"),
        Replica("of another kind", "http://127.0.0.1:1/v1", engine="openai"),
    ]
    probe = EnginesProbe.from_config(Config(models=(Model("m", 0.5, replicas=replicas),)), deadline_s=20.0)
    assert running(probe.read()) == {"a": 7, "b": None}
    probe.close()


def test_a_deadline_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="expected more than 0 seconds"):
        EnginesProbe(deadline_s=0.0)
