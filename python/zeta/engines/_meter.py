"""An engine's counts as a page that reads like vLLM's: the same names, so that what watches vLLM watches these."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from zeta.errors import MissingExtraError

if TYPE_CHECKING:
    from zeta.engines._job import Gauges

__all__ = ["BLOCK_TOKENS", "Meter"]

BLOCK_TOKENS: Final = 16
"""Of vLLM's KV cache, in which its page tells the capacity."""

_TTFT_S: Final = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    20.0,
    40.0,
)
_TPOT_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_WAIT_S: Final = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0)


class _Histogram:
    """Counts below bounds; rendered by prometheus_client at scrape."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        total, rows = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            rows.append((bound, float(total)))
        return rows


class Meter:
    """What an engine counts. Single-threaded; each count costs well below a microsecond."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.output_tokens = 0
        self.finished = {"stop": 0, "length": 0, "abort": 0}
        self.ttft_s = _Histogram(_TTFT_S)
        self.tpot_s = _Histogram(_TPOT_S)
        self.queue_s = _Histogram(_WAIT_S)
        self.whole_s = _Histogram(_WAIT_S)

    def first_token(self, prompt_tokens: int, ttft_s: float, queue_s: float) -> None:
        """A request's prompt is computed."""
        self.prompt_tokens += prompt_tokens
        self.ttft_s.add(ttft_s)
        self.queue_s.add(queue_s)

    def ended(self, reason: str, output_tokens: int, decode_s: float, whole_s: float) -> None:
        """A request has all its tokens, `decode_s` after the first one."""
        self.finished[reason] += 1
        self.whole_s.add(whole_s)
        if output_tokens > 1:
            self.tpot_s.add(decode_s / (output_tokens - 1))

    def page(self, model: str, gauges: Gauges) -> bytes:
        """The text for ``GET /metrics``.

        Raises
        ------
        MissingExtraError
            Without the package prometheus-client.
        """
        try:
            from prometheus_client import CollectorRegistry, generate_latest
        except ImportError as error:
            raise MissingExtraError("an engine's page of metrics", ["prometheus-client"], "serve") from error
        registry = CollectorRegistry()
        registry.register(_Page(self, model, gauges))
        page: bytes = generate_latest(registry)
        return page


class _Page:
    """One scrape's families."""

    def __init__(self, meter: Meter, model: str, gauges: Gauges) -> None:
        self._meter, self._gauges = meter, gauges
        self._names, self._values = ["model_name", "engine"], [model, "0"]

    def collect(self) -> Iterable[Any]:
        from prometheus_client.core import GaugeMetricFamily

        meter, gauges = self._meter, self._gauges
        blocks = str(gauges.kv_capacity_tokens // BLOCK_TOKENS)
        info = GaugeMetricFamily(
            "vllm:cache_config_info", "Size of the KV cache.", labels=["block_size", "num_gpu_blocks", "engine"]
        )
        info.add_metric([str(BLOCK_TOKENS), blocks, "0"], 1.0)
        yield info
        yield self._gauge("num_requests_running", "Requests in the batch.", gauges.running)
        yield self._gauge("num_requests_waiting", "Requests before the batch.", gauges.waiting)
        yield self._gauge("kv_cache_usage_perc", "Part of the KV cache in use; 1 is all.", gauges.kv_used)
        yield self._counter(
            "num_preemptions", "Requests that lost their KV and were computed again.", gauges.preemptions
        )
        yield self._counter("prompt_tokens", "Prompt tokens computed.", meter.prompt_tokens)
        yield self._counter("generation_tokens", "Tokens generated.", meter.output_tokens)
        yield from self._finished()
        yield self._histogram("time_to_first_token_seconds", "From arrival to the first token.", meter.ttft_s)
        yield self._histogram(
            "request_time_per_output_token_seconds", "Mean time from token to token, by request.", meter.tpot_s
        )
        yield self._histogram("request_queue_time_seconds", "From arrival to the batch.", meter.queue_s)
        yield self._histogram("e2e_request_latency_seconds", "From arrival to the last token.", meter.whole_s)

    def _gauge(self, name: str, text: str, value: float) -> Any:
        from prometheus_client.core import GaugeMetricFamily

        family = GaugeMetricFamily(f"vllm:{name}", text, labels=self._names)
        family.add_metric(self._values, value)
        return family

    def _counter(self, name: str, text: str, value: float) -> Any:
        from prometheus_client.core import CounterMetricFamily

        family = CounterMetricFamily(f"vllm:{name}", text, labels=self._names)
        family.add_metric(self._values, value)
        return family

    def _finished(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily

        family = CounterMetricFamily(
            "vllm:request_success", "Requests ended.", labels=[*self._names, "finished_reason"]
        )
        for reason, count in self._meter.finished.items():
            family.add_metric([*self._values, reason], count)
        yield family

    def _histogram(self, name: str, text: str, histogram: _Histogram) -> Any:
        from prometheus_client.core import HistogramMetricFamily

        family = HistogramMetricFamily(f"vllm:{name}", text, labels=self._names)
        family.add_metric(self._values, histogram.buckets(), histogram.sum)
        return family
