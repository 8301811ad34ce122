"""Claims about requests and answers that go through the gateway."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from backend import Call, answer
from conftest import house, request

from zeta.config import Key, Model


def test_an_answer_comes_back_whole_and_says_who_gave_it(run: Any) -> None:
    async def claim() -> None:
        async with house() as home:
            got = await home.ask(question="hello", max_tokens=3)
            assert got.status == 200
            assert got.json()["choices"][0]["message"]["content"] == "hello:0 hello:1 hello:2 "
            assert (got.fields["x-zeta-model"], got.fields["x-zeta-replica"]) == ("m", "m-0")
            assert got.fields["x-zeta-reason"] == "earliest_deadline"
            assert float(got.fields["x-zeta-queue-ms"]) >= 0
            assert home.outcomes() == {"completed": 1}
            assert home.backend.calls[0].fields["x-request-id"] == got.fields["x-request-id"]

    run(claim())


def test_events_pass_unaltered_and_the_usage_that_nobody_asked_for_is_left_out(run: Any) -> None:
    async def claim() -> None:
        async with house() as home:
            plain = await home.ask(question="a", max_tokens=5, stream=True)
            assert plain.text == "a:0 a:1 a:2 a:3 a:4 "
            assert plain.events[-1] == "[DONE]"
            assert not any('"usage"' in event for event in plain.events)
            assert home.backend.calls[0].body["stream_options"] == {"include_usage": True}
            asked = await home.ask(max_tokens=5, stream=True, stream_options={"include_usage": True})
            assert json.loads(asked.events[-2])["usage"]["completion_tokens"] == 5

    run(claim())


def test_one_connection_serves_many_requests_also_when_they_come_ahead(run: Any) -> None:
    async def claim() -> None:
        async with house() as home, home.client() as client:
            client.send(b"".join(request(question=f"p{i}", max_tokens=1) for i in range(20)))
            for i in range(20):
                assert (await client.answer()).json()["choices"][0]["message"]["content"] == f"p{i}:0 "
            assert len(home.gateway.clients) == 1

    run(claim())


def test_a_request_may_come_byte_by_byte(run: Any) -> None:
    async def claim() -> None:
        async with house() as home, home.client() as client:
            for byte in request(question="slow", max_tokens=1):
                client.send(bytes([byte]))
                await client.writer.drain()
            assert (await client.answer()).json()["choices"][0]["message"]["content"] == "slow:0 "

    run(claim())


def test_a_body_may_come_in_chunks(run: Any) -> None:
    async def claim() -> None:
        async with house() as home, home.client() as client:
            raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": "c"}], "max_tokens": 2}).encode()
            client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: z\r\nTransfer-Encoding: chunked\r\n\r\n")
            for at in range(0, len(raw), 7):
                piece = raw[at : at + 7]
                client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
                await client.writer.drain()
            client.send(b"0\r\n\r\n")
            assert (await client.answer()).json()["usage"]["completion_tokens"] == 2
            assert await client.is_closed()

    run(claim())


def test_a_long_answer_may_come_at_once(run: Any) -> None:
    async def behave(call: Call) -> None:
        await call.json({"object": "list", "data": ["x" * 1000] * 2000})

    async def claim() -> None:
        async with house(behave=behave) as home:
            got = await home.ask("/v1/embeddings", model="m", input="q")
            assert (got.status, len(got.json()["data"])) == (200, 2000)
            assert home.outcomes() == {"completed": 1}

    run(claim())


def test_a_name_may_be_an_alias_and_auto_lets_the_router_choose(run: Any) -> None:
    async def claim() -> None:
        small = Model("small", 0.5, aliases=("gpt-4o-mini",), served_name="org/small")
        async with house(small, "large") as home:
            assert (await home.ask(model="gpt-4o-mini")).fields["x-zeta-model"] == "small"
            assert home.backends["small-0"].calls[0].body["model"] == "org/small"
            assert (await home.ask(model="large")).fields["x-zeta-model"] == "large"
            assert (await home.ask(model="zeta/auto")).fields["x-zeta-model"] in ("small", "large")
            wrong = await home.ask(model="medium")
            assert (wrong.status, wrong.json()["error"]["code"]) == (404, "model_not_found")
            assert "gpt-4o-mini" in wrong.json()["error"]["message"]

    run(claim())


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages"),
        ({"model": 7}, "model"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"n": 99}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"priority": 9}, "priority"),
        ({"service_tier": "golden"}, "service_tier"),
        ({"top_logprobs": 10**9}, "top_logprobs"),
    ],
)
def test_a_wrong_key_is_named_and_the_connection_goes_on(run: Any, body: dict[str, Any], param: str) -> None:
    async def claim() -> None:
        async with house() as home, home.client() as client:
            client.ask(**body)
            wrong = await client.answer()
            assert (wrong.status, wrong.json()["error"]["param"]) == (400, param)
            client.ask(max_tokens=1)
            assert (await client.answer()).status == 200
            assert len(home.backend.calls) == 1

    run(claim())


def test_keys_decide_whose_request_it_is(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_KEY", "sk-acme")

    async def claim() -> None:
        async with house(keys=(Key("acme", env="ACME_KEY"),)) as home:
            for shown in ("", "Authorization: Bearer wrong\r\n", "Authorization: Bearer \r\n", "Authorization: sk\r\n"):
                refused = await home.ask(fields=shown)
                assert (refused.status, refused.json()["error"]["type"]) == (401, "authentication_error")
            assert (await home.ask(fields="Authorization: Bearer sk-acme\r\n")).status == 200
            assert (await home.ask(fields="x-api-key: sk-acme\r\n")).status == 200
            assert "authorization" not in home.backend.calls[0].fields  # the client's key stays here

    run(claim())


def test_the_first_priority_goes_first(run: Any) -> None:
    gate = asyncio.Event()

    async def behave(call: Call) -> None:
        if call.question == "first":
            await gate.wait()
        await answer(call)

    async def claim() -> None:
        async with house(behave=behave, max_in_flight=1) as home:
            first = asyncio.ensure_future(home.ask(question="first", max_tokens=1))
            await home.until(lambda: len(home.backend.calls) == 1)
            rest = []
            for name, fields, body in (
                ("idle", "X-Zeta-Priority: 3\r\n", {}),
                ("batch", "", {"service_tier": "batch"}),
                ("normal", "", {}),
                ("urgent", "", {"priority": 0}),
            ):
                rest.append(asyncio.ensure_future(home.ask(fields=fields, question=name, max_tokens=1, **body)))
                waiting = len(rest)
                await home.until(lambda n=waiting: len(home.gateway.waiting) == n)
            gate.set()
            await asyncio.gather(first, *rest)
            assert [call.question for call in home.backend.calls][:3] == ["first", "urgent", "normal"]
            assert all("priority" not in call.body and "service_tier" not in call.body for call in home.backend.calls)

    run(claim())


def test_the_router_hears_how_hard_a_request_is(run: Any) -> None:
    async def claim() -> None:
        async with house("small", "large") as home:
            lead = []
            for hard in ("0.02", "0.98"):
                got = await home.ask(model="zeta/auto", fields=f"X-Zeta-Complexity: {hard}\r\n")
                scores = home.gateway.recent_decisions(1)[0]["scores"]
                lead.append(scores["large"] - scores["small"])
                assert got.status == 200
            assert lead[1] > lead[0]
            wrong = await home.ask(model="small", fields="X-Zeta-Complexity: 7\r\n")
            assert (wrong.status, wrong.json()["error"]["code"]) == (400, "invalid_header")

    run(claim())
