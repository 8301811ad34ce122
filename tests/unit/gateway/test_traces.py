"""A request's spans: names and attributes as OpenTelemetry calls them, times as they were taken."""

from __future__ import annotations

import pytest

from zeta.gateway import _traces
from zeta.gateway._traces import RequestTrace, Traces, make_traces

memory = pytest.importorskip(
    "opentelemetry.sdk.trace.export.in_memory_span_exporter", reason="pip install 'zeta-router[otel]'"
)

NOW_NS = 1_700_000_000_000_000_000
DONE = RequestTrace(
    "req-1",
    "chat",
    2000.0,
    "completed",
    asked_model="zeta/auto",
    model="14b",
    replica="14b-0",
    url="http://10.0.0.1:8001/v1",
    engine="vllm",
    priority="urgent",
    reason="earliest_deadline",
    queue_ms=500.0,
    decision_us=8.0,
    ttft_ms=900.0,
    max_tokens=64,
    output_tokens=40,
    tries=1,
)


def spans_of(trace: RequestTrace) -> dict[str, object]:
    exporter = memory.InMemorySpanExporter()
    traces = Traces(exporter, is_batched=False)
    traces.request(trace, NOW_NS)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    traces.close()
    return spans


def test_a_request_is_a_whole_with_its_wait_and_its_service() -> None:
    spans = spans_of(DONE)
    assert set(spans) == {"chat zeta/auto", "queue", "chat 14b"}
    whole, queue, served = spans["chat zeta/auto"], spans["queue"], spans["chat 14b"]
    assert (whole.start_time, whole.end_time) == (NOW_NS - 2_000_000_000, NOW_NS)
    assert (queue.start_time, queue.end_time) == (whole.start_time, whole.start_time + 500_000_000)
    assert (served.start_time, served.end_time) == (queue.end_time, whole.end_time)
    assert queue.parent.span_id == served.parent.span_id == whole.context.span_id
    assert whole.attributes["gen_ai.operation.name"] == "chat"
    assert whole.attributes["gen_ai.request.model"] == "zeta/auto"
    assert whole.attributes["gen_ai.response.model"] == "14b"
    assert whole.attributes["gen_ai.usage.output_tokens"] == 40
    assert whole.attributes["zeta.reason"] == "earliest_deadline"
    assert served.attributes["gen_ai.provider.name"] == "vllm"
    assert (served.attributes["server.address"], served.attributes["server.port"]) == ("10.0.0.1", 8001)
    assert [(event.name, event.timestamp) for event in served.events] == [
        ("first_token", whole.start_time + 900_000_000)
    ]
    assert whole.status.is_unset


def test_one_that_was_never_placed_has_no_service_and_says_why() -> None:
    spans = spans_of(RequestTrace("r", "embeddings", 1.0, "rejected_capacity", asked_model="7b"))
    assert set(spans) == {"embeddings 7b", "queue"}
    assert spans["embeddings 7b"].attributes["error.type"] == "rejected_capacity"
    assert not spans["embeddings 7b"].status.is_ok


def test_spans_become_part_of_the_clients_trace() -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    whole = spans_of(RequestTrace("r", "chat", 1.0, "completed", traceparent=parent))["chat unknown"]
    assert f"{whole.context.trace_id:032x}" == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert f"{whole.parent.span_id:016x}" == "00f067aa0ba902b7"


@pytest.mark.parametrize("parent", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "\xff" * 55])
def test_a_traceparent_that_is_none_begins_a_new_trace(parent: str) -> None:
    whole = spans_of(RequestTrace("r", "chat", 1.0, "completed", traceparent=parent))["chat unknown"]
    assert whole.parent is None


def test_without_an_endpoint_there_are_none() -> None:
    assert make_traces({}) is None
    assert make_traces({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}) is None


def test_without_the_packages_a_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_traces, "_is_there", lambda _: False)
    assert make_traces({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}) is None
    assert "pip install 'zeta-router[otel]'" in caplog.text
