"""What the protocol layer and an engine say to each other, whichever kind of engine it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from zeta.engines._meter import Meter

__all__ = ["CAPACITY_EXCEEDED", "QUEUE_FULL", "Engine", "Faults", "Gauges", "Job", "Refusal"]


class Job:
    """One request inside an engine, from `Engine.submit` until `produced` with a finish reason, or `Engine.abort`.

    Attributes
    ----------
    prompt : str or sequence of int
        Text, or tokens.
    prompt_tokens : int
        As the client claims (``zeta_prompt_tokens``), else 0; counted by the engine in `submit`.
    max_tokens : int
        At most so many tokens come.
    output_tokens : int or None
        Exactly so many come, at most `max_tokens`; None: the engine decides.
    ignores_end : bool
        The model's end of text does not end the answer.
    priority : int
        Lower goes first, as vLLM has it.
    temperature : float or None
        Of sampling; None: the engine's own.
    seed : int or None
        Of sampling.
    wants_vector : bool
        No text: `Engine.vector` tells the rest.
    state : Any
        The engine's own.
    """

    __slots__ = (
        "arrived_s",
        "ignores_end",
        "max_tokens",
        "output_tokens",
        "priority",
        "prompt",
        "prompt_tokens",
        "seed",
        "state",
        "temperature",
        "wants_vector",
    )

    def __init__(
        self,
        prompt: str | Sequence[int],
        max_tokens: int,
        *,
        prompt_tokens: int = 0,
        output_tokens: int | None = None,
        ignores_end: bool = False,
        priority: int = 0,
        temperature: float | None = None,
        seed: int | None = None,
        wants_vector: bool = False,
    ) -> None:
        self.prompt = prompt
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens
        self.output_tokens = output_tokens
        self.ignores_end = ignores_end
        self.priority = priority
        self.temperature = temperature
        self.seed = seed
        self.wants_vector = wants_vector
        self.arrived_s = 0.0
        self.state: Any = None

    def produced(self, pieces: Sequence[bytes], finish: str | None) -> None:
        """New tokens, each its text as it stands inside a JSON string; `finish` with the last ones."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """Why a job does not get in.

    Parameters
    ----------
    status : int
        Of the HTTP answer.
    code : str
    message : str
    """

    status: int
    code: str
    message: str


CAPACITY_EXCEEDED: Final = "context_length_exceeded"
QUEUE_FULL: Final = "queue_full"


@dataclasses.dataclass(frozen=True, slots=True)
class Gauges:
    """An engine's load now.

    Parameters
    ----------
    running, waiting : int
        Requests in the batch, and before it.
    kv_used : float
        Fraction of the capacity.
    kv_capacity_tokens : int
    preemptions : int
        So far.
    """

    running: int
    waiting: int
    kv_used: float
    kv_capacity_tokens: int
    preemptions: int


class Engine(Protocol):
    """What serves one model. All calls come from the event loop's thread; `Job.produced` is called there too, and may
    be called inside `submit`."""

    model: str
    """Its id, as clients name it."""
    kind: str
    """``simulated`` or ``embedded``."""
    facts: Mapping[str, Any]
    """What ``/v1/models`` says of it beyond the id."""
    meter: Meter

    def chat_prompt(self, messages: Sequence[tuple[str, str]]) -> str:
        """One text from (role, text) each."""
        ...

    def submit(self, job: Job) -> Refusal | None:
        """Takes the job, or says why not."""
        ...

    def abort(self, job: Job) -> None:
        """Frees what the job holds; nothing more is produced for it. Harmless when it has ended."""
        ...

    def vector(self, job: Job, dimensions: int | None) -> Sequence[float]:
        """The embedding of a job that wanted one and has ended."""
        ...

    def gauges(self) -> Gauges:
        """Now."""
        ...

    async def close(self) -> None:
        """Idempotent."""
        ...


@dataclasses.dataclass(slots=True)
class Faults:
    """How an engine misbehaves, for tests. May be changed while it serves.

    Parameters
    ----------
    refuse : bool
        Every request gets status 503, ``/health`` too.
    fail_rate : float
        This part of the generations gets status 500 at once.
    stall_after : int, optional
        Each answer falls silent after this many tokens; its connection stays open.
    cut_after : int, optional
        Each streamed answer's connection is closed after this many tokens, without an end.
    seed : int
        Of the choice which ones fail.
    """

    refuse: bool = False
    fail_rate: float = 0.0
    stall_after: int | None = None
    cut_after: int | None = None
    seed: int = 0
