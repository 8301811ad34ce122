"""The router: what an application holds."""

from __future__ import annotations

import dataclasses
import functools
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from zeta import _core
from zeta.clock import Clock
from zeta.config import Config, Device, Engine, Model, Replica, Scheduler, Tenant, load
from zeta.errors import ConfigError, Rejected, UnknownTicket
from zeta.scheduler._decision_log import header_of
from zeta.scheduler._native_config import DEFAULT_KV_TOKENS, native_config, resolve
from zeta.scheduler._net import SHIPPED_NET, bring_net, load_net
from zeta.scheduler._process import look_after
from zeta.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable
    from types import TracebackType

    from zeta.scheduler._lease import AsyncLease, LeaseDesk

__all__ = ["FINALS_KEPT", "Router"]

FINALS_KEPT = 65_536
_LEAST_RETRY_S = 1.0


class Submission(TypedDict, total=False):
    """The arguments of `Router.submit` and `Router.lease`; one of the first two is needed."""

    prompt_tokens: int | None
    prompt: str | None
    max_tokens: int | None
    deadline_ms: float | None
    end_deadline_ms: float | None
    max_wait_ms: float | None
    tenant: str | None
    priority: int
    complexity: float | None
    min_quality: float
    models: str | Iterable[str] | None
    affinity_key: Hashable


class Router(_core.Router):
    """Decides which waiting request goes to which replica next.

    Any thread may call anything. `submit`, `poll`, `first_token`, `complete` and `cancel` are native and take
    microseconds; none waits, but `poll` with a timeout.

    Parameters
    ----------
    models : sequence of zeta.Model
        At least one.
    devices : sequence of zeta.Device
        Those that the models name.
    tenants : sequence of zeta.Tenant
        Those whose weight is not 1.
    scheduler : zeta.config.Scheduler
        Settings.
    clock : zeta.clock.Clock, optional
        Where time comes from, for tests: nothing moves on its own then, so call `advance` and `tick`. The machine's
        monotonic clock by default. An exception in its ``now_ns`` is reported as unraisable, and time stands still.
    background : bool, default True
        Whether a native thread sees to timers and the allocation loop. It starts with the first call.
    decision_log : path-like, optional
        A file to write every event to, with a fingerprint of every decision; see `zeta.replay_log`.

    Raises
    ------
    ConfigError
        If the settings do not fit together.
    OSError
        If the decision log cannot be written.

    Notes
    -----
    After a fork the child's router is empty and has no decision log; what was in flight belongs to the parent.

    Examples
    --------
    >>> router = Router(models=[Model("7b", 0.5, replicas=[Replica("7b-0")])])
    >>> ticket = router.submit(prompt_tokens=812, max_tokens=256, deadline_ms=2000)
    >>> for lease in router.poll():
    ...     router.first_token(lease)
    ...     router.complete(lease, output_tokens=143)
    True
    True
    >>> router.outcome(ticket)
    <Outcome.COMPLETED: 'completed'>
    >>> router.close()
    """

    def __init__(
        self,
        models: Sequence[Model] = (),
        devices: Sequence[Device] = (),
        tenants: Sequence[Tenant] = (),
        scheduler: Scheduler = Scheduler(),  # noqa: B008 -- frozen
        *,
        clock: Clock | None = None,
        background: bool = True,
        decision_log: str | os.PathLike[str] | None = None,
    ) -> None:
        given = Config(scheduler=scheduler, models=tuple(models), devices=tuple(devices), tenants=tuple(tenants))
        config, services = resolve(given)
        native, names = native_config(config, service_models=services)
        super().__init__(
            config=native,
            clock=clock,
            tick_interval_ns=round(scheduler.tick_interval_ms * 1e6),
            has_thread=background,
            forecast=scheduler.forecast,
            ask_net=functools.partial(bring_net, weakref.ref(self)),
        )
        self._config = config
        self._net_directory = _net_directory(scheduler.forecast_model)
        self._model_ids = {name: number for number, name in enumerate(names.models)}
        self._device_names = names.devices
        self._replica_ids: dict[str, int] = {}
        for number, name in enumerate(names.models):
            self._name_model(number, name)
        for number, (name, url) in enumerate(zip(names.replicas, names.urls, strict=True)):
            self._name_replica(number, name, url)
            self._replica_ids[name] = number
        for name in names.tenants:
            self._tenant_id(name)
        self._desk: LeaseDesk | None = None
        look_after(self)
        if decision_log is not None:
            self._log_to(os.fspath(decision_log), header_of(config, services))

    @classmethod
    def from_config(
        cls,
        config: Config | str | os.PathLike[str],
        *,
        clock: Clock | None = None,
        background: bool = True,
        decision_log: str | os.PathLike[str] | None = None,
    ) -> Router:
        """A router as a configuration (or the TOML or YAML file at a path) describes it.

        Raises
        ------
        ConfigError
            If the file cannot be read or anything in it cannot be used.
        """
        if not isinstance(config, Config):
            config = load(config)
        return cls(
            config.models,
            config.devices,
            config.tenants,
            config.scheduler,
            clock=clock,
            background=background,
            decision_log=decision_log,
        )

    @property
    def config(self) -> Config:
        """The settings that it was built from, with every replica's KV capacity filled in."""
        return self._config

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names by number, for the model column of `poll_many`."""
        return tuple(self._model_ids)

    @property
    def replica_names(self) -> tuple[str | None, ...]:
        """Names by number, for the replica column of `poll_many`; None where there is none any more."""
        names: list[str | None] = [None] * (max(self._replica_ids.values(), default=-1) + 1)
        for name, number in self._replica_ids.items():
            names[number] = name
        return tuple(names)

    def outcome(self, ticket: int) -> Outcome:
        """What has become of a request so far.

        Raises
        ------
        UnknownTicket
            If this router never issued the ticket, or its request ended more than 65,536 endings ago.
        """
        name = self._outcome(ticket)
        if name is None:
            raise UnknownTicket(
                f"ticket {ticket} is unknown; expected one that submit returned. Outcomes of ended requests are kept "
                f"for the last {FINALS_KEPT:,}: ask sooner"
            )
        return Outcome(name)

    def rejection(self, ticket: int) -> Rejected:
        """Why a request ended without running, when it could have started, and how long to wait before trying again.

        Parameters
        ----------
        ticket : int
            Of a request that ended not long ago.

        Returns
        -------
        Rejected
            For the caller to raise, or to answer with; ``retry_after_s`` is None where trying again is of no use.

        Raises
        ------
        UnknownTicket
            As `outcome`.
        """
        outcome = self.outcome(ticket)
        eta = self._eta_ms(ticket)
        if eta is None or eta[0] <= 0.0:
            is_passing = outcome in (Outcome.REJECTED_CAPACITY, Outcome.EXPIRED_IN_QUEUE)
            return Rejected(outcome, None, _LEAST_RETRY_S if is_passing else None)
        return Rejected(outcome, eta[0], max(_LEAST_RETRY_S, eta[1] * 1e-3))

    def lease(self, **request: Unpack[Submission]) -> AsyncLease:
        """A turn, for asyncio: ``async with router.lease(prompt=text, deadline_ms=2000) as lease: ...``.

        Entering waits for the request's turn; leaving completes the request, or fails or withdraws it where an
        exception leaves. Tasks of any number of event loops may wait at once.

        Parameters
        ----------
        **request
            As for `submit`.

        Raises
        ------
        Rejected
            On entering, if the request ends while it waits: with the outcome, when it could have started, and how long
            to wait before trying again.
        ClosedError
            On entering, if the router is closed meanwhile.
        """
        from zeta.scheduler._lease import AsyncLease, LeaseDesk

        if self._desk is None:
            self._desk = LeaseDesk(self)
        return AsyncLease(self, self._desk, lambda: self.submit(**request, _channel=1))

    def set_forecast_model(self, directory: str | os.PathLike[str] | None) -> None:
        """Puts another net in the place of the allocation loop's, while it runs.

        The loop takes it at its next round; no round uses two. Until then, and if this raises, it goes on with the one
        it has.

        Parameters
        ----------
        directory : path-like or None
            Of the net and its manifest, as `zeta train` writes them. None: forecasts do without a net.

        Raises
        ------
        ModelLoadError, SchemaMismatch
            If it is not exactly what its manifest says, was made for other features, or ONNX Runtime cannot run it.
        ConfigError
            If this router's forecasts are not those that a net takes part in.
        """
        if self._config.scheduler.forecast != "auto":
            raise ConfigError(
                f"this router has scheduler.forecast = {self._config.scheduler.forecast!r}, which asks no net; build "
                "it with 'auto'",
                "scheduler.forecast",
                self._config.scheduler.forecast,
                "auto",
            )
        path = None if directory is None else Path(directory)
        net = None if path is None else load_net(path, len(self._model_ids))
        self._net_directory = path
        self._set_net(net, None if path is None else str(path))

    def close(self) -> None:
        """Ends the router's thread and wakes whoever waits; further calls raise ClosedError. Twice is once."""
        super().close()
        if self._desk is not None:
            self._desk.close()

    def _reset_after_fork(self) -> None:
        self._desk = None
        super()._reset_after_fork()

    def add_replica(
        self,
        model: str,
        name: str,
        url: str | None = None,
        engine: Engine = "sim",
        max_in_flight: int = 64,
        *,
        max_batch: int = 256,
        kv_tokens: int | None = None,
    ) -> None:
        """Lets one more replica of a model take requests, from now on.

        Parameters
        ----------
        model, name : str
            A model of this router; a name that no replica has.
        url : str, optional
            Where it listens.
        engine : str
            Which metrics and protocol it speaks.
        max_in_flight, max_batch : int
            Upper bound of the adaptive window, and of a decode step, in requests.
        kv_tokens : int, optional
            KV capacity; that of the model's other replicas by default.

        Raises
        ------
        ConfigError
            If the model is unknown, the name is taken, or ``scheduler.max_replicas`` are there already.
        """
        number = self._known_model(model)
        if name in self._replica_ids:
            raise ConfigError(
                f"replica {name!r} is there already; give each its own name, or remove_replica({name!r}) first",
                "replicas.name",
                name,
                "a name that is not in use",
            )
        replica = Replica(name, url, engine, max_in_flight, kv_tokens, max_batch)
        siblings = [other.kv_tokens or 0 for other in self._config.models[number].replicas]
        capacity = kv_tokens or max(siblings, default=0) or DEFAULT_KV_TOKENS
        found = self._add_replica(number, name, url, max_in_flight, max_batch, capacity)
        if found is None:
            most = self._config.scheduler.max_replicas
            raise ConfigError(
                f"replica {name!r} has no place: {most} are there; remove one, or raise scheduler.max_replicas",
                "scheduler.max_replicas",
                most,
                f"more than {most}",
            )
        self._replica_ids[name] = found
        self._set_replicas(
            number, (*self._config.models[number].replicas, dataclasses.replace(replica, kv_tokens=capacity))
        )

    def drain_replica(self, name: str) -> None:
        """Lets a replica take no new requests; what runs there finishes.

        Raises
        ------
        ConfigError
            If there is no replica of that name.
        """
        self._drain_replica(self._known_replica(name))

    def resume_replica(self, name: str) -> None:
        """Lets a drained replica take requests again.

        Raises
        ------
        ConfigError
            If there is no replica of that name.
        """
        self._resume_replica(self._known_replica(name))

    def remove_replica(self, name: str) -> None:
        """Takes a replica away. What runs there is queued again under its ticket, at most three times, else it fails.

        Raises
        ------
        ConfigError
            If there is no replica of that name.
        """
        self._remove_replica(self._known_replica(name))
        del self._replica_ids[name]
        for number, model in enumerate(self._config.models):
            self._set_replicas(number, tuple(replica for replica in model.replicas if replica.name != name))

    def set_external_load(self, name: str, requests: int | None, kv_tokens: int = 0) -> None:
        """What others than this router hold on a replica, until told otherwise; `zeta.runtime.Monitor` does this.

        Their requests take places of its window, except the last, and their tokens part of its KV cache while anything
        of this router's is there. What this router sends counts by itself, so that old news attracts no herd.

        Parameters
        ----------
        name : str
            The replica.
        requests : int or None
            Running and waiting there, this router's left out. None: not known; nothing is assumed.
        kv_tokens : int
            Of its KV cache, in use by others.

        Raises
        ------
        ConfigError
            If there is no replica of that name.
        ValueError
            If a number is negative.
        """
        number = self._known_replica(name)
        if (requests is not None and requests < 0) or kv_tokens < 0:
            raise ValueError(
                f"requests is {requests}, kv_tokens is {kv_tokens}; expected 0 or more, or None: not known"
            )
        self._set_external_loads([(number, None if requests is None else min(requests, 1 << 30), kv_tokens)])

    def __enter__(self) -> Router:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        models = ", ".join(self._model_ids)
        return f"<zeta.Router of {models}{'; closed' if self.is_closed else ''}>"

    def _known_model(self, name: str) -> int:
        number = self._model_ids.get(name)
        if number is None:
            raise _unknown("model", name, self._model_ids)
        return number

    def _known_replica(self, name: str) -> int:
        number = self._replica_ids.get(name)
        if number is None:
            raise _unknown("replica", name, self._replica_ids)
        return number

    def _set_replicas(self, model: int, replicas: tuple[Replica, ...]) -> None:
        models = list(self._config.models)
        if models[model].replicas != replicas:
            models[model] = dataclasses.replace(models[model], replicas=replicas)
            self._config = dataclasses.replace(self._config, models=tuple(models))


def _net_directory(given: str | None) -> Path | None:
    """Where the net of a router is that starts; None: there is none."""
    if given is not None:
        return Path(given)
    return SHIPPED_NET if SHIPPED_NET.is_dir() else None


def _unknown(what: str, name: str, known: dict[str, Any]) -> ConfigError:
    import difflib

    near = next(iter(difflib.get_close_matches(str(name), known, n=1)), None)
    hint = f"; did you mean {near!r}?" if near else ""
    names = ", ".join(map(repr, known)) or "none"
    return ConfigError(f"no {what} is called {name!r}{hint} (known: {names})", f"{what}s", name, names, near)
