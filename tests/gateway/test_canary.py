"""Planted keys and prompts come out of nothing that the gateway writes: logs, metrics, traces, errors, state, page."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiohttp
import pytest
from backend import Call
from conftest import House, house

from zeta.config import Key
from zeta.gateway._logs import REQUESTS, set_up_logs
from zeta.gateway._traces import Traces

memory = pytest.importorskip(
    "opentelemetry.sdk.trace.export.in_memory_span_exporter", reason="pip install 'zeta-router[otel]'"
)

KEY, PROMPT, SERVER_KEY = "sk-canary-key-5f0c", "canary-prompt-8d2e", "canary-server-key-77aa"
CANARIES = ("canary-key", "canary-prompt", "canary-server", "canary-wrong")
RUN = Callable[[Awaitable[None]], None]


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = set_up_logs("DEBUG", has_requests=True, stream=stream)
    yield stream
    for name in ("zeta", "asyncio", REQUESTS.name):
        logging.getLogger(name).removeHandler(handler)
        logging.getLogger(name).setLevel(logging.NOTSET)
        logging.getLogger(name).propagate = True


async def misbehave(call: Call) -> None:
    """By what the request says: fail with the prompt in the words, break off, or repeat it as an answer."""
    question = call.question
    if "break" in question:
        call.cut()
    elif "fail" in question:
        await call.json({"error": {"message": f"server trouble with {question}"}}, status=500)
    elif "garbage" in question:
        await call.send(f"HTTP/9.9 {question}\r\n\r\n".encode())
    else:
        await call.json({"choices": [{"message": {"content": question}}], "usage": {"completion_tokens": 3}})


async def read(one: House, path: str, **fields: str) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{one.port}{path}", headers=fields) as answer,
    ):
        return await answer.text()


def test_canaries_stay_inside(run: RUN, log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = memory.InMemorySpanExporter()
    monkeypatch.setenv("CANARY_KEY", KEY)
    own: list[bytes] = []  # answers that the gateway itself made

    async def work() -> None:
        async with house(behave=misbehave, keys=(Key("acme", env="CANARY_KEY", is_admin=True),)) as one:
            one.gateway.traces = Traces(exporter, is_batched=False)
            right = f"Authorization: Bearer {KEY}\r\ntraceparent: 00-{PROMPT}-x-01\r\n"
            for question in ("well", "fail", "break", "garbage"):
                answer = await one.ask(fields=right, question=f"{PROMPT} {question}")
                if question in ("break", "garbage"):
                    assert answer.status == 502
                    own.append(answer.body)
            refused: list[tuple[str, dict[str, Any]]] = [
                ("Authorization: Bearer sk-canary-wrong\r\n", {"question": PROMPT}),
                (right, {"model": "no-such-model", "question": PROMPT}),
                (right, {"max_tokens": PROMPT}),
                (right + f"X-Zeta-Priority: {PROMPT}\r\n", {}),
                (right + f"X-Zeta-Deadline-Ms: {PROMPT}\r\n", {}),
                (right, {"n": -1, PROMPT: PROMPT}),
            ]
            for fields, body in refused:
                answer = await one.ask(fields=fields, **body)
                assert 400 <= answer.status < 500
                own.append(answer.body)
            for raw in (f"{PROMPT} / {PROMPT}\r\n\r\n", f"POST /v1/{PROMPT} HTTP/1.1\r\nHost: localhost\r\n\r\n"):
                async with one.client() as client:
                    client.send(raw.encode())
                    own.append((await client.answer()).body)
            async with one.client() as client:
                bad = f'{{"model": "m", "messages": ["{PROMPT}"'
                head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{right}Content-Length: {len(bad)}\r\n\r\n"
                client.send((head + bad).encode())
                own.append((await client.answer()).body)
            await asyncio.sleep(0)
            as_admin = {"Authorization": f"Bearer {KEY}"}
            for path in (
                "/metrics",
                "/v1/zeta/state?since=0",
                "/v1/zeta/queue",
                "/v1/models",
                "/ui",
                f"/v1/models/{PROMPT}",
            ):
                own.append((await read(one, path, **as_admin)).encode())
            one.gateway.traces.close()
            one.gateway.traces = None

    run(work())
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["outcome"] for line in lines if line["message"] == "request"].count("completed") >= 1
    spans = [span.to_json() for span in exporter.get_finished_spans()]
    assert len(spans) >= 8
    told = {"log": log.getvalue(), "traces": "\n".join(spans), "answers": b"\n".join(own).decode()}
    found = [
        (place, text[max(text.index(canary) - 120, 0) :][:200])
        for place, text in told.items()
        for canary in CANARIES
        if canary in text
    ]
    assert found == []
