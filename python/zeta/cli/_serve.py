"""``zeta serve``: the gateway."""

from __future__ import annotations

import argparse
import importlib.util
from typing import TYPE_CHECKING

from zeta.errors import MissingExtraError

if TYPE_CHECKING:
    from zeta.cli._shared import Commands

__all__ = ["add_to"]

_PACKAGES = ("aiohttp", "httptools", "msgspec", "prometheus_client", "uvloop")


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "serve",
        help="an OpenAI-compatible gateway in front of the models of a configuration",
        description=(
            "Listens for OpenAI-compatible requests and sends each, when the scheduler says so, to one of the "
            "configured servers. SIGTERM drains it, SIGHUP reads the configuration again."
        ),
    )
    parser.add_argument("--config", metavar="FILE", required=True, help="a .toml, .yaml or .yml file")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError("the gateway", missing, "serve")
    from zeta.gateway import serve

    return serve(args.config, announce=_announce)


def _announce(host: str, port: int) -> None:
    shown = f"[{host}]" if ":" in host else host
    print(f"zeta: serving on http://{shown}:{port}/v1, dashboard at http://{shown}:{port}/ui", flush=True)
