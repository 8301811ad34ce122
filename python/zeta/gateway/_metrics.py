"""Prometheus' view: the router's counters, what was observed, and the monitor's readings, read when asked for.

Names are ``zeta_*`` in base units. Labels name models, classes, replicas, devices and words of our own, never a
request, a tenant or anything that a client chose.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector

from zeta._version import __version__
from zeta.gateway._observed import NO_MODEL, OTHER, Distribution, Observed, class_name
from zeta.gateway._view import GatewayView, ReplicaView
from zeta.monitor import Field, Kind, fields_of

__all__ = ["GatewayCollector", "exposition"]

_QUANTILES: Final = (("0.5", "p50"), ("0.9", "p90"), ("0.99", "p99"))
_OPEN_METRICS_END: Final = b"# EOF\n"


class GatewayCollector:
    """Reads a gateway at each scrape; `prometheus_client` registers it.

    Parameters
    ----------
    gateway : GatewayView
    started_s : float, optional
        When the gateway started, in Unix seconds; now by default.
    """

    def __init__(self, gateway: GatewayView, started_s: float | None = None) -> None:
        self._gateway = gateway
        self._started_s = time.time() if started_s is None else started_s
        self._process = ProcessCollector(registry=None)

    def collect(self) -> Iterator[Metric]:
        """Every family, one after the other."""
        gateway = self._gateway
        stats = gateway.router.stats()
        gateway.observed.fold()
        yield from self._about_itself()
        yield from _requests(stats, gateway.observed.classes)
        yield from _models(stats)
        yield from _observed(gateway.observed)
        yield from _replicas(gateway.replicas(), stats["replicas"])
        yield from _loop(stats["loop"])
        if gateway.monitor is not None:
            yield from _readings(gateway)
        yield from self._process.collect()

    def _about_itself(self) -> Iterator[Metric]:
        yield InfoMetricFamily("zeta_build", "Which zeta this is.", {"version": __version__})
        yield GaugeMetricFamily(
            "zeta_start_time_seconds", "When the gateway started, in Unix seconds.", self._started_s
        )
        yield GaugeMetricFamily(
            "zeta_draining", "1 while the gateway takes no new requests.", float(self._gateway.is_draining)
        )


async def exposition(collector: GatewayCollector, accept: str | None) -> tuple[bytes, str]:
    """The text for a scraper, and its content type.

    The event loop gets a turn after each family, so that a scrape holds no stream up for longer than one.

    Parameters
    ----------
    collector : GatewayCollector
    accept : str or None
        The scraper's ``Accept``; OpenMetrics where it asks for it.
    """
    encode, content_type = choose_encoder(accept or "")
    parts = []
    ends = b""
    for family in collector.collect():
        text = encode(_One(family))
        if text.endswith(_OPEN_METRICS_END):
            text, ends = text.removesuffix(_OPEN_METRICS_END), _OPEN_METRICS_END
        parts.append(text)
        await asyncio.sleep(0)
    return b"".join([*parts, ends]), content_type


class _One(CollectorRegistry):
    """A registry of one family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


def _requests(stats: Mapping[str, Any], classes: int) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "zeta_requests_submitted", "Requests that the router was given, ever.", stats["submitted"]
    )
    ended = CounterMetricFamily("zeta_requests_ended", "Requests that are over, by outcome.", labels=["outcome"])
    for outcome, count in stats["outcomes"].items():
        ended.add_metric([outcome], count)
    yield ended
    waiting = GaugeMetricFamily(
        "zeta_requests_waiting",
        "Requests in the queue, by the model each was priced on and its priority class.",
        labels=["model", "class"],
    )
    for model, row in stats["models"].items():
        for priority, count in enumerate(row["waiting_by_class"]):
            waiting.add_metric([model, class_name(priority, classes)], count)
    yield waiting


def _models(stats: Mapping[str, Any]) -> Iterator[Metric]:
    models: Mapping[str, Mapping[str, Any]] = stats["models"]
    gauge = functools.partial(_by_model, GaugeMetricFamily, models)
    counter = functools.partial(_by_model, CounterMetricFamily, models)
    yield gauge("zeta_requests_running", "Requests placed on replicas and not over.", lambda row: row["running"])
    yield gauge("zeta_share_ratio", "Fraction of its device's time that the model gets.", lambda row: row["share"])
    yield gauge("zeta_need_ratio", "Fraction of its device's time that the model needs.", lambda row: row["need"])
    yield gauge("zeta_backlog_seconds", "Predicted time on the device of what waits.", lambda row: row["backlog_s"])
    yield counter(
        "zeta_requests_arrived", "Requests let in, by the model each was priced on.", lambda row: row["arrivals"]
    )
    yield counter(
        "zeta_work_arrived_seconds",
        "Predicted time on the device of the requests let in.",
        lambda row: row["arrived_work_s"],
    )
    forecast = GaugeMetricFamily(
        "zeta_forecast_work_ratio",
        "Work expected over the next minute, in seconds of device time per second, as quantiles.",
        labels=["model", "quantile"],
    )
    for model, row in stats["loop"]["models"].items():
        for quantile, name in _QUANTILES:
            if (value := row[f"work_60s_{name}"]) is not None:
                forecast.add_metric([model, quantile], value)
    yield forecast


def _by_model(
    family: type[GaugeMetricFamily] | type[CounterMetricFamily],
    models: Mapping[str, Mapping[str, Any]],
    name: str,
    about: str,
    value: Callable[[Mapping[str, Any]], float],
) -> Metric:
    found = family(name, about, labels=["model"])
    for model, row in models.items():
        found.add_metric([model], value(row))
    return found


def _observed(observed: Observed) -> Iterator[Metric]:
    outcomes = CounterMetricFamily(
        "zeta_model_requests_ended",
        "Requests that are over, by the model that served them (none: never placed) and outcome.",
        labels=["model", "outcome"],
    )
    for (model, outcome), count in observed.outcomes().items():
        outcomes.add_metric([model, outcome], count)
    yield outcomes
    reasons = CounterMetricFamily(
        "zeta_placements", "Placements whose reason was asked, by reason.", labels=["model", "reason"]
    )
    for (model, reason), count in observed.reasons().items():
        reasons.add_metric([model, reason], count)
    yield reasons
    refusals = CounterMetricFamily(
        "zeta_refusals", "Requests answered with an error before they were queued.", labels=["status", "reason"]
    )
    for (status, reason), count in observed.refusals().items():
        refusals.add_metric([str(status), reason], count)
    yield refusals
    tokens = CounterMetricFamily("zeta_output_tokens", "Tokens generated.", labels=["model"])
    judged = CounterMetricFamily("zeta_slo_judged", "Requests with a promise that are over.", labels=["model"])
    met = CounterMetricFamily("zeta_slo_met", "Requests that kept their promise.", labels=["model"])
    for model in observed.models:
        counts = observed.slo(model)
        if model in (NO_MODEL, OTHER) and not counts[0]:
            continue
        tokens.add_metric([model], observed.output_tokens(model))
        judged.add_metric([model], counts[0])
        met.add_metric([model], counts[1])
    yield tokens
    yield judged
    yield met
    yield from _histograms(observed)


def _histograms(observed: Observed) -> Iterator[Metric]:
    waits = HistogramMetricFamily(
        "zeta_queue_wait_seconds", "From a request's arrival to its placement.", labels=["model", "class"]
    )
    for model in observed.models:
        for priority in range(observed.classes):
            row = observed.queue_row(model, priority)
            _add_buckets(waits, [model, class_name(priority, observed.classes)], observed.queue_wait, row)
    yield waits
    decisions = HistogramMetricFamily("zeta_decision_seconds", "How long the router took to decide.", labels=[])
    _add_buckets(decisions, [], observed.decision, 0, is_always=True)
    yield decisions
    for name, about, of in (
        ("zeta_ttft_seconds", "From a request's arrival to the first token of its stream.", observed.ttft),
        ("zeta_tpot_seconds", "Mean time per output token of a stream.", observed.tpot),
        ("zeta_request_duration_seconds", "From a request's arrival to the end of its answer.", observed.duration),
    ):
        family = HistogramMetricFamily(name, about, labels=["model"])
        for model in observed.models:
            _add_buckets(family, [model], of, observed.row(model))
        yield family


def _add_buckets(
    family: HistogramMetricFamily, labels: list[str], of: Distribution, row: int, *, is_always: bool = False
) -> None:
    if is_always or of.count(row):
        buckets, total = of.buckets(row)
        family.add_metric(labels, buckets, total)


def _replicas(replicas: Iterable[ReplicaView], stats: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    labels = ["model", "replica"]
    gauges = {
        name: GaugeMetricFamily(f"zeta_replica_{name}", about, labels=labels)
        for name, about in (
            ("healthy", "1 where the last health check was answered."),
            ("ejected", "1 while it is left out for its failures."),
            ("draining", "1 while it takes no new requests."),
            ("requests_in_flight", "Requests placed there and not over."),
            ("window_requests", "Requests that it may have in flight at once."),
            ("kv_tokens", "Tokens that its KV memory holds."),
            ("kv_reserved_tokens", "Of those, tokens held for what runs."),
        )
    }
    failures = CounterMetricFamily("zeta_replica_failures", "Requests and health checks that failed.", labels=labels)
    for replica in replicas:
        at = [replica.model, replica.name]
        gauges["healthy"].add_metric(at, float(replica.is_healthy))
        gauges["ejected"].add_metric(at, float(replica.is_ejected))
        gauges["draining"].add_metric(at, float(replica.is_draining))
        gauges["requests_in_flight"].add_metric(at, replica.in_flight)
        failures.add_metric(at, replica.failures)
        if (row := stats.get(replica.name)) is not None:
            gauges["window_requests"].add_metric(at, row["window"])
            gauges["kv_tokens"].add_metric(at, row["kv_tokens"])
            gauges["kv_reserved_tokens"].add_metric(at, row["kv_reserved"])
    yield from gauges.values()
    yield failures


def _loop(loop: Mapping[str, Any]) -> Iterator[Metric]:
    yield CounterMetricFamily("zeta_loop_rounds", "Rounds of the allocation loop.", loop["ticks"])
    yield CounterMetricFamily("zeta_forecasts", "Forecasts made.", loop["forecasts"])
    yield GaugeMetricFamily(
        "zeta_forecast_trusted", "1 where forecasts have lately been good enough to act on.", float(loop["is_trusted"])
    )
    yield CounterMetricFamily(
        "zeta_net_failures", "Runs of the forecasting net that failed.", loop["net_runs"]["failures"]
    )
    for name, about in (
        ("late", "Begin of a round after its time, of recent rounds."),
        ("duration", "Length of a round, of recent rounds."),
        ("forecast", "Time for features, net, candidates and guard, of recent forecasts."),
        ("net", "Time for the net alone, of recent runs."),
    ):
        family = GaugeMetricFamily(f"zeta_loop_{name}_seconds", about, labels=["quantile"])
        for quantile, short in (("0.5", "p50"), ("0.99", "p99")):
            if (value := loop[f"{name}_us_{short}"]) is not None:
                family.add_metric([quantile], value * 1e-6)
        yield family


# Readings -------------------------------------------------------------------------------------------------------------

_PREFIXES: Final = {Kind.DEVICE: "zeta_device", Kind.HOST: "zeta_host", Kind.REPLICA: "zeta_engine"}
_LABELS: Final = {Kind.DEVICE: ["device"], Kind.HOST: [], Kind.REPLICA: ["replica"]}
_SUMS: Final = {
    "ttft": "Times to first token",
    "tpot": "Times per output token",
    "queue_wait": "Times in the engine's own queue",
}
_IN_SUMS: Final = {f"{name}{part}" for name in _SUMS for part in ("_sum_s", "_count")}
_BASE_UNITS: Final = {  # suffix of the field's name, the metric's, and what to multiply by
    "W": ("_w", "_watts", 1.0),
    "J": ("_j", "_joules_total", 1.0),
    "MHz": ("_mhz", "_hertz", 1e6),
    "°C": ("_c", "_celsius", 1.0),
}
_FLAGS: Final = {"is_awake": "awake"}


def _metric_name(kind: Kind, field: Field) -> tuple[str, float]:
    """A reading's name as a metric, and the factor to its base unit."""
    name, factor = field.name, 1.0
    if name in _FLAGS:
        name = _FLAGS[name]
    elif field.unit == "1":
        name += "_ratio"
    elif field.unit in _BASE_UNITS:
        old, new, factor = _BASE_UNITS[field.unit]
        name = name.removesuffix(old) + new
    return f"{_PREFIXES[kind]}_{name}", factor


def _readings(gateway: GatewayView) -> Iterator[Metric]:
    assert gateway.monitor is not None
    snapshot = gateway.monitor.snapshot()
    rows: Mapping[Kind, Mapping[str, Any]] = {
        Kind.DEVICE: snapshot.devices,
        Kind.HOST: {"host": snapshot.host},
        Kind.REPLICA: snapshot.replicas,
    }
    for kind, by_key in rows.items():
        for field in fields_of(kind):
            if field.name not in _IN_SUMS:
                yield _reading(kind, field, by_key)
        if kind is Kind.REPLICA:
            yield from _engine_sums(by_key)
        yield _ages(kind, by_key)


def _reading(kind: Kind, field: Field, by_key: Mapping[str, Any]) -> Metric:
    name, factor = _metric_name(kind, field)
    about = f"{field.about[0].upper()}{field.about[1:]}."
    family: GaugeMetricFamily | CounterMetricFamily
    if name.endswith("_total"):
        family = CounterMetricFamily(name, about, labels=_LABELS[kind])
    else:
        family = GaugeMetricFamily(name, about, labels=_LABELS[kind])
    for key, row in by_key.items():
        if (value := getattr(row, field.name)) is not None:
            family.add_metric([key] if _LABELS[kind] else [], value * factor)
    return family


def _engine_sums(by_key: Mapping[str, Any]) -> Iterator[Metric]:
    for name, about in _SUMS.items():
        family = SummaryMetricFamily(
            f"zeta_engine_{name}_seconds", f"{about}, as the engine itself counts them.", labels=["replica"]
        )
        for key, row in by_key.items():
            count, total = getattr(row, f"{name}_count"), getattr(row, f"{name}_sum_s")
            if count is not None and total is not None:
                family.add_metric([key], count, total)
        yield family


def _ages(kind: Kind, by_key: Mapping[str, Any]) -> Metric:
    family = GaugeMetricFamily(
        f"{_PREFIXES[kind]}_reading_age_seconds",
        "Age of the newest reading; what is too old to be believed has no other metric.",
        labels=_LABELS[kind],
    )
    for key, row in by_key.items():
        ages = [age for age in row.age_s.values() if age is not None]
        if ages:
            family.add_metric([key] if _LABELS[kind] else [], min(ages))
    return family
