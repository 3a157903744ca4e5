"""A collector of our own in this process gets spans and metrics of a server with real workers."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.deploy.engine.conftest import Start
from tests.deploy.otel.test_counts import event
from tests.deploy.otel.test_observer import PARENT, traced

from tidemill.deploy.otel.observer import telemetry
from tidemill.deploy.otel.settings import Settings, read_settings

pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")


class Collector(ThreadingHTTPServer):
    """Reads OTLP over HTTP, as a collector does."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.traces: list[Any] = []
        self.metrics: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.refuse = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def spans(self) -> list[Any]:
        return [s for t in self.traces for r in t.resource_spans for p in r.scope_spans for s in p.spans]

    def last(self) -> dict[str, Any]:
        return {m.name: m for r in self.metrics[-1].resource_metrics for s in r.scope_metrics for m in s.metrics}


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.headers.append({k.lower(): v for k, v in self.headers.items()})
        if not self.server.refuse:
            if self.path == "/v1/traces":
                self.server.traces.append(ExportTraceServiceRequest.FromString(body))
            elif self.path == "/v1/metrics":
                self.server.metrics.append(ExportMetricsServiceRequest.FromString(body))
        self.send_response(400 if self.server.refuse else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Start one, and let the environment name it."""
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    for name, value in {
        "OTEL_EXPORTER_OTLP_ENDPOINT": server.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=mill",
        "OTEL_TRACES_SAMPLER": "parentbased_always_on",
        "NO_PROXY": "*",
        "no_proxy": "*",
    }.items():
        monkeypatch.setenv(name, value)
    yield server
    server.shutdown()
    server.server_close()
    thread.join(60)


def attributes(item: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in item.attributes}


def test_requests_of_a_server_arrive_as_spans_and_metrics(
    collector: Collector,
    start: Start,
    models: Callable[[str], Path],
) -> None:
    rows = np.ones((2, 4)).ravel().tolist()
    body = {"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": rows}]}
    with telemetry(None) as observer:
        server = start({"m": models("double")}, observer=observer)
        for number in range(5):
            status, _ = server.ask("/v2/models/m/infer", body, {"X-Request-Id": f"r{number}"})
            assert status == 200
        assert server.ask("/v2/models/m/infer", {"inputs": []})[0] == 400
        revision = server.model("m").revision
        server.stop()  # an answer is told after it was sent
    spans = collector.spans()
    whole = [s for s in spans if not s.parent_span_id]
    assert [s.name for s in whole] == ["predict m"] * 6
    by_id = {attributes(s)["tidemill.request_id"]: s for s in whole}
    assert {f"r{n}" for n in range(5)} <= set(by_id)
    one = by_id["r3"]
    told = attributes(one)
    assert (told["tidemill.endpoint"], told["tidemill.revision"], told["tidemill.rows"]) == ("m", revision, 2)
    assert told["http.response.status_code"] == 200
    inside = [s for s in spans if s.parent_span_id == one.span_id]
    assert {s.name for s in inside} == {"queue", "model", "encode"}
    for stage in inside:
        assert stage.trace_id == one.trace_id
        assert one.start_time_unix_nano <= stage.start_time_unix_nano <= stage.end_time_unix_nano
        assert stage.end_time_unix_nano <= one.end_time_unix_nano
    resource = attributes(collector.traces[0].resource_spans[0].resource)
    assert resource["service.name"] == "tidemill"
    found = collector.last()
    points = found["tidemill.request.duration"].histogram.data_points
    by_status = {attributes(p)["http.response.status_code"]: p for p in points}
    assert (by_status[200].count, by_status[400].count) == (5, 1)
    assert sum(by_status[200].bucket_counts) == 5
    assert found["tidemill.request.rows"].sum.data_points[0].as_int == 10
    assert all(h["x-tenant"] == "mill" for h in collector.headers)


def test_a_callers_span_is_the_parent(collector: Collector) -> None:
    with telemetry(None, read_settings()) as observer:
        assert observer is not None
        observer.request(traced(1))
        observer.request(traced(0))
    whole = [s for s in collector.spans() if s.name == "predict m"]
    assert len(whole) == 1
    _, trace_id, span_id, _ = PARENT.split("-")
    assert (whole[0].trace_id.hex(), whole[0].parent_span_id.hex()) == (trace_id, span_id)


def test_the_header_traceparent_goes_all_the_way_to_the_span(
    monkeypatch: pytest.MonkeyPatch, start: Start, models: Callable[[str], Path]
) -> None:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from tidemill.deploy.otel import sender

    exporter = InMemorySpanExporter()
    monkeypatch.setattr(sender, "OTLPSpanExporter", lambda: exporter)
    body = {"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": [1.0] * 8}]}
    parent = PARENT.format(1)
    with telemetry(None, Settings(spans=True, share=0.0)) as observer:
        server = start({"m": models("double")}, observer=observer)
        server.model("m").line.learn([(1, 0.01), (16, 0.02), (32, 0.2)])
        for name, headers, sent in (
            ("plain", {}, body),
            ("named", {"X-Request-Id": "r1"}, body),
            ("refused", {}, {"inputs": []}),
            ("divided", {}, {"inputs": [{**body["inputs"][0], "shape": [40, 4], "data": [1.0] * 160}]}),
        ):
            status, _ = server.ask("/v2/models/m/infer", sent, {"traceparent": parent, "tracestate": "a=1", **headers})
            assert status == (400 if name == "refused" else 200), name
        for unheard in ({}, {"traceparent": PARENT.format(0)}, {"traceparent": "nonsense"}, {"traceparent": "0" * 999}):
            assert server.ask("/v2/models/m/infer", body, unheard)[0] == 200
        server.stop()  # an answer is told after it was sent
        observer.close()  # type: ignore[union-attr]  # it is there: spans are wanted
        _, trace_id, span_id, _ = parent.split("-")
        whole = [s for s in exporter.get_finished_spans() if s.name == "predict m"]
        assert [s.attributes["http.response.status_code"] for s in whole] == [200, 200, 400, 200]  # type: ignore[index]
        assert {f"{s.context.trace_id:032x}" for s in whole} == {trace_id}
        assert {f"{s.parent.span_id:016x}" for s in whole if s.parent} == {span_id}


def test_a_failure_is_an_error_and_a_refusal_is_not(collector: Collector) -> None:
    with telemetry(None) as observer:
        assert observer is not None
        observer.request(event(status=500, error="model_failed"))
        observer.request(event(status=429, error="overloaded"))
    spans = {attributes(s)["error.type"]: s for s in collector.spans()}
    assert spans["model_failed"].status.code == 2
    assert spans["overloaded"].status.code == 0


def test_a_collector_that_refuses_costs_no_answer(
    collector: Collector,
    start: Start,
    models: Callable[[str], Path],
) -> None:
    collector.refuse = True
    rows = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
    with telemetry(None) as observer:
        server = start({"m": models("double")}, observer=observer)
        for _ in range(20):
            assert server.ask("/v2/models/m/infer", rows)[0] == 200
        server.stop()
    assert collector.headers
    assert collector.spans() == []
