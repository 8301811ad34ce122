"""``python -m zeta.cli``, for where the command itself is not on PATH."""

from __future__ import annotations

import sys

from zeta.cli import main

sys.exit(main())
