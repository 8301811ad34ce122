"""What zeta is measured against, one file each. A contender that cannot run says what would bring it."""

from __future__ import annotations
