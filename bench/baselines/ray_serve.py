"""Ray Serve's choice of a replica by the power of two choices, in process.

``PowerOfTwoChoicesRequestRouter`` with its queue-length cache on and warm, so that no replica is probed: what a
deployment handle does before it sends, without Ray's transport, actors or HTTP proxy. One router per deployment, as
Serve has it. Replicas are objects that answer the queue-length probe at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.harness import Absent, WrongAnswer
from bench.workload import MODELS, Scale

__all__ = ["RayServePowerOfTwo"]


class _Replica:
    """What the router reads of a running replica."""

    node_id = "node"
    availability_zone = None
    multiplexed_model_ids: frozenset[str] = frozenset()
    actor_id = None
    max_ongoing_requests = 64

    def __init__(self, replica_id: Any) -> None:
        self.replica_id = replica_id

    async def get_queue_len(self, *, deadline_s: float) -> int:  # noqa: ARG002 -- Ray's signature
        return 0


class RayServePowerOfTwo:
    """Choose a replica, count the request in, count it out."""

    measured = (
        "await _choose_replica_for_request + on_send_request + decrement_queue_len_cache, cache warm, one at a time"
    )

    def __init__(self, scale: Scale) -> None:
        self.name = f"Ray Serve power of two, {len(MODELS)} × {scale.replicas}"
        self._replicas = scale.replicas

    def open(self) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from ray.serve._private import common
                from ray.serve._private.request_router.common import PendingRequest
                from ray.serve._private.request_router.pow_2_router import PowerOfTwoChoicesRequestRouter
        except ImportError as missing:
            raise Absent(f'pip install "ray[serve]" ({missing})') from None
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        self._common, self._pending = common, PendingRequest
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._build(PowerOfTwoChoicesRequestRouter))
        self._answers: list[tuple[str, str]] = []

    async def _build(self, router_type: Any) -> None:
        self._routers = []
        for name, _ in MODELS:
            deployment = self._common.DeploymentID(name=name, app_name="bench")
            router = router_type(
                deployment_id=deployment,
                handle_source=self._common.DeploymentHandleSource.REPLICA,
                self_node_id="node",
                self_availability_zone=None,
                self_actor_id="bench",
                prefer_local_node_routing=False,
                prefer_local_az_routing=False,
                use_replica_queue_len_cache=True,
            )
            self._routers.append((name, router))
            router.update_replicas(
                [
                    _Replica(self._common.ReplicaID(unique_id=f"{name}-{i}", deployment_id=deployment))
                    for i in range(self._replicas)
                ]
            )
        await asyncio.sleep(0.05)  # the probes that warm the cache

    def renew(self) -> None:
        self._answers.clear()
        self._loop.run_until_complete(self._refresh())

    async def _refresh(self) -> None:
        """A cached length is good for ten seconds; a replica's answers keep it so in a live deployment."""
        for _, router in self._routers:
            for replica_id in router.curr_replicas:
                router.on_new_queue_len_info(replica_id, 0)

    def run(self, operations: int) -> NDArray[np.float64]:
        return np.array(self._loop.run_until_complete(self._run(operations)), np.float64)

    async def _run(self, operations: int) -> list[int]:
        now, pending_type, metadata_type = time.perf_counter_ns, self._pending, self._common.RequestMetadata
        times = []
        for i in range(operations):
            name, router = self._routers[i % len(self._routers)]
            metadata = metadata_type(request_id=str(i), internal_request_id=str(i))
            started = now()
            pending = pending_type(args=[], kwargs={}, metadata=metadata)
            replica = await router._choose_replica_for_request(pending)
            router.on_send_request(replica.replica_id)
            router.decrement_queue_len_cache(replica.replica_id)
            times.append(now() - started)
            self._answers.append((name, replica.replica_id.unique_id))
        return times

    def check(self) -> None:
        for name, chosen in self._answers:
            if not chosen.startswith(name):
                raise WrongAnswer(f"Ray Serve sent a request for {name} to {chosen}")

    def close(self) -> None:
        self._loop.close()
