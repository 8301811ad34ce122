"""Which servers are sent requests: asked from time to time, and judged by the requests that they fail."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import aiohttp

from zeta.config import Serve

if TYPE_CHECKING:
    from zeta.gateway._upstream import Server
    from zeta.scheduler import Router

__all__ = ["Health", "ServerHealth"]

_log = logging.getLogger("zeta.gateway.health")
_MAX_EJECT_S: Final = 300.0
_BURST_S: Final = 0.1
"""A process that dies breaks all its connections at once: that is one failure."""


@dataclasses.dataclass(slots=True)
class ServerHealth:
    """What is known of one server.

    Attributes
    ----------
    is_up : bool
        It answered when last asked, or was never asked.
    is_ejected : bool
        It takes no requests until `until_s`: it failed too many.
    is_drained : bool
        Somebody asked that it take no requests.
    failures : int
        In a row.
    ejections : int
        How often lately; each lasts longer.
    since_s, until_s, broke_s : float
        When it last began or ceased to take requests, when its ejection ends, when it last broke a connection. On the
        event loop's clock.
    """

    name: str
    model: str
    url: str
    server: Server
    is_up: bool = True
    is_ejected: bool = False
    is_drained: bool = False
    failures: int = 0
    ejections: int = 0
    last_error: str | None = None
    since_s: float = 0.0
    until_s: float = 0.0
    broke_s: float = 0.0

    @property
    def takes(self) -> bool:
        """Whether the router may place requests there."""
        return self.is_up and not self.is_ejected and not self.is_drained


class Health:
    """Takes failing servers out of the router and puts them back.

    A server that refuses connections is *down* and out until it answers again. One that answers wrongly `eject_after`
    times in a row is *ejected*: out for `eject_s`, longer each time, but never the last one of its model, for a bad
    server is better than none. Where all others go down, the ejected ones are back.

    Parameters
    ----------
    router : Router
    serve : Serve
    now_s : callable
        The event loop's clock.
    resumed : callable
        Called after a server takes requests again.
    """

    def __init__(self, router: Router, serve: Serve, now_s: Callable[[], float], resumed: Callable[[], None]) -> None:
        self._router = router
        self._serve = serve
        self._now_s = now_s
        self._resumed = resumed
        self._by_name: dict[str, ServerHealth] = {}
        self._taking: collections.Counter[str] = collections.Counter()
        self._down_since_s: dict[str, float] = {}
        self.ejections_total = 0

    def add(self, name: str, model: str, url: str, server: Server) -> None:
        """One more server."""
        self._by_name[name] = ServerHealth(name, model, url, server, since_s=self._now_s())
        self._count(model, 1)

    def remove(self, name: str) -> None:
        """It is gone."""
        one = self._by_name.pop(name, None)
        if one is not None and one.takes:
            self._count(one.model, -1)

    def all(self) -> list[ServerHealth]:
        """Every server."""
        return list(self._by_name.values())

    def is_model_up(self, model: str) -> bool:
        """Whether one of its servers takes requests."""
        return self._taking[model] > 0

    def hopeless(self, seconds: float) -> set[str]:
        """Models none of whose servers has taken requests for so long."""
        before_s = self._now_s() - seconds
        return {model for model, since_s in self._down_since_s.items() if since_s <= before_s}

    def drain(self, name: str) -> None:
        """Sends it no new requests, until `resume`."""
        self._change(self._by_name[name], is_drained=True)

    def resume(self, name: str) -> None:
        """Sends it requests again, whatever it did before."""
        one = self._by_name[name]
        one.failures = one.ejections = 0
        self._change(one, is_drained=False, is_ejected=False, is_up=True)

    # --- what requests tell

    def succeeded(self, server: Server | None) -> None:
        """It answered a request."""
        if server is not None and (one := self._by_name.get(server.name)) is not None:
            one.failures = 0

    def failed(self, server: Server | None, why: str) -> None:
        """It failed a request."""
        one = None if server is None else self._by_name.get(server.name)
        if one is None:
            return
        one.failures += 1
        one.last_error = why
        if one.failures >= self._serve.eject_after and one.takes and self._taking[one.model] > 1:
            one.ejections += 1
            self.ejections_total += 1
            one.until_s = self._now_s() + min(_MAX_EJECT_S, self._serve.eject_s * one.ejections)
            one.failures = 0
            self._change(one, is_ejected=True)

    def broke(self, server: Server | None, why: str) -> None:
        """It broke a connection before its answer was whole."""
        one = None if server is None else self._by_name.get(server.name)
        now_s = self._now_s()
        if one is not None and now_s - one.broke_s >= _BURST_S:
            one.broke_s = now_s
            self.failed(server, why)

    def unreachable(self, server: Server, error: OSError) -> None:
        """It took no connection."""
        one = self._by_name.get(server.name)
        if one is not None:
            one.last_error = error.strerror or type(error).__name__
            self._change(one, is_up=False)

    def has_other(self, server: Server | None) -> bool:
        """Whether another server of its model takes requests."""
        one = None if server is None else self._by_name.get(server.name)
        return one is not None and self._taking[one.model] > one.takes

    def _change(self, one: ServerHealth, **what: bool) -> None:
        took = one.takes
        for name, value in what.items():
            setattr(one, name, value)
        if one.takes == took:
            return
        one.since_s = self._now_s()
        self._count(one.model, 1 if one.takes else -1)
        _log.warning(
            "replica %s %s%s",
            one.name,
            "takes requests again" if one.takes else "takes no requests",
            f": {one.last_error}" if one.last_error and not one.takes else "",
        )
        if one.takes:
            self._router.resume_replica(one.name)
            self._resumed()
        else:
            self._router.drain_replica(one.name)
            if not self._taking[one.model]:
                for other in self.all():
                    if other.model == one.model and other.is_ejected:
                        self._change(other, is_ejected=False)

    def _count(self, model: str, more: int) -> None:
        self._taking[model] += more
        if self._taking[model]:
            self._down_since_s.pop(model, None)
        else:
            self._down_since_s.setdefault(model, self._now_s())

    # --- asking

    async def watch(self) -> None:
        """Asks all of them for ever."""
        timeout = aiohttp.ClientTimeout(total=max(0.5, min(2.0, self._serve.health_interval_s)))
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                await asyncio.gather(*(self._ask(session, one) for one in self.all()))
                self._end_ejections()
                out = any(not one.is_up for one in self._by_name.values())
                # What is down is asked more often, so that it is used soon after it is back.
                await asyncio.sleep(min(0.25, self._serve.health_interval_s) if out else self._serve.health_interval_s)

    def _end_ejections(self) -> None:
        now_s = self._now_s()
        for one in self._by_name.values():
            if one.is_ejected and now_s >= one.until_s:
                self._change(one, is_ejected=False)

    async def _ask(self, session: aiohttp.ClientSession, one: ServerHealth) -> None:
        try:
            async with session.get(
                one.server.health_url, headers=one.server.health_headers, allow_redirects=False
            ) as answer:
                is_up, why = answer.status < 500, f"HTTP {answer.status} when asked for its models"
        except TimeoutError:
            # A busy server may answer late; whether it is any good, its requests tell.
            return
        except (aiohttp.ClientError, OSError) as error:
            is_up, why = False, f"no answer when asked for its models ({type(error).__name__})"
        if self._by_name.get(one.name) is not one:
            return
        if not is_up:
            one.last_error = why
        if is_up != one.is_up:
            self._change(one, is_up=is_up)
