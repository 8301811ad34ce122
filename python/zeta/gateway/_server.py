"""The gateway: what it is made of, and how it starts, reloads and stops."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import itertools
import logging
import os
import re
import secrets
import signal
import time
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from zeta.config import Config, Replica, load
from zeta.errors import ConfigError, ZetaError
from zeta.gateway._body import AUTO, Catalogue
from zeta.gateway._client import ClientConnection
from zeta.gateway._control import make_control_app
from zeta.gateway._exchange import Exchange
from zeta.gateway._head import Head
from zeta.gateway._health import Health
from zeta.gateway._keys import Identity, Keys
from zeta.gateway._logs import REQUESTS, log_request, set_up_logs
from zeta.gateway._observed import Observed, class_name
from zeta.gateway._readings import Readings
from zeta.gateway._retries import RetryBudget
from zeta.gateway._sweep import sweep
from zeta.gateway._traces import RequestTrace, Traces, make_traces
from zeta.gateway._upstream import Server, field_text
from zeta.scheduler import Lease, Router
from zeta.types import Outcome

__all__ = ["Gateway", "ReplicaStatus", "WaitingStatus", "serve"]

_log = logging.getLogger("zeta.gateway")
_REQUEST_ID = re.compile(rb"[0-9A-Za-z._:\-]{1,128}")
_DECISIONS_KEPT: Final = 256
_BACKLOG: Final = 1024
_HOPE_S: Final = 1.0
"""How long requests wait for a server to come up when none of their models has one: a process that restarts may."""


@dataclasses.dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One server as people are shown it."""

    name: str
    model: str
    url: str
    is_healthy: bool
    is_ejected: bool
    is_draining: bool
    in_flight: int
    failures: int
    last_error: str | None
    since_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class WaitingStatus:
    """One waiting request as its client is shown it."""

    request_id: str
    ticket: int
    model: str | None
    position: int
    eta_ms: float | None
    waited_ms: float


class Gateway:
    """OpenAI's protocol in front of a router. It decides nothing about order, place or share.

    Everything happens on one event loop: that in which `start` was called.

    Parameters
    ----------
    config : Config
        Each replica needs a url.

    Raises
    ------
    ConfigError
        If a replica has no url, or a key's variable is not set.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.keys = Keys(config.serve.keys)
        self.servers: dict[str, Server] = {}
        self.router = Router.from_config(config)
        self.router._collects_itself(1)  # `pump` follows each call that may place something
        self.observed = Observed([model.name for model in config.models], config.scheduler.bands)
        self.retries = RetryBudget(config.serve.retry_fraction)
        self.waiting: dict[int, Exchange] = {}
        self.exchanges: set[Exchange] = set()
        self.clients: set[ClientConnection] = set()
        self.is_draining = False
        self.monitor: Readings | None = None
        self.traces: Traces | None = None
        self.model_fields = {model.name: b"X-Zeta-Model: %b\r\n" % field_text(model.name) for model in config.models}
        self.queue_timeout_ms = config.serve.queue_timeout_s * 1e3
        self.started_s = time.time()
        self.loop: asyncio.AbstractEventLoop
        self.health: Health
        self.catalogue: Catalogue
        self._ids = itertools.count()
        self._id_base = secrets.token_hex(6).encode()
        self._decisions: collections.deque[tuple[float, bytes, int]] = collections.deque(maxlen=_DECISIONS_KEPT)
        self._tasks: list[asyncio.Task[None]] = []
        self._listening: asyncio.Server | None = None
        self._control: web.AppRunner | None = None
        self._ended = asyncio.Event()
        for model in config.models:
            for replica in model.replicas:
                self.servers[replica.name] = self._server_of(replica)

    # --- from connections

    def identify(self, head: Head) -> Identity | None:
        """Whose request it is; None: nobody's who is known."""
        fields = head.fields
        return self.keys.identify(fields.get(b"authorization") or fields.get(b"x-api-key"))

    def request_id(self, given: bytes | None) -> bytes:
        """The client's own, where it is fit to be printed; else a new one."""
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given
        return b"%b%08x" % (self._id_base, next(self._ids))

    def control_protocol(self) -> asyncio.Protocol:
        """A connection of the control application."""
        assert self._control is not None
        server = self._control.server
        assert server is not None
        return server()

    def pump(self) -> None:
        """Hands on what the router has decided; after each call that may make it decide."""
        router, waiting = self.router, self.waiting
        if not waiting or router.is_closed:
            return
        for lease in router.poll(_channel=1):
            exchange = waiting.pop(lease.ticket, None)
            if exchange is None:
                router.cancel(lease)  # its client has left meanwhile
            else:
                exchange.placed(lease)
        for ticket in router._next_ended():
            exchange = waiting.pop(ticket, None)
            if exchange is not None:
                exchange.ended_in_queue(router.outcome(ticket))

    def note_decision(self, exchange: Exchange, lease: Lease) -> bytes:
        """Keeps a decision for whoever asks; the reason, for the answer's head."""
        reason = self.router._reason(exchange.ticket) or "placed"
        exchange.reason = reason
        self._decisions.append((time.time(), exchange.request_id, exchange.ticket))
        self.observed.placed(lease.model, exchange.ask.priority, lease.queued_ms, exchange.decision_us, reason)
        return _reason_bytes(reason)

    def note_end(
        self,
        exchange: Exchange,
        outcome: Outcome,
        output_tokens: int | None,
        took_ms: float,
        ttft_ms: float | None = None,
    ) -> None:
        """Writes the line about a request and hands its spans on, where either is wanted."""
        is_logged = REQUESTS.isEnabledFor(logging.INFO)
        if not is_logged and self.traces is None:
            return
        ask, lease = exchange.ask, exchange.lease
        request_id = exchange.request_id.decode()
        priority = class_name(ask.priority, self.observed.classes)
        if is_logged:
            log_request(
                request_id=request_id,
                tenant=exchange.identity.tenant,
                model=None if lease is None else lease.model,
                replica=None if lease is None else lease.replica,
                queue_ms=None if lease is None else lease.queued_ms,
                decision_us=exchange.decision_us,
                reason=exchange.reason,
                outcome=outcome.value,
                ttft_ms=ttft_ms,
                took_ms=took_ms,
                output_tokens=output_tokens,
                tries=exchange.tries,
                **{"class": priority},
            )
        if self.traces is not None:
            server = None if lease is None else self.servers.get(lease.replica)
            self.traces.request(
                RequestTrace(
                    request_id,
                    ask.route,
                    took_ms,
                    outcome.value,
                    asked_model=ask.models[0] if ask.models is not None and len(ask.models) == 1 else AUTO,
                    model=None if lease is None else lease.model,
                    replica=None if lease is None else lease.replica,
                    url=None if lease is None else lease.url,
                    engine=None if server is None else server.engine,
                    priority=priority,
                    reason=exchange.reason,
                    queue_ms=None if lease is None else lease.queued_ms,
                    decision_us=exchange.decision_us,
                    ttft_ms=ttft_ms,
                    max_tokens=ask.max_tokens,
                    output_tokens=output_tokens,
                    tries=exchange.tries,
                    traceparent=exchange.traceparent,
                )
            )

    def retry_after_s(self, ticket: int) -> float | None:
        """When whoever was refused may try again, as the router expects its queue to drain."""
        return self.router.rejection(ticket).retry_after_s

    # --- what people are shown

    def replicas(self) -> list[ReplicaStatus]:
        """Every server."""
        rows = self.router.stats()["replicas"]
        return [
            ReplicaStatus(
                one.name,
                one.model,
                one.url,
                one.is_up,
                one.is_ejected,
                one.is_drained,
                rows.get(one.name, {}).get("in_flight", 0),
                one.failures,
                one.last_error,
                self.loop.time() - one.since_s,
            )
            for one in self.health.all()
        ]

    def waiting_of(self, tenant: str) -> list[WaitingStatus]:
        """A tenant's waiting requests, and where they stand among all."""
        etas = {ticket: (self.router._eta_ms(ticket) or (None,))[0] for ticket in self.waiting}
        order = sorted(self.waiting, key=lambda ticket: (etas[ticket] is None, etas[ticket] or 0.0, ticket))
        found = []
        for position, ticket in enumerate(order, start=1):
            exchange = self.waiting[ticket]
            if exchange.identity.tenant == tenant:
                models = exchange.ask.models
                found.append(
                    WaitingStatus(
                        exchange.request_id.decode(),
                        ticket,
                        models[0] if models else None,
                        position,
                        etas[ticket],
                        exchange.waited_ms,
                    )
                )
        return found

    def recent_decisions(self, n: int) -> list[dict[str, Any]]:
        """The last placements with the router's reasons, newest first."""
        found = []
        for at_s, request_id, ticket in itertools.islice(reversed(self._decisions), n):
            why = self.router.explain(ticket)
            if why is not None:
                found.append({"time_s": at_s, "request_id": request_id.decode(), **why})
        return found

    # --- servers that come and go

    def add_replica(self, model: str, replica: Replica) -> None:
        """One more server takes requests.

        Raises
        ------
        ConfigError
            If its name is taken, its model unknown, or it has no url.
        """
        server = self._server_of(replica)
        self.router.add_replica(
            model,
            replica.name,
            replica.url,
            replica.engine,
            replica.max_in_flight,
            max_batch=replica.max_batch,
            kv_tokens=replica.kv_tokens,
        )
        self.servers[replica.name] = server
        self.health.add(replica.name, model, replica.url or "", server)
        if self.monitor is not None:
            self.monitor.add(replica)
        self.pump()

    def drain_replica(self, name: str) -> None:
        """It gets no new requests. Raises ConfigError if it is unknown."""
        self._known(name)
        self.health.drain(name)

    def resume_replica(self, name: str) -> None:
        """It gets requests again. Raises ConfigError if it is unknown."""
        self._known(name)
        self.health.resume(name)
        self.pump()

    def remove_replica(self, name: str) -> None:
        """It is gone: what runs there and has sent nothing yet is tried elsewhere. Raises ConfigError if unknown."""
        server = self._known(name)
        self.health.remove(name)
        if self.monitor is not None:
            self.monitor.remove(name)
        for exchange in list(self.exchanges):
            exchange.server_removed(server)
        del self.servers[name]
        self.router.remove_replica(name)
        server.close()
        self.pump()

    def _known(self, name: str) -> Server:
        server = self.servers.get(name)
        if server is None:
            known = ", ".join(self.servers)
            raise ConfigError(f"no replica is called {name!r}; known: {known}", "replica", name, known)
        return server

    def _server_of(self, replica: Replica) -> Server:
        key = None
        if replica.api_key_env is not None:
            key = os.environ.get(replica.api_key_env)
            if not key:
                raise ConfigError(
                    f"replica {replica.name!r} has api_key_env = {replica.api_key_env!r}, which is not set; export it",
                    "models.replicas.api_key_env",
                    replica.api_key_env,
                    "a variable that is set",
                )
        return Server(replica, key, self.config.serve.connect_timeout_s)

    # --- start, reload, stop

    async def start(self) -> int:
        """Listens.

        Returns
        -------
        int
            The port.

        Raises
        ------
        OSError
            If the address is taken.
        """
        serve = self.config.serve
        self.loop = asyncio.get_running_loop()
        self.health = Health(self.router, serve, self.loop.time, self.pump)
        self.catalogue = Catalogue(self.config, self.health.is_model_up)
        for model in self.config.models:
            for replica in model.replicas:
                self.health.add(replica.name, model.name, replica.url or "", self.servers[replica.name])
        self._control = web.AppRunner(make_control_app(self), access_log=None, handle_signals=False)
        await self._control.setup()
        self._listening = await self.loop.create_server(
            lambda: ClientConnection(self), serve.host, serve.port, backlog=_BACKLOG
        )
        self.loop.add_reader(self.router._lease_fileno(), self.pump)
        self._tasks = [
            self.loop.create_task(self.health.watch()),
            self.loop.create_task(self._end_hopeless()),
            self.loop.create_task(sweep(self.loop.time, [self.clients, self.exchanges])),
        ]
        port: int = self._listening.sockets[0].getsockname()[1]
        _log.info("listening", extra={"host": serve.host, "port": port, "models": list(self.catalogue.names)})
        return port

    async def _end_hopeless(self) -> None:
        """Tells those who wait for models without a server that they wait in vain."""
        while True:
            await asyncio.sleep(_HOPE_S / 8)
            if not self.waiting:
                continue
            down = self.health.hopeless(_HOPE_S)
            if not down:
                continue
            everything = down.issuperset(self.model_fields)
            for exchange in list(self.waiting.values()):
                if everything or exchange.is_hopeless(down):
                    exchange.give_up()

    def reload(self, read: Callable[[], Config]) -> None:
        """Takes what a changed configuration says of replicas, keys and the gateway; a wrong one changes nothing."""
        try:
            config = read()
            keys = Keys(config.serve.keys)
            names = {model.name for model in config.models}
            if names != {model.name for model in self.config.models}:
                raise ConfigError("the models differ; restart the gateway to change them", "models")
            if config.scheduler != self.config.scheduler or config.devices != self.config.devices:
                raise ConfigError("[scheduler] or [[devices]] differ; restart the gateway to change them", "scheduler")
            wanted = {r.name: (m.name, r) for m in config.models for r in m.replicas}
            for _, replica in wanted.values():
                self._server_of(replica)  # whether it can be
        except (ZetaError, OSError) as error:
            _log.error("reload refused", extra={"why": str(error)})
            return
        present = {r.name: (m.name, r) for m in self.config.models for r in m.replicas}
        for name in [name for name in self.servers if wanted.get(name) != present.get(name)]:
            self.remove_replica(name)
        for name, (model, replica) in wanted.items():
            if name not in self.servers:
                self.add_replica(model, replica)
        self.config = config
        self.keys = keys
        self.queue_timeout_ms = config.serve.queue_timeout_s * 1e3
        self.catalogue = Catalogue(config, self.health.is_model_up)
        _log.info("reloaded", extra={"replicas": sorted(self.servers)})

    async def stop(self, drain_s: float | None = None) -> None:
        """Takes nothing new, lets what runs finish for `drain_s` seconds, then ends it with an error.

        Parameters
        ----------
        drain_s : float, optional
            ``serve.drain_s`` by default. A second call cuts the first one short.
        """
        until_s = self.loop.time() + (self.config.serve.drain_s if drain_s is None else drain_s)
        self.is_draining = True
        if self._listening is not None:
            self._listening.close()
        for client in list(self.clients):
            client.shut()
        while self.exchanges and self.loop.time() < until_s:
            await asyncio.sleep(0.02)
        for exchange in list(self.exchanges):
            exchange.shut()
        await asyncio.sleep(0)  # what was written last leaves
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self.router.is_closed:
            self.loop.remove_reader(self.router._lease_fileno())
        if self._control is not None:
            await self._control.cleanup()
        for client in list(self.clients):
            client.shut()
        for server in self.servers.values():
            server.close()
        self.router.close()


def serve(source: Config | str | os.PathLike[str], *, announce: Callable[[str, int], None] | None = None) -> int:
    """Runs a gateway until a signal ends it.

    SIGTERM and SIGINT drain it; a second one ends it at once. SIGHUP reads the configuration's file again.

    Parameters
    ----------
    source : Config or path-like
        The configuration, or its file.
    announce : callable, optional
        Told host and port once it listens.

    Returns
    -------
    int
        The exit code: 0 after a drain, 1 where a second signal cut it short.

    Raises
    ------
    ConfigError
        If the configuration cannot be used.
    OSError
        If the address is taken.
    """

    def read() -> Config:
        return source if isinstance(source, Config) else load(source)

    import uvloop

    return uvloop.run(_run(read, announce))


async def _run(read: Callable[[], Config], announce: Callable[[str, int], None] | None) -> int:
    gateway = Gateway(read())
    set_up_logs(gateway.config.serve.log_level.upper(), has_requests=gateway.config.serve.log_requests)
    gateway.traces = make_traces()
    gateway.monitor = Readings(gateway.config, gateway.router)
    gateway.monitor.start()
    try:
        return await _serve(gateway, read, announce)
    finally:
        if gateway.traces is not None:
            await asyncio.to_thread(gateway.traces.close)
        await asyncio.to_thread(gateway.monitor.close)


async def _serve(gateway: Gateway, read: Callable[[], Config], announce: Callable[[str, int], None] | None) -> int:
    port = await gateway.start()
    if announce is not None:
        announce(gateway.config.serve.host, port)
    loop = asyncio.get_running_loop()
    signals: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, signals.put_nowait, number)
    while await signals.get() == signal.SIGHUP:
        gateway.reload(read)
    _log.info("draining", extra={"running": len(gateway.exchanges)})
    stopping = loop.create_task(gateway.stop())
    while not stopping.done():
        again = loop.create_task(signals.get())
        await asyncio.wait({stopping, again}, return_when=asyncio.FIRST_COMPLETED)
        if again.done() and again.result() != signal.SIGHUP:
            stopping.cancel()
            return 1
        again.cancel()
    await stopping
    return 0


_REASONS: Final[dict[str, bytes]] = {}


def _reason_bytes(reason: str) -> bytes:
    """The router's word for a reason; it has few."""
    found = _REASONS.get(reason)
    if found is None:
        found = _REASONS[reason] = reason.encode()
    return found
