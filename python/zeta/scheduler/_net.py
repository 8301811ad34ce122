"""How a router's allocation loop comes by its net: in the background, by a loader that the package's door registers.

The scheduler knows nothing of ONNX files and manifests; whoever loads them is registered with `set_net_loader`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from zeta._core import OnnxNet
from zeta.errors import ClosedError, ModelLoadError, ZetaError

if TYPE_CHECKING:
    import logging

    from zeta.scheduler._router import Router

__all__ = ["SHIPPED_NET", "NetLoader", "bring_net", "load_net", "set_net_loader"]

SHIPPED_NET = Path(__file__).parents[1] / "artefacts" / "forecast"
"""Where the package has its own net, if it has one."""

NetLoader = Callable[[Path, int], OnnxNet]
"""From a directory and a number of models to a checked net, or an error that says what is wrong with it."""

_loader: NetLoader | None = None


def set_net_loader(loader: NetLoader) -> None:
    """Who loads nets from now on."""
    global _loader
    _loader = loader


def load_net(directory: Path, models: int) -> OnnxNet:
    """A checked net from a directory, with room for so many models.

    Raises
    ------
    ModelLoadError
        If the directory does not hold exactly what its manifest says, or ONNX Runtime cannot run it.
    """
    if _loader is None:
        raise ModelLoadError("nobody loads nets here; import zeta, which registers its loader")
    return _loader(directory, models)


def _log() -> logging.Logger:
    import logging  # not with zeta: milliseconds

    return logging.getLogger("zeta.forecast")


def bring_net(reference: weakref.ref[Router]) -> None:
    """Loads the net of a router, on a daemon thread. Without one, forecasts do without.

    A router asks for it with the first call after half a second of rounds; the first forecast is made after one.
    """
    router = reference()
    if router is None or router.config.scheduler.forecast != "auto":
        return
    if router._net_directory is None:
        _log().info("no net is installed in %s: forecasts come from the classical candidates", SHIPPED_NET)
        return
    import threading  # likewise

    thread = threading.Thread(target=_bring, args=(reference, router._net_directory), name="zeta-net", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # no thread left, or the interpreter is ending
        _log().warning("the forecaster's net is not loaded: %s", error)


def _bring(reference: weakref.ref[Router], directory: Path) -> None:
    router = reference()
    if router is None or router.is_closed:
        return
    models = len(router.model_names)
    del router  # loading takes a while
    try:
        net = load_net(directory, models)
        router = reference()
        if router is not None and router._net_directory == directory:
            router._set_net(net, str(directory))
    except ClosedError:
        pass  # closed meanwhile: it needs no net
    except (ZetaError, OSError) as error:
        _log().warning("forecasts do without the net in %s: %s", directory, error)
