"""The exposition is what Prometheus reads, says what the router says, and names nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fake_gateway import ADMIN, CLIENT, MODELS, FakeGateway
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse

from zeta.clock import VirtualClock
from zeta.gateway._metrics import GatewayCollector, exposition

MakeGateway = Callable[..., FakeGateway]
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
LABELS = {
    "class",
    "device",
    "implementation",
    "le",
    "model",
    "outcome",
    "quantile",
    "reason",
    "replica",
    "status",
    "version",
}
UNITS = ("_seconds", "_bytes", "_ratio", "_tokens", "_watts", "_joules", "_hertz", "_celsius")


def scrape(gateway: FakeGateway, accept: str | None = None) -> str:
    body, content_type = asyncio.run(exposition(GatewayCollector(gateway, 1.7e9), accept))
    assert "charset=utf-8" in content_type
    return body.decode()


def families(gateway: FakeGateway) -> dict[str, Metric]:
    return {family.name: family for family in parse(scrape(gateway))}


def value(found: dict[str, Metric], name: str, **labels: str) -> float:
    (sample,) = (
        each for family in found.values() for each in family.samples if each.name == name and each.labels == labels
    )
    return float(sample.value)


@pytest.fixture
def loaded(make_gateway: MakeGateway) -> FakeGateway:
    gateway = make_gateway(has_keys=True, replicas=2)
    for _ in range(5):
        gateway.step(arrivals=60)
    gateway.observed.refused(401, "invalid_api_key")
    return gateway


def test_prometheus_own_parsers_read_it_and_find_the_same(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(clock=VirtualClock())  # nothing moves between the two scrapes
    gateway.step(arrivals=60)
    plain = {(s.name, *sorted(s.labels.items())): s.value for f in parse(scrape(gateway)) for s in f.samples}
    text = scrape(gateway, OPEN_METRICS)
    assert text.endswith("# EOF\n")
    assert text.count("# EOF") == 1
    rich = {(s.name, *sorted(s.labels.items())): s.value for f in parse_open_metrics(text) for s in f.samples}
    assert rich.keys() == plain.keys()


def test_each_family_is_described_once_in_base_units_and_by_our_own_words(loaded: FakeGateway) -> None:
    text = scrape(loaded)
    described = [line.split(" ")[2] for line in text.splitlines() if line.startswith("# HELP")]
    assert len(described) == len(set(described))
    assert len([line for line in text.splitlines() if line.startswith("# TYPE")]) == len(described)
    for family in parse(text):
        assert family.name.startswith(("zeta_", "process_"))
        assert family.documentation.endswith(".")
        assert not family.name.endswith(("_ms", "_us", "_ns", "_mhz", "_percent"))
        assert family.type != "unknown"
        for sample in family.samples:
            assert sample.labels.keys() <= LABELS
            if family.type == "counter":
                assert sample.name.endswith("_total")
            if family.type == "histogram":
                assert family.name.endswith("_seconds")


def test_counts_are_the_routers_own(loaded: FakeGateway) -> None:
    found, stats = families(loaded), loaded.router.stats()
    assert value(found, "zeta_requests_submitted_total") == stats["submitted"] > 0
    for outcome, count in stats["outcomes"].items():
        assert value(found, "zeta_requests_ended_total", outcome=outcome) == count
    for model, row in stats["models"].items():
        waiting = [
            value(found, "zeta_requests_waiting", model=model, **{"class": name})
            for name in ("urgent", "normal", "batch", "idle")
        ]
        assert waiting == row["waiting_by_class"]
        assert sum(waiting) == row["waiting"]
        assert value(found, "zeta_requests_running", model=model) == row["running"]
        assert value(found, "zeta_requests_arrived_total", model=model) == row["arrivals"]
    assert sum(row["waiting"] for row in stats["models"].values()) == stats["waiting"] > 0
    assert value(found, "zeta_refusals_total", status="401", reason="invalid_api_key") == 1


def test_histograms_hold_each_request_once(loaded: FakeGateway) -> None:
    found = families(loaded)
    completed = loaded.router.stats()["outcomes"]["completed"]
    for name in ("zeta_ttft_seconds", "zeta_tpot_seconds", "zeta_request_duration_seconds"):
        family = found[name]
        of = {s.labels["model"]: s.value for s in family.samples if s.name == f"{name}_count"}
        assert sum(of.values()) == completed > 0
        for model in of:
            buckets = [s.value for s in family.samples if s.name == f"{name}_bucket" and s.labels["model"] == model]
            assert buckets == sorted(buckets)
            assert buckets[-1] == of[model]
    placed = sum(s.value for s in found["zeta_queue_wait_seconds"].samples if s.name.endswith("_count"))
    assert value(found, "zeta_decision_seconds_count") == placed >= completed


def test_readings_are_in_base_units_with_their_age_and_the_unknown_is_left_out(loaded: FakeGateway) -> None:
    found = families(loaded)
    assert value(found, "zeta_device_sm_clock_hertz", device="GPU-0a1b") == 1.98e9
    assert value(found, "zeta_device_memory_total_bytes", device="GPU-0a1b") == 141e9
    assert 400 <= value(found, "zeta_device_power_watts", device="GPU-0a1b") <= 600
    assert value(found, "zeta_device_energy_joules_total", device="GPU-0a1b") == 1e6
    assert 0 <= value(found, "zeta_device_reading_age_seconds", device="GPU-0a1b") < 60
    assert value(found, "zeta_engine_ttft_seconds_count", replica=f"{MODELS[0]}-0") == 80
    assert value(found, "zeta_host_load_1m") == 2.0
    assert found["zeta_device_memory_clock_hertz"].samples == []
    assert found["zeta_engine_awake"].samples == []


def test_without_a_monitor_there_are_no_readings(make_gateway: MakeGateway) -> None:
    gateway = make_gateway()
    gateway.monitor = None
    assert not [name for name in families(gateway) if name.startswith(("zeta_device", "zeta_host", "zeta_engine"))]


def test_no_key_prompt_tenant_request_or_address_stands_in_it(loaded: FakeGateway) -> None:
    loaded.observed.refused(400, "canary-prompt")
    loaded.observed.placed("canary-model", 1, 1.0, 1.0, "canary-reason of mine")
    loaded.observed.ended("canary-model", "canary-tenant", "completed", None, None, 1.0, None, None)
    text = scrape(loaded)
    for secret in (ADMIN, CLIENT, "canary", "acme", "req-", "10.0.0."):
        assert secret not in text


def test_the_event_loop_gets_a_turn_between_families(loaded: FakeGateway) -> None:
    async def work() -> int:
        turns = 0

        async def beside() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(beside())
        await exposition(GatewayCollector(loaded), None)
        task.cancel()
        return turns

    assert asyncio.run(work()) > 40


def test_names_with_quotes_and_line_ends_are_escaped(make_gateway: MakeGateway) -> None:
    gateway = make_gateway()
    gateway.add_replica(MODELS[0], _replica('odd"\\\nname'))
    labels: list[dict[str, Any]] = [s.labels for s in families(gateway)["zeta_replica_healthy"].samples]
    assert {"model": MODELS[0], "replica": 'odd"\\\nname'} in labels


def _replica(name: str) -> Any:
    from zeta.config import Replica

    return Replica(name, "http://10.0.0.1/v1")
