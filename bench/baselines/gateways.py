"""The gateways that `bench.macro.gateway` measures: how each is started before the same engines.

Every one runs with one worker, what it logs per request switched off, and its metrics on if that is its default.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import zeta
from bench.baselines.relays import STACKS
from bench.harness import Absent

__all__ = ["GATEWAYS", "Gateway", "Place", "by_name"]

KEY = "sk-bench-0123456789abcdef"
MODEL = "bench"
_RELAYS = Path(__file__).with_name("relays.py")


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """What a gateway is started with.

    Attributes
    ----------
    port, spare_port : int
        Where it listens on the loopback interface, and a port for its metrics if it wants one.
    engines : sequence of int
        The engines' ports.
    folder : Path
        For its configuration; empty at first.
    venvs : sequence of Path
        Virtual environments that may hold it, beside the running one.
    """

    port: int
    spare_port: int
    engines: Sequence[int]
    folder: Path
    venvs: Sequence[Path]

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.engines]

    def program(self, name: str, how: str) -> str:
        """Path of an installed program; raises `Absent`, saying how it would come."""
        folders = [Path(sys.executable).parent, *(venv / "bin" for venv in self.venvs), Path("/usr/sbin")]
        path = os.pathsep.join([*(str(folder) for folder in folders), os.environ.get("PATH", "")])
        found = shutil.which(name, path=path)
        if found is None:
            raise Absent(how)
        return found

    def python_with(self, modules: Sequence[str], how: str) -> str:
        """A Python that has all these modules; raises `Absent`, saying how they would come."""
        for python in [Path(sys.executable), *(venv / "bin" / "python" for venv in self.venvs)]:
            tried = [str(python), "-c", f"import {', '.join(modules)}"]
            if python.exists() and subprocess.run(tried, capture_output=True, check=False).returncode == 0:
                return str(python)
        raise Absent(how)


@dataclasses.dataclass(frozen=True, slots=True)
class Gateway:
    """One way from a client to the engines.

    Attributes
    ----------
    name : str
        For the table.
    kind : str
        ``zeta``, ``python`` or ``rust`` (peers that zeta must beat), ``proxy`` (general ones, in C) or ``reference``
        (bare relays, which do nothing a gateway must do).
    command : callable
        The command line for a place; raises `bench.harness.Absent`.
    environment : dict of str to str
        Beside what is there already.
    start_s : float
        How long it may take to answer.
    """

    name: str
    kind: str
    command: Callable[[Place], list[str]]
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    start_s: float = 30.0


def _zeta(place: Place) -> list[str]:
    # The engines here answer at once and hold a thousand streams; what a window does is not this bench's question.
    replicas = "".join(
        f'\n[[models.replicas]]\nname = "engine-{i}"\nurl = "{url}"\nengine = "openai"\nmax_in_flight = 4096\n'
        f"kv_tokens = 100000000\nmax_batch = 4096\n"
        for i, url in enumerate(place.urls)
    )
    sha256 = hashlib.sha256(KEY.encode()).hexdigest()
    (place.folder / "zeta.toml").write_text(
        f'[serve]\nport = {place.port}\n\n[[serve.keys]]\ntenant = "bench"\nsha256 = "{sha256}"\n\n'
        f'[[models]]\nname = "{MODEL}"\nquality = 0.8\n{replicas}'
    )
    modules = ("zeta.gateway", *STACKS["protocol"], "aiohttp", "msgspec")
    python = place.python_with(modules, 'pip install "zeta-router[serve]"')
    return [python, "-m", "zeta", "serve", "--config", str(place.folder / "zeta.toml")]


def _nginx(place: Place) -> list[str]:
    servers = "".join(f"server 127.0.0.1:{port}; " for port in place.engines)
    temporary = "".join(
        f"{kind}_temp_path {place.folder}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (place.folder / "nginx.conf").write_text(
        f"worker_processes 1; daemon off; pid {place.folder}/pid; error_log stderr crit;\n"
        "events { worker_connections 8192; }\n"
        f"http {{ access_log off; {temporary}\n"
        f"upstream engines {{ least_conn; {servers} keepalive 2048; keepalive_requests 1000000000; }}\n"
        f"server {{ listen 127.0.0.1:{place.port} backlog=4096; keepalive_requests 1000000000;\n"
        "client_body_buffer_size 64k; location / { proxy_pass http://engines; proxy_http_version 1.1;\n"
        'proxy_set_header Connection ""; proxy_buffering off; } } }\n'
    )
    program = place.program("nginx", "apt-get install nginx-light")
    return [program, "-p", str(place.folder), "-e", "stderr", "-c", str(place.folder / "nginx.conf")]


def _haproxy(place: Place) -> list[str]:
    servers = "".join(f"  server engine-{i} 127.0.0.1:{port}\n" for i, port in enumerate(place.engines))
    (place.folder / "haproxy.cfg").write_text(
        "global\n  nbthread 1\n  maxconn 8192\n"
        "defaults\n  mode http\n  option http-no-delay\n  http-reuse always\n"
        "  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"
        f"frontend clients\n  bind 127.0.0.1:{place.port} backlog 4096\n  default_backend engines\n"
        f"backend engines\n  balance leastconn\n{servers}"
    )
    return [place.program("haproxy", "apt-get install haproxy"), "-f", str(place.folder / "haproxy.cfg")]


def _rust(program: str, package: str, words: Sequence[str], policy: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        found = place.program(program, f"pip install {package}, in a virtual environment of its own; then --venv DIR")
        options = ["--host", "127.0.0.1", "--port", str(place.port), "--policy", policy, "--log-level", "error"]
        options += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(place.spare_port)]
        # Their own limits would end the streams' test: 256 and 64 requests at once.
        options += ["--max-concurrent-requests", "8192"]
        return [found, *words, "--worker-urls", *place.urls, *options]

    return command


def _litellm(place: Place) -> list[str]:
    deployments = [
        {
            "model_name": MODEL,
            "litellm_params": {"model": f"openai/{MODEL}", "api_base": f"{url}/v1", "api_key": "none"},
        }
        for url in place.urls
    ]
    settings = {"router_settings": {"routing_strategy": "simple-shuffle"}, "model_list": deployments}
    (place.folder / "litellm.yaml").write_text(json.dumps(settings))  # JSON is YAML
    program = place.program("litellm", 'pip install "litellm[proxy]", in a virtual environment of its own; --venv DIR')
    words = ["--host", "127.0.0.1", "--port", str(place.port), "--num_workers", "1"]
    return [program, "--config", str(place.folder / "litellm.yaml"), *words]


def _production_stack(place: Place) -> list[str]:
    how = "pip install git+https://github.com/vllm-project/production-stack; its package index name is another's"
    python = place.python_with(("vllm_router.services.request_service",), how)
    words = ["--host", "127.0.0.1", "--port", str(place.port), "--service-discovery", "static"]
    words += ["--static-backends", ",".join(place.urls), "--static-models", ",".join([MODEL] * len(place.urls))]
    return [python, "-m", "vllm_router.app", *words, "--routing-logic", "roundrobin", "--log-level", "error"]


def _relay(stack: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        python = place.python_with(STACKS[stack], f"pip install {' '.join(STACKS[stack])}")
        return [python, str(_RELAYS), stack, str(place.port), *map(str, place.engines)]

    return command


_RELAY_PATH = {"PYTHONPATH": str(_RELAYS.parent)}  # granian's worker imports the relay by name
_QUIET = {"LITELLM_LOG": "ERROR", "LITELLM_TELEMETRY": "False", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}

# Each with the policy that served most requests per second.
GATEWAYS: tuple[Gateway, ...] = (
    Gateway("zeta", "zeta", _zeta, {"PYTHONPATH": str(Path(zeta.__file__).resolve().parent.parent)}),
    Gateway("nginx least_conn", "proxy", _nginx),
    Gateway("haproxy leastconn", "proxy", _haproxy),
    Gateway("vllm-router round_robin", "rust", _rust("vllm-router", "vllm-router", (), "round_robin")),
    Gateway(
        "sglang-router power_of_two",
        "rust",
        _rust("sglang-router", "sglang-router", ("launch",), "power_of_two"),
    ),
    Gateway("smg round_robin", "rust", _rust("smg", "smg", ("launch",), "round_robin")),
    Gateway("LiteLLM proxy", "python", _litellm, _QUIET | {"LITELLM_MASTER_KEY": KEY}, 90.0),
    Gateway("production-stack", "python", _production_stack, start_s=60.0),
    Gateway("relay: asyncio.Protocol", "reference", _relay("protocol")),
    Gateway("relay: uvicorn + aiohttp", "reference", _relay("uvicorn")),
    Gateway("relay: granian + aiohttp", "reference", _relay("granian"), _RELAY_PATH),
    Gateway("relay: aiohttp + aiohttp", "reference", _relay("aiohttp")),
)


def by_name(words: Sequence[str]) -> list[Gateway]:
    """Those whose name contains one of the words; all of them without words."""
    return [each for each in GATEWAYS if not words or any(word.lower() in each.name.lower() for word in words)]
