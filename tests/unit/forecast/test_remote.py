"""A forecaster elsewhere: believed while it is sound and fresh, never waited for; over HTTP and over a real Redis."""

from __future__ import annotations

import http.server
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zeta.errors import ForecastError
from zeta.forecast import FakeTransport, HttpTransport, LastValue, RedisTransport, RemoteForecaster, Transport
from zeta.runtime import RemoteExchange

S = 1_000_000_000
SHAPE = (2, 2, 5, 3)


def answer(said: dict[str, Any], rate: float = 3.0) -> bytes:
    return json.dumps({"id": said["id"], "rates": np.full(SHAPE, rate).tolist()}).encode()


def make(**more: Any) -> RemoteForecaster:
    return RemoteForecaster(2, max_age_s=5.0, **more)


def wait_for(holds: Callable[[], bool]) -> bool:
    until_s = time.monotonic() + 20.0
    while not holds():
        if time.monotonic() > until_s:
            return False
        time.sleep(0.005)
    return True


def test_before_the_first_answer_nothing_is_valid() -> None:
    forecaster = make()
    assert not forecaster.forecast(10 * S).is_valid.any()
    assert forecaster.age_s(10 * S) is None


def test_an_answer_is_the_forecast_until_it_is_too_old() -> None:
    forecaster = make()
    forecaster.forecast(2 * S)
    assert forecaster.serve_once(FakeTransport(answer), 0.0)
    fresh = forecaster.forecast(3 * S - 1)
    assert (fresh.made_ns, fresh.is_valid.all(), float(fresh.rates.max())) == (2 * S, True, 3.0)
    assert forecaster.forecast(3 * S - 1) is fresh
    assert forecaster.age_s(4 * S) == 2.0
    assert forecaster.forecast(7 * S - 1).is_valid.all()
    stale = forecaster.forecast(7 * S)
    assert not stale.is_valid.any()
    assert float(stale.rates.max()) == 0.0
    assert forecaster.serve_once(FakeTransport(answer), 0.0)
    assert forecaster.forecast(7 * S).is_valid.all()


def test_a_request_carries_the_window_and_what_is_wanted() -> None:
    forecaster = make(window_bins=3)
    transport = FakeTransport(answer)
    for second in range(1, 6):
        forecaster.observe(1, float(second), 0.5)
        forecaster.forecast(second * S)
    forecaster.serve_once(transport, 0.0)
    (said,) = transport.asked
    assert (said["made_ns"], said["bin_s"], said["quantiles"]) == (5 * S, 1.0, [0.5, 0.9, 0.99])
    assert said["rates"] == [[[0.0, 0.0], [float(each), 0.5]] for each in (3, 4, 5)]
    assert said["horizons_s"] == list(LastValue(2).forecast(0).horizons_s)


def test_a_slow_side_gets_the_newest_request_only() -> None:
    forecaster = make()
    transport = FakeTransport(answer)
    for second in range(1, 6):
        forecaster.forecast(second * S)
    assert forecaster.serve_once(transport, 0.0)
    assert not forecaster.serve_once(transport, 0.0)
    assert [said["made_ns"] for said in transport.asked] == [5 * S]
    assert forecaster.dropped == 4


# ruff: noqa: ARG005 - answers that do not care what was asked
UNSOUND: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "no JSON": lambda said: b"\xff\x00<html>",
    "nothing": lambda said: b"",
    "another id": lambda said: answer({"id": "other"}),
    "no rates": lambda said: json.dumps({"id": said["id"]}).encode(),
    "a list": lambda said: b"[1]",
    "deep": lambda said: b"[" * 100_000,
    "another shape": lambda said: json.dumps({"id": said["id"], "rates": [[1.0]]}).encode(),
    "ragged": lambda said: json.dumps({"id": said["id"], "rates": [[1.0], [1.0, 2.0]]}).encode(),
    "NaN": lambda said: answer(said, float("nan")),
    "infinite": lambda said: answer(said, float("inf")),
    "negative": lambda said: answer(said, -1.0),
    "huge": lambda said: answer(said, 1e30),
    "falling": lambda said: json.dumps(
        {"id": said["id"], "rates": (np.full(SHAPE, 9.0) - np.arange(3)).tolist()}
    ).encode(),
}


@pytest.mark.parametrize("unsound", UNSOUND.values(), ids=UNSOUND)
def test_what_is_unsound_is_not_believed_and_the_last_answer_stays(unsound: Callable[..., bytes]) -> None:
    forecaster = make()
    forecaster.forecast(1 * S)
    assert forecaster.serve_once(FakeTransport(answer), 0.0)
    forecaster.forecast(2 * S)
    assert not forecaster.serve_once(FakeTransport(unsound), 0.0)
    assert (forecaster.failures, forecaster.forecast(2 * S).made_ns) == (1, 1 * S)
    assert forecaster.last_failure is not None
    assert "remote forecaster" in forecaster.last_failure


class Hanging:
    """Holds every exchange until it is let go."""

    def __init__(self) -> None:
        self.entered, self.let_go = threading.Event(), threading.Event()

    def exchange(self, request_id: str, body: bytes) -> bytes:  # noqa: ARG002
        self.entered.set()
        self.let_go.wait(30)
        return answer({"id": request_id})

    def close(self) -> None:
        pass


def test_a_hanging_exchange_delays_no_call_of_forecast_and_is_survived() -> None:
    forecaster, transport = make(), Hanging()
    with RemoteExchange(forecaster, transport) as exchange:
        forecaster.forecast(1 * S)
        assert transport.entered.wait(20)
        spent_s = []
        for tick in range(2000):
            from_s = time.thread_time()
            forecaster.observe(0, 1.0, 0.1)
            assert not forecaster.forecast(S + tick * S // 10).is_valid.any()
            spent_s.append(time.thread_time() - from_s)
        assert not transport.let_go.is_set()  # all 2,000 ended while one exchange hung
        assert sorted(spent_s)[1900] < 0.001
        transport.let_go.set()
        assert wait_for(lambda: forecaster.forecast(201 * S).is_valid.all())
    exchange.close()


def test_closing_does_not_wait_for_an_exchange_that_hangs() -> None:
    forecaster, transport = make(), Hanging()
    exchange = RemoteExchange(forecaster, transport).start()
    forecaster.forecast(1 * S)
    assert transport.entered.wait(20)
    exchange.close()
    transport.let_go.set()


def test_a_transport_that_raises_anything_is_a_failure_and_it_recovers_by_itself() -> None:
    state = {"is_broken": True}

    def say(said: dict[str, Any]) -> bytes:
        if state["is_broken"]:
            raise RuntimeError("boom")
        return answer(said)

    forecaster = make()
    with RemoteExchange(forecaster, FakeTransport(say), first_wait_s=0.001, longest_wait_s=0.01):
        forecaster.forecast(1 * S)
        assert wait_for(lambda: forecaster.failures == 1)
        assert forecaster.last_failure == "the transport raised RuntimeError: boom"
        state["is_broken"] = False
        forecaster.forecast(2 * S)
        assert wait_for(lambda: forecaster.forecast(2 * S).is_valid.all())
        assert forecaster.last_failure is None


class Served:
    """An HTTP forecaster that answers, or misbehaves."""

    def __init__(self) -> None:
        self.fault: str | None = None
        self.ended = threading.Event()
        served = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if served.fault in ("hang", "close"):
                    served.ended.wait(30 if served.fault == "hang" else 0)
                    self.connection.close()
                    return
                self.send_response(500 if served.fault == "500" else 200)
                self.end_headers()
                self.wfile.write(b"garbage" if served.fault == "garbage" else answer(said))

            def log_message(self, *words: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *who: object) -> None:
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/forecast"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def served() -> Iterator[Served]:
    started = Served()
    yield started
    started.close()


@pytest.mark.parametrize("fault", ["hang", "close", "500", "garbage"])
def test_over_http_a_fault_is_a_failure_and_its_end_the_recovery(served: Served, fault: str) -> None:
    forecaster = make()
    bad, good = HttpTransport(served.url, deadline_s=0.3), HttpTransport(served.url, deadline_s=20.0)
    served.fault = fault
    forecaster.forecast(1 * S)
    assert not forecaster.serve_once(bad if fault == "hang" else good, 0.0)
    assert forecaster.failures == 1
    served.fault = None
    forecaster.forecast(2 * S)
    assert forecaster.serve_once(good, 0.0)
    assert forecaster.forecast(2 * S).is_valid.all()


def test_over_http_a_dead_server_is_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ForecastError, match="refuses connections; is it up"):
        HttpTransport(f"http://127.0.0.1:{port}/").exchange("a", b"{}")


# ---- Redis


def start_redis(port: int, folder: Path) -> subprocess.Popen[bytes]:
    words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    server = subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL)

    def is_up() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    assert wait_for(is_up)
    return server


@pytest.fixture
def redis_port(tmp_path: Path) -> Iterator[int]:
    pytest.importorskip("redis", reason="the package redis (extra redis) is not installed")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed (apt-get install redis-server)")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    server = start_redis(port, tmp_path)
    yield port
    server.terminate()
    server.wait()


class RedisSide(threading.Thread):
    """The forecaster at the other end of the streams."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        import redis

        self.client = redis.Redis(port=port)
        self.ended = threading.Event()
        self.start()

    def run(self) -> None:
        seen: bytes | str = "0-0"
        while not self.ended.is_set():
            for _, entries in self.client.xread({"zeta:forecast:requests": seen}, block=20) or ():
                for seen, fields in entries:  # noqa: B007 - where the next read begins
                    said = {"id": fields[b"id"], "body": answer(json.loads(fields[b"body"]))}
                    self.client.xadd("zeta:forecast:answers", {"id": b"another", "body": b"noise"})
                    self.client.xadd("zeta:forecast:answers", said, maxlen=16)

    def close(self) -> None:
        self.ended.set()
        self.join()
        self.client.close()


def test_over_redis_streams_answers_come_and_others_are_passed_over(redis_port: int) -> None:
    side = RedisSide(redis_port)
    forecaster = make()
    transport: Transport = RedisTransport(f"redis://127.0.0.1:{redis_port}/0", deadline_s=20.0)
    for second in range(1, 40):
        forecaster.forecast(second * S)
        assert forecaster.serve_once(transport, 0.0), forecaster.last_failure
        assert forecaster.forecast(second * S).made_ns == second * S
    transport.close()
    side.close()


def test_over_redis_silence_and_a_dead_server_are_failures_and_its_return_ends_them(
    redis_port: int, tmp_path: Path
) -> None:
    transport = RedisTransport(f"redis://127.0.0.1:{redis_port}/0", deadline_s=0.3)
    with pytest.raises(ForecastError, match="does a forecaster read zeta:forecast:requests"):
        transport.exchange("a", b"{}")
    import redis

    with redis.Redis(port=redis_port) as client:
        client.shutdown(nosave=True)
    with pytest.raises(ForecastError, match="is the server up"):
        transport.exchange("b", b"{}")
    again = start_redis(redis_port, tmp_path)
    side = RedisSide(redis_port)
    forecaster = make()
    with RemoteExchange(
        forecaster, RedisTransport(f"redis://127.0.0.1:{redis_port}/0", deadline_s=20.0), first_wait_s=0.01
    ):
        forecaster.forecast(1 * S)
        assert wait_for(lambda: forecaster.forecast(1 * S).is_valid.all())
    side.close()
    transport.close()
    again.terminate()
    again.wait()
