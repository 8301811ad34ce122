"""``zeta check FILE``: validate a configuration."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from zeta import config

if TYPE_CHECKING:
    from zeta.cli._shared import Commands

__all__ = ["add_to"]


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "check",
        help="validate a configuration",
        description="Reads a TOML or YAML configuration and the ZETA_* variables, and says what they amount to.",
    )
    parser.add_argument("file", metavar="FILE", help="a .toml, .yaml or .yml file")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    fleet = config.load(args.file)
    print(f"{args.file}: valid")
    for model in fleet.models:
        where = f" on {model.device}" if model.device else ""
        names = ", ".join(replica.name for replica in model.replicas)
        print(f"  model {model.name}{where}, quality {model.quality:g}: {names}")
    for device in fleet.devices:
        print(f"  device {device.name}: {device.kind or 'kind not given'}, {device.colocation}")
    for tenant in fleet.tenants:
        print(f"  tenant {tenant.name}: weight {tenant.weight:g}")
    scheduler = fleet.scheduler
    print(f"  policy {scheduler.policy}, order {scheduler.order}, admission {scheduler.admission}")
    return 0
