"""Everything that is not a completion: models, queue, state, dashboard, metrics, health, and the admin's routes."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final

import msgspec
from aiohttp import web

from zeta.config import ENGINES, Replica
from zeta.errors import ClosedError, ConfigError
from zeta.gateway._answers import Refusal
from zeta.gateway._metrics import GatewayCollector, exposition
from zeta.gateway._state import State
from zeta.gateway._ui import load_page
from zeta.gateway._view import GatewayView, IdentityView, ReplicaView, WaitingView

__all__ = ["make_control_app"]

_MAX_BODY_BYTES: Final = 64 << 10
_PERIOD_S: Final = 1.0
_ALWAYS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}

_log = logging.getLogger("zeta.gateway")

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_control_app(gateway: GatewayView, *, state: State | None = None) -> web.Application:
    """The routes beside the completions, for a gateway.

    Parameters
    ----------
    gateway : GatewayView
        Its settings are ``gateway.config.serve``. Called in the event loop that runs the application only.
    state : State, optional
        What looks at the gateway once a second; its own by default.

    Returns
    -------
    aiohttp.web.Application
        While it runs, it looks at the gateway once a second, also when nobody asks.
    """
    app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[_answer_errors])
    control = _Control(gateway, State(gateway) if state is None else state)
    app.cleanup_ctx.append(control.look)
    app.add_routes(
        [
            web.get("/v1/models", control.models),
            web.get("/v1/models/{model:.+}", control.model),
            web.get("/v1/zeta/queue", control.queue),
            web.get("/v1/zeta/state", control.state),
            web.post("/v1/zeta/replicas", control.add_replica),
            web.post("/v1/zeta/replicas/{name}/drain", control.drain_replica),
            web.post("/v1/zeta/replicas/{name}/resume", control.resume_replica),
            web.delete("/v1/zeta/replicas/{name}", control.remove_replica),
            web.get("/ui", control.page),
            web.get("/ui/", control.to_page),
            web.get("/metrics", control.metrics),
            *(web.get(path, control.is_alive) for path in ("/healthz", "/health/liveliness", "/health/liveness")),
            *(web.get(path, control.is_ready) for path in ("/readyz", "/health/readiness")),
        ]
    )
    return app


class _Control:
    """The handlers."""

    def __init__(self, gateway: GatewayView, state: State) -> None:
        self._gateway = gateway
        self._state = state
        self._collector = GatewayCollector(gateway)

    async def look(self, app: web.Application) -> AsyncIterator[None]:
        """Runs beside the application: looks once a second."""
        del app
        task = asyncio.create_task(self._look(), name="zeta-state")
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            try:
                self._state.sample()
            except ClosedError:
                return
            except Exception:
                _log.exception("the state could not be read; trying again")
            due_s = max(due_s + _PERIOD_S, loop.time())
            await asyncio.sleep(due_s - loop.time())

    # Clients ----------------------------------------------------------------------------------------------------------

    async def models(self, request: web.Request) -> web.Response:
        """The names that a client may ask for."""
        self._somebody(request)
        return _json({"object": "list", "data": [_model_row(name) for name in self._gateway.catalogue.names]})

    async def model(self, request: web.Request) -> web.Response:
        """One of them."""
        self._somebody(request)
        name = request.match_info["model"]
        if name not in self._gateway.catalogue.names:
            raise Refusal(404, "there is no such model; GET /v1/models lists those there are", "model_not_found")
        return _json(_model_row(name))

    async def queue(self, request: web.Request) -> web.Response:
        """The caller's own waiting requests."""
        tenant = self._somebody(request).tenant
        return _json({"object": "list", "data": [_waiting_row(each) for each in self._gateway.waiting_of(tenant)]})

    # Operators --------------------------------------------------------------------------------------------------------

    async def state(self, request: web.Request) -> web.Response:
        """What is so now, and the history since a time."""
        identity = self._reader(request)
        since = request.query.get("since")
        try:
            since_s = None if since is None else float(since)
        except ValueError:
            raise Refusal(
                400, "since is not a number; expected Unix seconds, such as 0 for all of it", "bad_since", "since"
            ) from None
        is_admin = identity is not None and identity.is_admin
        return _json(self._state.document(is_admin=is_admin, since_s=since_s))

    async def page(self, request: web.Request) -> web.Response:
        """The dashboard. The page itself holds nothing to see; what it shows it asks for, with the reader's key."""
        page = load_page()
        headers = {"Content-Security-Policy": page.policy, "Cache-Control": "no-cache", "ETag": page.tag}
        if request.headers.get("If-None-Match") == page.tag:
            return web.Response(status=304, headers=headers)
        body = page.body
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            body = page.zipped
            headers["Content-Encoding"] = "gzip"
        headers["Vary"] = "Accept-Encoding"
        return web.Response(body=body, headers=headers, content_type="text/html", charset="utf-8")

    async def to_page(self, request: web.Request) -> web.Response:
        """The same without the slash."""
        del request
        return web.Response(status=308, headers={"Location": "../ui"})

    async def metrics(self, request: web.Request) -> web.Response:
        """Prometheus' exposition."""
        self._reader(request)
        body, content_type = await exposition(self._collector, request.headers.get("Accept"))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def is_alive(self, request: web.Request) -> web.Response:
        """The process answers."""
        del request
        return _json({"status": "alive"})

    async def is_ready(self, request: web.Request) -> web.Response:
        """Whether new requests are taken and some replica can serve them."""
        del request
        if self._gateway.is_draining:
            return _json({"status": "draining"}, 503)
        if not any(each.is_healthy and not each.is_draining for each in self._gateway.replicas()):
            return _json({"status": "no replica is up"}, 503)
        return _json({"status": "ready"})

    # Admins -----------------------------------------------------------------------------------------------------------

    async def add_replica(self, request: web.Request) -> web.Response:
        """Lets one more replica take requests."""
        self._admin(request)
        given = await _object(request)
        unknown = sorted(given.keys() - _REPLICA_KEYS.keys())
        if unknown:
            raise Refusal(
                400,
                f"{len(unknown)} keys are not known; expected {', '.join(_REPLICA_KEYS)}",
                "unknown_key",
                unknown[0] if unknown[0].isidentifier() else None,
            )
        values = {key: _value(given, key) for key in _REPLICA_KEYS}
        _check_url(values["url"])
        model, name = values.pop("model"), values["name"]
        if self._replica(name) is not None:
            raise Refusal(
                409, "a replica of that name is there; choose another, or remove it first", "name_taken", "name"
            )
        with _refusing():
            self._gateway.add_replica(model, Replica(**values))
        return self._replica_answer(name, 201)

    async def drain_replica(self, request: web.Request) -> web.Response:
        """No new requests for it; what runs there finishes."""
        name = self._known(request)
        with _refusing():
            self._gateway.drain_replica(name)
        return self._replica_answer(name)

    async def resume_replica(self, request: web.Request) -> web.Response:
        """It takes requests again."""
        name = self._known(request)
        with _refusing():
            self._gateway.resume_replica(name)
        return self._replica_answer(name)

    async def remove_replica(self, request: web.Request) -> web.Response:
        """It is gone; what ran there is queued again."""
        name = self._known(request)
        with _refusing():
            self._gateway.remove_replica(name)
        return _json({"name": name, "removed": True})

    # ------------------------------------------------------------------------------------------------------------------

    def _identity(self, request: web.Request) -> IdentityView | None:
        keys = self._gateway.keys
        if keys.is_open:
            _need_loopback_name(request)
        return keys.identify(request.headers.get("Authorization") or request.headers.get("X-Api-Key"))

    def _somebody(self, request: web.Request) -> IdentityView:
        identity = self._identity(request)
        if identity is None:
            raise Refusal(
                401, "no key, or not one of ours; send Authorization: Bearer KEY with one that is", "invalid_api_key"
            )
        return identity

    def _reader(self, request: web.Request) -> IdentityView | None:
        """Who may see figures: anybody where `serve.open_metrics` and a loopback address say so, else with a key."""
        serve = self._gateway.config.serve
        if serve.open_metrics and _is_loopback_name(serve.host) and _is_loopback_name(request.host):
            return self._identity(request)
        return self._somebody(request)

    def _admin(self, request: web.Request) -> None:
        _need_own_origin(request)
        if not self._somebody(request).is_admin:
            raise Refusal(403, "this key is no admin's; use one with is_admin = true", "not_admin")

    def _known(self, request: web.Request) -> str:
        self._admin(request)
        name = request.match_info["name"]
        if self._replica(name) is None:
            raise Refusal(404, "there is no replica of that name; GET /v1/zeta/state lists them", "replica_not_found")
        return name

    def _replica(self, name: str) -> ReplicaView | None:
        return next((each for each in self._gateway.replicas() if each.name == name), None)

    def _replica_answer(self, name: str, status: int = 200) -> web.Response:
        replica = self._replica(name)
        if replica is None:
            return _json({"name": name, "removed": True}, status)
        return _json(
            {
                "name": replica.name,
                "model": replica.model,
                "url": replica.url,
                "is_healthy": replica.is_healthy,
                "is_draining": replica.is_draining,
                "in_flight": replica.in_flight,
            },
            status,
        )


_REPLICA_KEYS: Final[dict[str, tuple[type, Any]]] = {  # type, and what stands in for it; ...: it must be there
    "model": (str, ...),
    "name": (str, ...),
    "url": (str, ...),
    "engine": (str, "openai"),
    "max_in_flight": (int, 64),
}


def _value(given: dict[str, Any], key: str) -> Any:
    kind, default = _REPLICA_KEYS[key]
    value = given.get(key, default)
    words = "a text" if kind is str else "a whole number"
    if value is ...:
        raise Refusal(400, f"{key} is missing; expected {words}", "missing_key", key)
    if type(value) is not kind:
        raise Refusal(400, f"{key} is not {words}; send {words}", "wrong_type", key)
    if key == "engine" and value not in ENGINES:
        raise Refusal(400, f"engine is none of {', '.join(ENGINES)}; send one of them", "wrong_engine", key)
    return value


def _check_url(url: str) -> None:
    try:
        parts = urllib.parse.urlsplit(url)
        is_good = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port is None or parts.port > 0)
            and parts.username is None
            and parts.password is None
            and not parts.query
            and not parts.fragment
            and url.isascii()
            and url.isprintable()
            and " " not in url
        )
    except ValueError:
        is_good = False
    if not is_good:
        raise Refusal(
            400,
            "url is no address of a server; expected http(s)://host:port/v1 without user or query",
            "bad_url",
            "url",
        )


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise Refusal(400, str(error), "refused", None) from None


async def _object(request: web.Request) -> dict[str, Any]:
    if request.content_type != "application/json":
        raise Refusal(415, "the body is not JSON; send Content-Type: application/json", "wrong_content_type")
    try:
        given = msgspec.json.decode(await request.read())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise Refusal(400, "the body is no JSON object; expected one", "invalid_json")
    return given


def _model_row(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "zeta"}


def _waiting_row(each: WaitingView) -> dict[str, Any]:
    return {
        "request_id": each.request_id,
        "ticket": str(each.ticket),  # 64 bits: more than JavaScript's numbers hold
        "model": each.model,
        "position": each.position,
        "eta_ms": each.eta_ms,
        "waited_ms": each.waited_ms,
    }


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


# Who may ask from where -----------------------------------------------------------------------------------------------


def _need_own_origin(request: web.Request) -> None:
    """Refuses what another site's page sends in the name of whoever looks at it."""
    origin = request.headers.get("Origin")
    if origin is not None and urllib.parse.urlsplit(origin).netloc != request.host:
        raise Refusal(
            403, "the request comes from another site's page; send it from a program or from /ui", "cross_site"
        )


def _need_loopback_name(request: web.Request) -> None:
    """Without keys, a name that leads here from elsewhere is a page's that was resolved anew to reach us."""
    if not _is_loopback_name(request.host):
        raise Refusal(
            403, "without keys, only localhost is served; ask for localhost, or set [[serve.keys]]", "not_localhost"
        )


def _is_loopback_name(host: str) -> bool:
    """Whether a host (with or without a port) can only be this machine: localhost, or a loopback address."""
    try:
        name = host if host.count(":") > 1 and "[" not in host else urllib.parse.urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


# Errors ---------------------------------------------------------------------------------------------------------------


@web.middleware
async def _answer_errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Every answer has the same few headers, and every error OpenAI's form.

    The connection ends with the answer: it came from the completions' protocol and does not return there.
    """
    response: web.StreamResponse
    try:
        response = await handler(request)
    except Refusal as refusal:
        response = _answer(refusal)
        if refusal.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        response = _refused(405, f"this path has no such method; it has {allowed}", "method_not_allowed")
        response.headers["Allow"] = allowed
    except web.HTTPException as error:
        response = _refused(
            error.status, _SENTENCES.get(error.status, error.reason), "not_found" if error.status == 404 else "refused"
        )
    except ClosedError:
        response = _refused(503, "the gateway is stopping; ask another one", "stopping")
    except Exception:
        _log.exception("a control route failed")
        response = _refused(500, "zeta failed here, which is its own fault; the log says where", "internal")
    for name, value in _ALWAYS.items():
        response.headers.setdefault(name, value)
    response.force_close()
    return response


_SENTENCES: Final = {
    404: "there is nothing at this path; the API is below /v1, the dashboard at /ui",
    413: f"the body is too large; at most {_MAX_BODY_BYTES} bytes",
}


def _refused(status: int, message: str, code: str) -> web.Response:
    return _answer(Refusal(status, message, code))


def _answer(refusal: Refusal) -> web.Response:
    return web.Response(body=refusal.body(), status=refusal.status, content_type="application/json")
