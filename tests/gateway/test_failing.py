"""Claims about servers that fail: killed, silent, wrong, or hostile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from backend import Backend, Behaviour, Call, answer
from conftest import Answer, Client, house

STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def token(text: str) -> bytes:
    return b"data: %b\n\n" % json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def says(*pieces: bytes, then: str = "ends") -> Behaviour:
    """Sends pieces one by one; then the answer is over, or the connection is cut, or nothing ever comes."""

    async def behave(call: Call) -> None:
        for i, piece in enumerate(pieces):
            if i:
                await asyncio.sleep(0.002)  # so that it comes by itself
            await call.send(piece)
        if then == "cut":
            call.cut()
        elif then == "closes":
            call.close()
        elif then == "hangs":
            await asyncio.sleep(3600)

    return behave


def once(first: Behaviour, then: Behaviour = answer) -> Behaviour:
    """The first request is answered so, all others otherwise."""
    seen: list[Call] = []

    async def behave(call: Call) -> None:
        seen.append(call)
        await (first if len(seen) == 1 else then)(call)

    return behave


def is_error_event(event: str) -> bool:
    return event != "[DONE]" and "error" in json.loads(event)


def check_whole_or_error(got: Answer, question: str, count: int) -> bool:
    """An answer is the numbered one, or is ended by exactly one error. Says whether it was whole."""
    if got.status != 200:
        assert got.status in (502, 503, 504), got
        assert got.json()["error"]["message"]
        return False
    if not got.fields["content-type"].startswith("text/event-stream"):
        assert got.json()["choices"][0]["message"]["content"] == "".join(f"{question}:{i} " for i in range(count))
        return True
    errors = [is_error_event(event) for event in got.events]
    assert not any(errors[:-1]), got.events
    if errors[-1]:
        told = Answer(200, {}, b"".join(b"data: %b\n\n" % event.encode() for event in got.events[:-1]))
        assert "".join(f"{question}:{i} " for i in range(count)).startswith(told.text)
        return False
    assert got.events[-1] == "[DONE]"
    assert got.text == "".join(f"{question}:{i} " for i in range(count))
    return True


# --- killed

BEFORE = {
    "before anything": says(then="cut"),
    "in the head": says(b"HTTP/1.1 200 OK\r\nContent-Ty", then="cut"),
    "after the head": says(STREAM_HEAD, then="cut"),
    "inside the first event": says(STREAM_HEAD, chunk(token("x")[:20]), then="cut"),
    "inside the first chunk's size": says(STREAM_HEAD, b"1f", then="cut"),
    "in a whole answer": says(JSON_HEAD + b"Content-Length: 100\r\n\r\n{", then="cut"),
    "closed in a whole answer": says(JSON_HEAD + b"Content-Length: 100\r\n\r\n{", then="closes"),
    "closed in an answer without a length": says(JSON_HEAD + b'\r\n{"choices": [{"mess', then="closes"),
    "closed after the head": says(STREAM_HEAD, then="closes"),
}


@pytest.mark.parametrize("when", BEFORE)
@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_before_the_first_token_is_tried_again_unseen(run: Any, when: str, stream: bool) -> None:
    async def claim() -> None:
        async with house(behave=once(BEFORE[when])) as home:
            got = await home.ask(question="again", max_tokens=5, stream=stream)
            assert check_whole_or_error(got, "again", 5)
            assert len(home.backend.calls) == 2
            assert home.outcomes() == {"completed": 1}
            assert home.gateway.retries.taken_total == 1

    run(claim())


AFTER = {
    "between events": says(STREAM_HEAD, chunk(token("k:0 ")), then="cut"),
    "closed between events": says(STREAM_HEAD, chunk(token("k:0 ")), then="closes"),
    "inside an event": says(STREAM_HEAD, chunk(token("k:0 ") + token("k:1 ")[:25]), then="cut"),
    "inside a chunk": says(STREAM_HEAD, chunk(token("k:0 ")), chunk(token("k:1 "))[:25], then="cut"),
    "ended without [DONE]": says(STREAM_HEAD, chunk(token("k:0 ")), b"0\r\n\r\n"),
    "half an event, then the end": says(STREAM_HEAD, chunk(token("k:0 ") + b"data: [DO"), b"0\r\n\r\n"),
    "no length, closed": says(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", token("k:0 "), then="closes"
    ),
    "too long an event": says(STREAM_HEAD, chunk(token("k:0 ")), chunk(b"data: " + b"x" * (1 << 21)), then="hangs"),
    "garbage for a chunk": says(STREAM_HEAD, chunk(token("k:0 ")), b"zz\r\n\x00\xff", then="hangs"),
    "an endless chunk extension": says(STREAM_HEAD, chunk(token("k:0 ")), b"1;" + b"x" * 200_000, then="hangs"),
    "endless trailers": says(STREAM_HEAD, chunk(token("k:0 ")), b"0\r\n", b"a: b\r\n" * 40_000, then="hangs"),
}


@pytest.mark.parametrize("when", AFTER)
def test_a_failure_after_the_first_token_ends_the_stream_with_one_error(run: Any, when: str) -> None:
    async def claim() -> None:
        async with house(behave=AFTER[when]) as home, home.client() as client:
            client.ask(question="k", max_tokens=2, stream=True)
            got = await client.answer()
            assert not check_whole_or_error(got, "k", 2)
            assert "[DONE]" not in got.events
            assert len(got.events) == 2
            assert await client.is_closed()
            assert len(home.backend.calls) == 1
            assert home.outcomes() == {"failed_replica": 1}

    run(claim())


def test_a_server_that_closed_a_kept_connection_is_asked_on_a_new_one(run: Any) -> None:
    async def behave(call: Call) -> None:
        if call.question == "lost":
            call.cut()  # what a server's closing looks like when it crosses the request
        else:
            await answer(call)

    async def claim() -> None:
        async with house(behave=behave) as home:
            assert (await home.ask(max_tokens=1)).status == 200
            home.backend.behave = once(behave)
            assert (await home.ask(question="lost", max_tokens=2)).json()["usage"]["completion_tokens"] == 2
            assert home.outcomes() == {"completed": 2}
            assert home.gateway.retries.taken_total == 0
            assert home.gateway.replicas()[0].failures == 0

    run(claim())


def test_a_server_that_closes_its_idle_connections_is_not_noticed(run: Any) -> None:
    async def claim() -> None:
        async with house() as home:
            for _ in range(3):
                assert (await home.ask(max_tokens=1)).status == 200
                home.backend.cut_all()
                await home.until(lambda: not home.gateway.servers["m-0"]._all)
            assert home.gateway.retries.taken_total == 0
            assert home.gateway.replicas()[0].failures == 0

    run(claim())


def test_no_request_is_sent_more_than_three_times(run: Any) -> None:
    """Also where each server had been closing the kept connections on which it came."""

    async def claim() -> None:
        async with house(behave=answer, replicas=2, eject_after=100) as home:
            await asyncio.gather(*(home.ask(max_tokens=1) for _ in range(20)))
            for backend in home.backends.values():
                backend.behave = says(then="cut")
                backend.calls.clear()
            got = await home.ask()
            assert (got.status, got.json()["error"]["code"]) == (502, "server_failed")
            assert sum(len(backend.calls) for backend in home.backends.values()) == 3

    run(claim())


def test_second_tries_are_a_small_part_of_what_is_in_flight(run: Any) -> None:
    async def claim() -> None:
        gate = asyncio.Event()

        async def behave(call: Call) -> None:
            await gate.wait()
            call.cut()

        async with house(behave=behave, max_in_flight=64, eject_after=1000) as home:
            asks = [asyncio.ensure_future(home.ask()) for _ in range(64)]
            await home.until(lambda: home.backend.running == 64)
            gate.set()
            got = await asyncio.gather(*asks)
            assert {each.status for each in got} == {502}
            # A tenth of 64 and the two further tries of those: the rest were told at once.
            assert 64 < len(home.backend.calls) <= 64 + 2 * 7
            assert home.gateway.retries.refused_total > 40

    run(claim())


def test_after_its_deadline_a_request_is_not_tried_again(run: Any) -> None:
    async def late(call: Call) -> None:
        await asyncio.sleep(0.06)
        call.cut()

    async def claim() -> None:
        async with house(behave=late) as home:
            await home.ask(fields="X-Zeta-Deadline-Ms: 50\r\n")
            assert len(home.backend.calls) == 1

    run(claim())


def test_a_server_that_refuses_connections_is_left_for_another(run: Any) -> None:
    async def claim() -> None:
        async with house(replicas=2) as home:
            await home.backend.stop()
            for i in range(20):
                got = await home.ask(question=f"n{i}", max_tokens=2, stream=True)
                assert check_whole_or_error(got, f"n{i}", 2)
                assert got.fields["x-zeta-replica"] == "m-1"
            assert not home.gateway.health.all()[0].is_up
            await home.backend.start()
            await home.until(lambda: home.gateway.health.all()[0].is_up)

    run(claim())


def test_no_server_at_all_is_told_at_once_and_ends_when_one_is_back(run: Any) -> None:
    async def claim() -> None:
        async with house() as home:
            await home.backend.stop()
            got = await home.ask()
            assert got.status in (502, 503)
            assert "127.0.0.1" not in got.body.decode()
            await home.backend.start()
            await home.until(lambda: home.gateway.health.all()[0].is_up)
            assert (await home.ask(max_tokens=1)).status == 200

    run(claim())


# --- statuses


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 404, 413, 415, 422])
def test_what_is_wrong_with_a_request_is_told_as_its_server_tells_it(run: Any, status: int, stream: bool) -> None:
    async def behave(call: Call) -> None:
        await call.json({"error": {"message": "too many tokens"}}, status)

    async def claim() -> None:
        async with house(behave=behave) as home:
            got = await home.ask(stream=stream)
            assert (got.status, got.json()) == (status, {"error": {"message": "too many tokens"}})
            assert len(home.backend.calls) == 1
            assert home.gateway.replicas()[0].failures == 0

    run(claim())


@pytest.mark.parametrize("status", [204, 301, 302, 307, 308, 401, 403, 407, 500, 502, 504, 599])
def test_what_is_wrong_with_a_server_becomes_a_502_of_our_own(
    run: Any, status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BACKEND_KEY", "sk-backend-secret")
    elsewhere = Backend()

    async def behave(call: Call) -> None:
        assert call.fields["authorization"] == "Bearer sk-backend-secret"
        if status == 204:
            await call.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            return
        location = f"Location: {elsewhere.url}/chat/completions\r\nWWW-Authenticate: Bearer sk-backend-secret\r\n"
        await call.json({"error": "key sk-backend-secret is not valid"}, status, location)

    async def claim() -> None:
        await elsewhere.start()
        async with house(behave=behave, api_key_env="BACKEND_KEY", eject_after=100) as home:
            for stream in (False, True):
                got = await home.ask(stream=stream)
                assert (got.status, got.json()["error"]["code"]) == (502, "server_failed")
                assert "sk-backend" not in f"{got} {caplog.text} {home.gateway.replicas()}"
            assert len(home.backend.calls) == 6
        assert elsewhere.calls == []
        await elsewhere.stop()

    run(claim())


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("after", "expected"),
    [("7", 7), ("0", 1), ("9" * 400, 3600), ("soon", 1), ("Fri, 31 Dec 1999 23:59:59 GMT", 1), ("-5", 1), ("1.5", 1)],
)
def test_a_busy_server_s_wish_to_be_left_alone_reaches_the_client(
    run: Any, status: int, after: str, expected: int
) -> None:
    async def behave(call: Call) -> None:
        await call.json({"error": "busy"}, status, f"Retry-After: {after}\r\n")

    async def claim() -> None:
        async with house(behave=behave) as home:
            got = await home.ask(stream=True)
            assert (got.status, got.json()["error"]["code"]) == (503, "server_busy")
            assert got.fields["retry-after"] == str(expected)
            assert len(home.backend.calls) == 1  # there is no other to ask, and this one asked not to be

    run(claim())


def test_a_busy_server_s_request_goes_to_another(run: Any) -> None:
    async def busy(call: Call) -> None:
        await call.json({"error": "busy"}, 429, "Retry-After: 7\r\n")

    async def claim() -> None:
        async with house(replicas=2) as home:
            home.backend.behave = busy
            got = await asyncio.gather(*(home.ask(question=f"b{i}", max_tokens=1) for i in range(4)))
            assert sorted({each.status for each in got}) in ([200], [200, 503])
            assert any(each.fields["x-zeta-replica"] == "m-1" for each in got)

    run(claim())


def test_a_server_that_fails_in_a_row_is_left_alone_but_never_the_last(run: Any) -> None:
    async def claim() -> None:
        async with house(replicas=2, eject_s=0.2) as home:
            bad = home.backends["m-0"]
            bad.behave = says(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n")
            for i in range(12):
                await home.ask(question=f"e{i}", max_tokens=1)
            ejected = home.gateway.replicas()[0]
            assert ejected.is_ejected
            assert home.gateway.health.ejections_total == 1
            assert len(bad.calls) == 3
            home.backends["m-1"].behave = bad.behave
            for _ in range(6):
                assert (await home.ask()).status == 502
            assert not home.gateway.replicas()[1].is_ejected
            for backend in home.backends.values():
                backend.behave = answer
            await home.until(lambda: not home.gateway.replicas()[0].is_ejected)
            assert (await home.ask(max_tokens=1)).status == 200

    run(claim())


# --- hostile answers

TWO = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
HOSTILE = {
    "no HTTP": says(b"SSH-2.0-OpenSSH_9.2\r\n", then="hangs"),
    "bytes": says(bytes(range(256)) * 10, then="hangs"),
    "nothing but NULs": says(b"\0" * 1000, then="hangs"),
    "an endless head": says(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000, then="hangs"),
    "one endless field": says(b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000, then="hangs"),
    "NUL in a field": says(JSON_HEAD + b"X: a\0b\r\nContent-Length: 2\r\n\r\n{}", then="hangs"),
    "two lengths": says(JSON_HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", then="hangs"),
    "a length and chunks": says(
        JSON_HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", then="hangs"
    ),
    "a negative length": says(JSON_HEAD + b"Content-Length: -2\r\n\r\n{}", then="hangs"),
    "a huge length": says(JSON_HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n{}", then="hangs"),
    "bad chunk": says(JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n", then="hangs"),
    "a huge chunk": says(JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff1\r\n{}", then="hangs"),
    "a folded field": says(JSON_HEAD + b"X: a\r\n\tb\x01\r\nContent-Length : 2\r\n\r\n{}", then="hangs"),
    "switching protocols": says(b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", then="hangs"),
    "endless 100s": says(b"HTTP/1.1 100 Continue\r\n\r\n" * 5000, then="hangs"),
    "HTTP/2": says(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", then="hangs"),
    "compressed": says(JSON_HEAD + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08", then="hangs"),
    "an empty stream": says(STREAM_HEAD + b"0\r\n\r\n"),
    "an endless whole answer": says(
        JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk(b"x" * (1 << 22))] * 17, then="hangs"
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_answer_becomes_an_error_of_our_own(run: Any, what: str) -> None:
    async def claim() -> None:
        async with house(behave=HOSTILE[what], eject_after=100) as home:
            async with asyncio.timeout(20):
                got = await home.ask(stream=True)
            assert (got.status, got.json()["error"]["code"]) == (502, "server_failed")
            assert len(home.backend.calls) == 3
            home.backend.behave = answer
            assert check_whole_or_error(await home.ask(question="fine", stream=True), "fine", 4)

    run(claim())


DONE = b"data: [DONE]\n\n"
T0, T1 = token("o:0 "), token("o:1 ")
ODD: dict[str, tuple[bytes, ...]] = {
    "CRLF": tuple(each.replace(b"\n", b"\r\n") for each in (T0, T1, DONE)),
    "CRLF cut between CR and LF": (T0[:-2] + b"\r\n\r", b"\n" + T1[:-2] + b"\r\n\r\n" + DONE),
    "byte by byte": tuple(bytes([each]) for each in T0 + T1 + DONE),
    "all at once": (T0 + T1 + DONE,),
    "empty lines between": (T0 + b"\n\n" + T1 + b"\n" + DONE + b"\n",),
    "three line ends after the last": (T0 + T1 + DONE + b"\n",),
    "a line end after the last, later": (T0 + T1 + DONE, b"\n"),
    "comments": (b": hi\n\n", T0, b": OPENROUTER PROCESSING\n\n", T1, b": bye\n\n" + DONE),
    "names of events, ids": (b"event: m\nid: 7\nretry: 5\n" + T0, T1, DONE),
    "data without a blank": (T0.replace(b"data: ", b"data:"), T1, b"data:[DONE]\n\n"),
    "more after the end": (T0 + T1 + DONE + token("foreign"),),
    "more after the end, later": (T0 + T1 + DONE, token("foreign"), b"data: {"),
    "a second end": (T0 + T1 + DONE + DONE,),
    "usage as a list": (T0, T1, b'data: {"choices":[{"delta":{"content":""}}],"usage":[1]}\n\n', DONE),
    "usage as a number": (T0, T1, b'data: {"choices":[{"delta":{"content":""}}],"usage":7}\n\n', DONE),
    "usage in every event": (
        *(each.replace(b'{"choices"', b'{"usage":null,"choices"') for each in (T0, T1)),
        b'data: {"choices":[],"usage":{"completion_tokens":-5}}\n\n',
        DONE,
    ),
    "usage that is huge": (T0, T1, b'data: {"choices":[],"usage":{"completion_tokens":1e300}}\n\n', DONE),
    "usage and no choices": (T0, T1, b'data: {"usage":{"completion_tokens":99999999999999999999}}\n\n', DONE),
    "an error that is null": (T0.replace(b'{"choices"', b'{"error":null,"choices"'), T1, DONE),
}


@pytest.mark.parametrize("what", ODD)
def test_an_odd_stream_reaches_the_client_as_it_is(run: Any, what: str) -> None:
    async def claim() -> None:
        async with house(behave=says(STREAM_HEAD, *map(chunk, ODD[what]), b"0\r\n\r\n")) as home:
            for _ in range(2):
                got = await home.ask(stream=True)
                told = re.sub(rb"\r\n?", b"\n", got.body)
                texts = re.findall(r'"content": ?"(.*?)"', told.decode())
                assert "".join(texts) == "o:0 o:1 "
                assert told.rstrip(b"\n").endswith(b"[DONE]")
                assert told.count(b"[DONE]") == 1
                assert b"error" not in got.body.replace(b'"error":null', b"")
            assert home.outcomes() == {"completed": 2}

    run(claim())


def test_a_character_of_several_bytes_may_be_cut_anywhere(run: Any) -> None:
    event = 'data: {"choices":[{"index":0,"delta":{"content":"日本語 🦓 é"}}]}\n\n'.encode()

    async def claim() -> None:
        for at in range(45, len(event) - 10):
            pieces = (chunk(event[:at]), chunk(event[at:]), chunk(DONE))
            async with house(behave=says(STREAM_HEAD, *pieces, b"0\r\n\r\n")) as home:
                assert (await home.ask(stream=True)).text == "日本語 🦓 é"

    run(claim())


def test_an_error_that_a_server_tells_in_its_stream_goes_on_as_it_is_and_counts_against_it(run: Any) -> None:
    error = b'data: {"error": {"message": "out of memory", "code": 500}}\n\n'

    async def claim() -> None:
        for last in (b"", DONE):
            async with house(behave=says(STREAM_HEAD, chunk(T0), chunk(error + last), b"0\r\n\r\n")) as home:
                got = await home.ask(stream=True)
                assert json.loads(got.events[1])["error"]["message"] == "out of memory"
                assert home.outcomes() == {"failed_replica": 1}
                assert home.gateway.replicas()[0].failures == 1

    run(claim())


def test_a_second_answer_to_one_request_is_nobody_s(run: Any) -> None:
    good = b'{"choices":[{"message":{"content":"mine"}}]}'
    first = JSON_HEAD + b"Content-Length: %d\r\n\r\n" % len(good) + good

    async def claim() -> None:
        for pieces in ((first + TWO,), (first, TWO), (first + b"x" * 100,), (first, b"\0")):
            async with house(behave=once(says(*pieces))) as home:
                got = (await home.ask(question="one")).json()["choices"][0]["message"]["content"]
                assert got == ("mine" if len(pieces) == 2 else "one:0 one:1 one:2 one:3 ")
                if len(pieces) == 2:  # it is seen between two requests, and the connection is given up
                    await home.until(lambda home=home: not home.gateway.servers["m-0"]._all)
                for i in range(3):
                    got = await home.ask(question=f"next{i}", max_tokens=2)
                    assert check_whole_or_error(got, f"next{i}", 2)

    run(claim())


def test_a_length_that_is_too_short_or_too_long_is_seen(run: Any) -> None:
    body = b'{"choices":[{"message":{"content":"w:0 "}}]}'

    async def claim() -> None:
        for length in (len(body) - 7, len(body) + 7):
            wrong = JSON_HEAD + b"Content-Length: %d\r\n\r\n" % length + body
            async with house(behave=once(says(wrong, then="closes"))) as home:
                got = await home.ask(question="w", max_tokens=1)
                assert check_whole_or_error(got, "w", 1)
                await home.until(home.is_idle)
                assert check_whole_or_error(await home.ask(question="z", max_tokens=2), "z", 2)

    run(claim())


def test_a_100_continue_and_trailers_are_let_pass(run: Any) -> None:
    async def behave(call: Call) -> None:
        await call.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nX: y\r\n\r\n")
        await asyncio.sleep(0.01)
        await call.send(STREAM_HEAD + chunk(T0 + T1) + chunk(DONE) + b"0\r\nX-Sum: 1\r\nContent-Type: a/b\r\n\r\n")

    async def claim() -> None:
        async with house(behave=behave) as home:
            for _ in range(3):
                assert (await home.ask(stream=True)).text == "o:0 o:1 "
            assert len(home.gateway.servers["m-0"]._all) == 1

    run(claim())


def test_what_a_server_says_of_its_answer_s_type_cannot_break_the_answer(run: Any) -> None:
    async def claim() -> None:
        for kind in (b"a\tb", b"x" * 9000, b"\xff\xfe", b'text/html; charset="\x80"'):
            behave = says(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: 2\r\n\r\n{}" % kind)
            async with house(behave=behave) as home:
                got = await home.ask()
                assert (got.status, got.fields["content-type"]) == (200, "application/json")

    run(claim())


# --- under load


def kills(seconds: float, streams: int) -> Callable[[], Awaitable[None]]:
    async def claim() -> None:
        rng = random.Random(7)
        loop = asyncio.get_running_loop()

        async def slowly(call: Call) -> None:
            count = call.body["max_tokens"]
            if not call.body.get("stream"):
                await asyncio.sleep(0.02)
                await answer(call)
                return
            await call.begin_stream()
            for i in range(count):
                await call.token(f"{call.question}:{i} ")
                await asyncio.sleep(0.004)
            await call.end_stream(count)

        async with house(replicas=4, behave=slowly, max_in_flight=streams) as home:
            ends_s = loop.time() + seconds
            backends = list(home.backends.values())
            whole = broken = 0

            async def client(number: int) -> None:
                nonlocal whole, broken
                turn = 0
                while loop.time() < ends_s:
                    question, count, turn = f"c{number}.{turn}", rng.randint(1, 60), turn + 1
                    got = await home.ask(question=question, max_tokens=count, stream=number % 5 > 0)
                    if check_whole_or_error(got, question, count):
                        whole += 1
                    else:
                        broken += 1
                        await asyncio.sleep(0.02)

            asks = [asyncio.ensure_future(client(number)) for number in range(streams)]
            while loop.time() < ends_s:
                victim = rng.choice(backends)
                await victim.stop()
                await asyncio.sleep(rng.uniform(0.02, 0.1))
                await victim.start()
                await asyncio.sleep(rng.uniform(0.05, 0.3))
            done, pending = await asyncio.wait(asks, timeout=10)
            assert not pending
            for each in done:
                each.result()
            assert whole > 3 * broken
            assert broken > 0
            assert home.gateway.retries._active == 0

    return claim


def test_two_hundred_streams_whose_servers_are_killed_end_whole_or_with_an_error(run: Any) -> None:
    run(kills(2.5, 200)())


@pytest.mark.nightly
def test_two_hundred_streams_for_ten_minutes(run_long: Any) -> None:
    run_long(kills(600, 200)())


def test_a_kill_is_told_to_the_clients_within_two_seconds(run: Any) -> None:
    async def claim() -> None:
        async def endless(call: Call) -> None:
            await call.begin_stream()
            for i in range(10_000):
                await call.token(f"{call.question}:{i} ")
                await asyncio.sleep(0.05)

        async with house(behave=endless) as home, contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(home.client()) for _ in range(50)]
            for i, client in enumerate(clients):
                client.ask(question=f"s{i}", stream=True)
            for client in clients:
                await client.head()
                await client.chunk()
            await home.backend.stop()
            told: list[bytes] = []

            async def last(client: Client) -> None:
                while data := await client.chunk():
                    last = data
                told.append(last)

            waits = [asyncio.ensure_future(last(client)) for client in clients]
            await home.until(lambda: len(told) == 50, 2.0)
            assert all(b'"server_failed"' in each for each in told)
            await asyncio.gather(*waits)

    run(claim())
