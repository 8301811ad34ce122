"""The state document: now, and a point a second for ten minutes."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest
from fake_gateway import ADMIN, CLIENT, MODELS, FakeGateway

from zeta.clock import VirtualClock
from zeta.gateway._state import HISTORY_S, State

MakeGateway = Callable[..., FakeGateway]
SECOND_NS = 1_000_000_000
START_S = 1.7e9


def made(make_gateway: MakeGateway) -> tuple[FakeGateway, VirtualClock, State]:
    clock = VirtualClock()
    gateway = make_gateway(clock=clock)
    return gateway, clock, State(gateway, clock, lambda: START_S)


def test_the_document_says_what_the_router_says(make_gateway: MakeGateway) -> None:
    gateway, _, state = made(make_gateway)
    gateway.step(arrivals=100)
    document = json.loads(msgspec.json.encode(state.document(is_admin=True)))
    stats = gateway.router.stats()
    assert document["time_s"] == START_S
    assert document["outcomes"] == stats["outcomes"]
    assert (document["waiting"], document["running"]) == (stats["waiting"], stats["running"])
    assert document["classes"] == ["urgent", "normal", "batch", "idle"]
    for model, row in zip(document["models"], stats["models"].values(), strict=True):
        assert model["waiting_by_class"] == row["waiting_by_class"]
        assert sum(model["waiting_by_class"]) == model["waiting"] == row["waiting"]
        assert model["share"] == pytest.approx(row["share"], rel=1e-4)
    assert [model["name"] for model in document["models"]] == list(MODELS)
    assert "history" not in document
    assert set(document["decisions"][0]) >= {"request_id", "model", "replica", "queued_ms", "reason", "scores"}


def test_history_has_a_point_a_second_for_ten_minutes_and_no_more(make_gateway: MakeGateway) -> None:
    gateway, clock, state = made(make_gateway)
    for _ in range(HISTORY_S + 50):
        state.sample()
        clock.advance(SECOND_NS)
    history = state.document(is_admin=True, since_s=0)["history"]
    assert len(history["time_s"]) == HISTORY_S
    assert history["time_s"][-1] - history["time_s"][0] == pytest.approx(HISTORY_S - 1)
    assert {len(column) for of in history["models"].values() for column in of.values()} == {HISTORY_S}
    later = state.document(is_admin=True, since_s=history["time_s"][-3])["history"]
    assert later["time_s"] == history["time_s"][-2:]
    assert "history" not in state.document(is_admin=True)
    assert gateway.observed.attainment() is None


def test_however_many_ask_the_router_is_looked_at_once_a_second(make_gateway: MakeGateway) -> None:
    _, clock, state = made(make_gateway)
    state.sample()
    for _ in range(50):
        clock.advance(SECOND_NS // 100)
        state.document(is_admin=True, since_s=0)
    assert len(state.document(is_admin=True, since_s=0)["history"]["time_s"]) == 1
    clock.advance(SECOND_NS)
    assert len(state.document(is_admin=True, since_s=0)["history"]["time_s"]) == 2


def test_arrivals_and_work_are_rates_of_what_came(make_gateway: MakeGateway) -> None:
    gateway, clock, state = made(make_gateway)
    for _ in range(70):
        state.sample()
        for _ in range(4):
            gateway.submit(models=[MODELS[0]])
        clock.advance(SECOND_NS)
    state.sample()
    model = state.document(is_admin=True)["models"][0]
    assert model["arrivals_rps"] == pytest.approx(4.0)
    row = gateway.router.stats()["models"][MODELS[0]]
    assert model["work"] == pytest.approx(4.0 * row["arrived_work_s"] / row["arrivals"], rel=0.05)


def test_what_is_not_known_yet_is_none(make_gateway: MakeGateway) -> None:
    _, _, state = made(make_gateway)
    model = state.document(is_admin=True)["models"][0]
    for name in ("arrivals_rps", "work", "forecast", "ttft_ms", "tpot_ms", "attainment"):
        assert model[name] is None


def test_a_reading_goes_with_its_age_and_a_stale_one_has_no_value(make_gateway: MakeGateway) -> None:
    _, clock, state = made(make_gateway)
    clock.advance(SECOND_NS)

    def power() -> dict[str, object]:
        (found,) = (each for each in state.document(is_admin=True)["readings"] if each["name"] == "power_w")
        return found

    assert power()["source"] == "GPU-0a1b"
    assert power()["label"] == "NVIDIA H200 (made up)"
    assert power()["age_s"] == pytest.approx(1.0)
    assert power()["value"] is not None
    clock.advance(10 * SECOND_NS)
    assert (power()["value"], power()["age_s"]) == (None, pytest.approx(11.0))


def test_no_key_or_prompt_stands_in_it(make_gateway: MakeGateway) -> None:
    gateway, _, state = made(make_gateway)
    gateway.step(arrivals=50)
    for is_admin in (False, True):
        text = json.dumps(state.document(is_admin=is_admin, since_s=0))
        for secret in (ADMIN, CLIENT, "canary"):
            assert secret not in text
    assert "http://" not in json.dumps(state.document(is_admin=False, since_s=0))
