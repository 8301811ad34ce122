"""What a replay found: values, their JSON, and a table of them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from zeta.config import Admission, Order, Policy
from zeta.traces import TraceSummary

__all__ = [
    "ModelTick",
    "ReplayResult",
    "ReplaySeries",
    "Run",
    "Spread",
    "Tick",
    "TickWriter",
    "paired_lower_bound",
    "spread",
]

FloatArray = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One policy, order and seed over the whole trace. All of it is simulated. None means: nothing to measure.

    Attributes
    ----------
    forecast : str
        What the allocation loop was told of the load to come (`ReplaySpec.forecast`).
    foreseen_part : float
        Part of its ticks that looked ahead: 0 where acting is instant, or the forecast was not trusted.
    utilisation : float
        Predicted work arriving ÷ capacity.
    fluid_bound_x : float
        The load at which it would be 1: no scheduler can do more, if work is as predicted and perfectly even.
    attainment : float
        Requests that met their SLO ÷ all arrivals, caller cancels left out.
    attainment_by_model : mapping of str to float or None
        By required model.
    capacity_x : float or None
        The highest load that kept the asked attainment.
    goodput_rps : float
        Completed requests that met their SLO, per second.
    completed, rejected, expired, failed, cancelled, left, unservable : int
        How requests ended; `left` had not when the drain ended. `unservable` are those of `rejected` that fit no
        allowed model.
    ttft_p50_ms, ttft_p99_ms, tpot_p50_ms, tpot_p99_ms : float or None
        Over completed requests.
    longest_wait_s : float
        From arrival to being placed.
    backlog_absorbed_s : float or None
        From the end of the last burst until the burst model's backlog was back where it stood before.
    share_changes_per_min : float
        Changes of shares that a plan made.
    replica_seconds : float
        Replicas in service, integrated over time.
    swaps : int
        Models brought onto a device.
    wall_s : float
        What the run took here, in real seconds.
    event_hash : str
        Equal where every event was equal.
    """

    policy: Policy
    order: Order
    admission: Admission
    seed: int
    utilisation: float
    fluid_bound_x: float
    attainment: float
    attainment_by_model: Mapping[str, float | None]
    capacity_x: float | None
    goodput_rps: float
    completed: int
    rejected: int
    expired: int
    failed: int
    cancelled: int
    left: int
    unservable: int
    ttft_p50_ms: float | None
    ttft_p99_ms: float | None
    tpot_p50_ms: float | None
    tpot_p99_ms: float | None
    longest_wait_s: float
    backlog_absorbed_s: float | None
    share_changes_per_min: float
    replica_seconds: float
    swaps: int
    wall_s: float
    event_hash: str
    forecast: str = "auto"
    foreseen_part: float = 0.0

    @property
    def label(self) -> str:
        """Policy and order."""
        return f"{self.policy}/{self.order}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; a value that is not finite becomes null."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ReplaySeries:
    """One run over time, in bins of equal width; arrays are float64 and NaN means: nothing to measure.

    Attributes
    ----------
    policy, order, seed
        The run that it belongs to.
    t_s : ndarray, shape (bins,)
        Start of each bin, in seconds of replayed time.
    waiting, running : mapping of model name to ndarray, shape (bins,)
        Requests at the end of the bin: waiting by required model, running by serving model.
    share, need : mapping of model name to ndarray, shape (bins,)
        Fractions of the device, as of the last plan in the bin.
    ttft_p50_ms, ttft_p99_ms : mapping of model name to ndarray, shape (bins,)
        By required model, over requests whose first token came in the bin.
    attainment : ndarray, shape (bins,)
        Requests that arrived in the bin and met their SLO ÷ all that arrived in it.
    """

    policy: Policy
    order: Order
    seed: int
    t_s: FloatArray
    waiting: Mapping[str, FloatArray]
    running: Mapping[str, FloatArray]
    share: Mapping[str, FloatArray]
    need: Mapping[str, FloatArray]
    ttft_p50_ms: Mapping[str, FloatArray]
    ttft_p99_ms: Mapping[str, FloatArray]
    attainment: FloatArray

    def __post_init__(self) -> None:
        for field in ("waiting", "running", "share", "need", "ttft_p50_ms", "ttft_p99_ms"):
            for model, values in getattr(self, field).items():
                if values.shape != self.t_s.shape:
                    raise ValueError(f"{field}[{model!r}] has shape {values.shape}; expected {self.t_s.shape} as t_s")
        if self.attainment.shape != self.t_s.shape:
            raise ValueError(f"attainment has shape {self.attainment.shape}; expected {self.t_s.shape}")

    @property
    def label(self) -> str:
        """Policy and order."""
        return f"{self.policy}/{self.order}"


@dataclasses.dataclass(frozen=True, slots=True)
class ReplayResult:
    """A whole replay.

    Attributes
    ----------
    trace, fleet : str
        Names.
    load : float
        Of the trace's own arrival rate.
    requests : int
        Arrivals in one run, injected ones included.
    results : tuple of Run
        In the order they ran.
    series : tuple of ReplaySeries
        Empty unless the spec wants them.
    notes : tuple of str
        What a reader should know about the workload.
    summary : TraceSummary, optional
        What reading the trace found.
    """

    trace: str
    fleet: str
    load: float
    requests: int
    results: tuple[Run, ...]
    series: tuple[ReplaySeries, ...] = ()
    notes: tuple[str, ...] = ()
    summary: TraceSummary | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "trace": self.trace,
            "fleet": self.fleet,
            "load": self.load,
            "requests": self.requests,
            "results": [run.to_dict() for run in self.results],
        }

    def write_json(self, path: str | Path) -> None:
        """Writes `to_dict` to `path`."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")

    def by_label(self) -> dict[str, list[Run]]:
        """The runs by policy and order, one for each seed."""
        groups: dict[str, list[Run]] = {}
        for run in self.results:
            groups.setdefault(run.label, []).append(run)
        return groups


@dataclasses.dataclass(frozen=True, slots=True)
class ModelTick:
    """One model at one tick: its share and need as fractions of the device, its waiting and running requests."""

    share: float
    need: float
    waiting: int
    running: int


@dataclasses.dataclass(frozen=True, slots=True)
class Tick:
    """One tick of the allocation loop, at `t_s` seconds of replayed time."""

    policy: Policy
    order: Order
    seed: int
    t_s: float
    models: Mapping[str, ModelTick]


class TickWriter:
    """Writes ticks as lines of JSON. A context manager; one thread.

    Parameters
    ----------
    path : path-like
        Written anew.
    """

    def __init__(self, path: str | Path) -> None:
        self._file: IO[str] = Path(path).open("w", encoding="utf-8")  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> TickWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, tick: Tick) -> None:
        """Appends one line."""
        models = {name: _plain(dataclasses.asdict(model)) for name, model in tick.models.items()}
        line = {"policy": tick.policy, "order": tick.order, "seed": tick.seed, "t_s": tick.t_s, "models": models}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")


@dataclasses.dataclass(frozen=True, slots=True)
class Spread:
    """Mean, least and greatest of a figure over seeds."""

    mean: float
    low: float
    high: float


def spread(values: Sequence[float | None]) -> Spread | None:
    """The spread of the values that exist; None if none does."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return Spread(math.fsum(known) / len(known), min(known), max(known)) if known else None


def paired_lower_bound(
    better: Sequence[float], base: Sequence[float], level: float = 0.9, resamples: int = 10_000
) -> float | None:
    """Lower bound of the mean of ``better - base`` over paired seeds, by bootstrap.

    Parameters
    ----------
    better, base : sequence of float
        One figure per seed, in the same order of seeds.
    level : float, default 0.9
        The true mean lies above the bound with about this probability.
    resamples : int, default 10,000
        Bootstrap samples; their choice is seeded, so the answer repeats.

    Returns
    -------
    float or None
        None with fewer than two seeds, which have no spread.

    Raises
    ------
    ValueError
        If the lengths differ.

    Notes
    -----
    Percentile bootstrap (Efron, 1979). With few seeds it is optimistic: three seeds give ten distinct samples.
    """
    if len(better) != len(base):
        raise ValueError(f"{len(better)} figures against {len(base)}; expected one of each for every seed")
    if len(better) < 2:
        return None
    differences = np.asarray(better, dtype=np.float64) - np.asarray(base, dtype=np.float64)
    picks = np.random.default_rng(0).integers(len(differences), size=(resamples, len(differences)))
    return float(np.quantile(differences[picks].mean(axis=1), 1.0 - level))


def _plain(value: Any) -> Any:
    """JSON's types, with null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
