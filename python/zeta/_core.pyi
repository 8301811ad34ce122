"""
zeta's C++ core. Private: import from zeta.
"""

from __future__ import annotations

import typing

__all__: list[str] = ["build_info"]

def build_info() -> dict[str, typing.Any]:
    """
    What this extension was built from (version, compiler, flags), and what the running CPU offers (cpu_features).
    """
