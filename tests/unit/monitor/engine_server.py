"""A server on 127.0.0.1 that answers with the pages of `tests/data/engine_pages`, for tests of the engines' probes."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAGES = Path(__file__).parents[2] / "data" / "engine_pages"

SERVERS: dict[str, dict[str, str]] = {
    "vllm_0.6": {"/metrics": "vllm_0.6.txt"},
    "vllm_0.33": {"/metrics": "vllm_0.33.txt"},
    "sglang_0.4": {"/metrics": "sglang_0.4.txt"},
    "sglang_0.5": {"/metrics": "sglang_0.5.txt"},
    "llamacpp_b3000": {"/metrics": "llamacpp_b3000_metrics.txt", "/slots": "llamacpp_b3000_slots.json"},
    "llamacpp_b8600": {
        "/metrics": "llamacpp_b8600_metrics.txt",
        "/slots": "llamacpp_b8600_slots.json",
        "/props": "llamacpp_b8600_props.json",
    },
    "llamacpp_b8600_without_metrics": {"/slots": "llamacpp_b8600_slots.json", "/props": "llamacpp_b8600_props.json"},
    "ollama_0.1": {"/api/ps": "ollama_0.1_ps.json"},
    "ollama_0.40": {"/api/ps": "ollama_0.40_ps.json"},
}


class Server:
    """An engine that answers with pages; a page that is callable is given the connection."""

    def __init__(self, *, tls: tuple[Path, Path] | None = None) -> None:
        self.pages: dict[str, bytes | int | Callable[[http.server.BaseHTTPRequestHandler], None]] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.connections = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                outer.connections += 1
                super().setup()

            def do_GET(self) -> None:
                outer.asked.append((self.path, self.headers.get("Authorization")))
                page = outer.pages.get(self.path, 404)
                if callable(page):
                    page(self)
                    return
                self.send_response(page if isinstance(page, int) else 200)
                body = b"" if isinstance(page, int) else page
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def load(self, name: str) -> None:
        """Becomes the engine."""
        self.pages = {path: (PAGES / file).read_bytes() for path, file in SERVERS[name].items()}
        if name.startswith("ollama"):
            self.pages["/api/version"] = b'{"version":"0.0.0"}'

    def close(self) -> None:
        """Stops it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
