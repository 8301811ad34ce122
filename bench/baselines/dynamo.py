"""NVIDIA Dynamo's in-process selection core: ``dynamo._core.SelectionService``.

It keeps no queue, so the depth of the scenario does not touch it; its calls are coroutines over a native thread pool.
KV events are off (otherwise a worker cannot be scheduled without an event endpoint), logging is at errors only.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.harness import Absent, WrongAnswer
from bench.workload import MODELS, Scale

__all__ = ["DynamoSelection"]

_BLOCK = 16
_HASHES = 32  # blocks of a prompt of 512 tokens
_CYCLE = 1 << 10


class DynamoSelection:
    """select_and_reserve alone, or with the prefill_complete and free_reservation that end a request's life."""

    def __init__(self, scale: Scale, *, is_whole: bool) -> None:
        self.name = f"Dynamo SelectionService, {len(MODELS)} × {scale.replicas}" + (
            ", lifecycle" if is_whole else ", select"
        )
        self.measured = (
            "await select_and_reserve + prefill_complete + free_reservation, 32 block hashes, asyncio, one at a time"
            if is_whole
            else "await select_and_reserve alone, 32 block hashes, asyncio, one at a time"
        )
        self._replicas = scale.replicas
        self._is_whole = is_whole

    def open(self) -> None:
        os.environ.setdefault("DYN_ROUTER_USE_KV_EVENTS", "false")
        os.environ.setdefault("DYN_LOG", "error")
        try:
            from dynamo._core import SelectionService
        except ImportError as missing:
            raise Absent(f"pip install ai-dynamo-runtime ({missing})") from None
        self._loop = asyncio.new_event_loop()
        self._service = SelectionService(indexer_threads=1)
        self._loop.run_until_complete(self._add_workers())
        rng = np.random.default_rng(1)
        hashes = rng.integers(1, 1 << 62, (_CYCLE, _HASHES))
        self._requests = [
            {
                "model_name": MODELS[i % len(MODELS)][0],
                "sequence_hashes": hashes[i].tolist(),
                "block_hashes": hashes[i].tolist(),
                "isl_tokens": _HASHES * _BLOCK,
            }
            for i in range(_CYCLE)
        ]
        self._answers: list[dict[str, Any]] = []

    async def _add_workers(self) -> None:
        for number, (name, _) in enumerate(MODELS):
            for replica in range(self._replicas):
                identity = 1 + number * self._replicas + replica
                await self._service.upsert_worker(
                    {
                        "worker_id": identity,
                        "model_name": name,
                        "endpoint": f"http://127.0.0.1:{9_000 + identity}",
                        "block_size": _BLOCK,
                        "data_parallel_size": 1,
                        "total_kv_blocks": 1 << 16,
                    }
                )

    def renew(self) -> None:
        self._answers.clear()

    def run(self, operations: int) -> NDArray[np.float64]:
        return np.array(self._loop.run_until_complete(self._run(operations)), np.float64)

    async def _run(self, operations: int) -> list[int]:
        service, now = self._service, time.perf_counter_ns
        times = []
        for i in range(operations):
            request = self._requests[i % _CYCLE]
            started = now()
            answer = await service.select_and_reserve(request)
            if self._is_whole:
                await service.prefill_complete(answer["selection_id"])
                await service.free_reservation(answer["selection_id"])
                times.append(now() - started)
            else:
                times.append(now() - started)
                await service.free_reservation(answer["selection_id"])
            self._answers.append(answer)
        return times

    def check(self) -> None:
        names = [name for name, _ in MODELS]
        for answer in self._answers:
            if (answer["worker_id"] - 1) // self._replicas != names.index(answer["model_name"]):
                raise WrongAnswer(f"Dynamo sent a request for {answer['model_name']} to worker {answer['worker_id']}")

    def close(self) -> None:
        self._service.shutdown()
        self._loop.close()
