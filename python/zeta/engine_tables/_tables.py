"""Step times, memory and service models of the engines that the simulator knows, from measured data in the package."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from zeta._core import StepTable
from zeta.engine_tables._kernel_times import (
    KernelTimes,
    StepConstants,
    profile_kernel_times,
    read_rows,
    step_kernel_times,
)
from zeta.errors import ConfigError

__all__ = [
    "EngineMemory",
    "ServiceModel",
    "StepConstants",
    "device_kinds",
    "device_memory_bytes",
    "engine_memory",
    "fit_service_model",
    "kv_tokens_on_device",
    "models_on",
    "profile_step_table",
    "service_model",
    "serving_constants",
    "step_table",
]

_DATA = Path(__file__).resolve().parent.parent / "artefacts" / "engines"
_STEP_TIMES = "step_times_qwen_llama_bf16.csv.gz"
_MEMORY = "models_memory.csv"

# Fitted on 129 measured H100 vLLM serving points (see artefacts/engines/ATTRIBUTION).
_OVERHEAD_US_PER_LAYER = 35.0
_PREFILL_SURCHARGE = 0.131

_USABLE_MEMORY = 0.9  # vLLM's gpu_memory_utilization
_RESERVE_BYTES = 3.5e9  # activations, graphs and the runtime, per model
_DEFAULT_MAX_BATCHED_TOKENS = 8192  # vLLM's own default on cards of 70 GB and more


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """What one replica takes of each of its devices' memory.

    Parameters
    ----------
    layers : int
        Transformer blocks.
    weights_bytes : float
        On each device.
    kv_bytes_per_token : int
        Over all of its devices.
    """

    layers: int
    weights_bytes: float
    kv_bytes_per_token: int


@dataclass(frozen=True, slots=True)
class ServiceModel:
    """Predicted engine times as a few numbers; the fields are those of the C++ ``zeta::ServiceModel``, in seconds.

    ``prefill(p) = prefill_base_s + prefill_per_token_s * p + prefill_per_token2_s * p**2`` and
    ``step = decode_base_s + decode_per_sequence_s * batch + decode_per_context_token_s * context_tokens``.
    """

    prefill_base_s: float
    prefill_per_token_s: float
    prefill_per_token2_s: float
    decode_base_s: float
    decode_per_sequence_s: float
    decode_per_context_token_s: float
    reference_batch: float = 32.0


@cache
def _rows_by_engine() -> dict[tuple[str, str, int], list[dict[str, str]]]:
    grouped: dict[tuple[str, str, int], list[dict[str, str]]] = {}
    for row in read_rows(_DATA / _STEP_TIMES):
        grouped.setdefault((row["hw"], row["model"], int(row["tp"])), []).append(row)
    return grouped


@cache
def _memory_by_engine() -> dict[tuple[str, str, int], EngineMemory]:
    return {
        (row["hw"], row["model"], int(row["tp"])): EngineMemory(
            int(row["layers"]), float(row["weights_gb_per_gpu"]) * 1e9, int(row["kv_bytes_per_token"])
        )
        for row in read_rows(_DATA / _MEMORY)
    }


def device_kinds() -> tuple[str, ...]:
    """Device kinds with step times in the package, such as ``h200-sxm-141gb``."""
    return tuple(sorted({kind for kind, _, _ in _rows_by_engine()}))


def models_on(kind: str) -> tuple[tuple[str, int], ...]:
    """(model, tensor parallel size) pairs with step times on devices of this kind."""
    known = tuple(sorted((model, tp) for at, model, tp in _rows_by_engine() if at == kind))
    if not known:
        raise ConfigError(
            f"no step times for device kind {kind!r}; known kinds are {', '.join(device_kinds())}",
            key="devices[].kind",
            value=kind,
            allowed=", ".join(device_kinds()),
        )
    return known


def _check(kind: str, model: str, tp: int) -> tuple[str, str, int]:
    known = models_on(kind)
    if (model, tp) not in known:
        names = ", ".join(f"{name} (tp {size})" for name, size in known)
        raise ConfigError(
            f"no step times for model {model!r} with tp {tp} on {kind}; there are {names}",
            key="models[].name",
            value=model,
            allowed=names,
        )
    return kind, model, tp


def device_memory_bytes(kind: str) -> float:
    """Memory of one device, from the size that ends its kind's name; GB = 10^9 bytes."""
    found = re.search(r"-(\d+)gb$", kind)
    if found is None:
        raise ConfigError(f"device kind {kind!r} does not end in its memory size, such as -80gb", key="devices[].kind")
    return float(found[1]) * 1e9


def engine_memory(kind: str, model: str, tp: int = 1) -> EngineMemory:
    """Weights and KV size of one replica."""
    return _memory_by_engine()[_check(kind, model, tp)]


def serving_constants(kind: str, model: str, tp: int = 1) -> StepConstants:
    """The constants that go with the package's step times: overhead per layer and the surcharge on prefills."""
    layers = engine_memory(kind, model, tp).layers
    return StepConstants(prefill_surcharge=_PREFILL_SURCHARGE, step_overhead_us=_OVERHEAD_US_PER_LAYER * layers)


@cache
def _kernel_times(kind: str, model: str, tp: int) -> KernelTimes:
    return step_kernel_times(_rows_by_engine()[kind, model, tp])


@cache
def step_table(kind: str, model: str, tp: int = 1, constants: StepConstants | None = None) -> StepTable:
    """Step times of one model on one kind of device.

    Parameters
    ----------
    kind : str
        One of `device_kinds`.
    model : str
        A model of `models_on`, such as ``qwen2.5-14b``.
    tp : int
        Tensor parallel size.
    constants : StepConstants, optional
        Overheads and factors; those of `serving_constants` where left out.

    Returns
    -------
    StepTable
        Immutable and cached: engines of one model share it.

    Raises
    ------
    ConfigError
        If there are no step times for this kind, model and size; says which there are.
    """
    _check(kind, model, tp)
    return _kernel_times(kind, model, tp).step_table(constants or serving_constants(kind, model, tp))


def profile_step_table(directory: Path, name: str, *, layers: int, constants: StepConstants | None = None) -> StepTable:
    """Step times from a kernel profile: ``<name>_dense``, ``<name>_attention`` and ``<name>_per_sequence.csv.gz``.

    Parameters
    ----------
    directory : Path
        Where the three files are.
    name : str
        What their names begin with.
    layers : int
        Transformer blocks of the profiled model; the profile times one.
    constants : StepConstants, optional
        Fitted overheads and factors; none where left out.
    """
    dense, attention, per_sequence = (
        directory / f"{name}_{part}.csv.gz" for part in ("dense", "attention", "per_sequence")
    )
    times = profile_kernel_times(dense, attention, per_sequence, layers=layers)
    return times.step_table(constants or StepConstants())


def kv_tokens_on_device(kind: str, models: Sequence[tuple[str, int]]) -> tuple[int, ...]:
    """KV capacity of each model, in tokens, when they live on the same devices.

    The memory for KV is 0.9 × memory - Σ weights - 3.5 GB per model, split equally in bytes.

    Parameters
    ----------
    kind : str
        Kind of the devices.
    models : sequence of (str, int)
        (model, tensor parallel size) of each model there.

    Returns
    -------
    tuple of int
        Tokens for each model, in the order given; 0 for all of them when the weights do not fit.
    """
    if not models:
        return ()
    memory = [engine_memory(kind, model, tp) for model, tp in models]
    left = _USABLE_MEMORY * device_memory_bytes(kind)
    left -= sum(engine.weights_bytes + _RESERVE_BYTES for engine in memory)
    each = max(left, 0.0) / len(models)
    return tuple(int(each * tp / engine.kv_bytes_per_token) for engine, (_, tp) in zip(memory, models, strict=True))


def _least_squares(rows: Sequence[Sequence[float]], targets: Sequence[float]) -> list[float]:
    """Coefficients, none negative, of the least relative squares; terms that would be negative are left out one by one.

    In plain floats, term by term: predictions order requests, so they must be equal on every machine.
    """
    active = list(range(len(rows[0])))
    while True:
        matrix = [[0.0] * (len(active) + 1) for _ in active]
        for row, target in zip(rows, targets, strict=True):
            scaled = [row[i] / target for i in active]
            for i, left in enumerate(scaled):
                for j, right in enumerate(scaled):
                    matrix[i][j] += left * right
                matrix[i][-1] += left
        solution = _solve(matrix)
        lowest = min(range(len(active)), key=lambda i: solution[i])
        if solution[lowest] >= 0.0:
            coefficients = [0.0] * len(rows[0])
            for i, value in zip(active, solution, strict=True):
                coefficients[i] = value
            return coefficients
        del active[lowest]


def _solve(matrix: list[list[float]]) -> list[float]:
    """Gauss-Jordan elimination with pivoting on a small augmented matrix."""
    size = len(matrix)
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(matrix[row][column]))
        matrix[column], matrix[pivot] = matrix[pivot], matrix[column]
        for row in range(size):
            if row == column:
                continue
            factor = matrix[row][column] / matrix[column][column]
            for k in range(column, size + 1):
                matrix[row][k] -= factor * matrix[column][k]
    return [matrix[i][size] / matrix[i][i] for i in range(size)]


def fit_service_model(
    step_time_ns: Callable[[int, int, int, int], int],
    *,
    max_batched_tokens: int = _DEFAULT_MAX_BATCHED_TOKENS,
    max_prompt_tokens: int = 16384,
    max_batch: int = 256,
    max_context: int = 8192,
) -> ServiceModel:
    """The service model nearest to a step table, in least relative squares.

    Parameters
    ----------
    step_time_ns : callable
        ``StepTable.step_time_ns``: (prefill tokens, their KV before, decode batch, decode context tokens) to ns.
    max_batched_tokens : int
        Longer prompts are prefilled in pieces of this many tokens.
    max_prompt_tokens, max_batch, max_context : int
        Range of the fit: prompts from 64 tokens, batches from 1, mean contexts from 128, each doubling.
    """
    prompts = [64 << i for i in range(32) if 64 << i <= max_prompt_tokens]
    prefill_s = []
    for prompt in prompts:
        pieces = range(0, prompt, max_batched_tokens)
        prefill_s.append(sum(step_time_ns(min(max_batched_tokens, prompt - at), at, 0, 0) for at in pieces) * 1e-9)
    prefill = _least_squares([(1.0, float(p), float(p * p)) for p in prompts], prefill_s)
    shapes = [
        (1 << i, 128 << j) for i in range(32) if 1 << i <= max_batch for j in range(32) if 128 << j <= max_context
    ]
    step_s = [step_time_ns(0, 0, batch, batch * context) * 1e-9 for batch, context in shapes]
    decode = _least_squares([(1.0, float(batch), float(batch * context)) for batch, context in shapes], step_s)
    return ServiceModel(*prefill, *decode)


@cache
def service_model(kind: str, model: str, tp: int = 1) -> ServiceModel:
    """What one model costs a device of this kind, fitted to its step table.

    Raises
    ------
    ConfigError
        If there are no step times for this kind, model and size; says which there are.
    """
    return fit_service_model(step_table(kind, model, tp).step_time_ns)
