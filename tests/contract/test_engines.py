"""What every engine of zeta owes its clients, asked of the simulated and of the real ones over their sockets."""

from __future__ import annotations

import base64
import http.client
import json
import struct
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

pytest.importorskip("uvloop")
pytest.importorskip("httptools")
pytest.importorskip("msgspec")

from zeta.engines import EngineProcess, embedded, start_simulated
from zeta.monitor import EngineProbe

DEADLINE_S = 10.0
MAKERS: dict[str, Callable[[], EngineProcess]] = {
    "simulated": lambda: start_simulated("qwen2.5-7b", model="m", speed=10.0, max_batch=4),
    "fixed": lambda: start_simulated("fixed:2:0.5", model="m", max_batch=4),
    "embedded": lambda: embedded.start(embedded.models()[0], model="m", max_batch=4),
}


@pytest.fixture(scope="module", params=MAKERS.values(), ids=MAKERS)
def engine(request: pytest.FixtureRequest) -> Iterator[EngineProcess]:
    with request.param() as process:
        yield process


def connect(engine: EngineProcess) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urllib.parse.urlsplit(engine.url).netloc, timeout=DEADLINE_S)


def ask(engine: EngineProcess, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    with closing(connect(engine)) as connection:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if answer.headers["Content-Type"] == "application/json" else text


def chat(engine: EngineProcess, max_tokens: int = 12, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Say something about queues."}]
    return {"model": engine.model, "messages": messages, "max_tokens": max_tokens, "ignore_eos": True, **fields}


def events(answer: http.client.HTTPResponse) -> Iterator[Any]:
    """The JSON of each event, and None for [DONE]."""
    while line := answer.readline():
        if line.strip():
            assert line.startswith(b"data: "), line
            yield None if line == b"data: [DONE]\n" else json.loads(line[6:])


def stream(engine: EngineProcess, path: str, body: dict[str, Any]) -> list[Any]:
    with closing(connect(engine)) as connection:
        connection.request("POST", path, json.dumps({**body, "stream": True}).encode())
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        return list(events(answer))


def load(engine: EngineProcess) -> dict[str, Any]:
    probe = EngineProbe("r", engine.url, deadline_s=DEADLINE_S)
    with closing(probe):
        row = dict(probe.read().rows["r"])
        assert probe.engine == "vllm"
        return row


def wait_for(engine: EngineProcess, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    until_s = time.monotonic() + DEADLINE_S
    while not is_so(row := load(engine)):
        assert time.monotonic() < until_s, row
    return row


def text_of(choice: dict[str, Any]) -> str:
    found: str = choice["text"] if "text" in choice else choice.get("delta", choice.get("message"))["content"]
    return found


# --- answers ---------------------------------------------------------------------------------------------------------


def test_it_names_its_model_and_what_kind_it_is(engine: EngineProcess) -> None:
    status, models = ask(engine, "GET", "/v1/models")
    assert status == 200
    assert [each["id"] for each in models["data"]] == [engine.model]
    about = models["data"][0]
    assert about["simulated"] is ("simulated" in about["owned_by"])
    assert about["description"]


def test_health_answers_200(engine: EngineProcess) -> None:
    assert ask(engine, "GET", "/health")[0] == 200


def test_a_chat_gives_as_many_tokens_as_asked_for_and_counts_them(engine: EngineProcess) -> None:
    status, answer = ask(engine, "POST", "/v1/chat/completions", chat(engine, 12))
    assert status == 200
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 12
    assert answer["usage"]["prompt_tokens"] > 0
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 12
    assert text_of(answer["choices"][0])


def test_a_completion_takes_text_and_tokens(engine: EngineProcess) -> None:
    for prompt, count in (("one two three", None), ([1, 2, 3, 4, 5], 5), (["one two"], None), ([[1, 2, 3]], 3)):
        status, answer = ask(engine, "POST", "/v1/completions", {"prompt": prompt, "max_tokens": 3, "ignore_eos": True})
        assert status == 200, answer
        assert answer["object"] == "text_completion"
        assert answer["usage"]["completion_tokens"] == 3
        if count is not None:
            assert answer["usage"]["prompt_tokens"] == count


def test_a_stream_has_an_event_for_each_token_then_usage_then_done(engine: EngineProcess) -> None:
    body = chat(engine, 9, stream_options={"include_usage": True})
    *chunks, last, usage, done = stream(engine, "/v1/chat/completions", body)
    assert done is None
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 9
    assert last["choices"][0]["finish_reason"] == "length"
    assert len(chunks) == 9
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)


def test_without_the_option_a_stream_tells_no_usage(engine: EngineProcess) -> None:
    *chunks, done = stream(engine, "/v1/completions", {"prompt": "a", "max_tokens": 4, "ignore_eos": True})
    assert done is None
    assert not any("usage" in chunk for chunk in chunks)
    assert len(chunks) == 5


def test_a_stream_says_the_same_as_a_whole_answer(engine: EngineProcess) -> None:
    body = {"prompt": "The queue", "max_tokens": 20, "temperature": 0, "ignore_eos": True}
    _, whole = ask(engine, "POST", "/v1/completions", body)
    *chunks, _ = stream(engine, "/v1/completions", body)
    assert "".join(text_of(chunk["choices"][0]) for chunk in chunks) == text_of(whole["choices"][0])


def test_requests_beside_each_other_do_not_mix(engine: EngineProcess) -> None:
    body = {"prompt": "The queue", "max_tokens": 30, "temperature": 0, "ignore_eos": True}
    _, alone = ask(engine, "POST", "/v1/completions", body)
    connections = [connect(engine) for _ in range(8)]
    for connection in connections:
        connection.request("POST", "/v1/completions", json.dumps({**body, "stream": True}).encode())
    for connection in connections:
        with closing(connection):
            *chunks, done = events(connection.getresponse())
            assert done is None
            assert "".join(text_of(chunk["choices"][0]) for chunk in chunks) == text_of(alone["choices"][0])


def test_a_connection_serves_one_request_after_another(engine: EngineProcess) -> None:
    with closing(connect(engine)) as connection:
        for _ in range(3):
            connection.request("POST", "/v1/chat/completions", json.dumps(chat(engine, 2)).encode())
            answer = connection.getresponse()
            assert answer.status == 200
            answer.read()
            connection.request("POST", "/v1/chat/completions", json.dumps(chat(engine, 2, stream=True)).encode())
            assert list(events(connection.getresponse()))[-1] is None


def test_pipelined_requests_are_answered_in_order(engine: EngineProcess) -> None:
    with closing(connect(engine)) as connection:
        connection.connect()
        for count in (3, 1, 2):
            body = json.dumps(chat(engine, count)).encode()
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
            connection.sock.sendall(head + body)
        with connection.sock.makefile("rb") as lines:
            for count in (3, 1, 2):
                assert lines.readline() == b"HTTP/1.1 200 OK\r\n"
                size = 0
                while (line := lines.readline()) != b"\r\n":
                    name, _, value = line.partition(b":")
                    size = int(value) if name.lower() == b"content-length" else size
                assert json.loads(lines.read(size))["usage"]["completion_tokens"] == count


def test_embeddings_have_a_fixed_size_and_tell_texts_apart(engine: EngineProcess) -> None:
    status, answer = ask(engine, "POST", "/v1/embeddings", {"input": ["a queue", "a queue", "some other text"]})
    assert status == 200
    same, again, other = (row["embedding"] for row in answer["data"])
    assert len(same) == len(other)
    assert same == pytest.approx(again, abs=1e-5)
    assert same != pytest.approx(other, abs=1e-3)
    assert sum(value * value for value in same) == pytest.approx(1.0, abs=1e-3)
    _, packed = ask(engine, "POST", "/v1/embeddings", {"input": "a queue", "encoding_format": "base64"})
    values = base64.b64decode(packed["data"][0]["embedding"])
    assert struct.unpack(f"<{len(same)}f", values) == pytest.approx(same, abs=1e-5)


# --- metrics and slots -----------------------------------------------------------------------------------------------


def test_its_metrics_read_as_vllms_and_count_what_happened(engine: EngineProcess) -> None:
    before = wait_for(engine, lambda row: row["running"] == row["waiting"] == 0)
    _, answer = ask(engine, "POST", "/v1/chat/completions", chat(engine, 7))
    after = load(engine)
    assert after["output_tokens_total"] - before["output_tokens_total"] == 7
    assert after["prompt_tokens_total"] - before["prompt_tokens_total"] == answer["usage"]["prompt_tokens"]
    assert after["requests_total"] - before["requests_total"] == 1
    for name in ("ttft", "tpot", "queue_wait"):
        assert after[f"{name}_count"] - before[f"{name}_count"] == 1
        assert after[f"{name}_sum_s"] >= before[f"{name}_sum_s"]
    assert after["ttft_sum_s"] > before["ttft_sum_s"]
    assert after["kv_capacity_tokens"] > 0
    assert after["kv_used"] == 0.0
    assert after["is_awake"] == 1.0
    assert after["preemptions_total"] is not None


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "whole"])
def test_a_client_that_leaves_frees_its_slot(engine: EngineProcess, streamed: bool) -> None:
    wait_for(engine, lambda row: row["running"] == row["waiting"] == 0)
    connections = [connect(engine) for _ in range(6)]
    for connection in connections:
        connection.request("POST", "/v1/chat/completions", json.dumps(chat(engine, 16_000, stream=streamed)).encode())
    busy = wait_for(engine, lambda row: row["running"] + row["waiting"] == 6)
    assert busy["running"] == 4, "the batch takes four"
    assert busy["waiting"] == 2
    assert busy["kv_used"] > 0
    for connection in connections:
        connection.close()
    wait_for(engine, lambda row: row["running"] == row["waiting"] == 0 and row["kv_used"] == 0.0)
    assert ask(engine, "POST", "/v1/chat/completions", chat(engine, 2))[0] == 200


def test_those_who_wait_go_by_priority_lower_numbers_first(engine: EngineProcess) -> None:
    wait_for(engine, lambda row: row["running"] == row["waiting"] == 0)
    blockers = [connect(engine) for _ in range(4)]
    for connection in blockers:
        connection.request("POST", "/v1/chat/completions", json.dumps(chat(engine, 16_000, stream=True)).encode())
    wait_for(engine, lambda row: row["running"] == 4)
    waiting = {priority: connect(engine) for priority in (5, 0, 9, -3)}
    for count, (priority, connection) in enumerate(waiting.items(), 1):
        body = chat(engine, 300, stream=True, priority=priority)
        connection.request("POST", "/v1/chat/completions", json.dumps(body).encode())
        wait_for(engine, lambda row, count=count: row["waiting"] == count)  # type: ignore[misc]
    blockers[0].close()  # one slot: the others take turns in it
    order = []
    try:
        for expected in (-3, 0, 5, 9):
            *_, done = events(waiting[expected].getresponse())
            assert done is None
            order.append(load(engine)["waiting"])
        assert order == [2, 1, 0, 0]
    finally:
        for connection in [*blockers, *waiting.values()]:
            connection.close()


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("POST", "/v1/chat/completions", b"{", 400, "not JSON"),
        ("POST", "/v1/chat/completions", {"model": "m"}, 400, "messages"),
        ("POST", "/v1/chat/completions", {"messages": []}, 400, "messages"),
        ("POST", "/v1/completions", {"prompt": "a", "max_tokens": 0}, 400, "max_tokens"),
        ("POST", "/v1/completions", {"prompt": "a", "n": 2}, 400, "one choice"),
        ("POST", "/v1/completions", {"prompt": ["a", "b"]}, 400, "one at a time"),
        ("POST", "/v1/completions", {"prompt": []}, 400, "empty"),
        ("POST", "/v1/completions", {"prompt": "a", "model": "other"}, 404, "does not exist"),
        ("GET", "/v1/nothing", None, 404, "/v1/models"),
        ("GET", "/v1/completions", None, 405, "POST"),
    ],
)
def test_what_it_cannot_serve_is_refused_in_openais_form(
    engine: EngineProcess, method: str, path: str, body: Any, status: int, says: str
) -> None:
    got, answer = ask(engine, method, path, body)
    assert got == status
    assert says in answer["error"]["message"]
    assert set(answer["error"]) == {"message", "type", "param", "code"}


def test_what_is_no_http_is_answered_once_and_closed(engine: EngineProcess) -> None:
    with closing(connect(engine)) as connection:
        connection.connect()
        connection.sock.sendall(b"NOT HTTP\r\n\r\n")
        with connection.sock.makefile("rb") as answer:
            assert answer.readline() == b"HTTP/1.1 400 Bad Request\r\n"
            assert answer.read().endswith(b"}")


def test_an_old_client_gets_its_stream_unframed(engine: EngineProcess) -> None:
    with closing(connect(engine)) as connection:
        connection.connect()
        body = json.dumps(chat(engine, 3, stream=True)).encode()
        head = b"POST /v1/chat/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body)
        connection.sock.sendall(head + body)
        with connection.sock.makefile("rb") as answer:
            assert answer.read().endswith(b"data: [DONE]\n\n")
