"""``python -m zeta``: the command line."""

from __future__ import annotations

import sys

from zeta.cli import main

sys.exit(main())
