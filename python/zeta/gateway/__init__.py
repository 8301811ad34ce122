"""An OpenAI-compatible gateway on the router: ``zeta serve``. Needs the extra ``serve``."""

from __future__ import annotations

from zeta.gateway._server import Gateway, serve

__all__ = ["Gateway", "serve"]
