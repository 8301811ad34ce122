"""``python -m zeta.engines KIND OPTIONS``: what `start_process` runs. People use ``zeta engine``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from zeta.engines._job import Engine
from zeta.engines._profiles import Profile
from zeta.engines._serve import serve_for_parent
from zeta.engines.embedded import EmbeddedEngine
from zeta.engines.simulated import SimulatedEngine


def _simulated(options: Mapping[str, Any]) -> Engine:
    profile = Profile.parse(options["profile"], **options.get("limits", {}))
    return SimulatedEngine(profile, model=options.get("model"), speed=options.get("speed", 1.0))


def _embedded(options: Mapping[str, Any]) -> Engine:
    limits = {name: options[name] for name in ("model", "max_batch", "threads") if name in options}
    return EmbeddedEngine(options["name"], **limits)


def main() -> int:
    """One engine."""
    kind, options = sys.argv[1], json.loads(sys.argv[2])
    makers = {"embedded": _embedded, "simulated": _simulated}
    return serve_for_parent(lambda: makers[kind](options), options)


if __name__ == "__main__":
    sys.exit(main())
