"""The simulated engine on this process's event loop: numbered words, exact times, faults, a slow reader."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("httptools")
pytest.importorskip("msgspec")

from zeta._core import LiveDevice
from zeta.engine_tables import step_table
from zeta.engines import Faults, Job, Profile, Server, SimulatedEngine, serving
from zeta.engines._pace import FixedPace
from zeta.errors import ConfigError

pytestmark = pytest.mark.asyncio


async def talk(server: Server, body: dict[str, Any], limit: int = 1 << 24) -> bytes:
    """All that the server answers until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=limit)
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nconnection: close\r\ncontent-length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    try:
        return await asyncio.wait_for(reader.read(), 10.0)
    finally:
        writer.close()
        await writer.wait_closed()


def words_of(answer: bytes) -> str:
    events = [line[6:] for line in answer.splitlines() if line.startswith(b'data: {"id"')]
    return "".join(json.loads(event)["choices"][0]["text"] for event in events)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


class Kept(Job):
    """A job that keeps what it gets."""

    __slots__ = ("finish", "pieces")

    def __init__(self, max_tokens: int, **options: Any) -> None:
        super().__init__("a prompt", max_tokens, **options)
        self.pieces: list[bytes] = []
        self.finish: str | None = None

    def produced(self, pieces: Sequence[bytes], finish: str | None) -> None:
        self.pieces += pieces
        self.finish = finish


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["fixed:0:0", "fixed:1:0.01", "qwen2.5-7b"])
async def test_its_words_are_numbered_without_gap_or_repeat(profile: str) -> None:
    async with serving(SimulatedEngine(profile, speed=50.0)) as server:
        answer = await talk(server, {"prompt": "a", "max_tokens": 300, "stream": True})
        assert words_of(answer) == " ".join(f"t{number}" for number in range(300))


async def test_words_go_on_beyond_those_kept_ready() -> None:
    async with serving(SimulatedEngine("fixed:0:0")) as server:
        answer = await talk(server, {"prompt": "a", "max_tokens": 9000, "stream": True})
        assert words_of(answer) == " ".join(f"t{number}" for number in range(9000))


async def test_an_answer_may_be_shorter_than_max_tokens_and_then_ends_by_itself() -> None:
    async with serving(SimulatedEngine("fixed:0:0")) as server:
        answer = await talk(server, {"prompt": "a", "max_tokens": 50, "zeta_output_tokens": 3})
        body = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert body["choices"][0] == {"index": 0, "text": "t0 t1 t2", "logprobs": None, "finish_reason": "stop"}
        assert body["usage"]["completion_tokens"] == 3


async def test_prompt_tokens_are_those_claimed_else_a_quarter_of_the_bytes() -> None:
    async with serving(SimulatedEngine("fixed:0:0")) as server:
        for fields, expected in (({}, 3), ({"zeta_prompt_tokens": 700}, 700)):
            answer = await talk(server, {"prompt": "twelve bytes", "max_tokens": 1, **fields})
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["usage"]["prompt_tokens"] == expected


async def test_a_reader_that_stops_and_goes_on_gets_every_word() -> None:
    async with serving(SimulatedEngine("fixed:0:0.001")) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=2048)
        body = json.dumps({"prompt": "a", "max_tokens": 60_000, "stream": True}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        while server.engine.gauges().running == 0:
            await asyncio.sleep(0)
        while server.engine.gauges().running:
            await asyncio.sleep(0)
        answer = await asyncio.wait_for(reader.read(), 20.0)
        writer.close()
        await writer.wait_closed()
        assert words_of(answer) == " ".join(f"t{number}" for number in range(60_000))
        assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


# --- times -----------------------------------------------------------------------------------------------------------


async def test_the_live_device_takes_the_times_of_the_step_table() -> None:
    table = step_table("h200-sxm-141gb", "qwen2.5-7b")
    device = LiveDevice([Profile.parse("qwen2.5-7b").engine_spec()])
    device.advance(1000)
    assert device.enqueue(1000, tag=7, prompt_tokens=500, output_tokens=3) is not None
    prefill, second, third = (
        table.step_time_ns(500, 0, 0, 0),
        table.step_time_ns(0, 0, 1, 501),
        table.step_time_ns(0, 0, 1, 502),
    )
    assert device.next_event_ns == 1000 + prefill
    assert device.advance(1000 + prefill) == ([(7, 1000, 1000 + prefill)], [(7, 1)], [])
    at_ns = 1000 + prefill + second
    assert device.advance(at_ns) == ([], [(7, 2)], [])
    assert device.advance(at_ns + third) == ([], [], [(7, at_ns + third)])
    assert device.next_event_ns is None


async def test_an_aborted_request_leaves_the_live_device_and_a_stall_puts_events_off() -> None:
    device = LiveDevice([Profile.parse("qwen2.5-7b").engine_spec()])
    device.advance(0)
    handle = device.enqueue(0, tag=1, prompt_tokens=500, output_tokens=3)
    assert handle is not None
    assert (device.running(), device.kv_tokens_used() > 0) == (1, True)
    device.stall(0, until_ns=10**12)
    assert device.next_event_ns == 10**12
    assert device.abort(0, handle)
    assert not device.abort(0, handle)
    assert (device.running(), device.waiting(), device.kv_tokens_used()) == (0, 0, 0)


async def test_a_live_device_told_of_a_past_or_overdue_instant_says_what_to_do() -> None:
    device = LiveDevice([Profile.parse("qwen2.5-7b").engine_spec()])
    device.advance(1000)
    with pytest.raises(ValueError, match="call advance"):
        device.enqueue(999, tag=1, prompt_tokens=5, output_tokens=5)
    device.enqueue(1000, tag=1, prompt_tokens=5, output_tokens=5)
    with pytest.raises(ValueError, match="call advance"):
        device.enqueue(10**12, tag=2, prompt_tokens=5, output_tokens=5)


async def test_fixed_times_are_kept_whatever_the_load_and_a_full_batch_makes_others_wait() -> None:
    pace = FixedPace(ttft_ns=100, tpot_ns=10, max_batch=2)
    for tag, output_tokens, priority in ((1, 3, 0), (2, 4, 0), (3, 3, 1), (4, 3, 0)):
        given = pace.enqueue(0, tag=tag, prompt_tokens=5, output_tokens=output_tokens, priority=priority)
        assert given == tag
    assert (pace.running(), pace.waiting()) == (2, 2)
    assert pace.advance(99) == ([], [], [])
    assert pace.advance(112) == ([(1, 0, 100), (2, 0, 100)], [(1, 2), (2, 2)], [])
    # Places free at 120 and 130, and those who waited start there: the urgent one first.
    assert pace.advance(500) == ([(4, 120, 220), (3, 130, 230)], [], [(1, 120), (2, 130), (4, 240), (3, 250)])
    assert pace.next_event_ns is None


async def test_a_withdrawn_request_gives_its_place_to_the_next() -> None:
    pace = FixedPace(ttft_ns=100, tpot_ns=10, max_batch=1)
    for tag in (1, 2, 3):
        pace.enqueue(0, tag=tag, prompt_tokens=5, output_tokens=1)
    assert pace.abort(50, 2)
    assert pace.abort(50, 1)
    assert not pace.abort(50, 1)
    assert (pace.running(), pace.waiting()) == (1, 0)
    assert pace.advance(150)[2] == [(3, 150)]


async def test_what_can_never_fit_is_refused_with_the_limit() -> None:
    engine = SimulatedEngine(Profile.parse("qwen2.5-7b", kv_tokens=1000))
    refusal = engine.submit(Kept(2000))
    assert refusal is not None
    assert refusal.status == 400
    assert "1000 in all" in refusal.message


@pytest.mark.parametrize(
    ("profile", "says"),
    [
        ("gpt", "qwen2.5-7b"),
        ("qwen2.5-7b@moon", "h200-sxm-141gb"),
        ("fixed:a:b", "fixed:50:10"),
        ("fixed:1", "TTFT_MS"),
    ],
)
async def test_an_unknown_profile_says_which_there_are(profile: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Profile.parse(profile)


# --- faults ----------------------------------------------------------------------------------------------------------


async def test_fail_rate_fails_that_part_with_status_500() -> None:
    async with serving(SimulatedEngine("fixed:0:0"), faults=Faults(fail_rate=0.5, seed=1)) as server:
        statuses = [status_of(await talk(server, {"prompt": "a", "max_tokens": 1})) for _ in range(40)]
        assert set(statuses) == {200, 500}
        assert 10 < statuses.count(500) < 30


async def test_refuse_answers_503_and_can_be_taken_back() -> None:
    async with serving(SimulatedEngine("fixed:0:0"), faults=Faults(refuse=True)) as server:
        assert status_of(await talk(server, {"prompt": "a"})) == 503
        server.faults.refuse = False
        assert status_of(await talk(server, {"prompt": "a"})) == 200


async def test_cut_after_ends_the_stream_after_that_many_words_without_an_end() -> None:
    async with serving(SimulatedEngine("fixed:0:0.1"), faults=Faults(cut_after=3)) as server:
        answer = await talk(server, {"prompt": "a", "max_tokens": 50, "stream": True})
        assert words_of(answer) == "t0 t1 t2"
        assert b"[DONE]" not in answer
        assert server.engine.gauges().running == 0


async def test_stall_after_falls_silent_and_leaving_frees_the_slot() -> None:
    async with serving(SimulatedEngine("fixed:0:1"), faults=Faults(stall_after=3)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        body = json.dumps({"prompt": "a", "max_tokens": 100_000, "stream": True}).encode()
        writer.write(b"POST /v1/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        got = b""
        while words_of(got) != "t0 t1 t2":
            got += await reader.read(65_536)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05)
        assert server.engine.gauges().running == 1
        writer.close()
        await writer.wait_closed()
        while server.connections:
            await asyncio.sleep(0)
        assert server.engine.gauges().running == 0


async def test_closing_the_server_closes_its_connections() -> None:
    async with serving(SimulatedEngine("fixed:0:1")) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        body = json.dumps({"prompt": "a", "max_tokens": 100_000, "stream": True}).encode()
        writer.write(b"POST /v1/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        assert await reader.read(4096)
    assert server.connections == 0
    assert not (await reader.read()).endswith(b"0\r\n\r\n")
    writer.close()


async def test_a_client_that_does_not_read_does_not_keep_a_closing_server() -> None:
    server = Server(SimulatedEngine("fixed:0:0"))
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
    body = json.dumps({"prompt": "a", "max_tokens": 500_000, "stream": True}).encode()
    writer.write(b"POST /v1/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    await reader.readline()
    await asyncio.wait_for(server.close(), 10.0)
    assert server.connections == 0
    writer.close()
