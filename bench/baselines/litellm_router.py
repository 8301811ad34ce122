"""LiteLLM: its router's choice of a deployment, and its priority scheduler.

The router has no queue; the scheduler is LiteLLM's queue, one per model group, and keeps its whole list in a cache
that is written back with every change.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.harness import Absent, WrongAnswer
from bench.workload import MODELS, Scale

__all__ = ["LiteLLMPick", "LiteLLMScheduler"]


def _litellm() -> Any:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # otherwise the import asks the network
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import litellm
    except ImportError as missing:
        raise Absent(f"pip install litellm ({missing})") from None
    logging.getLogger("LiteLLM").setLevel(logging.ERROR)
    logging.getLogger("LiteLLM Router").setLevel(logging.ERROR)
    return litellm


class LiteLLMPick:
    """The synchronous choice of a deployment out of one model group."""

    def __init__(self, scale: Scale, strategy: str) -> None:
        self.name = f"LiteLLM {strategy}, {len(MODELS)} × {scale.replicas}"
        self.measured = f"Router.get_available_deployment, strategy {strategy}; no queue, no completion"
        self._replicas = scale.replicas
        self._strategy = strategy

    def open(self) -> None:
        litellm = _litellm()
        deployments = [
            {
                "model_name": name,
                "litellm_params": {
                    "model": f"openai/{name}",
                    "api_key": "none",
                    "api_base": f"http://127.0.0.1:{9_000 + replica}/v1",
                },
                "model_info": {"id": f"{name}-{replica}"},
            }
            for name, _ in MODELS
            for replica in range(self._replicas)
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._router = litellm.Router(model_list=deployments, routing_strategy=self._strategy)
        self._messages = [{"role": "user", "content": "x"}]
        self._answers: list[tuple[str, str]] = []

    def renew(self) -> None:
        self._answers.clear()

    def run(self, operations: int) -> NDArray[np.float64]:
        pick, now, messages = self._router.get_available_deployment, time.perf_counter_ns, self._messages
        times = []
        for i in range(operations):
            name = MODELS[i % len(MODELS)][0]
            started = now()
            chosen = pick(model=name, messages=messages, request_kwargs={})
            times.append(now() - started)
            self._answers.append((name, chosen["model_info"]["id"]))
        return np.array(times, np.float64)

    def check(self) -> None:
        for name, chosen in self._answers:
            if not chosen.startswith(name):
                raise WrongAnswer(f"LiteLLM sent a request for {name} to {chosen}")

    def close(self) -> None:
        self._router.reset()


class LiteLLMScheduler:
    """add_request, then poll of the request at the top with no healthy deployment, which pops it."""

    measured = "await Scheduler.add_request + poll that pops the top, one model group"

    def __init__(self, depth: int) -> None:
        self.name = f"LiteLLM priority scheduler, {depth:,} queued"
        self._depth = depth

    def open(self) -> None:
        _litellm()
        from litellm.scheduler import FlowItem, Scheduler

        self._item, self._scheduler_type = FlowItem, Scheduler
        self._loop = asyncio.new_event_loop()
        self.renew()

    def renew(self) -> None:
        self._scheduler = self._scheduler_type()
        self._queue = [(i % 256, f"r{i}") for i in range(self._depth)]
        self._queue.sort()  # a sorted list is a heap
        self._loop.run_until_complete(self._scheduler.save_queue(queue=list(self._queue), model_name="m"))
        self._number = self._depth

    def run(self, operations: int) -> NDArray[np.float64]:
        return np.array(self._loop.run_until_complete(self._run(operations)), np.float64)

    async def _run(self, operations: int) -> list[int]:
        scheduler, item, now = self._scheduler, self._item, time.perf_counter_ns
        times = []
        for _ in range(operations):
            queue = await scheduler.get_queue(model_name="m")
            self._number += 1
            added = item(priority=self._number % 256, request_id=f"r{self._number}", model_name="m")
            expected = (
                min(queue[0], (added.priority, added.request_id)) if queue else (added.priority, added.request_id)
            )
            top = item(priority=expected[0], request_id=expected[1], model_name="m")
            started = now()
            await scheduler.add_request(added)
            is_its_turn = await scheduler.poll(top, [])
            times.append(now() - started)
            if not is_its_turn:
                raise WrongAnswer(f"LiteLLM did not let {expected} go although it is at the top")
        return times

    def check(self) -> None:
        left = len(self._loop.run_until_complete(self._scheduler.get_queue(model_name="m")))
        if left != self._depth:
            raise WrongAnswer(f"LiteLLM's queue holds {left}, the scenario is {self._depth}")

    def close(self) -> None:
        self._loop.close()
