"""Engines by version: what each page says, which engine it is, and what happens when it does not answer."""

from __future__ import annotations

import builtins
import contextlib
import http.server
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.monitor.engine_server import PAGES, SERVERS, Server

from zeta.errors import MissingExtraError, MonitorError, ProbeUnavailable
from zeta.monitor import REPLICA_FIELDS, EngineProbe, InFlightCredit, Kind, Probe, Reading
from zeta.monitor._engine_forms import FORMS, wanted_names
from zeta.monitor._engine_text import PrometheusText
from zeta.monitor.snapshot import Board

S = 1_000_000_000

ROWS: dict[str, dict[str, float]] = {
    "vllm_0.6": {
        "running": 7, "waiting": 3, "kv_used": 0.375, "kv_capacity_tokens": 50_000, "prompt_tokens_total": 120_034,
        "output_tokens_total": 45_067, "requests_total": 308, "preemptions_total": 5, "ttft_sum_s": 40.5,
        "ttft_count": 311, "tpot_sum_s": 901.25, "tpot_count": 44_756, "queue_wait_sum_s": 12.5,
        "queue_wait_count": 308, "is_awake": 1,
    },
    "vllm_0.33": {
        "running": 11, "waiting": 3, "kv_used": 0.625, "kv_capacity_tokens": 96_000, "prompt_tokens_total": 200_034,
        "output_tokens_total": 75_067, "requests_total": 457, "preemptions_total": 6, "prefix_queries_total": 11_000,
        "prefix_hits_total": 4500, "ttft_sum_s": 60.75, "ttft_count": 461, "tpot_sum_s": 9.75, "tpot_count": 457,
        "queue_wait_sum_s": 13, "queue_wait_count": 457, "is_awake": 1,
    },
    "sglang_0.4": {
        "running": 162, "waiting": 2826, "kv_used": 0.28, "prompt_tokens_total": 8_128_902,
        "output_tokens_total": 7_557_572, "prefix_queries_total": 8_128_902, "ttft_sum_s": 2351.5, "ttft_count": 11_008,
        "tpot_sum_s": 866_964.5, "tpot_count": 7_400_757, "is_awake": 1,
    },
    "sglang_0.5": {
        "running": 162, "waiting": 26, "kv_used": 0.29, "kv_capacity_tokens": 442_352, "prompt_tokens_total": 5600,
        "output_tokens_total": 980, "requests_total": 330, "preemptions_total": 48, "prefix_queries_total": 5600,
        "prefix_hits_total": 1750, "ttft_sum_s": 62.5, "ttft_count": 310, "tpot_sum_s": 45.5, "tpot_count": 890,
        "queue_wait_sum_s": 7.5, "queue_wait_count": 330, "is_awake": 1,
    },
    "llamacpp_b3000": {
        "running": 2, "waiting": 1, "kv_used": 0.15, "kv_capacity_tokens": 8192, "prompt_tokens_total": 1234,
        "output_tokens_total": 567, "tpot_sum_s": 32.25, "tpot_count": 567,
    },
    "llamacpp_b8600": {
        "running": 2, "waiting": 1, "kv_used": 1536 / 16_384, "kv_capacity_tokens": 16_384,
        "prompt_tokens_total": 1234, "output_tokens_total": 567, "tpot_sum_s": 32.25, "tpot_count": 567, "is_awake": 1,
    },
    "llamacpp_b8600_without_metrics": {
        "running": 2, "kv_used": 1536 / 16_384, "kv_capacity_tokens": 16_384, "is_awake": 1,
    },
    "ollama_0.1": {"is_awake": 1, "memory_used_bytes": 5_137_025_024},
    "ollama_0.40": {"is_awake": 1, "memory_used_bytes": 5_826_062_336},
}  # fmt: skip

ENGINE_OF = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llama.cpp", "ollama": "ollama"}


@pytest.fixture
def server() -> Iterator[Server]:
    """An engine to be."""
    server = Server()
    yield server
    server.close()


Make = Callable[..., EngineProbe]


@pytest.fixture
def make(server: Server) -> Iterator[Make]:
    """Probes of the server."""
    made: list[EngineProbe] = []

    def probe(**options: Any) -> EngineProbe:
        made.append(EngineProbe("r", server.url, **({"deadline_s": 20.0} | options)))
        return made[-1]

    yield probe
    for each in made:
        each.close()


def row(reading: Reading) -> dict[str, float]:
    """What is known."""
    return {name: value for name, value in reading.rows["r"].items() if value is not None}


# --- what engines say ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["auto", "named"])
@pytest.mark.parametrize("name", list(SERVERS))
def test_an_engine_of_each_version_is_recognised_and_understood(
    server: Server, make: Make, name: str, how: str
) -> None:
    server.load(name)
    engine = ENGINE_OF[name.partition("_")[0]]
    probe = make(engine="auto" if how == "auto" else engine)
    assert isinstance(probe, Probe)
    reading = probe.read()
    assert probe.engine == engine
    assert row(reading) == pytest.approx(ROWS[name])
    assert set(reading.rows["r"]) == {field.name for field in REPLICA_FIELDS}
    assert reading.details["r"]["engine"] == engine


def test_both_names_of_a_renamed_metric_are_not_added_up(server: Server, make: Make) -> None:
    page = (PAGES / "vllm_0.33.txt").read_text()
    renamed = page.replace("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
    server.pages["/metrics"] = (page + renamed + page.replace("vllm:prefix", "vllm:gpu_prefix")).encode()
    assert row(make().read())["kv_used"] == 0.625
    assert row(make().read())["prefix_queries_total"] == 11_000


def test_a_sleeping_vllm_is_not_awake(server: Server, make: Make) -> None:
    page = (PAGES / "vllm_0.33.txt").read_bytes()
    server.pages["/metrics"] = page.replace(b'sleep_state="awake"} 1.0', b'sleep_state="awake"} 0.0')
    assert row(make().read())["is_awake"] == 0


def test_a_sleeping_llama_is_not_awake(server: Server, make: Make) -> None:
    server.load("llamacpp_b8600")
    props = server.pages["/props"]
    assert isinstance(props, bytes)
    server.pages["/props"] = props.replace(b'"is_sleeping": false', b'"is_sleeping": true')
    assert row(make().read())["is_awake"] == 0


def test_ollama_without_the_model_loaded_is_not_awake(server: Server, make: Make) -> None:
    server.load("ollama_0.40")
    assert row(make(model="qwen2.5:0.5b").read()) == {"is_awake": 1, "memory_used_bytes": 492_523_008}
    assert row(make(model="gemma4").read())["memory_used_bytes"] == 5_333_539_264
    assert row(make(model="llama3").read()) == {"is_awake": 0, "memory_used_bytes": 0}
    server.pages["/api/ps"] = b'{"models":null}'
    assert row(make().read())["is_awake"] == 0


def test_a_model_of_several_is_told_apart(server: Server, make: Make) -> None:
    page = (PAGES / "vllm_0.6.txt").read_text()
    other = page.replace("org/model-8b", "org/other").replace("} 7.0", "} 70.0")
    server.pages["/metrics"] = (page + other).encode()
    assert row(make(model="org/other").read())["running"] == 70
    assert row(make(model="org/model-8b").read())["running"] == 7


def test_what_llama_does_not_tell_of_its_context_is_unknown(server: Server, make: Make) -> None:
    server.load("llamacpp_b8600")
    server.pages["/slots"] = b'[{"id": 0, "n_ctx": 100, "is_processing": true}, {"id": 1, "n_ctx": 100}]'
    assert "kv_used" not in row(make().read())
    server.pages["/slots"] = 501  # started with --no-slots
    assert "kv_capacity_tokens" not in row(make().read())


# --- when it does not ------------------------------------------------------------------------------------------------


def test_sglang_without_metrics_says_which_flag_is_missing(server: Server, make: Make) -> None:
    server.pages["/get_model_info"] = b'{"model_path": "m", "is_generation": true}'
    with pytest.raises(ProbeUnavailable, match="--enable-metrics"):
        make().read()
    with pytest.raises(ProbeUnavailable, match="--enable-metrics"):
        make(engine="sglang").read()


def test_llama_without_metrics_and_slots_says_which_flag_is_missing(server: Server, make: Make) -> None:
    server.load("llamacpp_b8600")
    server.pages["/metrics"] = server.pages["/slots"] = 501
    with pytest.raises(ProbeUnavailable, match="--metrics"):
        make().read()


def test_a_server_that_is_no_engine_is_unavailable(server: Server, make: Make) -> None:
    server.pages["/metrics"] = b"# TYPE http_requests counter\nhttp_requests 3\n"
    with pytest.raises(ProbeUnavailable, match=r"expected one of vllm, sglang, llama\.cpp, ollama"):
        make().read()


def test_another_engine_at_the_same_address_is_found_out(server: Server, make: Make) -> None:
    server.load("vllm_0.6")
    probe = make()
    probe.read()
    server.load("sglang_0.4")
    with pytest.raises(MonitorError, match="another server answers here"):
        probe.read()
    assert row(probe.read()) == pytest.approx(ROWS["sglang_0.4"])


def test_nobody_at_the_address_is_an_error_and_no_reading() -> None:
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(MonitorError, match="ConnectionRefusedError"):
        EngineProbe("r", f"127.0.0.1:{port}", deadline_s=5.0).read()


def hang(_: http.server.BaseHTTPRequestHandler) -> None:
    threading.Event().wait(5.0)


def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(100):
            handler.wfile.write(b"v")
            handler.wfile.flush()
            threading.Event().wait(0.05)


def flood(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(1000):
            handler.wfile.write(b"x" * (1 << 16))


@pytest.mark.parametrize("fault", [hang, drip])
def test_an_engine_that_does_not_finish_costs_no_more_than_the_deadline(
    server: Server, make: Make, fault: Callable[[http.server.BaseHTTPRequestHandler], None]
) -> None:
    server.load("vllm_0.6")
    probe = make(deadline_s=0.3)
    server.pages["/metrics"] = fault
    began = time.monotonic()
    with pytest.raises(MonitorError, match="does not answer"):
        probe.read()
    assert time.monotonic() - began < 2.0
    server.load("vllm_0.6")
    for _ in range(20):
        with contextlib.suppress(MonitorError):
            assert row(probe.read())["running"] == 7
            return
    raise AssertionError("it did not recover")


def test_a_page_without_end_is_cut_off(server: Server, make: Make) -> None:
    server.pages["/metrics"] = flood
    with pytest.raises(MonitorError, match="more than 16777216 bytes"):
        make(engine="vllm").read()


@pytest.mark.parametrize("status", [401, 500, 503])
def test_an_error_status_is_an_error(server: Server, make: Make, status: int) -> None:
    server.pages["/metrics"] = status
    with pytest.raises(MonitorError, match=f"status {status}"):
        make(engine="vllm").read()


def test_a_redirect_is_not_followed(server: Server, make: Make) -> None:
    def elsewhere(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "/secret")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.pages["/metrics"] = elsewhere
    with pytest.raises(MonitorError, match="status 302"):
        make(engine="vllm").read()
    assert [path for path, _ in server.asked] == ["/metrics"]


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"[1]", b'{"models": 3}', b'{"models": [4]}', b"\xff\xfe", b"{"])
def test_nonsense_from_ollama_is_an_error(server: Server, make: Make, body: bytes) -> None:
    server.pages["/api/ps"] = body
    with pytest.raises(MonitorError):
        make(engine="ollama").read()


def test_the_connection_is_kept_and_opened_again_when_the_engine_closed_it(server: Server, make: Make) -> None:
    server.load("vllm_0.6")
    probe = make()
    for _ in range(5):
        probe.read()
    assert server.connections == 1

    page = (PAGES / "vllm_0.6.txt").read_bytes()

    def last(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(page)))
        handler.end_headers()
        handler.wfile.write(page)
        handler.close_connection = True  # without a word, as after an idle time

    server.pages["/metrics"] = last
    for _ in range(3):
        assert row(probe.read())["running"] == 7
    assert server.connections == 3


def test_a_page_in_chunks_is_read_whole(server: Server, make: Make) -> None:
    page = (PAGES / "vllm_0.6.txt").read_bytes()

    def chunked(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for at in range(0, len(page), 1000):
            piece = page[at : at + 1000]
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        handler.wfile.write(b"0\r\n\r\n")

    server.pages["/metrics"] = chunked
    probe = make()
    for _ in range(3):
        assert row(probe.read()) == pytest.approx(ROWS["vllm_0.6"])
    assert server.connections == 1


PAGE = b"# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 7.0\n"
FORMS_OF_HTTP: dict[str, tuple[list[bytes], int]] = {
    # the pieces of one answer, and how many connections three reads take
    "in one piece": ([b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(PAGE), PAGE)], 1),
    "byte by byte": ([bytes([each]) for each in b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n#\n#\n"], 1),
    "said to be kept": (
        [b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\ncontent-length:%d \r\n\r\n" % len(PAGE), PAGE],
        1,
    ),
    "until the end": ([b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", PAGE, b""], 3),
    "of the old version": ([b"HTTP/1.0 200 OK\r\n\r\n" + PAGE, b""], 3),
    "with its last words": (
        [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(PAGE), PAGE)],
        3,
    ),
    "in chunks": (
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(PAGE), PAGE), b"0\r\n", b"\r\n"],
        1,
    ),
    "after another": (
        [
            b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"
            % (len(PAGE), PAGE)
        ],
        1,
    ),
    "with more behind it": (
        [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%bHTTP/1.1 500" % (len(PAGE), PAGE)],
        3,
    ),
}


@pytest.mark.parametrize("form", FORMS_OF_HTTP)
def test_an_answer_is_read_whole_in_whatever_form_it_comes(form: str) -> None:
    pieces, connections = FORMS_OF_HTTP[form]
    made = 0
    with socket.create_server(("127.0.0.1", 0)) as door:

        def serve() -> None:
            nonlocal made
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = door.accept()
                    made += 1
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    with connection, contextlib.suppress(OSError):
                        while connection.recv(1 << 16):
                            for piece in pieces:
                                if not piece:
                                    break
                                connection.sendall(piece)
                            if not pieces[-1]:
                                break

        threading.Thread(target=serve, daemon=True).start()
        probe = EngineProbe("r", f"http://127.0.0.1:{door.getsockname()[1]}", engine="vllm", deadline_s=20.0)
        for _ in range(3):
            if form == "byte by byte":
                with pytest.raises(MonitorError, match="another server answers here"):
                    probe.read()
            else:
                assert row(probe.read())["running"] == 7
        probe.close()
        assert made == connections


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n1", b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200", b"x" * (1 << 17)],
    ids=["cut off", "empty", "nonsense", "half a head", "no end of a head"],
)
def test_half_an_answer_is_an_error(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = door.accept()
                    with connection:
                        connection.recv(1 << 16)
                        connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        probe = EngineProbe("r", f"http://127.0.0.1:{door.getsockname()[1]}", engine="vllm", deadline_s=20.0)
        for _ in range(2):
            with pytest.raises(MonitorError, match=r"does not answer: GET /metrics: [A-Z][A-Za-z]+"):
                probe.read()
        probe.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_an_engine_behind_tls_is_read_and_its_certificate_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key -out cert -days 2 -subj /CN=l"
    subprocess.run(
        ["openssl", *made.split(), "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    server = Server(tls=(tmp_path / "cert", tmp_path / "key"))
    server.load("vllm_0.6")
    probe = EngineProbe("r", server.url, deadline_s=20.0)
    with pytest.raises(MonitorError, match="SSLCertVerificationError"):
        probe.read()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert"))
    probe = EngineProbe("r", server.url, deadline_s=20.0)
    for _ in range(3):
        assert row(probe.read()) == pytest.approx(ROWS["vllm_0.6"])
    probe.close()
    server.close()


def test_a_key_is_sent_and_never_told(server: Server, make: Make) -> None:
    server.load("vllm_0.6")
    probe = make(headers={"Authorization": "Bearer canary"})
    assert "canary" not in repr(probe.read())
    assert server.asked[-1] == ("/metrics", "Bearer canary")
    server.pages["/metrics"] = 401
    with pytest.raises(MonitorError) as caught:
        probe.read()
    assert "canary" not in str(caught.value) + repr(vars(caught.value))


def test_without_the_extra_the_error_names_it(server: Server, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("prometheus_client"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    server.load("vllm_0.6")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'zeta-router\[engines\]'"):
        make().read()
    server.load("ollama_0.40")
    assert row(make().read())["is_awake"] == 1


@pytest.mark.parametrize("url", ["ftp://host", "http://", "file:///etc/passwd"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="expected http://host:port"):
        EngineProbe("r", url)


# --- the text --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.txt")), ids=lambda page: page.stem)
def test_the_fast_reader_finds_what_the_library_finds(page: Path) -> None:
    text = page.read_text()
    names = {name for form in FORMS for name in wanted_names(form)}
    reader = PrometheusText(names)
    expected: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in names:
                expected.setdefault(sample.name, []).append((sample.labels, sample.value))
    for _ in range(2):  # the second time from memory
        assert reader.read(text.encode()) == expected
    assert len(expected) >= 5


LABEL = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), max_size=12
)


@given(label=LABEL, value=st.floats(allow_nan=False, allow_infinity=False), has_time=st.booleans())
def test_any_label_is_read_as_the_library_reads_it(label: str, value: float, has_time: bool) -> None:
    escaped = label.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    text = f'vllm:num_requests_running{{model_name="{escaped}"}} {value!r}{" 1700000000000" if has_time else ""}\n'
    reader = PrometheusText(["vllm:num_requests_running"])
    (family,) = text_string_to_metric_families(text)
    assert reader.read(text.encode()) == {"vllm:num_requests_running": [(family.samples[0].labels, value)]}


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    reader = PrometheusText(["vllm:num_requests_running"])
    for page in (text, f"vllm:num_requests_running{text}", f"vllm:num_requests_running{{{text}}} 1"):
        for _, found in reader.read(page.encode(errors="replace")).items():
            assert all(isinstance(value, float) for _, value in found)


def test_lines_that_come_go_and_move_are_found_again() -> None:
    reader = PrometheusText(["a", "b_total"])
    assert reader.read(b'x 1\na{x="1"} 2\n') == {"a": [({"x": "1"}, 2.0)]}
    assert reader.read(b'x 1\na{x="2"} 3\n') == {"a": [({"x": "2"}, 3.0)]}
    assert reader.read(b'a{x="2"} 4\nx 1\n') == {"a": [({"x": "2"}, 4.0)]}
    # One that takes the place of a line that nobody wanted is the hardest to notice.
    seen = [reader.read(b'a{x="2"} 4\nb_total 5\n') for _ in range(64)]
    assert seen[-1] == {"a": [({"x": "2"}, 4.0)], "b_total": [({}, 5.0)]}
    assert reader.read(b"ab 4\nb_total 6\n") == {"b_total": [({}, 6.0)]}
    assert reader.read(b"") == {}
    assert reader.read(b"a 1\r\nb_total 2\r\n") == {"a": [({}, 1.0)], "b_total": [({}, 2.0)]}


def test_numbers_that_are_none_are_left_out() -> None:
    reader = PrometheusText(["a"])
    assert reader.read(b'a{x="1"} NaN\na{x="2"} +Inf\na{x="3"} three\na{x="4"} 4e0\nab 5\n') == {
        "a": [({"x": "4"}, 4.0)]
    }


# --- in-flight credit ------------------------------------------------------------------------------------------------


def test_what_was_sent_since_the_reading_is_added_to_it() -> None:
    credit, board = InFlightCredit(grace_s=0.05), Board()
    credit.sent("r", 4, now_ns=9 * S)
    credit.sent("r", 1, now_ns=10 * S - S // 100)  # within the grace: the engine may not have seen it
    reading = Reading({"r": {"running": 7.0, "waiting": 3.0}})
    board.publish("engine:r", Kind.REPLICA, reading, 10 * S, 3 * S)
    credit.sent("r", 2, now_ns=10 * S + S // 2)
    credit.sent("other", 50, now_ns=10 * S + S // 2)
    readings = board.replica("r", 11 * S)
    assert readings is not None
    assert credit.since("r", 10 * S) == 3
    assert credit.load(readings, 11 * S) == 13
    assert credit.since("nobody", 0) == 0


def test_senders_that_share_a_stale_reading_do_not_herd() -> None:
    credit, board = InFlightCredit(), Board()
    names = [f"r{number}" for number in range(8)]
    rows = {name: {"running": 10.0 + at, "waiting": 0.0} for at, name in enumerate(names)}
    board.publish("engines", Kind.REPLICA, Reading(rows), 100 * S, 3 * S)
    now_ns = 100 * S + S // 10
    for at in range(800):
        loads = {}
        for name in names:
            readings = board.replica(name, now_ns)
            assert readings is not None
            loads[name] = credit.load(readings, now_ns)
        chosen = min(names, key=lambda name: (loads[name], name))
        credit.sent(chosen, now_ns=now_ns + at)
    sent = [credit.since(name, 100 * S) for name in names]
    assert sum(sent) == 800
    # Level, where without credit the first would have taken all 800.
    loads = [rows[name]["running"] + count for name, count in zip(names, sent, strict=True)]
    assert max(loads) - min(loads) <= 1


def test_a_replica_that_does_not_tell_has_no_load_rather_than_none_at_all() -> None:
    credit, board = InFlightCredit(), Board()
    board.publish("engine:r", Kind.REPLICA, Reading({"r": {"is_awake": 1.0}}), 10 * S, 3 * S)
    readings = board.replica("r", 10 * S)
    assert readings is not None
    assert credit.load(readings, 10 * S) is None


def test_credit_forgets_after_a_minute_and_stays_small() -> None:
    credit = InFlightCredit()
    for second in range(600):
        credit.sent("r", now_ns=second * S)
    assert credit.since("r", 0) <= 62
    assert len(credit._sent["r"]) <= 62
