"""``zeta serve``: the gateway."""

from __future__ import annotations

import argparse
import importlib.util
from typing import TYPE_CHECKING

from zeta.errors import MissingExtraError

if TYPE_CHECKING:
    from zeta.cli._shared import Commands

__all__ = ["PACKAGES", "add_to"]

PACKAGES = ("aiohttp", "httptools", "msgspec", "prometheus_client", "uvloop")


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
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", metavar="FILE", help="a .toml, .yaml or .yml file")
    source.add_argument(
        "--demo", action="store_true", help="three tiny language models on this machine's CPU, started with it"
    )
    parser.add_argument("--port", type=int, default=8080, help="with --demo (default: 8080; 0: a free one)")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError("the gateway", missing, "serve")
    from zeta.gateway import demo_config, demo_engines, serve

    if args.demo:
        with demo_engines() as engines:
            return serve(demo_config(engines, port=args.port), announce=_announce)
    return serve(args.config, announce=_announce)


def _announce(host: str, port: int) -> None:
    shown = f"[{host}]" if ":" in host else host
    print(f"zeta: serving on http://{shown}:{port}/v1, dashboard at http://{shown}:{port}/ui", flush=True)
