"""An OpenAI-compatible gateway on the router: ``zeta serve``. Needs the extra ``serve``."""

from __future__ import annotations

from zeta.gateway._demo import DEMO_IN_FLIGHT, demo_config, demo_engines
from zeta.gateway._server import Gateway, serve

__all__ = ["DEMO_IN_FLIGHT", "Gateway", "demo_config", "demo_engines", "serve"]
