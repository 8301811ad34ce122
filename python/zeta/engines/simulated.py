"""A simulated engine: real sockets and a real clock, the time of every step from the core's engine model, no GPU.

Its tokens are numbered words, ``t0 t1 t2 ...``, so that whoever reads them sees what was lost or came twice.
"""

from __future__ import annotations

import asyncio
import math
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from zeta.engines._job import CAPACITY_EXCEEDED, QUEUE_FULL, Gauges, Job, Refusal
from zeta.engines._meter import Meter
from zeta.engines._pace import make_pace
from zeta.engines._profiles import Profile
from zeta.errors import ConfigError

__all__ = ["SimulatedEngine"]

_BYTES_PER_TOKEN: Final = 4
_DIMENSIONS: Final = 256
_KNOWN_WORDS: Final = 4096
_WORDS: Final = [b"t0", *(b" t%d" % number for number in range(1, _KNOWN_WORDS))]


def _words(first: int, end: int) -> list[bytes]:
    return (
        _WORDS[first:end]
        if end <= _KNOWN_WORDS
        else [b" t%d" % number if number else b"t0" for number in range(first, end)]
    )


class _Place:
    """Where a job is in the engine."""

    __slots__ = ("first_ns", "given", "handle", "output_tokens", "tag")

    def __init__(self, tag: int, output_tokens: int) -> None:
        self.tag, self.output_tokens = tag, output_tokens
        self.handle = self.given = self.first_ns = 0


class SimulatedEngine:
    """Produces numbered words when the engine that it imitates would have produced tokens.

    Parameters
    ----------
    profile : Profile or str
        What it imitates; `Profile.parse` has the names.
    model : str, optional
        The id that clients ask for; ``simulated-`` and the profile's model where left out.
    speed : float, default 1
        Its clock runs this many times as fast.

    Notes
    -----
    Token counts: a prompt given as tokens has as many; a text has one for each four bytes, unless the request says
    ``zeta_prompt_tokens``. An answer has ``max_tokens`` of them, unless the request says ``zeta_output_tokens``.
    The model's clock is exact: deliveries are late by the event loop's delay, and the delay does not add up.
    """

    kind = "simulated"

    def __init__(self, profile: Profile | str, *, model: str | None = None, speed: float = 1.0) -> None:
        if not (math.isfinite(speed) and speed > 0):
            raise ConfigError(f"speed is {speed}; expected a number above 0", "speed", speed)
        self.profile = Profile.parse(profile) if isinstance(profile, str) else profile
        self.model = model or f"simulated-{self.profile.short_name}"
        self.meter = Meter()
        self.facts: Mapping[str, Any] = {
            "simulated": True,
            "description": "A simulated engine: its times come from a model of an engine, its words mean nothing.",
            "profile": self.profile.name,
            "speed": speed,
            "max_model_len": self.profile.kv_tokens,
        }
        self._pace = make_pace(self.profile)
        self._speed = speed
        self._real_s = 1e-9 / speed
        self._started_ns = time.monotonic_ns()
        self._jobs: dict[int, Job] = {}
        self._tag = 0
        self._timer: asyncio.Handle | None = None
        self._due_ns = -1
        self._is_closed = False

    def chat_prompt(self, messages: Sequence[tuple[str, str]]) -> str:
        return "\n".join([text for _, text in messages])

    def submit(self, job: Job) -> Refusal | None:
        if self._is_closed:
            return Refusal(503, "unavailable", "this engine is closed")
        if not job.prompt_tokens:
            prompt = job.prompt
            job.prompt_tokens = max(
                1, -(-len(prompt.encode()) // _BYTES_PER_TOKEN) if isinstance(prompt, str) else len(prompt)
            )
        output_tokens = job.max_tokens if job.output_tokens is None else job.output_tokens
        if job.prompt_tokens + output_tokens > self.profile.kv_tokens:
            return Refusal(
                400,
                CAPACITY_EXCEEDED,
                f"{job.prompt_tokens} prompt and {output_tokens} output tokens; this engine holds "
                f"{self.profile.kv_tokens} in all. Shorten the prompt or lower max_tokens",
            )
        now_ns = self._now_ns()
        self._advance(now_ns)
        self._tag += 1
        place = _Place(self._tag, output_tokens)
        handle = self._pace.enqueue(
            now_ns,
            tag=place.tag,
            prompt_tokens=job.prompt_tokens,
            output_tokens=output_tokens,
            priority=max(-(1 << 31), min(job.priority, (1 << 31) - 1)),
        )
        if handle is None:
            return Refusal(503, QUEUE_FULL, "this engine's queue is full; try again later")
        place.handle = handle
        job.state = place
        job.arrived_s = now_ns * self._real_s
        self._jobs[place.tag] = job
        if self._pace.next_event_ns == now_ns:
            self._advance(now_ns)
        self._arm(now_ns)
        return None

    def abort(self, job: Job) -> None:
        place = job.state
        if place is None or self._jobs.pop(place.tag, None) is None:
            return
        now_ns = self._now_ns()
        self._advance(now_ns)
        if self._pace.abort(now_ns, place.handle):
            self.meter.finished["abort"] += 1
        self._arm(now_ns)

    def vector(self, job: Job, dimensions: int | None) -> Sequence[float]:
        prompt = job.prompt
        text = prompt.encode() if isinstance(prompt, str) else np.asarray(prompt, np.int64).tobytes()
        drawn = np.random.default_rng(zlib.crc32(text)).standard_normal(dimensions or _DIMENSIONS)
        vector: list[float] = (drawn / np.linalg.norm(drawn)).tolist()
        return vector

    def gauges(self) -> Gauges:
        self._advance(self._now_ns())
        pace = self._pace
        capacity = pace.kv_tokens_capacity()
        return Gauges(pace.running(), pace.waiting(), pace.kv_tokens_used() / capacity, capacity, pace.preemptions())

    async def close(self) -> None:
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- the clock -----------------------------------------------------------------------------------------------

    def _now_ns(self) -> int:
        return int((time.monotonic_ns() - self._started_ns) * self._speed)

    def _advance(self, now_ns: int) -> None:
        next_ns = self._pace.next_event_ns
        if next_ns is None or next_ns > now_ns:
            # Nothing happens, but the pace learns what time it is.
            self._pace.advance(now_ns)
            return
        firsts, outputs, ends = self._pace.advance(now_ns)
        meter, jobs, real_s = self.meter, self._jobs, self._real_s
        for tag, scheduled_ns, at_ns in firsts:
            job = jobs.get(tag)
            if job is not None:
                job.state.first_ns = at_ns
                meter.first_token(
                    job.prompt_tokens, at_ns * real_s - job.arrived_s, scheduled_ns * real_s - job.arrived_s
                )
        for tag, at_ns in ends:
            job = jobs.pop(tag, None)
            if job is None:
                continue
            place, total = job.state, job.state.output_tokens
            reason = "stop" if total < job.max_tokens else "length"
            meter.output_tokens += total - place.given
            meter.ended(reason, total, (at_ns - place.first_ns) * real_s, at_ns * real_s - job.arrived_s)
            job.produced(_words(place.given, total), reason)
        for tag, tokens in outputs:
            job = jobs.get(tag)
            if job is None:
                continue
            place = job.state
            given = place.given
            if tokens > given:
                place.given = tokens
                meter.output_tokens += tokens - given
                job.produced(_words(given, tokens), None)

    def _arm(self, now_ns: int) -> None:
        due_ns = self._pace.next_event_ns
        if due_ns is None:
            due_ns = -1
        if due_ns == self._due_ns and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due_ns = due_ns
        if due_ns >= 0 and not self._is_closed:
            # Up to whole milliseconds, which is what uvloop's timers have.
            delay_s = math.ceil((due_ns - now_ns) * self._real_s * 1e3) * 1e-3
            self._timer = asyncio.get_running_loop().call_later(max(delay_s, 0.0), self._wake)

    def _wake(self) -> None:
        self._timer = None
        now_ns = self._now_ns()
        self._advance(now_ns)
        self._arm(now_ns)
