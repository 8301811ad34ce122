"""A real engine: one small language model on this machine's CPU, with continuous batching on ONNX Runtime.

Its answers are computed, so tokens, queues and the contention of engines for cores are real. The models are tiny: what
they say is seldom worth reading.
"""

from __future__ import annotations

import asyncio
import codecs
import dataclasses
import heapq
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from zeta.engines._job import CAPACITY_EXCEEDED, QUEUE_FULL, Faults, Gauges, Job, Refusal
from zeta.engines._lm import LanguageModel, manifest
from zeta.engines._meter import Meter
from zeta.engines._openai import json_text
from zeta.engines._serve import EngineProcess, start_process
from zeta.engines._tokens import END
from zeta.errors import ConfigError

__all__ = ["EmbeddedEngine", "models", "start"]

_CHUNK: Final = 64
"""Tokens of one prompt in a step."""
_MAX_TOKENS: Final = 32_768
"""Of a prompt with its answer. What a sequence keeps is of fixed size, so this only bounds time."""
_MAX_WAITING: Final = 65_536
_TEMPERATURE: Final = 0.6
_NEVER: Final = np.float32(-1e30)


def models() -> tuple[str, ...]:
    """Names of the models in the package, smallest first."""
    return tuple(manifest()["models"])


def start(
    name: str,
    *,
    model: str | None = None,
    max_batch: int = 16,
    threads: int = 1,
    port: int = 0,
    faults: Faults | None = None,
) -> EngineProcess:
    """An embedded engine in a process of its own; returns once it answers.

    Parameters
    ----------
    name : str
        One of `models`.
    model : str, optional
        The id that clients ask for; ``embedded-`` and the name where left out.
    max_batch : int
        Sequences that run at once.
    threads : int
        Of ONNX Runtime.
    port : int
        0 takes a free one.
    faults : Faults, optional

    Raises
    ------
    NotReadyError
        If it does not start; says why.
    """
    options: dict[str, Any] = {"name": name, "model": model, "max_batch": max_batch, "threads": threads, "port": port}
    if faults is not None:
        options["faults"] = dataclasses.asdict(faults)
    return start_process("embedded", options)


class _Sequence:
    """One job in the batch."""

    __slots__ = ("decoder", "first_s", "given", "job", "last", "limit", "prompt", "read", "rng", "slot")

    def __init__(self, job: Job, prompt: list[int], limit: int, slot: int) -> None:
        self.job, self.prompt, self.limit, self.slot = job, prompt, limit, slot
        self.read = 0
        self.last = END
        self.given = 0
        self.first_s = 0.0
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.rng = None if job.seed is None else np.random.default_rng(job.seed % (1 << 63))


class EmbeddedEngine:
    """Steps while there is work: each gives every sequence that has read its prompt one token, and reads pieces of the
    prompts of others.

    Parameters
    ----------
    name : str
        One of `models`.
    model : str, optional
        The id that clients ask for; ``embedded-`` and the name where left out.
    max_batch : int
        Sequences that run at once; the others wait by priority and arrival.
    max_batched_tokens : int
        Of a step.
    threads : int
        Of ONNX Runtime.

    Notes
    -----
    Between two steps the event loop serves its sockets. The nets are recurrent and keep no KV: what the page of metrics
    tells as KV are the tokens of what runs, of `max_batch` times the longest context.
    """

    kind = "embedded"

    def __init__(
        self,
        name: str,
        *,
        model: str | None = None,
        max_batch: int = 16,
        max_batched_tokens: int = 256,
        threads: int = 1,
    ) -> None:
        if max_batch < 1 or max_batched_tokens < 1 or threads < 1:
            raise ConfigError(
                f"max_batch is {max_batch}, max_batched_tokens {max_batched_tokens}, threads {threads}; expected at "
                "least 1 of each"
            )
        self._net = LanguageModel(name, threads=threads)
        self.model = model or f"embedded-{name}"
        self.meter = Meter()
        self.facts: Mapping[str, Any] = {
            "simulated": False,
            "description": "A real, tiny language model that runs on this CPU. Its answers are computed, not useful.",
            "net": name,
            "parameters": self._net.facts["parameters"],
            "max_model_len": _MAX_TOKENS,
        }
        self._max_batch, self._budget = max_batch, max_batched_tokens
        self._states = self._net.empty_states(max_batch)
        self._free = list(range(max_batch))
        self._running: list[_Sequence] = []
        self._queue: list[tuple[int, int, Job]] = []
        self._order = itertools.count()
        self._waiting = 0
        self._dice = np.random.default_rng()
        self._next: asyncio.Handle | None = None
        self._is_closed = False

    # --- Engine --------------------------------------------------------------------------------------------------

    def chat_prompt(self, messages: Sequence[tuple[str, str]]) -> str:
        turns = [f"{'A' if role == 'assistant' else 'Q'}: {text}\n" for role, text in messages]
        return f"{''.join(turns)}A:"

    def submit(self, job: Job) -> Refusal | None:
        if self._is_closed:
            return Refusal(503, "unavailable", "this engine is closed")
        prompt = self._net.tokens.encode(job.prompt) if isinstance(job.prompt, str) else list(job.prompt)
        if any(not 0 <= token < len(self._net.tokens) for token in prompt):
            return Refusal(400, "invalid_request", f"a token of the prompt is not in 0 to {len(self._net.tokens) - 1}")
        job.prompt_tokens = max(len(prompt), 1)
        limit = job.max_tokens if job.output_tokens is None else job.output_tokens
        if job.prompt_tokens + limit > _MAX_TOKENS:
            return Refusal(
                400,
                CAPACITY_EXCEEDED,
                f"{job.prompt_tokens} prompt and {limit} output tokens; this engine takes {_MAX_TOKENS} in all. "
                "Shorten the prompt or lower max_tokens",
            )
        if self._waiting >= _MAX_WAITING:
            return Refusal(503, QUEUE_FULL, "this engine's queue is full; try again later")
        # Every text begins behind the end of another.
        job.state = (prompt if prompt[:1] == [END] else [END, *prompt], limit)
        job.arrived_s = time.monotonic()
        heapq.heappush(self._queue, (job.priority, next(self._order), job))
        self._waiting += 1
        self._schedule()
        return None

    def abort(self, job: Job) -> None:
        held = job.state
        job.state = None
        if isinstance(held, _Sequence):
            self._leave(held)
        elif held is not None:
            self._waiting -= 1  # its place in the queue is passed over
        else:
            return
        self.meter.finished["abort"] += 1

    def vector(self, job: Job, dimensions: int | None) -> Sequence[float]:
        hidden: np.ndarray[Any, np.dtype[np.float32]] = job.state
        job.state = None
        hidden = hidden[:dimensions]
        vector: list[float] = (hidden / max(float(np.linalg.norm(hidden)), 1e-9)).tolist()
        return vector

    def gauges(self) -> Gauges:
        used = sum(sequence.read + sequence.given for sequence in self._running)
        used += len(self._running)  # a sequence takes room as soon as it runs
        capacity = self._max_batch * _MAX_TOKENS
        return Gauges(len(self._running), self._waiting, min(used / capacity, 1.0), capacity, 0)

    async def close(self) -> None:
        self._is_closed = True
        if self._next is not None:
            self._next.cancel()
            self._next = None

    # --- steps ---------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if self._next is None and (self._running or self._waiting) and not self._is_closed:
            self._next = asyncio.get_running_loop().call_soon(self._step)

    def _step(self) -> None:
        self._next = None
        self._admit()
        decoding = [sequence for sequence in self._running if sequence.read == len(sequence.prompt)]
        self._decode(decoding)
        self._read(self._budget - len(decoding))
        self._schedule()

    def _admit(self) -> None:
        now_s = time.monotonic()
        while self._free and self._queue:
            job = heapq.heappop(self._queue)[2]
            if job.state is None:
                continue  # withdrawn
            self._waiting -= 1
            prompt, limit = job.state
            sequence = _Sequence(job, prompt, limit, self._free.pop())
            self._states[:, sequence.slot] = 0.0
            sequence.first_s = now_s  # when it was admitted, until it has a token
            job.state = sequence
            self._running.append(sequence)

    def _decode(self, sequences: list[_Sequence]) -> None:
        if not sequences:
            return
        slots = [sequence.slot for sequence in sequences]
        last = np.array([sequence.last for sequence in sequences], np.int64)
        logits, states, _ = self._net.step(last, self._states[:, slots])
        self._states[:, slots] = states
        self._give(sequences, logits)

    def _read(self, budget: int) -> None:
        """Reads prompts, those admitted first first; who has read all of its own gets a token."""
        sequences, pieces = [], []
        for sequence in self._running:
            left = len(sequence.prompt) - sequence.read
            if left and budget > 0:
                size = min(left, _CHUNK, budget)
                pieces.append(sequence.prompt[sequence.read : sequence.read + size])
                sequences.append(sequence)
                budget -= size
        if not sequences:
            return
        slots = [sequence.slot for sequence in sequences]
        logits, states, hidden = self._net.read(pieces, self._states[:, slots])
        self._states[:, slots] = states
        done, now_s = [], time.monotonic()
        for row, (sequence, piece) in enumerate(zip(sequences, pieces, strict=True)):
            sequence.read += len(piece)
            if sequence.read < len(sequence.prompt):
                continue
            done.append(row)
            job, admitted_s = sequence.job, sequence.first_s
            sequence.first_s = now_s
            self.meter.first_token(job.prompt_tokens, now_s - job.arrived_s, admitted_s - job.arrived_s)
            if job.wants_vector:
                self._end(sequence, "stop")
                job.state = hidden[row]
                job.produced((), "stop")
        texts = [row for row in done if not sequences[row].job.wants_vector]
        if texts:
            self._give([sequences[row] for row in texts], logits[texts])

    def _give(self, sequences: list[_Sequence], logits: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        """One token for each, drawn from its row."""
        for row, token in enumerate(self._draw(sequences, logits)):
            sequence = sequences[row]
            if token == END:
                self._finish(sequence, (), "stop")
                continue
            sequence.last = token
            sequence.given += 1
            self.meter.output_tokens += 1
            is_last = sequence.given == sequence.limit
            text = sequence.decoder.decode(self._net.tokens.bytes_of[token], is_last)
            if is_last:
                self._finish(sequence, (json_text(text),), "length")
            else:
                sequence.job.produced((json_text(text),), None)

    def _draw(self, sequences: list[_Sequence], logits: np.ndarray[Any, np.dtype[np.float32]]) -> list[int]:
        temperatures = np.empty((len(sequences), 1), np.float32)
        seeded = []
        for row, sequence in enumerate(sequences):
            job = sequence.job
            temperatures[row] = _TEMPERATURE if job.temperature is None else max(job.temperature, 0.0)
            if job.ignores_end or job.output_tokens is not None:
                logits[row, END] = _NEVER
            if sequence.rng is not None:
                seeded.append((row, sequence.rng))
        if temperatures.any():
            # The largest of logit plus Gumbel noise is a draw from the softmax.
            noise = self._dice.gumbel(size=logits.shape).astype(np.float32)
            for row, rng in seeded:
                noise[row] = rng.gumbel(size=logits.shape[1])
            logits = logits + noise * temperatures
        drawn: list[int] = logits.argmax(axis=1).tolist()
        return drawn

    def _finish(self, sequence: _Sequence, pieces: Sequence[bytes], reason: str) -> None:
        self._end(sequence, reason)
        sequence.job.state = None
        sequence.job.produced(pieces, reason)

    def _end(self, sequence: _Sequence, reason: str) -> None:
        now_s, job = time.monotonic(), sequence.job
        self.meter.ended(reason, sequence.given, now_s - sequence.first_s, now_s - job.arrived_s)
        self._leave(sequence)

    def _leave(self, sequence: _Sequence) -> None:
        self._running.remove(sequence)
        self._free.append(sequence.slot)
