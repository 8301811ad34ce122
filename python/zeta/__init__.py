"""Decides which waiting request goes to which model next, and how much capacity each model gets."""

from __future__ import annotations

from zeta._core import build_info
from zeta._version import __version__
from zeta.errors import Rejected, ZetaError
from zeta.types import Outcome

__all__ = ["Outcome", "Rejected", "ZetaError", "__version__", "build_info"]
