"""A server on 127.0.0.1 that speaks like an engine, or misbehaves as told. The forms are those of the engines' docs."""

from __future__ import annotations

import dataclasses
import http.server
import json
import threading
import urllib.parse
from collections.abc import Callable
from typing import Any

Answer = tuple[int, object]
FAULTS = ("500", "404", "garbage", "hang", "drip", "drip-head", "close", "cut", "redirect", "huge", "401")


@dataclasses.dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: Any


@dataclasses.dataclass
class State:
    """What the pretended engine knows."""

    loaded: set[str] = dataclasses.field(default_factory=set)
    known: tuple[str, ...] = ("a", "b")
    failed: set[str] = dataclasses.field(default_factory=set)
    refuses_loading: bool = False


def vllm(state: State, asked: Asked) -> Answer:
    if (asked.method, asked.path) == ("GET", "/is_sleeping"):
        return 200, {"is_sleeping": "a" not in state.loaded}
    if (asked.method, asked.path) == ("POST", "/sleep"):
        assert asked.query["level"] == ["1"]
        state.loaded.discard("a")
        return 200, b""
    if (asked.method, asked.path) == ("POST", "/wake_up"):
        state.loaded.add("a")
        return 200, b""
    return 404, {"detail": "Not Found"}


def sglang(state: State, asked: Asked) -> Answer:
    if (asked.method, asked.path) == ("GET", "/health"):
        return 200, b""
    if (asked.method, asked.path) == ("POST", "/release_memory_occupation"):
        assert asked.body == {"tags": ["kv_cache", "weights"]}
        state.loaded.discard("a")
        return 200, b""
    if (asked.method, asked.path) == ("POST", "/resume_memory_occupation"):
        assert "a" not in state.loaded, "this ends a real server"
        state.loaded.add("a")
        return 200, b""
    return 404, {"detail": "Not Found"}


def llama_cpp(state: State, asked: Asked) -> Answer:
    if (asked.method, asked.path) == ("GET", "/models"):
        return 200, {"data": [{"id": model, "status": _status(state, model)} for model in state.known]}
    if asked.method == "POST" and asked.path in ("/models/load", "/models/unload"):
        model, want = asked.body["model"], asked.path == "/models/load"
        if want is (model in state.loaded):
            return 400, {"error": {"message": "model is already as asked"}}
        if want and state.refuses_loading:
            state.failed.add(model)
        else:
            (state.loaded.add if want else state.loaded.discard)(model)
        return 200, {"success": True}
    return 404, {"error": {"message": "File Not Found"}}


def _status(state: State, model: str) -> dict[str, object]:
    if model in state.failed:
        return {"value": "unloaded", "failed": True, "exit_code": 1}
    return {"value": "loaded" if model in state.loaded else "unloaded"}


def ollama(state: State, asked: Asked) -> Answer:
    if (asked.method, asked.path) == ("GET", "/api/ps"):
        return 200, {"models": [{"name": f"{each}:latest", "model": f"{each}:latest"} for each in sorted(state.loaded)]}
    if (asked.method, asked.path) == ("POST", "/api/generate"):
        assert asked.body["stream"] is False
        assert asked.body["keep_alive"] in (-1, 0)
        if asked.body["model"] not in state.known:
            return 404, {"error": f"model '{asked.body['model']}' not found"}
        (state.loaded.discard if asked.body["keep_alive"] == 0 else state.loaded.add)(asked.body["model"])
        return 200, {"model": asked.body["model"], "response": "", "done": True, "done_reason": "load"}
    return 404, {}


class Stub:
    """One such server, in a thread; `fault` is one of FAULTS, `fault_on` the method that it strikes."""

    def __init__(self, engine: Callable[[State, Asked], Answer], state: State | None = None) -> None:
        self.engine, self.state = engine, state or State()
        self.fault: str | None = None
        self.fault_on = ("GET", "POST")
        self.calls: list[tuple[str, str]] = []
        self.ended = threading.Event()
        stub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub.serve(self)

            def do_POST(self) -> None:
                stub.serve(self)

            def log_message(self, *words: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *who: object) -> None:
                pass  # clients that go away are the point

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def serve(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        url = urllib.parse.urlsplit(handler.path)
        self.calls.append((handler.command, handler.path))
        sent = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        if self.fault and handler.command in self.fault_on:
            self.misbehave(handler, self.fault)
            return
        body = json.loads(sent) if sent else None
        asked = Asked(handler.command, url.path, urllib.parse.parse_qs(url.query), body)
        answer = self.engine(self.state, asked)
        self.reply(handler, *answer)

    def reply(self, handler: http.server.BaseHTTPRequestHandler, status: int, said: object) -> None:
        raw = said if isinstance(said, bytes) else json.dumps(said).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw)

    def misbehave(self, handler: http.server.BaseHTTPRequestHandler, fault: str) -> None:
        out = handler.wfile
        if fault in ("500", "404", "401"):
            self.reply(handler, int(fault), {"detail": "out of order"})
        elif fault == "garbage":
            self.reply(handler, 200, b"<html>\xff\x00 not an engine")
        elif fault == "redirect":
            handler.send_response(302)
            handler.send_header("Location", self.url + "/elsewhere")
            handler.end_headers()
        elif fault == "hang":
            self.ended.wait(30)
        elif fault == "close":
            handler.connection.close()
        elif fault == "cut":
            out.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
        elif fault == "huge":
            out.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while not self.ended.is_set():
                out.write(b" " * (1 << 20))
        elif fault in ("drip", "drip-head"):
            out.write(b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 1000\r\n\r\n" if fault == "drip" else b""))
            while not self.ended.wait(0.02):
                out.write(b"x")

    def close(self) -> None:
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
