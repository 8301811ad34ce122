"""Every expression of the Grafana dashboard names metrics and labels that the exposition really has."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_gateway import FakeGateway
from prometheus_client.parser import text_string_to_metric_families as parse

from zeta.gateway._metrics import GatewayCollector, exposition

ROOT = Path(__file__).resolve().parents[3]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "zeta.json").read_text(encoding="utf-8"))
SELECTOR = re.compile(r"\b((?:zeta|process)_\w+)\s*(\{[^}]*\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\bby\s*\(([^)]*)\)")
GIVEN_BY_PROMETHEUS = {"job", "instance"}
FUNCTIONS = {"by", "histogram_quantile", "label_values", "rate", "sum"}
Exposed = dict[str, list[dict[str, str]]]


def expressions() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]


ALL = list(expressions())
PANELS = [each for each in DASHBOARD["panels"] if each["type"] != "row"]


@pytest.fixture(scope="module")
def exposed() -> Exposed:
    """Labels of every sample, by the sample's name, of a gateway that has seen everything once."""
    gateway = FakeGateway()
    try:
        gateway.step(arrivals=80)
        gateway.observed.refused(429, "queue_full")
        until_s = time.monotonic() + 10  # the loop makes its first forecast after a second or two
        while True:
            body, _ = asyncio.run(exposition(GatewayCollector(gateway), None))
            found: Exposed = {}
            for family in parse(body.decode()):
                for sample in family.samples:
                    found.setdefault(sample.name, []).append(sample.labels)
            is_whole = {"zeta_forecast_work_ratio", "zeta_loop_late_seconds"} <= found.keys()
            if is_whole or time.monotonic() > until_s:
                return found
    finally:
        gateway.close()


@pytest.mark.parametrize("expression", [each for _, each in ALL], ids=[where for where, _ in ALL])
def test_each_selector_finds_something(expression: str, exposed: Exposed) -> None:
    selectors = SELECTOR.findall(expression)
    assert selectors
    for name, matchers in selectors:
        assert name in exposed, f"no sample is called {name}"
        wanted = [each for each in MATCHER.findall(matchers) if each[0] not in GIVEN_BY_PROMETHEUS]
        assert any(all(_fits(labels, each) for each in wanted) for labels in exposed[name]), f"{name}{matchers}"
        for group in GROUPING.findall(expression):
            assert {label.strip() for label in group.split(",")} <= exposed[name][0].keys()
    assert set(re.findall(r"\b([a-z_]+)\s*\(", expression)) <= FUNCTIONS
    assert expression.count("(") == expression.count(")")


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_legends_name_labels_that_are_left(panel: dict[str, Any], exposed: Exposed) -> None:
    for target in panel["targets"]:
        groups = GROUPING.findall(target["expr"])
        names = [name for name, _ in SELECTOR.findall(target["expr"])]
        left = {label.strip() for group in groups for label in group.split(",")} or exposed[names[0]][0].keys()
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= left


def test_it_runs_on_any_prometheus_and_panels_do_not_overlap() -> None:
    assert set(re.findall(r'"uid": "([^"]*)"', json.dumps(DASHBOARD))) == {"${datasource}", "zeta-gateway"}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells


def _fits(labels: dict[str, str], matcher: tuple[str, str, str]) -> bool:
    name, operator, value = matcher
    has = labels.get(name)
    if has is None:
        return False
    if value.startswith("$"):  # a variable of the dashboard
        return True
    return bool(re.fullmatch(value, has)) if operator == "=~" else has == value
