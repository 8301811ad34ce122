"""Every setting with its default, unit and reason. This file is the reference; nothing else holds a default.

A field is declared by `knob` (has a default) or `needed` (has none). Both carry the unit, the bounds and the reason as
data, so that the checks, ``zeta check --defaults`` and the docs read the same line.
"""

# `knob` is dataclasses.field under another name, so calling it in a class body is what it is for.
# ruff: noqa: RUF009

from __future__ import annotations

import collections
import dataclasses
import typing
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeVar

from zeta.config._convert import check_value
from zeta.errors import ConfigError

__all__ = [
    "ADMISSIONS",
    "COLLATIONS",
    "COLOCATIONS",
    "ENGINES",
    "FORECASTS",
    "MAX_DEVICES",
    "MAX_MODELS",
    "MAX_REPLICAS",
    "ORDERS",
    "POLICIES",
    "Admission",
    "Collation",
    "Colocation",
    "Config",
    "Device",
    "Engine",
    "Forecast",
    "Key",
    "Model",
    "Order",
    "Policy",
    "Replica",
    "Scheduler",
    "Serve",
    "Tenant",
    "Weights",
    "default_fleet",
]

Policy = Literal["water-fill", "even", "proportional", "queue-length", "boost", "max-weight"]
Order = Literal["edf", "fifo"]
Admission = Literal["queue", "reject", "downgrade"]
Engine = Literal["vllm", "sglang", "llama.cpp", "ollama", "tgi", "openai", "sim"]
Colocation = Literal["timeslice", "mps", "exclusive", "swap"]
Collation = Literal["gain", "exhaustive"]
Forecast = Literal["auto", "off", "ewma"]
LogLevel = Literal["debug", "info", "warning", "error"]

POLICIES: tuple[Policy, ...] = typing.get_args(Policy)
ORDERS: tuple[Order, ...] = typing.get_args(Order)
ADMISSIONS: tuple[Admission, ...] = typing.get_args(Admission)
ENGINES: tuple[Engine, ...] = typing.get_args(Engine)
COLOCATIONS: tuple[Colocation, ...] = typing.get_args(Colocation)
COLLATIONS: tuple[Collation, ...] = typing.get_args(Collation)
FORECASTS: tuple[Forecast, ...] = typing.get_args(Forecast)

# The core's fixed sizes (core/types.hpp): one bit per model in a 32-bit set, ids of 8 and 16 bits.
MAX_MODELS = 32
MAX_DEVICES = 64
MAX_REPLICAS = 4096

T = TypeVar("T")


def knob(default: T, why: str, *, unit: str = "", low: float | None = None, high: float | None = None) -> T:
    """A field with a default; `why` is the reason for that default, `low` and `high` are inclusive bounds."""
    meta = {"why": why, "unit": unit, "low": low, "high": high}
    return dataclasses.field(default=default, metadata=meta)


def needed(why: str, *, unit: str = "", low: float | None = None, high: float | None = None) -> Any:
    """A field that has no sensible default."""
    return dataclasses.field(metadata={"why": why, "unit": unit, "low": low, "high": high})


class _Checked:
    """Checks every field when the object is built, from Python or from a file, and lets lists stand for tuples."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = check_value(type(self), field, getattr(self, field.name))
            object.__setattr__(self, field.name, value)


@dataclasses.dataclass(frozen=True, slots=True)
class Weights(_Checked):
    """Weights of the parts of a model's suitability. Each part lies in [0, 1], so weights compare directly."""

    quality: float = knob(1.0, "the scale of the others: a certain good answer", unit="score", low=0, high=1e6)
    cost: float = knob(
        0.5, "the dearest model must be 0.5 likelier to answer well than a free one", unit="score", low=0, high=1e6
    )
    deadline: float = knob(1.0, "a missed deadline is as bad as a bad answer", unit="score", low=0, high=1e6)
    affinity: float = knob(0.25, "a held prefix outweighs small differences only", unit="score", low=0, high=1e6)


@dataclasses.dataclass(frozen=True, slots=True)
class Scheduler(_Checked):
    """How requests wait, are admitted and are placed; how capacity is divided."""

    policy: Policy = knob("water-fill", "max-min fair by need: even when calm, a boost for whoever is backed up")
    order: Order = knob("edf", "earliest latest-start first keeps more promises than arrival order")
    admission: Admission = knob("queue", "refuse nothing for its deadline unless asked to")
    promise_ms: float = knob(20_000.0, "about as long as a person waits for an answer", unit="ms", low=1)
    max_queued: int = knob(100_000, "bounds memory; over an hour of arrivals at 25 requests/s", unit="requests", low=1)
    tick_interval_ms: float = knob(
        50.0, "200 ms costs 0.02 points of attainment against this, 1 s costs 0.1", unit="ms", low=1, high=60_000
    )
    max_running: int = knob(16_384, "bounds memory; 256 replicas of 64 each", unit="requests", low=1)
    max_replicas: int = knob(256, "bounds memory: replicas that can be there at once", low=1, high=MAX_REPLICAS)
    max_hold_ms: float = knob(
        2000.0, "longest wait for a stronger model; at most half of the time to spare is used", unit="ms", low=0
    )
    hold_quality_gap: float = knob(
        0.10, "P(good answer) that a weaker model may lose before a request waits", unit="probability", low=0, high=1
    )
    promise_take_cap: float = knob(
        0.25,
        "a long overload must not starve requests that can still be on time",
        unit="fraction of takes",
        low=0,
        high=1,
    )
    lower_band_share: float = knob(
        0.05, "enough for progress below a busy band, too little to hurt it", unit="fraction of takes", low=0, high=1
    )
    bands: int = knob(4, "urgent, normal, batch, idle", unit="priority classes", low=1, high=8)
    max_tenants: int = knob(
        256, "bounds memory: a waiting tenant owns a small heap", unit="tenants", low=1, high=65_535
    )
    tenant_quantum_ms: float = knob(
        250.0, "GPU time that a tenant of weight 1 takes per round: about one long request", unit="ms", low=1
    )
    eta_quantile_factor: float = knob(
        1.5, "p90 of a wait over its mean, until fifty waits have been seen", low=1, high=10
    )
    learns_service: bool = knob(
        True, "engine times off by more than 45 % are corrected from what is observed", unit="yes or no"
    )
    share_floor: float = knob(
        0.05, "a calm model keeps a foot in the door; at most 1/2n", unit="share", low=0, high=0.5
    )
    share_step: float = knob(0.25, "most that a share moves in one tick", unit="share", low=0.25, high=1)
    share_hysteresis: float = knob(0.005, "smaller moves are not worth a change", unit="share", low=0, high=0.005)
    boost_share: float = knob(0.2, "what policy 'boost' adds to the most backed-up model", unit="share", low=0, high=1)
    collation: Collation = knob("gain", "on a swap device: leave the resident model where another serves more in time")
    collation_max_wait_ms: float = knob(
        300_000.0, "on a swap device: room for three changes of 50 s, drains, and as much work", unit="ms", low=1
    )
    forecast: Forecast = knob("auto", "the guarded forecaster; 'ewma' is a 30 s mean, 'off' computes nothing")
    forecast_model: str | None = knob(
        None, "None: the net that is shipped, if there is one; without it the classical candidates", unit="directory"
    )
    weights: Weights = knob(Weights(), "what suitability is made of; docs/scoring.md")


@dataclasses.dataclass(frozen=True, slots=True)
class Replica(_Checked):
    """One running copy of a model."""

    name: str = needed("unique over the fleet: replicas are drained and removed by it")
    url: str | None = knob(None, "None for the simulator and for servers that the caller drives", unit="http(s) URL")
    engine: Engine = knob("sim", "which metrics and protocol the replica speaks")
    max_in_flight: int = knob(64, "upper bound of the adaptive window", unit="requests", low=1, high=65_536)
    kv_tokens: int | None = knob(None, "None: computed from the device's memory", unit="tokens", low=1)
    max_batch: int = knob(
        256, "sequences per decode step, as engines are often set", unit="sequences", low=1, high=65_536
    )
    max_batched_tokens: int = knob(
        2048,
        "tokens per step of a simulated engine: vLLM's chunk for online serving",
        unit="tokens",
        low=64,
        high=65_536,
    )

    api_key_env: str | None = knob(None, "environment variable with the key that the server asks for")
    sends_priority: bool = knob(
        False, "vLLM refuses a priority unless it runs with --scheduling-policy priority", unit="yes or no"
    )

    def __post_init__(self) -> None:
        _Checked.__post_init__(self)
        _need_name(self)
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise _refused(self, "url", "an address that starts with http:// or https://")


@dataclasses.dataclass(frozen=True, slots=True)
class Model(_Checked):
    """What is served, and the replicas that serve it.

    Parameters
    ----------
    name : str
        How requests, traces and reports call it.
    quality : float
        Prior probability in [0, 1] of a good answer on an average request.
    device : str, optional
        The device that its replicas run on; models that name the same one share it. None: a device of its own.
    replicas : sequence of Replica
        At least one before anything can run; more can join later.
    """

    name: str = needed("how requests, traces and reports call it")
    quality: float = needed("prior P(good answer) on an average request", unit="probability", low=0, high=1)
    device: str | None = knob(None, "None: a device of its own; the same name: shared")
    replicas: Sequence[Replica] = knob((), "replicas can join later")
    engine_model: str | None = knob(None, "None: the model's name; selects step times such as 'qwen2.5-14b'")
    tp: int = knob(1, "tensor-parallel degree", unit="GPUs", low=1, high=64)
    max_context_tokens: int | None = knob(None, "None: only KV memory bounds it", unit="tokens", low=1)
    ttft_slo_ms: float | None = knob(None, "None: 1 to 3 s by the model's rank in quality", unit="ms", low=1)
    tpot_slo_ms: float = knob(100.0, "10 tokens/s, faster than people read", unit="ms per output token", low=1)
    mean_output_tokens: float = knob(256.0, "until completions teach better", unit="tokens", low=1)
    served_name: str | None = knob(None, "None: the model's name; what its servers call it")
    aliases: Sequence[str] = knob((), "further names under which the gateway offers it")
    fallbacks: Sequence[str] = knob((), "models that the gateway asks instead while none of its replicas is up")

    def __post_init__(self) -> None:
        _Checked.__post_init__(self)
        _need_name(self)


@dataclasses.dataclass(frozen=True, slots=True)
class Device(_Checked):
    """One GPU, or whatever else several models share."""

    name: str = needed("what models call it")
    kind: str | None = knob(None, "None: times are learned; the simulator needs it, such as 'h200-sxm-141gb'")
    colocation: Colocation = knob("timeslice", "what happens when processes share a GPU and nobody set up more")
    prefill_budget: float = knob(
        1.3, "prefill in flight, as a part of the TPOT SLO that decoding leaves free", unit="fraction", low=0, high=10
    )
    swap_s: float = knob(10.0, "a 14B model in bf16 (29.5 GB) read at 3 GB/s", unit="s", low=0)
    awaits_load: bool = knob(
        False, "on a swap device: a model's first request loads it; yes: an ActuationDriver does", unit="yes or no"
    )

    def __post_init__(self) -> None:
        _Checked.__post_init__(self)
        _need_name(self)


@dataclasses.dataclass(frozen=True, slots=True)
class Tenant(_Checked):
    """Who sends requests. Tenants that are not listed weigh 1."""

    name: str = needed("what requests call it")
    weight: float = knob(1.0, "equal unless said", unit="relative", low=1e-6, high=1e6)

    def __post_init__(self) -> None:
        _Checked.__post_init__(self)
        _need_name(self)


@dataclasses.dataclass(frozen=True, slots=True)
class Key(_Checked):
    """A key that clients of the gateway may show. Its text stands in no file: only its hash, or where to find it."""

    tenant: str = needed("whose requests it makes them")
    sha256: str | None = knob(None, "hash of the key, as `printf %s KEY | sha256sum` prints it", unit="64 hex digits")
    env: str | None = knob(None, "environment variable that holds the key, in place of sha256")
    is_admin: bool = knob(False, "may also add, drain and remove replicas", unit="yes or no")

    def __post_init__(self) -> None:
        _Checked.__post_init__(self)
        if (self.sha256 is None) == (self.env is None):
            raise _refused(self, "sha256", "exactly one of sha256 and env")
        if self.sha256 is not None and not (len(self.sha256) == 64 and set(self.sha256.lower()) <= set(_HEX)):
            raise _refused(self, "sha256", "64 hex digits")


_HEX = "0123456789abcdef"


@dataclasses.dataclass(frozen=True, slots=True)
class Serve(_Checked):
    """The gateway, `zeta serve`."""

    host: str = knob("127.0.0.1", "reachable from this machine alone; anything else asks for keys")
    port: int = knob(8080, "0: the kernel chooses, and the log says which", low=0, high=65_535)
    keys: Sequence[Key] = knob((), "none: everybody on this machine is tenant 'default'")
    open_metrics: bool = knob(True, "/metrics and /ui ask for no key on a loopback address", unit="yes or no")
    header_timeout_s: float = knob(10.0, "who sends a head slower only holds a connection", unit="s", low=0.05)
    body_timeout_s: float = knob(30.0, "8 MiB over 2 Mbit/s", unit="s", low=0.05)
    idle_timeout_s: float = knob(120.0, "kept connections; longer than clients' pools keep them", unit="s", low=0.05)
    queue_timeout_s: float = knob(120.0, "a client that waits longer has usually left", unit="s", low=0.05)
    connect_timeout_s: float = knob(2.0, "a server on the same network answers in milliseconds", unit="s", low=0.05)
    first_token_timeout_s: float = knob(120.0, "a long prompt on a busy engine", unit="s", low=0.05)
    inter_token_timeout_s: float = knob(30.0, "an engine that is silent for longer has stalled", unit="s", low=0.05)
    total_timeout_s: float = knob(900.0, "the longest answers take some minutes", unit="s", low=0.05)
    write_timeout_s: float = knob(30.0, "a client that reads nothing for longer is cut off", unit="s", low=0.05)
    drain_s: float = knob(30.0, "what runs may finish after SIGTERM; orchestrators kill after 30 s", unit="s", low=0)
    max_connections: int = knob(4096, "half of a common limit on open files", unit="connections", low=1)
    max_header_bytes: int = knob(32_768, "as common servers allow", unit="bytes", low=1024)
    max_body_bytes: int = knob(8 << 20, "a 128k-token prompt has 0.5 MB; images more", unit="bytes", low=1024)
    max_json_depth: int = knob(64, "tools' schemas nest by a dozen", unit="levels", low=4, high=500)
    max_output_tokens: int = knob(16_384, "larger wishes are lowered to it", unit="tokens", low=1)
    max_choices: int = knob(8, "n of one request: each is an answer of its own", low=1)
    buffer_bytes: int = knob(65_536, "held for a client that reads slowly before its server is paused", low=1024)
    retry_fraction: float = knob(0.1, "of the requests in flight may be second tries", unit="fraction", low=0, high=1)
    health_interval_s: float = knob(2.0, "a dead server is found by its requests sooner", unit="s", low=0.05)
    eject_after: int = knob(3, "failures in a row", unit="failures", low=1)
    eject_s: float = knob(5.0, "times the number of ejections, at most 5 minutes", unit="s", low=0.05)
    log_level: LogLevel = knob("info", "starts, stops, replicas that fail and come back")
    log_requests: bool = knob(False, "a line of JSON for each request costs about 30 us", unit="yes or no")

    def __post_init__(self) -> None:
        _Checked.__post_init__(self)
        if not self.keys and not _is_loopback(self.host):
            raise _refused(
                self, "host", "a loopback address, or at least one [[serve.keys]]: others can reach this one"
            )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    import ipaddress  # not with zeta: milliseconds

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclasses.dataclass(frozen=True, slots=True)
class Config(_Checked):
    """A whole configuration. Building one checks what concerns several parts at once.

    Raises
    ------
    ConfigError
        If a name is used twice, a model names an unknown device, or the fleet exceeds the core's fixed sizes.
    """

    scheduler: Scheduler = knob(Scheduler(), "every part has its defaults")
    models: Sequence[Model] = knob((), "models can join later")
    devices: Sequence[Device] = knob((), "models that name no device have one of their own")
    tenants: Sequence[Tenant] = knob((), "tenants that are not listed weigh 1")
    serve: Serve = knob(Serve(), "the gateway; a router in a program of your own takes no notice")

    def __post_init__(self) -> None:
        _Checked.__post_init__(self)
        replicas = [replica for model in self.models for replica in model.replicas]
        for key, names, most in (
            ("models", [model.name for model in self.models], MAX_MODELS),
            ("devices", [device.name for device in self.devices], MAX_DEVICES),
            ("models.replicas", [replica.name for replica in replicas], MAX_REPLICAS),
            ("tenants", [tenant.name for tenant in self.tenants], self.scheduler.max_tenants),
        ):
            _refuse_twins(key, names)
            if len(names) > most:
                raise ConfigError(
                    f"{key}: {len(names)} given; at most {most} are possible", key, len(names), f"<= {most}"
                )
        offered = [name for model in self.models for name in (model.name, *model.aliases)]
        _refuse_twins("models", offered)
        for index, model in enumerate(self.models):
            for name in model.fallbacks:
                if name not in [other.name for other in self.models]:
                    key = f"models[{index}].fallbacks"
                    raise ConfigError(f"{key} names {name!r}, which is no model", key, name, "names of [[models]]")
        known = [device.name for device in self.devices]
        for index, model in enumerate(self.models):
            if model.device is not None and model.device not in known:
                raise _unknown_device(index, model.device, known)


def default_fleet() -> Config:
    """The fleet that replay runs on unless told otherwise: three models that share one simulated H200.

    Qualities are equal steps: in replay a request's required model is given, so only their order matters. Contexts are
    the lengths that the models are published with; on this device KV memory binds first.
    """

    def member(name: str, quality: float, engine_model: str) -> Model:
        return Model(
            name,
            quality,
            device="gpu0",
            replicas=(Replica(f"{name}-0"),),
            engine_model=engine_model,
            max_context_tokens=131_072,
        )

    return Config(
        models=(
            member("small", 0.5, "qwen2.5-7b"),
            member("mid", 0.6, "llama-3.1-8b"),
            member("large", 0.7, "qwen2.5-14b"),
        ),
        devices=(Device("gpu0", kind="h200-sxm-141gb"),),
    )


def _need_name(part: Replica | Model | Device | Tenant) -> None:
    if not part.name.strip():
        raise _refused(part, "name", "a name that is not empty")


def _refused(part: object, key: str, allowed: str) -> ConfigError:
    value = getattr(part, key)
    return ConfigError(f"{key} = {value!r}; expected {allowed}", key, value, allowed)


def _refuse_twins(key: str, names: Iterable[str]) -> None:
    for name, count in collections.Counter(names).items():
        if count > 1:
            raise ConfigError(
                f"{key}: the name {name!r} is used {count} times; give each its own",
                f"{key}.name",
                name,
                "unique names",
            )


def _unknown_device(index: int, name: str, known: list[str]) -> ConfigError:
    import difflib

    near = next(iter(difflib.get_close_matches(name, known, n=1)), None)
    hint = f"; did you mean {near!r}?" if near else ""
    allowed = f"one of {', '.join(map(repr, known))}" if known else "a [[devices]] table of that name"
    return ConfigError(
        f"models[{index}].device = {name!r} names no device; expected {allowed}{hint}",
        f"models[{index}].device",
        name,
        allowed,
        near,
    )
