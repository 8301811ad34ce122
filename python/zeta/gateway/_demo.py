"""Three real, tiny engines on this machine's CPU, and a gateway's configuration for them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from zeta.config import Config, Device, Model, Replica, Scheduler, Serve
from zeta.engines import embedded

__all__ = ["DEMO_IN_FLIGHT", "demo_config", "demo_engines"]

_QUALITIES = (0.45, 0.6, 0.75)
DEMO_IN_FLIGHT = 2
"""Requests in flight per engine: few, so that the queue is the gateway's and a burst shows within a minute."""


@contextlib.contextmanager
def demo_engines() -> Iterator[dict[str, str]]:
    """Starts them, smallest first, each in a process of its own; they end with the block.

    Yields
    ------
    dict of str to str
        Address by name.
    """
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(embedded.start(name, model=name, max_batch=DEMO_IN_FLIGHT)).url
            for name in embedded.models()
        }


def demo_config(engines: dict[str, str], *, port: int = 8080, scheduler: Scheduler | None = None) -> Config:
    """One device, this machine's CPU, which the three models share.

    Parameters
    ----------
    engines : dict of str to str
        From `demo_engines`.
    port : int
        Of the gateway.
    scheduler : Scheduler, optional
        zeta's defaults where left out.
    """
    models = tuple(
        Model(
            name,
            quality,
            device="cpu",
            replicas=(Replica(f"{name}-0", url, "vllm", max_in_flight=DEMO_IN_FLIGHT, max_batch=DEMO_IN_FLIGHT),),
            mean_output_tokens=32.0,
        )
        for (name, url), quality in zip(engines.items(), _QUALITIES, strict=True)
    )
    base = Config(models=models, devices=(Device("cpu"),), serve=Serve(port=port, health_interval_s=1.0))
    return base if scheduler is None else dataclasses.replace(base, scheduler=scheduler)
