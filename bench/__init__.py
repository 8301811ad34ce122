"""zeta's benchmarks: ``python -m bench --short`` or ``--full``. See README.md beside this file."""

from __future__ import annotations
