"""Traces of requests for OpenTelemetry, with its names for generative AI. Needs the extra ``otel``.

A request's spans are made when it is over, from the times that were taken anyway: nothing is added to its way.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import os
import time
import urllib.parse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from zeta._version import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

__all__ = ["RequestTrace", "Traces", "make_traces"]

_log = logging.getLogger("zeta.gateway")

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_OPERATIONS: Final = {"chat": "chat", "completions": "text_completion", "embeddings": "embeddings"}


@dataclasses.dataclass(frozen=True, slots=True)
class RequestTrace:
    """What is known of a request that is over.

    Parameters
    ----------
    request_id : str
    route : str
        ``chat``, ``completions`` or ``embeddings``.
    took_ms : float
        From its arrival to its end, in milliseconds; it has ended just now.
    outcome : str
        A final `zeta.Outcome`.
    asked_model : str or None
        The name that the client used.
    model, replica, url, engine : str or None
        Where it ran; None: nowhere.
    priority : str or None
        Its class.
    reason : str or None
        The router's word for why it was its turn.
    queue_ms, decision_us, ttft_ms : float or None
        Time in the queue, for the decision, and to the first token.
    max_tokens, output_tokens : int or None
    tries : int
        On how many replicas it was begun.
    traceparent : str or None
        The client's own, if it sent one: these spans become part of its trace.
    """

    request_id: str
    route: str
    took_ms: float
    outcome: str
    asked_model: str | None = None
    model: str | None = None
    replica: str | None = None
    url: str | None = None
    engine: str | None = None
    priority: str | None = None
    reason: str | None = None
    queue_ms: float | None = None
    decision_us: float | None = None
    ttft_ms: float | None = None
    max_tokens: int | None = None
    output_tokens: int | None = None
    tries: int = 0
    traceparent: str | None = None


class Traces:
    """Hands the spans of requests to an exporter, in batches on a thread of OpenTelemetry's.

    Parameters
    ----------
    exporter : SpanExporter, optional
        OTLP over HTTP by default, where the ``OTEL_EXPORTER_OTLP_*`` variables say. Sampling, limits and the name of
        the service follow OpenTelemetry's own variables as well; the service is ``zeta`` by default.
    is_batched : bool, default True
        False: each span is handed over at once, for tests.

    Raises
    ------
    ImportError
        If OpenTelemetry is not installed.
    """

    def __init__(self, exporter: SpanExporter | None = None, *, is_batched: bool = True) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter()
        name = os.environ.get("OTEL_SERVICE_NAME", "zeta")
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": name, "service.version": __version__})
        )
        self._provider.add_span_processor((BatchSpanProcessor if is_batched else SimpleSpanProcessor)(exporter))
        self._tracer = self._provider.get_tracer("zeta.gateway", __version__)
        self._kinds, self._codes = SpanKind, StatusCode
        self._propagator = TraceContextTextMapPropagator()
        self._within = set_span_in_context

    def request(self, trace: RequestTrace, now_ns: int | None = None) -> None:
        """The spans of a request that has just ended: the whole, its wait, and its time on the replica."""
        end_ns = time.time_ns() if now_ns is None else now_ns
        began_ns = end_ns - round(trace.took_ms * 1e6)
        operation = _OPERATIONS.get(trace.route, trace.route)
        parent = self._propagator.extract({"traceparent": trace.traceparent}) if trace.traceparent else None
        whole = self._tracer.start_span(
            f"{operation} {trace.asked_model or trace.model or 'unknown'}",
            context=parent,
            kind=self._kinds.SERVER,
            start_time=began_ns,
            attributes=_known(
                {
                    "gen_ai.operation.name": operation,
                    "gen_ai.request.model": trace.asked_model,
                    "gen_ai.request.max_tokens": trace.max_tokens,
                    "gen_ai.response.model": trace.model,
                    "gen_ai.usage.output_tokens": trace.output_tokens,
                    "zeta.request_id": trace.request_id,
                    "zeta.class": trace.priority,
                    "zeta.outcome": trace.outcome,
                    "zeta.reason": trace.reason,
                    "zeta.replica": trace.replica,
                    "zeta.queue_ms": trace.queue_ms,
                    "zeta.decision_us": trace.decision_us,
                    "zeta.tries": trace.tries,
                }
            ),
        )
        inside = self._within(whole)
        has_failed = trace.outcome not in ("completed", "cancelled", "cancelled_running")
        if has_failed:
            whole.set_attribute("error.type", trace.outcome)
            whole.set_status(self._codes.ERROR)
        left_ns = end_ns if trace.queue_ms is None else min(began_ns + round(trace.queue_ms * 1e6), end_ns)
        self._tracer.start_span("queue", context=inside, start_time=began_ns).end(left_ns)
        if trace.model is not None:
            host = urllib.parse.urlsplit(trace.url or "")
            served = self._tracer.start_span(
                f"{operation} {trace.model}",
                context=inside,
                kind=self._kinds.CLIENT,
                start_time=left_ns,
                attributes=_known(
                    {
                        "gen_ai.operation.name": operation,
                        "gen_ai.provider.name": trace.engine,
                        "gen_ai.request.model": trace.model,
                        "gen_ai.usage.output_tokens": trace.output_tokens,
                        "server.address": host.hostname,
                        "server.port": host.port,
                    }
                ),
            )
            if trace.ttft_ms is not None:
                served.add_event("first_token", timestamp=min(began_ns + round(trace.ttft_ms * 1e6), end_ns))
            if has_failed:
                served.set_attribute("error.type", trace.outcome)
                served.set_status(self._codes.ERROR)
            served.end(end_ns)
        whole.end(end_ns)

    def close(self) -> None:
        """Hands over what is left and ends."""
        self._provider.shutdown()


def make_traces(environment: Mapping[str, str] | None = None) -> Traces | None:
    """Traces, where the environment says where they go; else None.

    Parameters
    ----------
    environment : mapping, optional
        ``os.environ`` by default. Without ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or ``…_TRACES_ENDPOINT``), or with
        ``OTEL_SDK_DISABLED=true``, there are none; without the packages there are none either, and a line says so.
    """
    known = os.environ if environment is None else environment
    if not any(known.get(name) for name in _ENDPOINTS) or known.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    missing = [name for name in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http") if not _is_there(name)]
    if missing:
        _log.warning("no traces: %s missing; pip install 'zeta-router[otel]'", " and ".join(missing))
        return None
    return Traces()


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _known(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}
