"""
zeta's C++ core. Private: import from zeta.
"""

from __future__ import annotations

import collections.abc
import typing

import numpy
import numpy.typing

__all__: list[str] = ["EngineSpec", "StepTable", "build_info", "octave_knot", "run_open_loop"]

class StepTable:
    """
    Step times of one model on one kind of device.
    """
    def __init__(
        self,
        *,
        dense_ns: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex],
        per_sequence_ns: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex],
        decode_attention_ns: typing.Annotated[numpy.typing.ArrayLike, numpy.float64],
        mixed_decode_attention_ns: typing.Annotated[numpy.typing.ArrayLike, numpy.float64],
        prefill_attention_ns: typing.Annotated[numpy.typing.ArrayLike, numpy.float64],
        kernel_factor: typing.SupportsFloat | typing.SupportsIndex = 1.0,
        prefill_surcharge: typing.SupportsFloat | typing.SupportsIndex = 0.0,
        step_overhead_ns: typing.SupportsFloat | typing.SupportsIndex = 0.0,
        sequence_overhead_ns: typing.SupportsFloat | typing.SupportsIndex = 0.0,
    ) -> None: ...
    def step_time_ns(
        self,
        prefill_tokens: typing.SupportsInt | typing.SupportsIndex,
        prefill_kv_tokens: typing.SupportsInt | typing.SupportsIndex,
        decode_batch: typing.SupportsInt | typing.SupportsIndex,
        decode_context_tokens: typing.SupportsInt | typing.SupportsIndex,
    ) -> int:
        """
        Nanoseconds of a step with one prefill piece behind prefill_kv_tokens, and decode_batch decodes whose contexts add up to decode_context_tokens.
        """

class EngineSpec:
    """
    One simulated engine: its step table and its limits.
    """
    def __init__(
        self,
        table: StepTable,
        *,
        kv_tokens: typing.SupportsInt | typing.SupportsIndex,
        max_batched_tokens: typing.SupportsInt | typing.SupportsIndex = 2048,
        max_sequences: typing.SupportsInt | typing.SupportsIndex = 128,
        max_waiting: typing.SupportsInt | typing.SupportsIndex = 4096,
        plans_ahead: bool = True,
        keeps_freed_blocks: bool = True,
        available_from_ns: typing.SupportsInt | typing.SupportsIndex = 0,
        load_delay_ns: typing.SupportsInt | typing.SupportsIndex = 0,
        unload_delay_ns: typing.SupportsInt | typing.SupportsIndex = 0,
    ) -> None: ...

def build_info() -> dict[str, typing.Any]:
    """
    What this extension was built from (version, compiler, flags), and what the running CPU offers (cpu_features).
    """

def octave_knot(index: typing.SupportsInt | typing.SupportsIndex) -> int:
    """
    The position of knot `index` on either axis of an attention table.
    """

def run_open_loop(
    engines: collections.abc.Sequence[EngineSpec],
    *,
    colocation: str = "exclusive",
    arrival_ns: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
    prompt_tokens: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
    output_tokens: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
    cached_tokens: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | None = None,
    engine: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | None = None,
) -> dict:
    """
    Replays arrivals straight into simulated engines on one device and returns when each request was scheduled and gave its first and last token (ns, -1: never).
    """
