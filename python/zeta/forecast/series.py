"""From traces to binned series: the rate of arrivals and of work in bins of one length, with gaps marked."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from zeta import engine_tables
from zeta._core import forecast_dataset
from zeta.config import Config, default_fleet
from zeta.engine_tables import ServiceModel
from zeta.errors import TraceError
from zeta.traces import EMBEDDED_NAME, RateSeries, Trace, TraceChunk, is_rate_series, read_rates

__all__ = ["BinnedSeries", "Dataset", "Target", "dataset", "read_series"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Target = Literal["arrivals", "work"]

_NS_PER_S = 1_000_000_000
_DAY_S = 86_400.0
_WEEK_S = 7 * _DAY_S
_PHASE_FROM_S = 0.8 * _DAY_S
_MOST_BINS = 20_000_000


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class BinnedSeries:
    """One series to forecast.

    Attributes
    ----------
    name : str
        The file's name without endings, then ``:`` and the model or workload where the file names several.
    target : {"arrivals", "work"}
        Requests per second, or GPU-seconds of predicted work per second.
    bin_s : float
        Length of a bin.
    rates : ndarray of float64, shape (n,)
        Mean rate in each bin; 0 where `is_gap`.
    is_gap : ndarray of uint8, shape (n,)
        1 where the bin is missing: it is never read as zero.
    arrival_rates : ndarray of float64, shape (n,), or None
        Requests per second of the same model, where the target is work.
    start_s : float or None
        When the first bin begins, in seconds from a midnight; None where the file covers less than most of a day, so
        that the hour means nothing.
    """

    name: str
    target: Target
    bin_s: float
    rates: FloatArray
    is_gap: NDArray[np.uint8]
    arrival_rates: FloatArray | None = None
    start_s: float | None = None

    def __len__(self) -> int:
        return len(self.rates)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """What a net would have read at the end of each bin, and what then came.

    Attributes
    ----------
    features : ndarray of float32, shape (n, features)
        Causal: row i depends on bins 0 to i alone.
    targets : ndarray of float64, shape (n, horizons)
        Mean rate over the bins that follow; NaN where they are not complete, or one of them or bin i is missing.
    scale : ndarray of float64, shape (n,)
        A net's outputs are multiples of it.
    """

    features: NDArray[np.float32]
    targets: FloatArray
    scale: FloatArray


def dataset(series: BinnedSeries, horizon_bins: list[int] | None = None) -> Dataset:
    """Features and targets of a whole series, by the C++ code that runs live."""
    features, targets, scale = forecast_dataset(
        series.rates,
        series.is_gap,
        bin_s=series.bin_s,
        target=series.target,
        arrival_rates=series.arrival_rates,
        start_s=series.start_s,
        horizon_bins=horizon_bins,
    )
    return Dataset(features, targets, scale)


def read_series(
    path: str | os.PathLike[str], *, bin_s: float | None = None, fleet: Config | None = None
) -> tuple[BinnedSeries, ...]:
    """The series of a request trace or of a rate series.

    Parameters
    ----------
    path : path-like
        Any file that ``zeta replay`` reads, a rate series (``t_s``, ``rate_rps``, optionally ``workload``, ``gap``), or
        the name of the embedded trace.
    bin_s : float, optional
        Length of a bin. By default 1 s for requests (or the tick of the log's clock, where that is coarser), and the
        file's own windows for rates, of which it must be a multiple.
    fleet : Config, optional
        Prices a request's work on the model that the trace names (small, mid and large by quality); where it names
        none, on the middle one. The default fleet where left out.

    Returns
    -------
    tuple of BinnedSeries
        Arrivals and work of each model of a request trace, arrivals of each workload of a rate series.

    Raises
    ------
    TraceError
        If the file cannot be read, or the bins do not fit it.
    """
    if bin_s is not None and not (1e-3 <= bin_s <= _DAY_S):
        raise TraceError(f"bins of {bin_s} s; expected 0.001 to 86,400")
    if os.fspath(path) == EMBEDDED_NAME and not Path(path).exists():
        return _of_requests(Trace.embedded(), bin_s, fleet or default_fleet())
    if is_rate_series(path):
        name = Path(path).name.split(".", 1)[0]
        return tuple(_of_rates(name, rates, bin_s) for rates in read_rates(path))
    return _of_requests(Trace(path), bin_s, fleet or default_fleet())


def _of_rates(file: str, rates: RateSeries, bin_s: float | None) -> BinnedSeries:
    name = f"{file}:{rates.workload}" if rates.workload else file
    per_bin = 1 if bin_s is None else round(bin_s / rates.window_s)
    if bin_s is not None and (per_bin < 1 or abs(per_bin * rates.window_s - bin_s) > 1e-6 * bin_s):
        raise TraceError(f"{name}: bins of {bin_s:g} s; expected a multiple of the file's {rates.window_s:g} s")
    bins = len(rates.rate_rps) // per_bin
    whole = slice(0, bins * per_bin)
    is_gap: BoolArray = np.any(rates.is_gap[whole].reshape(bins, per_bin), axis=1)
    mean_rps = rates.rate_rps[whole].reshape(bins, per_bin).mean(axis=1)
    width_s = per_bin * rates.window_s
    return BinnedSeries(
        name=name,
        target="arrivals",
        bin_s=width_s,
        rates=np.where(is_gap, 0.0, mean_rps),
        is_gap=np.asarray(is_gap, dtype=np.uint8),
        start_s=_phase(rates.start_s, bins * width_s),
    )


def _of_requests(trace: Trace, bin_s: float | None, fleet: Config) -> tuple[BinnedSeries, ...]:
    rows = trace.read()
    tick_ns, arrival_ns = _even(rows.arrival_ns)
    width_ns = max(_NS_PER_S, tick_ns) if bin_s is None else round(bin_s * _NS_PER_S)
    first = int(arrival_ns.min()) // width_ns
    bins = int(arrival_ns.max()) // width_ns - first  # the last bin may be cut short, so it is left out
    if bins < 2 or bins > _MOST_BINS:
        raise TraceError(f"{trace.path}: {bins} bins of {width_ns / _NS_PER_S:g} s; expected 2 to {_MOST_BINS:,}")
    at = arrival_ns // width_ns - first
    width_s = width_ns / _NS_PER_S
    start_s = _phase(first * width_s, bins * width_s)
    is_gap = np.zeros(bins, dtype=np.uint8)
    series = []
    for model, mine, service in _models(rows, fleet):
        name = f"{trace.name}:{model}" if model else trace.name
        used = mine & (at < bins)
        counts = np.bincount(at[used], minlength=bins) / width_s
        work = np.bincount(at[used], weights=_work_s(service, rows, used), minlength=bins) / width_s
        series.append(BinnedSeries(name, "arrivals", width_s, counts, is_gap, None, start_s))
        series.append(BinnedSeries(name, "work", width_s, work, is_gap, counts, start_s))
    return tuple(series)


def _models(rows: TraceChunk, fleet: Config) -> Iterator[tuple[str, NDArray[np.bool_], ServiceModel]]:
    """Each model's name, rows, and what its requests cost."""
    order = sorted(range(len(fleet.models)), key=lambda index: fleet.models[index].quality)
    middle = order[len(order) // 2]
    codes = np.full(len(rows), -1, dtype=np.int64) if rows.model is None else rows.model
    for code in np.unique(codes):
        name = "" if code < 0 else rows.model_names[code]
        index = middle
        if name in ("small", "mid", "large") and len(order) > 1:
            index = order[{"small": 0, "mid": len(order) // 2, "large": len(order) - 1}[name]]
        for number, model in enumerate(fleet.models):
            if name and name in (model.name, model.engine_model):
                index = number
        yield name, codes == code, _service(fleet, index)


def _service(fleet: Config, index: int) -> ServiceModel:
    model = fleet.models[index]
    kinds = {device.name: device.kind for device in fleet.devices}
    kind = kinds.get(model.device or "")
    if kind is None:
        raise TraceError(f"model {model.name!r} is on no device of a known kind; work cannot be priced")
    return engine_tables.service_model(kind, model.engine_model or model.name, model.tp)


def _work_s(service: ServiceModel, rows: TraceChunk, used: NDArray[np.bool_]) -> FloatArray:
    """GPU-seconds of each request by the same formula as `zeta::ServiceModel::work_s`."""
    prompt = rows.prompt_tokens[used].astype(np.float64)
    output = rows.output_tokens[used].astype(np.float64)
    per_token_s = (
        service.decode_base_s / service.reference_batch
        + service.decode_per_sequence_s
        + service.decode_per_context_token_s * (prompt + 0.5 * output)
    )
    prefill_s = service.prefill_base_s + prompt * (service.prefill_per_token_s + prompt * service.prefill_per_token2_s)
    work_s: FloatArray = prefill_s + output * per_token_s
    return work_s


def _even(arrival_ns: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
    """The tick of a plainly coarse clock (else 0), and arrivals of one instant spread evenly over the tick after it.

    Coarse: at least 100 instants at regular distance, half of them with two rows or more, as in ``zeta replay``.
    """
    instants, at, sizes = np.unique(arrival_ns, return_inverse=True, return_counts=True)
    if len(instants) < 100 or np.median(sizes) < 2:
        return 0, arrival_ns
    gaps = np.diff(instants)
    tick_ns = int(np.sort(gaps)[len(gaps) // 20])
    if np.count_nonzero(np.abs(gaps - tick_ns) * 100 <= tick_ns) * 10 < 9 * len(gaps):
        return 0, arrival_ns
    ordinal = np.arange(len(arrival_ns)) - np.searchsorted(arrival_ns, instants)[at]
    spread_ns: NDArray[np.int64] = arrival_ns + (tick_ns * (2 * ordinal + 1)) // (2 * sizes[at])
    whole_s = max(1, math.floor(tick_ns / _NS_PER_S + 0.5)) * _NS_PER_S
    return whole_s if abs(whole_s - tick_ns) * 100 <= tick_ns else tick_ns, spread_ns


def _phase(start_s: float, span_s: float) -> float | None:
    return start_s % _WEEK_S if span_s >= _PHASE_FROM_S else None
