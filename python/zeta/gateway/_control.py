"""Every route that is not a completion, as an aiohttp application."""

from __future__ import annotations

from typing import Any

from aiohttp import web

__all__ = ["make_control_app"]


def make_control_app(gateway: Any) -> web.Application:
    """The application for one gateway."""

    async def models(request: web.Request) -> web.Response:
        if gateway.keys.identify(request.headers.get("Authorization")) is None:
            raise web.HTTPUnauthorized
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "zeta"} for name in gateway.catalogue.names]
        return web.json_response({"object": "list", "data": data})

    async def ready(_: web.Request) -> web.Response:
        return web.json_response({"status": "draining" if gateway.is_draining else "ok"})

    async def close(_: web.Request, response: web.StreamResponse) -> None:
        response.force_close()  # the next request on a connection may be one for completions

    app = web.Application()
    app.router.add_get("/v1/models", models)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/healthz", ready)
    app.on_response_prepare.append(close)
    return app
