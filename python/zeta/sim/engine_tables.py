"""The simulator's name for `zeta.engine_tables`, which the scheduler reads too."""

from __future__ import annotations

from zeta.engine_tables import *  # noqa: F403 -- the same names
from zeta.engine_tables import __all__ as __all__
