"""The routes beside the completions: what they answer, to whom, and what they never say."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from fake_gateway import ADMIN, CLIENT, MODELS, FakeGateway

from zeta.gateway._control import make_control_app

MakeGateway = Callable[..., FakeGateway]
AS_ADMIN = {"Authorization": f"Bearer {ADMIN}"}
AS_CLIENT = {"Authorization": f"Bearer {CLIENT}"}
NEW = {"model": MODELS[0], "name": "one-more", "url": "http://10.0.0.9:80/v1"}


@contextlib.asynccontextmanager
async def served(gateway: FakeGateway) -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(make_control_app(gateway))) as client:
        yield client


async def error_of(response: Any) -> dict[str, Any]:
    body = await response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return body["error"]


def run(work: Any) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


def test_models_are_listed_as_openai_lists_them(make_gateway: MakeGateway) -> None:
    async def work() -> None:
        async with served(make_gateway()) as client:
            listed = await (await client.get("/v1/models")).json()
            assert [each["id"] for each in listed["data"]] == ["zeta/auto", *MODELS]
            one = await (await client.get("/v1/models/zeta/auto")).json()
            assert one == {"id": "zeta/auto", "object": "model", "created": 0, "owned_by": "zeta"}
            missing = await client.get("/v1/models/nope")
            assert missing.status == 404
            assert (await error_of(missing))["code"] == "model_not_found"

    run(work())


def test_a_tenant_sees_its_own_waiting_requests_only(make_gateway: MakeGateway) -> None:
    async def work() -> None:
        gateway = make_gateway(has_keys=True)
        gateway.step(arrivals=200, endings=0)
        async with served(gateway) as client:
            mine = (await (await client.get("/v1/zeta/queue", headers=AS_CLIENT)).json())["data"]
            theirs = (await (await client.get("/v1/zeta/queue", headers=AS_ADMIN)).json())["data"]
        assert mine
        assert theirs
        assert not {each["ticket"] for each in mine} & {each["ticket"] for each in theirs}
        assert {each["ticket"] for each in mine} == {str(each.ticket) for each in gateway.waiting_of("acme")}
        assert set(mine[0]) == {"request_id", "ticket", "model", "position", "eta_ms", "waited_ms"}

    run(work())


PRIVATE = ["/v1/models", "/v1/zeta/queue", "/v1/zeta/state", "/metrics"]


@pytest.mark.parametrize("path", PRIVATE)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": ADMIN[:-1]}])
def test_without_a_key_of_ours_nothing_is_shown_beyond_loopback(
    make_gateway: MakeGateway, path: str, headers: dict[str, str]
) -> None:
    async def work() -> None:
        async with served(make_gateway(has_keys=True, host="0.0.0.0")) as client:
            response = await client.get(path, headers=headers)
            assert response.status == 401
            assert response.headers["WWW-Authenticate"] == "Bearer"
            assert (await error_of(response))["code"] == "invalid_api_key"
            assert (await client.get(path, headers=AS_CLIENT)).status == 200

    run(work())


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"host": "127.0.0.1"}, 200),
        ({"host": "::1"}, 200),
        ({"host": "127.0.0.1", "open_metrics": False}, 401),
        ({"host": "0.0.0.0"}, 401),
    ],
)
def test_metrics_and_state_are_open_on_loopback_unless_closed(
    make_gateway: MakeGateway, given: dict[str, Any], status: int
) -> None:
    async def work() -> None:
        async with served(make_gateway(has_keys=True, **given)) as client:
            assert (await client.get("/metrics")).status == status
            assert (await client.get("/v1/zeta/state")).status == status

    run(work())


def test_addresses_errors_and_tenants_are_for_admins(make_gateway: MakeGateway) -> None:
    async def work() -> None:
        gateway = make_gateway(has_keys=True)
        gateway.down[f"{MODELS[0]}-0"] = "refuses connections"
        async with served(gateway) as client:
            for headers in ({}, AS_CLIENT):
                document = await (await client.get("/v1/zeta/state", headers=headers)).json()
                assert "url" not in document["replicas"][0]
                assert "tenants" not in document
            document = await (await client.get("/v1/zeta/state", headers=AS_ADMIN)).json()
            assert document["replicas"][0]["last_error"] == "refuses connections"
            assert "tenants" in document

    run(work())


def test_replicas_join_drain_resume_and_go(make_gateway: MakeGateway) -> None:
    async def work() -> None:
        gateway = make_gateway(has_keys=True)
        async with served(gateway) as client:
            added = await client.post("/v1/zeta/replicas", json=NEW, headers=AS_ADMIN)
            assert added.status == 201
            assert (await added.json())["url"] == NEW["url"]
            for verb, is_draining in (("drain", True), ("resume", False)):
                response = await client.post(f"/v1/zeta/replicas/one-more/{verb}", headers=AS_ADMIN)
                assert (await response.json())["is_draining"] is is_draining
            removed = await client.delete("/v1/zeta/replicas/one-more", headers=AS_ADMIN)
            assert await removed.json() == {"name": "one-more", "removed": True}
        assert "one-more" not in gateway.router.stats()["replicas"]

    run(work())


@pytest.mark.parametrize("headers", [{}, AS_CLIENT, {"Authorization": "Bearer x"}])
def test_only_admins_change_replicas(make_gateway: MakeGateway, headers: dict[str, str]) -> None:
    async def work() -> None:
        gateway = make_gateway(has_keys=True)
        before = gateway.router.stats()["replicas"]
        name = f"{MODELS[0]}-0"
        async with served(gateway) as client:
            answers = [
                await client.post("/v1/zeta/replicas", json=NEW, headers=headers),
                await client.post(f"/v1/zeta/replicas/{name}/drain", headers=headers),
                await client.post(f"/v1/zeta/replicas/{name}/resume", headers=headers),
                await client.delete(f"/v1/zeta/replicas/{name}", headers=headers),
            ]
            assert {each.status for each in answers} == {403 if headers == AS_CLIENT else 401}
        assert gateway.router.stats()["replicas"].keys() == before.keys()

    run(work())


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"url": "ftp://10.0.0.9/"}, 400, "url"),
        ({"url": "http://user:secret@10.0.0.9/v1"}, 400, "url"),
        ({"url": "http://10.0.0.9/v1?x=1"}, 400, "url"),
        ({"url": "http://10.0.0.9:99999/v1"}, 400, "url"),
        ({"url": "http://10.0.0.9/\r\nX: y"}, 400, "url"),
        ({"url": 5}, 400, "url"),
        ({"model": "nope"}, 400, None),
        ({"name": f"{MODELS[0]}-0"}, 409, "name"),
        ({"engine": "abacus"}, 400, "engine"),
        ({"max_in_flight": True}, 400, "max_in_flight"),
        ({"max_in_flight": 0}, 400, None),
        ({"lenght": "x"}, 400, "lenght"),
    ],
)
def test_a_replica_that_cannot_be_is_refused_and_nothing_changes(
    make_gateway: MakeGateway, change: dict[str, Any], status: int, param: str | None
) -> None:
    async def work() -> None:
        gateway = make_gateway()
        before = gateway.router.stats()["replicas"].keys()
        async with served(gateway) as client:
            response = await client.post("/v1/zeta/replicas", json=NEW | change)
            assert response.status == status
            assert (await error_of(response))["param"] == param
        assert gateway.router.stats()["replicas"].keys() == before

    run(work())


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"x"', b"\xff", b"[" * 50_000])
def test_what_is_no_json_object_is_refused(make_gateway: MakeGateway, body: bytes) -> None:
    async def work() -> None:
        async with served(make_gateway()) as client:
            response = await client.post("/v1/zeta/replicas", data=body, headers={"Content-Type": "application/json"})
            assert response.status == 400
            assert (await error_of(response))["code"] == "invalid_json"
            assert (await client.post("/v1/zeta/replicas", data=b"{}")).status == 415
            large = await client.post(
                "/v1/zeta/replicas", data=b" " * 70_000, headers={"Content-Type": "application/json"}
            )
            assert large.status == 413

    run(work())


def test_another_sites_page_changes_nothing_even_without_keys(make_gateway: MakeGateway) -> None:
    async def work() -> None:
        gateway = make_gateway()
        async with served(gateway) as client:
            path = f"/v1/zeta/replicas/{MODELS[0]}-0/drain"
            for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
                response = await client.post(path, headers={"Origin": origin})
                assert (response.status, (await error_of(response))["code"]) == (403, "cross_site")
            own = str(client.make_url("")).rstrip("/")
            assert (await client.post(path, headers={"Origin": own})).status == 200

    run(work())


@pytest.mark.parametrize("path", PRIVATE)
def test_without_keys_a_name_that_was_resolved_anew_is_refused(make_gateway: MakeGateway, path: str) -> None:
    async def work() -> None:
        async with served(make_gateway()) as client:
            assert (await client.get(path, headers={"Host": "evil.example"})).status == 403
            assert (await client.get(path, headers={"Host": "localhost:8080"})).status == 200
            assert (await client.get(path, headers={"Host": "[::1]:8080"})).status == 200

    run(work())


def test_health_is_open_and_readiness_follows_drain_and_replicas(make_gateway: MakeGateway) -> None:
    async def work() -> None:
        gateway = make_gateway(has_keys=True, host="0.0.0.0")
        async with served(gateway) as client:
            for path in ("/healthz", "/health/liveliness", "/health/liveness", "/readyz", "/health/readiness"):
                assert (await client.get(path, headers={"Host": "anything"})).status == 200
            gateway.down = {f"{name}-0": "gone" for name in MODELS}
            assert (await client.get("/readyz")).status == 503
            gateway.down = {f"{MODELS[1]}-0": "gone"}
            assert (await client.get("/readyz")).status == 200
            gateway.is_draining = True
            assert (await client.get("/health/readiness")).status == 503
            assert (await client.get("/healthz")).status == 200

    run(work())


def test_the_page_brings_its_scripts_and_lets_no_others_in(make_gateway: MakeGateway) -> None:
    async def work() -> None:
        async with served(make_gateway()) as client:
            response = await client.get("/ui")
            text = await response.text()
            policy = response.headers["Content-Security-Policy"]
            assert "unsafe" not in policy
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            directives = dict(each.strip().split(" ", 1) for each in policy.split(";"))
            assert text.count("<script>") == directives["script-src"].count("'sha256-")
            assert text.count("<style>") == directives["style-src"].count("'sha256-")
            assert not re.search(r"""<(script|link|img|iframe)[^>]*\s(src|href)=["']?(https?:)?//""", text)
            assert not re.search(r"<[^>]+\son\w+=|<[^>]+\sstyle=", text)
            again = await client.get("/ui", headers={"If-None-Match": response.headers["ETag"]})
            assert (again.status, await again.read()) == (304, b"")
            moved = await client.get("/ui/", allow_redirects=True)
            assert (moved.status, moved.url.path) == (200, "/ui")

    run(work())


def test_every_answer_has_safe_headers_and_errors_have_one_form(make_gateway: MakeGateway) -> None:
    async def work() -> None:
        async with served(make_gateway()) as client:
            for method, path, status in (("GET", "/nope", 404), ("POST", "/metrics", 405), ("GET", "/healthz", 200)):
                response = await client.request(method, path)
                assert response.status == status
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert "Content-Security-Policy" in response.headers
                if status >= 400:
                    assert (await error_of(response))["type"] == "invalid_request_error"
                if status == 405:
                    assert response.headers["Allow"] == "GET, HEAD"

    run(work())


def test_a_fault_of_its_own_is_answered_without_details(
    make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        gateway = make_gateway()
        async with served(gateway) as client:

            def broken() -> Any:
                raise RuntimeError("sk-canary in a message")

            monkeypatch.setattr(gateway, "replicas", broken)
            response = await client.get("/readyz")
            assert response.status == 500
            assert "canary" not in await response.text()

    with caplog.at_level(logging.ERROR, "zeta.gateway"):
        run(work())
    assert "a control route failed" in caplog.text


def test_after_the_router_is_closed_answers_say_so(make_gateway: MakeGateway) -> None:
    async def work() -> None:
        gateway = make_gateway()
        async with served(gateway) as client:
            gateway.close()
            assert (await client.get("/metrics")).status == 503

    run(work())
