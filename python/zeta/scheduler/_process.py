"""Routers and the process they live in: what a fork and the end of the interpreter mean for them."""

from __future__ import annotations

import atexit
import os
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zeta.scheduler._router import Router

__all__ = ["look_after"]

_routers: weakref.WeakSet[Router] = weakref.WeakSet()
_is_registered = False


def look_after(router: Router) -> None:
    """Lets a forked child start with an empty router, and ends its native thread with the process."""
    global _is_registered
    if not _is_registered:
        _is_registered = True
        os.register_at_fork(after_in_child=_start_empty)
        atexit.register(_stop)
    _routers.add(router)


def _start_empty() -> None:
    for router in list(_routers):
        router._reset_after_fork()


def _stop() -> None:
    # Not close: threads that are blocked in poll would wake up to a ClosedError. They end with the interpreter.
    for router in list(_routers):
        router._stop()
